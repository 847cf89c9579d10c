"use strict";
// The page of one mapping: unpacks the columns of cells, draws the map from them, and makes tables sort and search.

const page = JSON.parse(document.getElementById("document").textContent);
const byId = id => document.getElementById(id);

// Nothing leaves the machine. plotly's defaults include a button that uploads the figure and its data: every button is listed
// here, and the addresses that it would send to are empty.
const CONFIG = {
  responsive: true, displaylogo: false, displayModeBar: true,
  modeBarButtons: [["toImage", "zoom2d", "pan2d", "zoomIn2d", "zoomOut2d", "resetScale2d"]],
  showSendToCloud: false, showLink: false, plotlyServerURL: "", topojsonURL: "",
};
// One of a sankey diagram can be zoomed by nothing.
const ONLY_IMAGE = {...CONFIG, modeBarButtons: [["toImage"]]};

// ---- columns

const columns = {query: new Map(), reference: new Map()};

async function unpack() {
  const bytes = Uint8Array.from(atob(byId("packed").textContent), c => c.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  const all = await new Response(stream).arrayBuffer();
  for (const [table, listed] of Object.entries(page.columns)) for (const c of listed) {
    const part = all.slice(c.start, c.end);
    if (c.kind === "text") c.values = JSON.parse(new TextDecoder().decode(part));
    else if (c.kind === "flag" || c.kind === "shade") c.codes = new Uint8Array(part);
    else c.codes = new Uint16Array(part);
    columns[table].set(c.name, c);
  }
}

// The value of a cell as a number (NaN where it is missing), and as text in the page's one format of numbers.
const number = (c, i) => c.kind === "shade" ? c.codes[i] / 63 * c.high : c.codes[i] === 65535 ? NaN : c.low + c.codes[i] / 65534 * (c.high - c.low);
function show(value) {
  if (Number.isNaN(value)) return "";
  return Math.abs(value) >= 1000 ? Math.round(value).toLocaleString("en") : String(Number(value.toPrecision(3)));
}
function text(c, i) {
  if (c.kind === "text") return c.values[i];
  if (c.kind === "level") return c.names[c.codes[i]];
  if (c.kind === "flag") return c.codes[i] ? "yes" : "no";
  return show(number(c, i));
}
// What tables and the hover text say of a cell; places and shades are seen on the map.
const told = c => !["x", "y"].includes(c.name) && c.kind !== "shade";
const size = c => c.kind === "text" ? c.values.length : c.codes.length;

// ---- figures

const ink = name => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
// plotly reads tags in names: they come from strangers' files.
const plain = (name, most = 40) => {
  const cut = name.length > most ? name.slice(0, most - 1) + "…" : name;
  return cut.replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");
};

function themed(layout) {
  const axis = {gridcolor: ink("--line"), zerolinecolor: ink("--line"), linecolor: ink("--line")};
  const out = {...layout, paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", modebar: {bgcolor: "rgba(0,0,0,0)", color: ink("--soft"), activecolor: ink("--ink")}};
  out.font = {...layout.font, color: ink("--ink")};
  for (const name of ["xaxis", "yaxis"]) if (layout[name]) out[name] = {...axis, ...layout[name]};
  return out;
}

function drawStatic() {
  for (const [name, figure] of Object.entries(page.figures)) {
    const at = byId(name === "map" ? "map-figure" : name);
    if (!at) continue;
    const layout = themed(figure.layout);
    if (innerWidth < 700 && name === "composition")
      layout.legend = {...layout.legend, orientation: "h", x: 0, xanchor: "left", y: -0.5, yanchor: "top"};
    Plotly.react(at, figure.data, layout, name === "flow" ? ONLY_IMAGE : CONFIG);
  }
}

// ---- the map

const hidden = new Set();
let rowsOf = [];
let bounds = null;

// Points as WebGL where the browser has it; as SVG otherwise, which is slow but right.
const SCATTER = (() => {
  const canvas = document.createElement("canvas");
  return canvas.getContext("webgl2") || canvas.getContext("webgl") ? "scattergl" : "scatter";
})();

const colourOf = i => page.colours[i % page.colours.length];
const shapeOf = i => page.shapes[Math.floor(i / page.colours.length) % page.shapes.length];

// What stands where no label is believed; a reference may have a label that is called "unknown" itself.
const noLabel = c => page.keys.includes(c.name) && c.names.includes("unknown") ? "unknown (no label fits)" : "unknown";

function groups(c, unknown) {
  // Positions of the cells of each level; those that should not be believed come last.
  const found = new Map(), nothing = noLabel(c);
  for (let i = 0; i < c.codes.length; i++) {
    const name = unknown && unknown.codes[i] ? nothing : c.names[c.codes[i]];
    if (!found.has(name)) found.set(name, []);
    found.get(name).push(i);
  }
  const order = c.names.filter(name => found.has(name) && name !== nothing);
  if (found.has(nothing)) order.push(nothing);
  return order.map(name => [name, found.get(name)]);
}

// A column's numbers are worked out once: switching the colours of 100,000 cells is then a matter of drawing.
function every(c) {
  if (!c.numbers) {
    c.numbers = new Float32Array(c.codes.length);
    for (let i = 0; i < c.codes.length; i++) c.numbers[i] = number(c, i);
  }
  return c.numbers;
}
function pick(c, rows) {
  const all = every(c), out = new Float32Array(rows.length);
  for (let i = 0; i < rows.length; i++) out[i] = all[rows[i]];
  return out;
}

function shades(values, low, top) {
  // Positions of the cells of each shade: plotly reads a colour for each cell, of which there may be 100,000, but one for each trace.
  const last = page.viridis.length - 1, found = Array.from(page.viridis, () => []), missing = [], width = top - low || 1;
  for (let i = 0; i < values.length; i++) {
    const v = values[i];
    if (v !== v) missing.push(i);
    else found[Math.max(0, Math.min(last, Math.round((v - low) / width * last)))].push(i);
  }
  const out = found.map((rows, i) => [page.viridis[i], rows]);
  out.unshift([page.silent, missing]);
  return out.filter(([, rows]) => rows.length);
}

function mapTraces(chosen) {
  const q = columns.query, r = columns.reference, traces = [], legend = [];
  const types = r.get(chosen.name) || r.get(page.keys[0]);
  // Small references are drawn with larger points.
  const dot = size(r.get("x")) < 5000 ? 4 : 3;
  const base = {type: SCATTER, mode: "markers", hoverinfo: "skip", showlegend: false};
  rowsOf = [];
  const add = (trace, rows) => { traces.push(trace); rowsOf.push(rows); };
  const gene = chosen.kind === "shade";
  const typed = byId("show-types").checked && types && !gene;
  const shared = typed && types.name === chosen.name;
  const referenceCounts = new Map();
  if (typed) {
    for (const [name, rows] of groups(types)) {
      referenceCounts.set(name, rows.length);
      const i = types.names.indexOf(name), colour = name === "unknown" ? page.silent : colourOf(i);
      add({...base, x: pick(r.get("x"), rows), y: pick(r.get("y"), rows), visible: !shared || !hidden.has(name),
        marker: {size: dot, color: colour, opacity: 0.4}}, null);
    }
  } else if (gene) {
    for (const [colour, rows] of shades(every(r.get(chosen.name)), 0, chosen.high))
      add({...base, x: pick(r.get("x"), rows), y: pick(r.get("y"), rows), marker: {size: dot, color: colour, opacity: 0.6}}, null);
  } else add({...base, x: every(r.get("x")), y: every(r.get("y")), marker: {size: dot, color: page.silent, opacity: 0.5}}, null);
  const drawn = byId("show-query").checked;
  const line = {width: 0.5, color: ink("--paper")};
  if (chosen.kind === "level") {
    const isLabel = page.keys.includes(chosen.name);
    const flag = isLabel ? q.get(chosen.name + "_unknown") : null;
    const listed = new Set();
    for (const [name, rows] of groups(chosen, flag)) {
      const i = chosen.names.indexOf(name), unknown = name === noLabel(chosen);
      const colour = unknown ? page.silent : colourOf(i), shape = unknown ? "x" : shapeOf(i);
      legend.push({name, colour, shape, cells: rows.length, reference: shared ? referenceCounts.get(name) || 0 : null});
      listed.add(name);
      add({...base, hoverinfo: "none", x: pick(q.get("x"), rows), y: pick(q.get("y"), rows), visible: drawn && !hidden.has(name),
        marker: {size: unknown ? 6 : 7, color: unknown ? ink("--soft") : colour, symbol: shape, opacity: 0.9, line: unknown ? {width: 0} : line}}, rows);
    }
    if (shared) for (const [name, cells] of referenceCounts) if (!listed.has(name)) {
      const i = types.names.indexOf(name);
      legend.push({name, colour: colourOf(i), shape: shapeOf(i), cells: 0, reference: cells});
    }
  } else {
    const values = every(chosen), sorted = gene ? [0, chosen.high] : values.filter(v => !Number.isNaN(v)).sort();
    const low = sorted[0] ?? 0, top = gene ? chosen.high : sorted.length ? sorted[Math.floor(0.99 * (sorted.length - 1))] : 1;
    // Inside the map, where it takes no room from the axes; a point that is nowhere carries it.
    const bar = {thickness: 12, len: 0.4, x: 0.01, xanchor: "left", y: 0.02, yanchor: "bottom", title: {text: plain(chosen.title)}};
    const scale = page.viridis.map((colour, i) => [i / (page.viridis.length - 1), colour]);
    add({...base, type: "scatter", x: [null], y: [null], marker: {color: [low], cmin: low, cmax: top, colorscale: scale, showscale: true, colorbar: bar}}, null);
    for (const [colour, rows] of shades(values, low, top))
      add({...base, hoverinfo: "none", x: pick(q.get("x"), rows), y: pick(q.get("y"), rows), visible: drawn, marker: {size: 6, color: colour, opacity: 0.9}}, rows);
  }
  return {traces, legend, names: typed && byId("show-names").checked ? typeNames(types) : []};
}

function typeNames(types) {
  // Each type's name at the median of its cells, the largest type first; a name that would cover another moves up or down.
  const r = columns.reference, out = [], placed = [], edge = frame(), high = mapHeight() - 34;
  const unit = Math.max((edge.x[1] - edge.x[0]) / (byId("map-figure").clientWidth - 8), (edge.y[1] - edge.y[0]) / high);
  const letter = innerWidth < 700 ? 10 : 12;
  const middle = (c, rows) => { const v = pick(c, rows).sort(); return v[v.length >> 1]; };
  for (const [name, rows] of groups(types).sort((a, b) => b[1].length - a[1].length)) {
    if (hidden.has(name)) continue;
    const x = middle(r.get("x"), rows), y = middle(r.get("y"), rows), shown = plain(name, 28);
    const wide = 0.6 * letter * Math.min(name.length, 28) + 4, tall = letter + 6;
    const free = shift => placed.every(p => Math.abs(p.x - x / unit) > (p.wide + wide) / 2 || Math.abs(p.y - y / unit - shift) > tall);
    let shift = 0;
    for (let step = 1; step < 9 && !free(shift); step++) shift = (step % 2 ? 1 : -1) * Math.ceil(step / 2) * tall;
    placed.push({x: x / unit, y: y / unit + shift, wide});
    out.push({x, y, yshift: shift, text: shown, showarrow: false, borderpad: 1, bgcolor: ink("--paper") + "b0", font: {size: letter, color: ink("--ink")}});
  }
  return out;
}

const mapHeight = () => innerWidth < 700 ? Math.max(320, innerWidth) : 640;

function frame() {
  // Fixed once: hiding a type, or choosing another colouring, leaves the axes where they are.
  const r = columns.reference, q = columns.query;
  const span = name => {
    const both = [r.get(name), q.get(name)], low = Math.min(...both.map(c => c.low)), high = Math.max(...both.map(c => c.high));
    const edge = 0.03 * (high - low || 1);
    return [low - edge, high + edge];
  };
  bounds = bounds || {x: span("x"), y: span("y")};
  return bounds;
}

function tray() {
  if (!page.tray) return {shapes: [], annotations: []};
  const r = columns.reference.get("x"), y = columns.reference.get("y"), right = frame().x[1];
  const left = r.high + 0.04 * (r.high - r.low);
  return {
    shapes: [{type: "rect", x0: left, x1: right, y0: y.low, y1: y.high, layer: "below", line: {color: ink("--red"), width: 1, dash: "dot"}}],
    annotations: [{x: right, xanchor: "right", y: y.high, yshift: 12, text: "not explained by the reference", showarrow: false, font: {color: ink("--red"), size: 12}}],
  };
}

function drawMap() {
  const chosen = columns.query.get(byId("colouring").value);
  const {traces, legend, names} = mapTraces(chosen), aside = tray(), edge = frame();
  const axis = {visible: false, autorange: false, fixedrange: false};
  const layout = themed({
    height: mapHeight(), margin: {l: 4, r: 4, t: 26, b: 8, autoexpand: false}, uirevision: "map", hovermode: "closest", dragmode: "zoom",
    xaxis: {...axis, range: [...edge.x]}, yaxis: {...axis, range: [...edge.y], scaleanchor: "x", constrain: "domain"},
    shapes: aside.shapes, annotations: [...names, ...aside.annotations], font: {family: "system-ui, sans-serif", size: 13},
  });
  Plotly.react("map-figure", traces, layout, CONFIG);
  drawLegend(legend);
}

const SHAPES = {
  circle: '<circle cx="8" cy="8" r="6"/>', diamond: '<path d="M8 1 15 8 8 15 1 8Z"/>', square: '<path d="M2 2h12v12H2Z"/>',
  "triangle-up": '<path d="M8 1 15 14H1Z"/>', star: '<path d="m8 0 2 6h6l-5 4 2 6-5-4-5 4 2-6-5-4h6Z"/>',
  x: '<path d="m2 4 2-2 4 4 4-4 2 2-4 4 4 4-2 2-4-4-4 4-2-2 4-4Z"/>',
};

function drawLegend(entries) {
  const list = byId("legend");
  list.replaceChildren(...entries.map(e => {
    const item = document.createElement("li"), button = document.createElement("button");
    button.type = "button";
    button.setAttribute("aria-pressed", String(!hidden.has(e.name)));
    button.innerHTML = `<svg viewBox="0 0 16 16" aria-hidden="true" fill="${e.colour}">${SHAPES[e.shape]}</svg>`;
    const counts = `${e.cells.toLocaleString("en")}${e.reference === null ? "" : `; ${e.reference.toLocaleString("en")} of the reference`}`;
    button.append(`${e.name} (${counts})`);
    button.addEventListener("click", event => {
      const others = entries.filter(o => o !== e);
      if (event.shiftKey) {
        const alone = !hidden.has(e.name) && others.every(o => hidden.has(o.name));
        hidden.clear();
        if (!alone) others.forEach(o => hidden.add(o.name));
      } else if (!hidden.delete(e.name)) hidden.add(e.name);
      drawMap();
      // The list is new: the keyboard stays where it was.
      [...list.querySelectorAll("button")][entries.indexOf(e)]?.focus();
    });
    item.append(button);
    return item;
  }));
}

function startMap() {
  const select = byId("colouring"), q = columns.query;
  const wanted = [...page.keys, ...[...q.keys()].filter(name => !page.keys.includes(name))];
  for (const name of wanted) {
    const c = q.get(name);
    if (!c || c.kind === "text" || c.kind === "flag" || ["x", "y"].includes(name) || /_(set|runner_up)$/.test(name)) continue;
    if (c.kind === "shade") {
      if (!select.querySelector("optgroup")) select.append(Object.assign(document.createElement("optgroup"), {label: "Genes"}));
      select.querySelector("optgroup").append(new Option(c.title, name));
    } else select.add(new Option(c.title, name));
  }
  select.addEventListener("change", () => { hidden.clear(); drawMap(); });
  for (const id of ["show-types", "show-names", "show-query"]) byId(id).addEventListener("change", drawMap);
  if (!columns.reference.has(page.keys[0])) for (const id of ["show-types", "show-names"]) byId(id).closest("label").remove();
  drawMap();
  const at = byId("map-figure"), tip = byId("tip");
  at.on("plotly_hover", event => {
    const point = event.points[0], rows = rowsOf[point.curveNumber];
    if (!rows) return;
    const i = rows[point.pointNumber];
    tip.replaceChildren(...[...q.values()].filter(told).map(c => {
      const line = document.createElement("div");
      line.textContent = c.kind === "text" ? text(c, i) : `${c.title}: ${text(c, i)}`;
      return line;
    }));
    tip.hidden = false;
    const box = tip.getBoundingClientRect(), e = event.event;
    tip.style.left = Math.max(4, Math.min(e.clientX + 14, innerWidth - box.width - 8)) + "px";
    tip.style.top = Math.max(4, Math.min(e.clientY + 14, innerHeight - box.height - 8)) + "px";
  });
  at.on("plotly_unhover", () => { tip.hidden = true; });
}

// ---- tables

function startCells() {
  const shown = [...columns.query.values()].filter(told);
  const table = byId("cell-table"), body = table.tBodies[0], n = size(shown[0]);
  const start = columns.query.get("novelty");
  let sort = start ? {column: start, down: true} : null, order = null;
  const key = (c, i) => c.kind === "number" ? number(c, i) : c.kind === "text" ? c.values[i] : c.codes[i];
  function arrange() {
    order = Uint32Array.from({length: n}, (_, i) => i);
    if (!sort) return;
    const c = sort.column, sign = sort.down ? -1 : 1;
    const missing = c.kind === "number" ? i => Number.isNaN(number(c, i)) : () => false;
    order.sort((a, b) => missing(a) - missing(b) || sign * (key(c, a) > key(c, b) ? 1 : key(c, a) < key(c, b) ? -1 : 0) || a - b);
  }
  function fill() {
    const wanted = byId("search").value.trim().toLowerCase(), rows = [];
    // Levels that match are looked up once, not once a cell.
    const hits = shown.map(c => c.kind === "level" ? c.names.map(name => name.toLowerCase().includes(wanted)) : null);
    let found = 0;
    for (const i of order) {
      if (wanted && !shown.some((c, j) => hits[j] ? hits[j][c.codes[i]] : c.kind === "text" && c.values[i].toLowerCase().includes(wanted))) continue;
      if (found++ >= page.rows) continue;
      const row = document.createElement("tr");
      for (const c of shown) {
        const cell = row.insertCell();
        cell.textContent = text(c, i);
        if (c.kind === "number") cell.className = "n";
      }
      rows.push(row);
    }
    body.replaceChildren(...rows);
    byId("found").textContent = `${rows.length.toLocaleString("en")} of ${found.toLocaleString("en")} shown`;
  }
  const headings = [...table.tHead.rows[0].cells];
  function mark() {
    headings.forEach((th, j) => {
      if (sort && shown[j] === sort.column) th.setAttribute("aria-sort", sort.down ? "descending" : "ascending");
      else th.removeAttribute("aria-sort");
    });
  }
  headings.forEach((th, j) => th.querySelector("button").addEventListener("click", () => {
    sort = {column: shown[j], down: sort && sort.column === shown[j] ? !sort.down : shown[j].kind === "number"};
    arrange(); fill(); mark();
  }));
  byId("search").addEventListener("input", fill);
  arrange(); fill(); mark();
}

function makeSortable(table) {
  const body = table.tBodies[0];
  const value = cell => {
    const said = cell.textContent.trim(), read = Number(said.replace(/[,%]/g, ""));
    return said !== "" && !Number.isNaN(read) ? read : said;
  };
  [...table.tHead.rows[0].cells].forEach((th, j, all) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...th.childNodes);
    th.append(button);
    button.addEventListener("click", () => {
      const down = th.getAttribute("aria-sort") !== "descending";
      all.forEach(other => other.removeAttribute("aria-sort"));
      th.setAttribute("aria-sort", down ? "descending" : "ascending");
      const rows = [...body.rows].sort((a, b) => {
        const x = value(a.cells[j]), y = value(b.cells[j]);
        const less = typeof x === typeof y ? (x < y ? -1 : x > y ? 1 : 0) : typeof x === "number" ? -1 : 1;
        return down ? -less : less;
      });
      body.replaceChildren(...rows);
    });
  });
}

// ---- all of it

function openTarget() {
  const part = location.hash && document.getElementById(decodeURIComponent(location.hash.slice(1)));
  if (part && part.tagName === "DETAILS") part.open = true;
}

(async () => {
  document.querySelectorAll("table[data-sortable]").forEach(makeSortable);
  addEventListener("hashchange", openTarget);
  drawStatic();
  await unpack();
  startCells();
  const mapped = byId("colouring") !== null;
  if (mapped) startMap();
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => { drawStatic(); if (mapped) drawMap(); });
  document.body.dataset.ready = "true";
})();
