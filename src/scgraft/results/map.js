"use strict";
// The map of the page: every cell is stamped into one picture, which takes a tenth of a second for 100,000 of them without a graphics card.

// What legend and map draw, in a box of 16 by 16.
const PATHS = {
  circle: "M8 2a6 6 0 1 0 0 12a6 6 0 1 0 0-12Z", diamond: "M8 1 15 8 8 15 1 8Z", square: "M2 2h12v12H2Z", "triangle-up": "M8 1 15 14H1Z",
  star: "m8 0 2 6h6l-5 4 2 6-5-4-5 4 2-6-5-4h6Z", x: "m2 4 2-2 4 4 4-4 2 2-4 4 4 4-2 2-4-4-4 4-2-2 4-4Z",
};
const NEAR = 9; // how far from a cell the pointer still means it, in pixels
const hidden = new Set();
// What is drawn: layers of cells, names, a scale of colours; and from where: the middle in the map's units, and pixels a unit.
let drawn = {layers: [], names: [], scale: null};
let view = null;

const colourOf = i => page.colours[i % page.colours.length];
const shapeOf = i => page.shapes[Math.floor(i / page.colours.length) % page.shapes.length];
const mapHeight = () => innerWidth < 700 ? Math.max(320, innerWidth) : 640;

// What stands where no label is believed; a reference may have a label that is called "unknown" itself.
const noLabel = c => page.nothing[c.name] ?? "unknown";

// ---- what is drawn: a layer has looks, and for each cell the position of its look; later looks cover earlier ones

// A column's numbers are worked out once: switching the colours of 100,000 cells is then a matter of drawing.
function every(c) {
  if (!c.numbers) {
    c.numbers = new Float32Array(c.codes.length);
    for (let i = 0; i < c.codes.length; i++) c.numbers[i] = number(c, i);
  }
  return c.numbers;
}

function layer(table, of, looks) {
  // Cells in the order of their looks: where each look starts, and the cells.
  const start = new Uint32Array(looks.length + 1);
  for (const l of of) start[l + 1]++;
  for (let l = 0; l < looks.length; l++) start[l + 1] += start[l];
  const cells = new Uint32Array(of.length), at = start.slice();
  for (let i = 0; i < of.length; i++) cells[at[of[i]]++] = i;
  return {x: every(table.get("x")), y: every(table.get("y")), looks, start, cells, told: table === columns.query};
}

function shaded(table, c, low, top, look) {
  const last = page.viridis.length - 1, width = top - low || 1, values = every(c), of = new Uint16Array(values.length);
  for (let i = 0; i < values.length; i++) {
    const v = values[i];
    of[i] = v !== v ? 0 : 1 + Math.max(0, Math.min(last, Math.round((v - low) / width * last)));
  }
  return layer(table, of, [page.silent, ...page.viridis].map(colour => ({...look, colour, shape: "circle"})));
}

function levels(table, c, flag, lookOf) {
  // Those that should not be believed come last.
  const nothing = noLabel(c), last = c.names.length, own = c.names.indexOf(nothing), of = new Uint16Array(c.codes.length);
  for (let i = 0; i < of.length; i++) of[i] = flag && flag.codes[i] || c.codes[i] === own ? last : c.codes[i];
  return layer(table, of, [...c.names.map((name, i) => lookOf(name, i)), lookOf(nothing, -1)]);
}

const counted = l => new Map(l.looks.map((look, i) => [look.name, l.start[i + 1] - l.start[i]]).filter(([, n]) => n));

function chosenLayers(chosen) {
  const q = columns.query, r = columns.reference, types = r.get(chosen.name) || r.get(page.keys[0]);
  // Few cells are drawn with larger points.
  const dot = size(r.get("x")) < 5000 ? 4 : 3, gene = chosen.kind === "shade";
  const typed = byId("show-types").checked && types && !gene, shared = typed && types.name === chosen.name;
  const layers = [], legend = [], mark = size(q.get("x")) < 5000 ? 8 : 6;
  let scale = null, ofReference = new Map();
  if (typed) {
    layers.push(levels(r, types, null, (name, i) => ({
      name, colour: i < 0 || name === "unknown" ? page.silent : colourOf(i), shape: "circle", size: dot, opacity: 0.4, off: shared && hidden.has(name),
    })));
    ofReference = counted(layers[0]);
  } else if (gene) layers.push(shaded(r, r.get(chosen.name), 0, chosen.high, {size: dot, opacity: 0.6}));
  else layers.push(layer(r, new Uint16Array(size(r.get("x"))), [{colour: page.silent, shape: "circle", size: dot, opacity: 0.5}]));
  if (chosen.kind === "level") {
    const flag = page.keys.includes(chosen.name) ? q.get(chosen.name + "_unknown") : null;
    const cells = levels(q, chosen, flag, (name, i) => i < 0
      ? {name, colour: ink("--soft"), shape: "x", size: mark, opacity: 0.9, off: hidden.has(name)}
      : {name, colour: colourOf(i), shape: shapeOf(i), size: mark, opacity: 0.9, line: true, off: hidden.has(name)});
    layers.push(cells);
    cells.looks.forEach((look, i) => {
      const n = cells.start[i + 1] - cells.start[i], m = shared ? ofReference.get(look.name) || 0 : null;
      const twice = i + 1 < cells.looks.length && look.name === noLabel(chosen);
      if ((n || m) && !twice) legend.push({name: look.name, colour: look.colour, shape: look.shape, cells: n, reference: m});
    });
    if (shared) for (const [name, m] of ofReference) if (!cells.looks.some(look => look.name === name))
      legend.push({name, colour: page.silent, shape: "circle", cells: 0, reference: m});
  } else {
    const values = gene ? [] : every(chosen).filter(v => v === v).sort();
    const low = gene ? 0 : values[0] ?? 0, top = gene ? chosen.high : values.length ? values[Math.floor(0.99 * (values.length - 1))] : 1;
    layers.push(shaded(q, chosen, low, top, {size: mark, opacity: 0.9}));
    scale = {title: chosen.title, low, top};
  }
  if (!byId("show-query").checked) layers.pop();
  return {layers, legend, scale, names: typed && byId("show-names").checked ? middles(types).filter(m => !hidden.has(m.name)) : []};
}

// Each type's middle, the largest type first: the median of its cells, worked out once.
function middles(types) {
  if (types.middles) return types.middles;
  const r = columns.reference, l = levels(r, types, null, name => ({name})), x = every(r.get("x")), y = every(r.get("y"));
  types.middles = l.looks.map((look, i) => {
    const cells = l.cells.subarray(l.start[i], l.start[i + 1]), median = v => Float32Array.from(cells, j => v[j]).sort()[cells.length >> 1];
    return {name: look.name, cells: cells.length, x: median(x), y: median(y)};
  }).filter(m => m.cells).sort((a, b) => b.cells - a.cells);
  return types.middles;
}

// ---- how it is drawn

function whole(width, height) {
  const r = columns.reference, q = columns.query;
  const span = name => {
    const both = [r.get(name), q.get(name)];
    return [Math.min(...both.map(c => c.low)), Math.max(...both.map(c => c.high))];
  };
  const [x, y] = [span("x"), span("y")];
  const most = Math.min((width - 24) / (x[1] - x[0] || 1), (height - 60) / (y[1] - y[0] || 1));
  return {x: (x[0] + x[1]) / 2, y: (y[0] + y[1]) / 2, most, zoom: 1};
}

// The pixels of one point: where they are from its middle, how much they cover, and their colours.
function stamp(look, ratio, width) {
  const half = Math.ceil(look.size * ratio / 2 + 1), side = 2 * half + 1, small = document.createElement("canvas");
  small.width = small.height = side;
  const to = small.getContext("2d", {willReadFrequently: true}), by = look.size * ratio / 13;
  to.translate(half + 0.5 - 8 * by, half + 0.5 - 8 * by);
  to.scale(by, by);
  to.fillStyle = look.colour;
  to.fill(new Path2D(PATHS[look.shape]));
  if (look.line) {
    to.strokeStyle = ink("--edge");
    to.lineWidth = 0.75 * ratio / by;
    to.stroke(new Path2D(PATHS[look.shape]));
  }
  const pixels = to.getImageData(0, 0, side, side).data, found = [];
  for (let i = 0; i < side * side; i++) {
    const covers = Math.round(256 * look.opacity * pixels[4 * i + 3] / 255);
    if (covers > 4) found.push((Math.floor(i / side) - half) * width + i % side - half, covers, pixels[4 * i], pixels[4 * i + 1], pixels[4 * i + 2]);
  }
  return Int32Array.from(found);
}

function stampCells(l, data, width, height, edge, ratio) {
  // `edge` pixels more on each side than are seen, so that no stamp leaves the picture.
  const k = view.most * view.zoom * ratio, left = width / 2 - view.x * k, up = height / 2 + view.y * k;
  l.looks.forEach((look, i) => {
    if (look.off || l.start[i] === l.start[i + 1]) return;
    const marks = stamp(look, ratio, width);
    for (let at = l.start[i]; at < l.start[i + 1]; at++) {
      const cell = l.cells[at], px = Math.round(l.x[cell] * k + left), py = Math.round(up - l.y[cell] * k);
      if (!(px >= edge && py >= edge && px < width - edge && py < height - edge)) continue;
      const middle = py * width + px;
      for (let m = 0; m < marks.length; m += 5) {
        const j = 4 * (middle + marks[m]), covers = marks[m + 1];
        data[j] += (marks[m + 2] - data[j]) * covers >> 8;
        data[j + 1] += (marks[m + 3] - data[j + 1]) * covers >> 8;
        data[j + 2] += (marks[m + 4] - data[j + 2]) * covers >> 8;
      }
    }
  });
}

function paint() {
  const canvas = byId("map-figure"), ratio = Math.min(devicePixelRatio || 1, 2), wide = canvas.parentNode.clientWidth, high = mapHeight();
  const width = Math.round(wide * ratio), height = Math.round(high * ratio), edge = Math.ceil(6 * ratio);
  if (canvas.width !== width || canvas.height !== height) {
    [canvas.width, canvas.height] = [width, height];
    canvas.style.height = high + "px";
  }
  view = {...(view || whole(wide, high)), most: whole(wide, high).most};
  const to = canvas.getContext("2d");
  to.setTransform(1, 0, 0, 1, 0, 0);
  to.fillStyle = ink("--paper");
  to.fillRect(0, 0, width, height);
  const paper = to.getImageData(0, 0, 1, 1).data, image = new ImageData(width + 2 * edge, height + 2 * edge);
  new Uint32Array(image.data.buffer).fill(new Uint32Array(paper.buffer)[0]);
  for (const l of drawn.layers) stampCells(l, image.data, image.width, image.height, edge, ratio);
  to.putImageData(image, -edge, -edge);
  to.setTransform(ratio, 0, 0, ratio, 0, 0);
  const place = (x, y) => [wide / 2 + (x - view.x) * view.most * view.zoom, high / 2 - (y - view.y) * view.most * view.zoom];
  if (page.tray) paintTray(to, place);
  paintNames(to, place);
  if (drawn.scale) paintScale(to, high);
}

function paintTray(to, place) {
  const r = columns.reference.get("x"), y = columns.reference.get("y"), right = Math.max(r.high, columns.query.get("x").high) + 0.02 * (r.high - r.low);
  const [x0, y0] = place(r.high + 0.04 * (r.high - r.low), y.high), [x1, y1] = place(right, y.low);
  to.strokeStyle = to.fillStyle = ink("--red");
  to.setLineDash([3, 3]);
  to.strokeRect(x0, y0 - 6, x1 - x0, y1 - y0 + 12);
  to.setLineDash([]);
  to.font = "12px system-ui, sans-serif";
  to.textAlign = "right";
  to.fillText("not explained by the reference", x1, y0 - 12);
}

function paintNames(to, place) {
  // A name that would cover another moves up or down.
  const letter = innerWidth < 700 ? 10 : 12, tall = letter + 6, placed = [];
  to.font = `${letter}px system-ui, sans-serif`;
  to.textAlign = "center";
  for (const m of drawn.names) {
    const shown = cut(m.name, 28), wide = to.measureText(shown).width + 6, [x, y] = place(m.x, m.y);
    const free = by => placed.every(p => Math.abs(p.x - x) > (p.wide + wide) / 2 || Math.abs(p.y - y - by) > tall);
    let by = 0;
    for (let step = 1; step < 9 && !free(by); step++) by = (step % 2 ? 1 : -1) * Math.ceil(step / 2) * tall;
    placed.push({x, y: y + by, wide});
    to.fillStyle = ink("--paper") + "c0";
    to.fillRect(x - wide / 2, y + by - tall / 2, wide, tall);
    to.fillStyle = ink("--ink");
    to.fillText(shown, x, y + by + 0.35 * letter);
  }
}

function paintScale(to, high) {
  // At the lower left: title, bar, and the numbers at its ends and middle.
  const {title, low, top} = drawn.scale, tall = 0.36 * high, up = high - tall - 16;
  const fill = to.createLinearGradient(0, up + tall, 0, up);
  page.viridis.forEach((colour, i) => fill.addColorStop(i / (page.viridis.length - 1), colour));
  to.font = "12px system-ui, sans-serif";
  to.textAlign = "left";
  const words = [[title, 8, up - 12], ...[0, 0.5, 1].map(f => [show(low + f * (top - low)), 26, up + (1 - f) * tall + 4])];
  to.fillStyle = ink("--paper") + "c0";
  for (const [said, x, y] of words) to.fillRect(x - 2, y - 12, to.measureText(said).width + 4, 16);
  to.fillStyle = ink("--ink");
  for (const [said, x, y] of words) to.fillText(said, x, y);
  to.fillStyle = fill;
  to.fillRect(8, up, 12, tall);
}

function drawMap() {
  const chosen = columns.query.get(byId("colouring").value), {legend, ...made} = chosenLayers(chosen);
  drawn = made;
  paint();
  const scale = drawn.scale ? `, from ${show(drawn.scale.low)} (dark) to ${show(drawn.scale.top)} (yellow)` : "";
  byId("map-figure").setAttribute("aria-label", `Map of query and reference cells, coloured by ${chosen.title}${scale}`);
  drawLegend(legend);
}

function drawLegend(entries) {
  const list = byId("legend");
  list.replaceChildren(...entries.map(e => {
    const item = document.createElement("li"), button = document.createElement("button");
    button.type = "button";
    button.setAttribute("aria-pressed", String(!hidden.has(e.name)));
    button.innerHTML = `<svg viewBox="0 0 16 16" aria-hidden="true" fill="${e.colour}"><path d="${PATHS[e.shape]}"/></svg>`;
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

// ---- pointer and keys

function nearestCell(x, y) {
  // The query cell at a place of the picture, or -1; the last one drawn of those that are as near.
  const canvas = byId("map-figure"), k = view.most * view.zoom, l = drawn.layers.find(one => one.told);
  if (!l) return -1;
  const ux = view.x + (x - canvas.clientWidth / 2) / k, uy = view.y - (y - canvas.clientHeight / 2) / k;
  let best = -1, least = (NEAR / k) ** 2;
  l.looks.forEach((look, i) => {
    if (!look.off) for (let at = l.start[i]; at < l.start[i + 1]; at++) {
      const cell = l.cells[at], far = (l.x[cell] - ux) ** 2 + (l.y[cell] - uy) ** 2;
      if (far <= least) [best, least] = [cell, far];
    }
  });
  return best;
}

function look(to) {
  view = {...view, ...to, zoom: Math.max(1, Math.min(to.zoom ?? view.zoom, 400))};
  if (view.zoom === 1) view = null;
  paint();
  // A finger scrolls the page, until there is something to move.
  byId("map-figure").style.touchAction = view.zoom > 1 ? "none" : "auto";
}

function showTip(i, x, y) {
  const tip = byId("tip");
  tip.hidden = i < 0;
  if (i < 0) return;
  tip.replaceChildren(...[...columns.query.values()].filter(told).map(c => {
    const line = document.createElement("div");
    line.textContent = c.kind === "text" ? text(c, i) : `${c.title}: ${text(c, i)}`;
    return line;
  }));
  const box = tip.getBoundingClientRect();
  tip.style.left = Math.max(4, Math.min(x + 14, innerWidth - box.width - 8)) + "px";
  tip.style.top = Math.max(4, Math.min(y + 14, innerHeight - box.height - 8)) + "px";
}

function followPointer(canvas) {
  const band = byId("band"), at = e => { const box = canvas.getBoundingClientRect(); return [e.clientX - box.left, e.clientY - box.top]; };
  let from = null;
  const moving = e => e.shiftKey || e.pointerType === "touch";
  canvas.addEventListener("pointerdown", e => {
    if (e.button || e.pointerType === "touch" && view.zoom === 1) return showTip(nearestCell(...at(e)), e.clientX, e.clientY);
    from = {at: at(e), view: {...view}};
    canvas.setPointerCapture(e.pointerId);
  });
  canvas.addEventListener("pointermove", e => {
    const [x, y] = at(e);
    if (!from) return showTip(nearestCell(x, y), e.clientX, e.clientY);
    showTip(-1);
    const k = view.most * view.zoom, [dx, dy] = [x - from.at[0], y - from.at[1]];
    if (moving(e)) return look({x: from.view.x - dx / k, y: from.view.y + dy / k});
    Object.assign(band.style, {left: Math.min(x, from.at[0]) + "px", top: Math.min(y, from.at[1]) + "px", width: Math.abs(dx) + "px", height: Math.abs(dy) + "px"});
    band.hidden = false;
  });
  canvas.addEventListener("pointerup", e => {
    if (!from) return;
    const [[x0, y0], [x, y]] = [from.at, at(e)], [wide, high] = [Math.abs(x - x0), Math.abs(y - y0)], k = view.most * view.zoom;
    from = null;
    band.hidden = true;
    if (moving(e) || Math.max(wide, high) < 6) return;
    look({
      x: view.x + ((x + x0) / 2 - canvas.clientWidth / 2) / k, y: view.y - ((y + y0) / 2 - canvas.clientHeight / 2) / k,
      zoom: view.zoom * Math.min(canvas.clientWidth / Math.max(wide, 1), canvas.clientHeight / Math.max(high, 1)),
    });
  });
  canvas.addEventListener("pointercancel", () => { from = null; band.hidden = true; });
  canvas.addEventListener("pointerleave", () => { if (!from) showTip(-1); });
  canvas.addEventListener("dblclick", () => look({zoom: 1}));
}

function followKeys(canvas) {
  const step = () => 60 / (view.most * view.zoom);
  const keys = {
    "+": () => look({zoom: view.zoom * 1.5}), "=": () => look({zoom: view.zoom * 1.5}), "-": () => look({zoom: view.zoom / 1.5}), 0: () => look({zoom: 1}),
    ArrowLeft: () => look({x: view.x - step()}), ArrowRight: () => look({x: view.x + step()}),
    ArrowUp: () => look({y: view.y + step()}), ArrowDown: () => look({y: view.y - step()}),
  };
  canvas.addEventListener("keydown", e => {
    const move = !e.ctrlKey && !e.metaKey && !e.altKey && keys[e.key];
    // An arrow scrolls the page while the whole map is seen.
    if (!move || e.key.startsWith("Arrow") && view.zoom === 1) return;
    e.preventDefault();
    move();
  });
  const on = (id, work) => byId(id).addEventListener("click", work);
  on("zoom-in", keys["+"]);
  on("zoom-out", keys["-"]);
  on("zoom-all", keys[0]);
  on("save-map", () => {
    const link = document.createElement("a");
    [link.href, link.download] = [canvas.toDataURL("image/png"), "map.png"];
    link.click();
  });
}

function startMap() {
  const select = byId("colouring"), q = columns.query, canvas = byId("map-figure");
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
  followPointer(canvas);
  followKeys(canvas);
  let wide = canvas.parentNode.clientWidth;
  new ResizeObserver(() => {
    if (canvas.parentNode.clientWidth && canvas.parentNode.clientWidth !== wide) { wide = canvas.parentNode.clientWidth; paint(); }
  }).observe(canvas.parentNode);
}
