"use strict";
// The page works without scripts; with this one tables sort: a click on a head sorts by its column, another one the
// other way round.

const SECONDS = { s: 1, min: 60, h: 3600 };

const NUMBER = /-?\d+(\.\d+)?(e[-+]?\d+)?/i, NOTHING = /^(|-|–|—|missing|unknown)$/;

function number(text) { // the first one: of "0.49 [0.27, 0.72]" the estimate
  const time = text.match(/^(\d+(?:\.\d+)?) (s|min|h)$/);
  if (time) return Number(time[1]) * SECONDS[time[2]]; // 90 s are less than 30 min
  if (text.startsWith("not reached")) return 0; // and what it lies below is no ratio
  const found = text.replace(/,(?=\d{3})/g, "").match(NUMBER);
  return found ? Number(found[0]) : null;
}

function sortValues(cells) { // numbers, or words where a column holds words; null stands last
  const texts = cells.map((cell) => cell.textContent.trim()).map((text) => (NOTHING.test(text) ? null : text));
  const whole = new RegExp(`^${NUMBER.source}$`, "i"), leads = new RegExp(`^[^\\p{L}]*?${NUMBER.source}`, "iu");
  const told = texts.filter((text) => text !== null).map((text) => text.replace(/,(?=\d{3})/g, ""));
  const named = cells.some((cell) => cell.classList.contains("name"));
  const numeric = named ? told.every((text) => whole.test(text)) : told.some((text) => leads.test(text));
  return texts.map((text) => (text !== null && numeric ? number(text) : text));
}

function compare(a, b) {
  return typeof a === "number" ? a - b : a.localeCompare(b, "en", { numeric: true }); // agent-9 before agent-10
}

function sortBy(head) {
  const table = head.closest("table"), body = table.tBodies[0];
  const up = head.getAttribute("aria-sort") !== "ascending";
  for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
  head.setAttribute("aria-sort", up ? "ascending" : "descending");
  const all = [...body.rows], values = sortValues(all.map((row) => row.cells[head.cellIndex]));
  const rows = all.map((row, at) => [values[at], row]);
  const last = (value) => (value === null ? 1 : 0);
  rows.sort(([a], [b]) => last(a) - last(b) || (a === null ? 0 : (up ? 1 : -1) * compare(a, b)));
  body.append(...rows.map(([, row]) => row));
}

for (const head of document.querySelectorAll("table.sortable thead th")) {
  const button = document.createElement("button");
  button.type = "button";
  button.append(...head.childNodes);
  button.addEventListener("click", () => sortBy(head));
  head.append(button);
}
