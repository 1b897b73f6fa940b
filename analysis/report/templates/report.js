// Behind tables.js: numbers lead to their cells, and curves answer.

const SVG = "http://www.w3.org/2000/svg";

function svg(name, attributes, parent, text) {
  const element = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  if (text !== undefined) element.textContent = text;
  if (parent) parent.append(element);
  return element;
}

// ---- numbers lead to the cells behind them

const cells = document.getElementById("cells");

function showCells(agents, tasks) {
  let shown = 0;
  for (const row of cells.querySelectorAll("tbody tr")) {
    const fits = (!agents.length || agents.includes(row.dataset.agent)) &&
      (!tasks.length || JSON.parse(row.dataset.tasks).some((task) => tasks.includes(task)));
    row.hidden = !fits;
    shown += fits;
  }
  const of = [...agents, ...tasks].join(", ");
  document.getElementById("cells-shown").textContent = of ? `${shown} cells behind ${of}.` : "";
  document.getElementById("cells-all").hidden = !of;
}

document.addEventListener("click", (event) => {
  const link = event.target.closest("a.behind");
  if (!link) return;
  cells.open = true;
  showCells(JSON.parse(link.dataset.agents), JSON.parse(link.dataset.tasks));
});
document.getElementById("cells-all").addEventListener("click", () => showCells([], []));

// ---- curves

const source = document.getElementById("chart-data");
if (source) drawChart(JSON.parse(source.textContent));

function drawChart(data) {
  const W = 720, H = 380, LEFT = 64, RIGHT = 24, TOP = 12, BOTTOM = 48;
  const box = document.getElementById("chart"), canvas = box.querySelector("svg");
  const pickTask = document.getElementById("chart-task"), pickAxis = document.getElementById("chart-axis");
  const logAxis = document.getElementById("chart-log"), told = document.getElementById("chart-told");
  const agents = Object.fromEntries(data.agents.map((agent) => [agent.name, agent]));
  let cursor = null; // where on the x axis we look, in its units

  for (const [value, title] of new Map(data.views.map((view) => [view.task, view.title])))
    pickTask.append(new Option(title, value));

  function fillAxes() {
    const kept = pickAxis.value, offered = data.views.filter((view) => view.task === pickTask.value);
    pickAxis.replaceChildren(...offered.map((view) => new Option(view.axis, view.axis)));
    if (offered.some((view) => view.axis === kept)) pickAxis.value = kept;
  }

  const view = () => data.views.find((v) => v.task === pickTask.value && v.axis === pickAxis.value);
  const visible = () => view().curves.filter((curve) => {
    const toggle = document.getElementById(`show-${agents[curve.agent].class}`);
    return !toggle || toggle.checked;
  });

  function short(value) {
    const size = Math.abs(value);
    if (size >= 1e6) return `${+(value / 1e6).toPrecision(3)}M`;
    if (size >= 1e3) return `${+(value / 1e3).toPrecision(3)}k`;
    return `${+value.toPrecision(3)}`;
  }

  function ticks(low, high) { // about five round numbers
    const step = (high - low) / 5, power = 10 ** Math.floor(Math.log10(step));
    const round = [1, 2, 5, 10].map((factor) => factor * power).find((size) => size >= step);
    const found = [];
    for (let at = Math.ceil(low / round) * round; at <= high + round * 1e-9; at += round) found.push(at);
    return found;
  }

  function decades(low, high) {
    const found = [];
    for (let power = Math.ceil(Math.log10(low)); 10 ** power <= high; power++) found.push(10 ** power);
    return found.length ? found : [low, high];
  }

  function scales(curves) {
    const log = logAxis.checked, xs = curves.flatMap((curve) => curve.x).filter((x) => !log || x > 0);
    const ys = curves.flatMap((curve) => [...curve.y, ...(curve.low || []), ...(curve.high || [])]);
    let [x0, x1, y0, y1] = [Math.min(...xs), Math.max(...xs), Math.min(...ys, 0), Math.max(...ys)];
    if (x0 === x1) x1 = x0 + 1;
    if (y0 === y1) y1 = y0 + 1;
    const of = log ? Math.log10 : (x) => x, span = of(x1) - of(x0), width = W - LEFT - RIGHT;
    return {
      x: (x) => LEFT + ((of(x) - of(x0)) / span) * width,
      y: (y) => H - BOTTOM - ((y - y0) / (y1 - y0)) * (H - TOP - BOTTOM),
      back: (pixel) => { const at = of(x0) + ((pixel - LEFT) / width) * span; return log ? 10 ** at : at; },
      xTicks: log ? decades(x0, x1) : ticks(x0, x1), yTicks: ticks(y0, y1), shows: (x) => !log || x > 0, x0, x1,
    };
  }

  function draw() {
    canvas.replaceChildren();
    const shown = view(), curves = visible(), to = scales(curves.length ? curves : shown.curves);
    for (const at of to.yTicks) {
      svg("line", { x1: LEFT, x2: W - RIGHT, y1: to.y(at), y2: to.y(at), class: "grid" }, canvas);
      svg("text", { x: LEFT - 8, y: to.y(at) + 4, "text-anchor": "end" }, canvas, short(at));
    }
    for (const at of to.xTicks)
      svg("text", { x: to.x(at), y: H - BOTTOM + 18, "text-anchor": "middle" }, canvas, short(at));
    svg("line", { x1: LEFT, x2: W - RIGHT, y1: H - BOTTOM, y2: H - BOTTOM, class: "axis" }, canvas);
    svg("text", { x: (LEFT + W - RIGHT) / 2, y: H - 8, "text-anchor": "middle" }, canvas, shown.axis);
    svg("text", { x: -(TOP + H - BOTTOM) / 2, y: 14, transform: "rotate(-90)", "text-anchor": "middle" }, canvas,
      shown.unit);
    for (const curve of curves) {
      const { class: name, colour, dash } = agents[curve.agent];
      const group = svg("g", { class: name, stroke: colour, fill: colour }, canvas);
      const points = curve.x.map((x, at) => [x, at]).filter(([x]) => to.shows(x));
      const along = (values) => points.map(([x, at]) => `${to.x(x).toFixed(1)},${to.y(values[at]).toFixed(1)}`);
      if (curve.low)
        svg("polygon", { points: [...along(curve.low), ...along(curve.high).reverse()].join(" "), class: "band" }, group);
      svg("polyline", { points: along(curve.y).join(" "), class: "line", "stroke-dasharray": dash || "none" }, group);
      if (points.length === 1) svg("circle", { cx: to.x(points[0][0]), cy: to.y(curve.y[points[0][1]]), r: 4 }, group);
    }
    tell(to, curves);
  }

  function tell(to, curves) { // the values of every curve where the cursor stands
    if (cursor === null || !curves.length) {
      told.textContent = "Point at the chart, or press the arrow keys in it, to read values.";
      return;
    }
    cursor = Math.min(Math.max(cursor, to.x0), to.x1);
    svg("line", { x1: to.x(cursor), x2: to.x(cursor), y1: TOP, y2: H - BOTTOM, class: "cursor" }, canvas);
    const lines = curves.map((curve) => {
      const at = nearest(curve.x, cursor, to), digits = Math.abs(curve.y[at]) >= 10 ? 0 : 3;
      const group = svg("g", { class: agents[curve.agent].class, fill: agents[curve.agent].colour }, canvas);
      if (to.shows(curve.x[at])) svg("circle", { cx: to.x(curve.x[at]), cy: to.y(curve.y[at]), r: 4 }, group);
      const interval = curve.low ? ` [${curve.low[at].toFixed(digits)}, ${curve.high[at].toFixed(digits)}]` : "";
      return [curve.y[at], `${curve.agent} ${curve.y[at].toFixed(digits)}${interval} at ${short(curve.x[at])}`];
    });
    told.textContent = lines.sort((a, b) => b[0] - a[0]).map(([, line]) => line).join("; ");
  }

  function nearest(xs, at, to) {
    const distance = (index) => (to.shows(xs[index]) ? Math.abs(to.x(xs[index]) - to.x(at)) : Infinity);
    return xs.reduce((best, _, index) => (distance(index) < distance(best) ? index : best), 0);
  }

  function move(by) { // the cursor to the next point of any curve that is shown
    const curves = visible(), to = scales(curves.length ? curves : view().curves);
    const points = [...new Set(curves.flatMap((curve) => curve.x))].filter(to.shows).sort((a, b) => a - b);
    if (!points.length) return;
    const next = by > 0 ? points.find((x) => cursor === null || x > cursor) : points.findLast((x) => x < cursor);
    cursor = next ?? (by > 0 ? points.at(-1) : points[0]);
    draw();
  }

  box.querySelector(".plot").addEventListener("pointermove", (event) => {
    const at = canvas.getBoundingClientRect(), curves = visible();
    if (!curves.length) return;
    cursor = scales(curves).back(((event.clientX - at.left) / at.width) * W);
    draw();
  });
  box.querySelector(".plot").addEventListener("keydown", (event) => {
    const by = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!by) return;
    event.preventDefault();
    move(by);
  });
  pickTask.addEventListener("change", () => { cursor = null; fillAxes(); draw(); });
  pickAxis.addEventListener("change", () => { cursor = null; draw(); });
  logAxis.addEventListener("change", draw);
  for (const toggle of document.querySelectorAll(".agents input")) toggle.addEventListener("change", draw);
  canvas.setAttribute("viewBox", `0 0 ${W} ${H}`);
  fillAxes();
  draw();
  box.hidden = false;
}
