"use strict";
// The page works without scripts; with this one tables sort: a click on a head sorts by its column, another one the
// other way round.

const SECONDS = { s: 1, min: 60, h: 3600 };

function sortValue(cell) {
  const text = cell.textContent.trim(), time = text.match(/^(\d+(?:\.\d+)?) (s|min|h)$/);
  if (time) return Number(time[1]) * SECONDS[time[2]]; // 90 s are less than 30 min
  const number = text.replace(/,(?=\d{3})/g, "").match(/-?\d+(\.\d+)?/);
  return cell.classList.contains("name") || !number ? text.toLowerCase() : Number(number[0]);
}

function compare(a, b) {
  if (typeof a !== typeof b) return typeof a === "number" ? -1 : 1; // what has no number stands last
  return a < b ? -1 : a > b ? 1 : 0;
}

function sortBy(head) {
  const table = head.closest("table"), body = table.tBodies[0];
  const up = head.getAttribute("aria-sort") !== "ascending";
  for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
  head.setAttribute("aria-sort", up ? "ascending" : "descending");
  const rows = [...body.rows].map((row) => [sortValue(row.cells[head.cellIndex]), row]);
  rows.sort((a, b) => (up ? 1 : -1) * compare(a[0], b[0]));
  body.append(...rows.map(([, row]) => row));
}

for (const head of document.querySelectorAll("table.sortable thead th")) {
  const button = document.createElement("button");
  button.type = "button";
  button.append(...head.childNodes);
  button.addEventListener("click", () => sortBy(head));
  head.append(button);
}
