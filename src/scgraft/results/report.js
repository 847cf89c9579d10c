"use strict";
// The page of one mapping: unpacks the columns of cells, draws the figures, and makes tables sort and search; map.js draws the map.

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

function inflated(id) {
  const bytes = Uint8Array.from(atob(byId(id).textContent), c => c.charCodeAt(0));
  return new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate")));
}

async function unpack() {
  const all = await inflated("packed").arrayBuffer();
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
  return Math.abs(value) >= 1000 ? Math.round(value).toLocaleString("en") : value.toPrecision(3);
}
function text(c, i) {
  if (c.kind === "text") return c.values[i];
  if (c.kind === "level") return c.names[c.codes[i]];
  if (c.kind === "flag") return c.codes[i] ? "yes" : "no";
  return show(number(c, i));
}
const cut = (name, most) => name.length > most ? name.slice(0, most - 1) + "…" : name;
// What tables and the hover text say of a cell; places and shades are seen on the map.
const told = c => !["x", "y"].includes(c.name) && c.kind !== "shade";
const size = c => c.kind === "text" ? c.values.length : c.codes.length;

// ---- figures

// plotly is a third as large compressed: most of the page.
async function loadPlotly() {
  const script = document.createElement("script");
  script.textContent = await inflated("plotly").text();
  document.head.append(script);
}

const ink = name => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

function themed(layout) {
  const axis = {gridcolor: ink("--line"), zerolinecolor: ink("--line"), linecolor: ink("--line")};
  const out = {...layout, paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", modebar: {bgcolor: "rgba(0,0,0,0)", color: ink("--soft"), activecolor: ink("--ink")}};
  out.font = {...layout.font, color: ink("--ink")};
  for (const name of ["xaxis", "yaxis"]) if (layout[name]) out[name] = {...axis, ...layout[name]};
  // A limit and its name: the red that can be read on this paper.
  if (layout.annotations) out.annotations = layout.annotations.map(a => ({...a, font: {...a.font, color: ink("--red")}}));
  if (layout.shapes) out.shapes = layout.shapes.map(s => ({...s, line: {...s.line, color: ink("--red")}}));
  return out;
}

function drawStatic() {
  for (const [name, figure] of Object.entries(page.figures)) {
    const at = byId(name === "map" ? "map-figure" : name);
    if (!at) continue;
    const layout = themed(figure.layout);
    if (innerWidth < 700 && name === "composition") {
      // On a phone a name fills the line: the legend stands below the bars, one name a line.
      const bars = 40 * figure.layout.yaxis.tickvals.length + 40;
      layout.legend = {...layout.legend, orientation: "v", x: 0, xanchor: "left", y: -60 / bars, yanchor: "top"};
      layout.height = bars + 110 + 22 * figure.data.length;
    }
    Plotly.react(at, figure.data, layout, name === "flow" ? ONLY_IMAGE : CONFIG);
  }
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
  await unpack();
  const mapped = byId("colouring") !== null;
  if (mapped) startMap();
  startCells();
  await loadPlotly();
  drawStatic();
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => { drawStatic(); if (mapped) drawMap(); });
  document.body.dataset.ready = "true";
})();
