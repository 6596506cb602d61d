"use strict";

// Maps of a slide on canvases: what report.js and predictions.js, one of which follows, share. What a
// slide is, `as_slide` in evaluation/page.py says; it may have `tissue`, an image of its whole grid. The
// page's own script has describe(patch), what is said of a patch before its numbers, and refresh(), which
// shows what has changed.

const element = (id) => document.getElementById(id);
const data = JSON.parse(element("data").textContent);
const maps = Array.from(document.querySelectorAll(".maps canvas"));
const state = { slide: null, patch: null, inContext: false };
state.threshold = { alone: 0.5, context: data.context_threshold };
state.slid = "alone"; // Which of the two the slider moves.
const view = { zoom: 1, x: 0, y: 0, opacity: 1, outline: new Path2D() }; // x, y: the cell in the middle.

const values = () => (state.inContext ? state.slide.in_context : state.slide.raw);
const kind = () => (state.inContext ? "context" : "alone");
const threshold = () => state.threshold[kind()];
const rounded = (value, digits = 3) => (Number.isFinite(value) ? value.toFixed(digits) : "not defined");
const clamp = (value, least, most) => Math.min(Math.max(value, least), most);

function onClick(selector, act) {
  for (const button of document.querySelectorAll(selector)) button.addEventListener("click", () => act(button));
}

function decode(base64, Kind) {
  const bytes = Uint8Array.from(atob(base64), (character) => character.charCodeAt(0));
  return new Kind(bytes.buffer);
}

const style = getComputedStyle(document.documentElement);
const COLOURS = {};
for (const name of ["benign", "malignant-right", "malignant", "false-alarm", "miss", "none", "skipped"]) {
  const digits = style.getPropertyValue(`--${name}`).match(/[0-9a-f]{2}/gi);
  COLOURS[name] = [...digits.map((each) => parseInt(each, 16)), 255];
}
const OUTCOMES = {
  tn: ["benign", "benign, predicted benign: right"],
  tp: ["malignant-right", "malignant, predicted malignant: right"],
  fp: ["false-alarm", "benign, predicted malignant: false alarm"],
  fn: ["miss", "malignant, predicted benign: missed"],
  negative: ["benign", "predicted benign"],
  positive: ["malignant", "predicted malignant"],
  none: ["none", "no neighbours, so nothing is predicted"],
};

function outcome(label, value, least) {
  if (Number.isNaN(value)) return "none";
  const [no, yes] = { 0: ["tn", "fp"], 1: ["fn", "tp"], "-": ["negative", "positive"] }[label];
  return value >= least ? yes : no;
}

const shownOutcome = (patch) => OUTCOMES[outcome(state.slide.labels[patch], values()[patch], threshold())];
const mix = (share) => COLOURS.benign.map((from, part) => from + share * (COLOURS.malignant[part] - from));
const FILLS = {
  truth: (patch) => mix(Number(state.slide.labels[patch])),
  probability: (patch) => (Number.isNaN(values()[patch]) ? COLOURS.none : mix(values()[patch])),
  errors: (patch) => COLOURS[shownOutcome(patch)[0]],
};

function prepare(slide) {
  if (slide.at) return;
  for (const name of ["raw", "calibrated", "in_context"]) slide[name] = decode(slide[name], Float32Array);
  for (const name of ["columns", "rows"]) slide[name] = decode(slide[name], Uint16Array);
  slide.at = new Int32Array(slide.width * slide.height).fill(-1); // The patch of each cell.
  slide.columns.forEach((column, patch) => { slide.at[slide.rows[patch] * slide.width + column] = patch; });
  const bits = decode(slide.skipped, Uint8Array); // One per cell, the highest first.
  slide.skipped = Array.from(slide.at.keys()).filter((cell) => bits[cell >> 3] & (128 >> (cell & 7)));
}

function show(slide) {
  prepare(slide);
  Object.assign(state, { slide, patch: null });
  view.zoom = 1;
  for (const map of maps) map.style.aspectRatio = `${slide.width} / ${slide.height}`;
  refresh();
}

function setThreshold(value) {
  if (!(value >= 0 && value <= 1)) return; // An empty field, or one being typed in.
  state.threshold[state.slid] = value;
  refresh();
}

function showThreshold() {
  const value = state.threshold[state.slid];
  element("slider").value = value;
  if (document.activeElement !== element("threshold")) element("threshold").value = +value.toFixed(4);
}

for (const name of ["slider", "threshold"]) {
  element(name).addEventListener("input", (event) => setThreshold(event.target.valueAsNumber));
}

function paint() {
  const { name, columns, rows, width, height, skipped } = state.slide;
  for (const map of maps) {
    const picture = new ImageData(width, height); // A pixel per cell.
    for (const cell of skipped) picture.data.set(COLOURS.skipped, 4 * cell);
    columns.forEach((column, patch) => picture.data.set(FILLS[map.id](patch), 4 * (rows[patch] * width + column)));
    map.grid = Object.assign(document.createElement("canvas"), { width, height });
    map.grid.getContext("2d").putImageData(picture, 0, 0);
    const how = map.id === "truth" ? "" : state.inContext ? " in context" : " of each patch alone";
    map.setAttribute("aria-label", `Map of ${map.id}${how}, ${name}, ${columns.length} patches`);
  }
  showThreshold();
  draw();
  showReadout();
}

function frame(map) {
  const { width, height } = state.slide;
  const scale = view.zoom * Math.min(map.clientWidth / width, map.clientHeight / height);
  const [wide, high] = [map.clientWidth / scale, map.clientHeight / scale]; // In cells.
  // The slide fills the map, or stands in its middle.
  view.x = wide >= width ? width / 2 : clamp(view.x, wide / 2, width - wide / 2);
  view.y = high >= height ? height / 2 : clamp(view.y, high / 2, height - high / 2);
  return { scale, left: wide / 2 - view.x, top: high / 2 - view.y };
}

function draw() {
  const { columns, rows, width, height, tissue } = state.slide;
  for (const map of maps) {
    map.width = map.clientWidth * devicePixelRatio; // This clears it as well.
    map.height = map.clientHeight * devicePixelRatio;
    const { scale, left, top } = frame(map);
    const context = map.getContext("2d");
    context.scale(scale * devicePixelRatio, scale * devicePixelRatio);
    context.translate(left, top);
    if (tissue?.complete) context.drawImage(tissue, 0, 0, width, height);
    context.globalAlpha = view.opacity;
    context.imageSmoothingEnabled = scale < 1; // Else each cell is one even square.
    context.drawImage(map.grid, 0, 0);
    context.globalAlpha = 1;
    const chosen = new Path2D();
    if (state.patch !== null) chosen.rect(columns[state.patch], rows[state.patch], 1, 1);
    for (const [path, colour, thickness] of [[view.outline, "#fff", 3], [view.outline, "#000", 1.5], [chosen, "#fff", 7], [chosen, "#0057d9", 3.5]]) {
      context.strokeStyle = colour;
      context.lineWidth = Math.min(1 / scale, 0.15) * thickness;
      context.stroke(path);
    }
  }
}

function showReadout() {
  const { slide, patch } = state;
  element("readout").textContent = patch === null
    ? "Point at a patch, tap it, or move with the arrow keys: where it is from and its probabilities stand here."
    : `${describe(patch)} \u00b7 probability ${rounded(slide.raw[patch])}, recalibrated ${rounded(slide.calibrated[patch])}` +
      (data.context_threshold === null ? "" : `, in context ${rounded(slide.in_context[patch])}`) +
      ` \u00b7 ${shownOutcome(patch)[1]} at threshold ${+threshold().toFixed(4)}${state.inContext ? " in context" : ""}`;
}

function choose(patch) {
  if (patch === state.patch) return;
  state.patch = patch;
  draw();
  showReadout();
}

function cellUnder(map, { x, y }) {
  const { scale, left, top } = frame(map);
  const box = map.getBoundingClientRect();
  return [(x - box.left - map.clientLeft) / scale - left, (y - box.top - map.clientTop) / scale - top];
}

function chooseUnder(map, point) {
  const { at, width, height } = state.slide;
  const [column, row] = cellUnder(map, point).map(Math.floor);
  const inside = column >= 0 && column < width && row >= 0 && row < height;
  if (inside && at[row * width + column] >= 0) choose(at[row * width + column]);
}

// Goes right and left through the rows as one reads, up and down within the column.
function step(by) {
  const { at, columns, rows, width } = state.slide;
  if (!columns.length) return;
  const last = at.length - 1;
  let cell = state.patch === null ? last : rows[state.patch] * width + columns[state.patch];
  const stride = state.patch === null ? 1 : by;
  do cell = (cell + stride + at.length) % at.length; while (at[cell] < 0);
  [view.x, view.y] = [cell % width, Math.floor(cell / width)]; // In sight where the view is near.
  choose(at[cell]);
}

function move(right, down) {
  view.x += right;
  view.y += down;
  draw();
}

// Zooms and leaves in its place what lies under a point of the screen, or in the middle.
function zoom(map, factor, point) {
  const before = point ? cellUnder(map, point) : [view.x, view.y];
  view.zoom = clamp(view.zoom * factor, 1, 40);
  const after = point ? cellUnder(map, point) : before;
  move(before[0] - after[0], before[1] - after[1]);
}

const pointers = new Map(); // Fingers, or a pressed mouse.
let dragged = false;

function grip() {
  const all = [...pointers.values()];
  const mean = (axis) => all.reduce((sum, each) => sum + each[axis], 0) / all.length;
  return { x: mean("x"), y: mean("y"), spread: Math.hypot(all[0].x - all.at(-1).x, all[0].y - all.at(-1).y) };
}

function drag(map, event) {
  const held = pointers.get(event.pointerId);
  if (!held) return chooseUnder(map, event);
  dragged ||= pointers.size > 1 || Math.hypot(event.x - held.x, event.y - held.y) > 4;
  if (!dragged) return;
  const before = grip();
  pointers.set(event.pointerId, { x: event.x, y: event.y });
  const after = grip();
  const { scale } = frame(map);
  move((before.x - after.x) / scale, (before.y - after.y) / scale);
  if (before.spread) zoom(map, after.spread / before.spread, after);
}

const KEYS = { ArrowRight: [1, 0], ArrowLeft: [-1, 0], ArrowDown: [0, 1], ArrowUp: [0, -1] };
for (const map of maps) {
  map.addEventListener("pointerdown", (event) => {
    if (!pointers.size) dragged = false;
    pointers.set(event.pointerId, { x: event.x, y: event.y });
    map.setPointerCapture(event.pointerId);
  });
  map.addEventListener("pointermove", (event) => drag(map, event));
  map.addEventListener("pointerup", (event) => {
    if (!dragged) chooseUnder(map, event);
  });
  for (const end of ["pointerup", "pointercancel"]) map.addEventListener(end, (event) => pointers.delete(event.pointerId));
  // One finger scrolls the page until the map is zoomed; two are the map's.
  map.addEventListener("touchstart", (event) => {
    if (event.touches.length > 1 || view.zoom > 1) event.preventDefault();
  }, { passive: false });
  map.addEventListener("wheel", (event) => {
    if (!event.ctrlKey && document.activeElement !== map) return; // The page scrolls.
    event.preventDefault();
    zoom(map, 1.01 ** -clamp(event.deltaY * (event.deltaMode ? 20 : 1), -50, 50), event);
  }, { passive: false });
  map.addEventListener("keydown", (event) => {
    const [right, down] = KEYS[event.key] ?? [];
    const factor = { "+": 1.5, "=": 1.5, "-": 1 / 1.5, 0: 0 }[event.key];
    if (event.ctrlKey || event.metaKey || (right ?? factor) === undefined) return;
    event.preventDefault();
    const some = map.clientWidth / frame(map).scale / 8;
    if (factor !== undefined) zoom(map, factor);
    else if (event.shiftKey) move(right * some, down * some);
    else step(right + down * state.slide.width);
  });
  new ResizeObserver(() => state.slide && draw()).observe(map);
}

onClick("[data-zoom]", (button) => zoom(maps[0], Number(button.dataset.zoom)));
onClick("[data-step]", (button) => {
  const next = data.slides.indexOf(state.slide) + Number(button.dataset.step);
  show(data.slides.at(next % data.slides.length));
});
element("by")?.addEventListener("change", (event) => {
  state.inContext = event.target.value === "context";
  refresh();
});
