"use strict";

// Maps of a slide: what report.js and predictions.js, one of which follows, share. A slide is what `as_slide` in
// evaluation/page.py makes; it may have `tissue`, an image of its whole grid. The page's own script has
// describe(patch), what is said of a patch before its numbers, and refresh(), which shows what has changed.
// A map is a box that scrolls; in it a canvas with a pixel per cell, stretched, lies on the tissue, and lines on it.

const element = (id) => document.getElementById(id);
const data = JSON.parse(element("data").textContent);
const maps = Array.from(document.querySelectorAll(".map"));
const state = { slide: null, patch: null, inContext: false, zoom: 1, leader: null, outline: "" };
state.threshold = { alone: 0.5, context: data.context_threshold };
state.slid = "alone"; // Which of the two the slider moves.

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
  for (const map of maps) {
    map.style.setProperty("--aspect", slide.width / slide.height);
    map.lines.setAttribute("viewBox", `0 0 ${slide.width} ${slide.height}`);
    map.stage.style.backgroundImage = slide.tissue ? `url(${slide.tissue.src})` : "";
  }
  zoom(maps[0], 0);
  refresh();
}

function setThreshold(value) {
  if (!(value >= 0 && value <= 1)) return; // An empty field, or one being typed in.
  state.threshold[state.slid] = value;
  refresh();
}

for (const name of ["slider", "threshold"]) {
  element(name).addEventListener("input", (event) => setThreshold(event.target.valueAsNumber));
}

function paint() {
  const { name, columns, rows, width, height, skipped } = state.slide;
  for (const map of maps) {
    const picture = new ImageData(width, height);
    for (const cell of skipped) picture.data.set(COLOURS.skipped, 4 * cell);
    columns.forEach((column, patch) => picture.data.set(FILLS[map.id](patch), 4 * (rows[patch] * width + column)));
    Object.assign(map.canvas, { width, height }).getContext("2d").putImageData(picture, 0, 0);
    for (const line of map.querySelectorAll(".outline")) line.setAttribute("d", state.outline);
    const how = map.id === "truth" ? "" : state.inContext ? " in context" : " of each patch alone";
    map.setAttribute("aria-label", `Map of ${map.id}${how}, ${name}, ${columns.length} patches`);
  }
  const value = state.threshold[state.slid];
  element("slider").value = value;
  if (document.activeElement !== element("threshold")) element("threshold").value = +value.toFixed(4);
  choose(state.patch);
}

function choose(patch) {
  const { slide } = state;
  state.patch = patch;
  const place = patch === null ? "" : `M${slide.columns[patch]} ${slide.rows[patch]}h1v1h-1z`;
  for (const line of document.querySelectorAll(".chosen")) line.setAttribute("d", place);
  element("readout").textContent = patch === null
    ? "Point at a patch, tap it, or move with the arrow keys: where it is from and its probabilities stand here."
    : `${describe(patch)} \u00b7 probability ${rounded(slide.raw[patch])}, recalibrated ${rounded(slide.calibrated[patch])}` +
      (data.context_threshold === null ? "" : `, in context ${rounded(slide.in_context[patch])}`) +
      ` \u00b7 ${shownOutcome(patch)[1]} at threshold ${+threshold().toFixed(4)}${state.inContext ? " in context" : ""}`;
}

function chooseUnder(map, { x, y }) {
  const { at, width, height } = state.slide;
  const box = map.stage.getBoundingClientRect();
  const column = Math.floor(((x - box.x) / box.width) * width);
  const row = Math.floor(((y - box.y) / box.height) * height);
  const inside = column >= 0 && column < width && row >= 0 && row < height;
  if (inside && at[row * width + column] >= 0) choose(at[row * width + column]);
}

// Goes right and left through the rows as one reads, up and down within the column.
function step(map, by) {
  const { at, columns, rows, width } = state.slide;
  if (!columns.length) return;
  let cell = state.patch === null ? at.length - 1 : rows[state.patch] * width + columns[state.patch];
  const stride = state.patch === null ? 1 : by;
  do cell = (cell + stride + at.length) % at.length; while (at[cell] < 0);
  choose(at[cell]);
  map.querySelector(".chosen").scrollIntoView({ block: "nearest", inline: "nearest" });
}

// Zooms all maps, and leaves in its place what lies under a point of the screen, or in the middle.
function zoom(map, factor, point) {
  const box = map.getBoundingClientRect();
  const { x, y } = point ?? { x: box.x + box.width / 2, y: box.y + box.height / 2 };
  const before = map.stage.getBoundingClientRect();
  state.zoom = clamp(state.zoom * factor, 1, 40);
  state.leader = map; // Whose scrolling the others follow.
  for (const each of maps) {
    each.style.setProperty("--zoom", state.zoom);
    each.style.overflow = state.zoom > 1 ? "auto" : "hidden";
    const scale = each.stage.clientWidth / state.slide.width; // Pixels of the screen per cell.
    each.canvas.style.imageRendering = scale < 1 ? "auto" : "pixelated"; // Each cell is one even square.
    each.lines.style.setProperty("--pixel", Math.min(1 / scale, 0.15));
  }
  const after = map.stage.getBoundingClientRect();
  const moved = (from, start, size, end, grown) => end + ((from - start) / size) * grown - from;
  map.scrollBy(moved(x, before.x, before.width, after.x, after.width), moved(y, before.y, before.height, after.y, after.height));
}

const KEYS = { ArrowRight: [1, 0], ArrowLeft: [-1, 0], ArrowDown: [0, 1], ArrowUp: [0, -1] };
const LINES = ["outline white", "outline", "chosen white", "chosen"].map((name) => `<path class="${name}"/>`).join("");
for (const map of maps) {
  map.innerHTML = `<div><canvas></canvas><svg preserveAspectRatio="none">${LINES}</svg></div>`;
  [map.stage, map.canvas, map.lines] = ["div", "canvas", "svg"].map((name) => map.querySelector(name));
  map.addEventListener("pointermove", (event) => {
    if (event.buttons && event.pointerType === "mouse") map.scrollBy(-event.movementX, -event.movementY);
    else chooseUnder(map, event);
  });
  map.addEventListener("click", (event) => chooseUnder(map, event));
  for (const kind of ["pointerenter", "keydown"]) map.addEventListener(kind, () => { state.leader = map; });
  map.addEventListener("scroll", () => {
    for (const other of maps) if (map === state.leader) other.scrollTo(map.scrollLeft, map.scrollTop);
  });
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
    if (factor !== undefined) zoom(map, factor);
    else if (event.shiftKey) map.scrollBy((right * map.clientWidth) / 8, (down * map.clientWidth) / 8);
    else step(map, right + down * state.slide.width);
  });
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
