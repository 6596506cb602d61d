"use strict";

// The patches of the split that the page shows, patient by patient, as page.py embeds them.
const data = JSON.parse(document.getElementById("data").textContent);
const malignant = Array.from(data.labels, (label) => label === "1");
const probabilities = floats(data.probabilities);
const calibrated = floats(data.calibrated);
let first = 0;
for (const patient of data.patients) {
  patient.first = first; // Where the patient's patches begin in the lists above.
  first += patient.x.length;
}

const state = { threshold: 0.5, prevalence: data.prevalence, patient: data.patients[0], patch: null };
const element = (id) => document.getElementById(id);

function floats(base64) {
  const bytes = Uint8Array.from(atob(base64), (character) => character.charCodeAt(0));
  return new Float32Array(bytes.buffer);
}

// --- Threshold and prevalence ---------------------------------------------------------------

function confusion(threshold) {
  const counts = { tn: 0, fp: 0, fn: 0, tp: 0 };
  for (let patch = 0; patch < probabilities.length; patch++) {
    counts[outcome(patch, threshold)]++;
  }
  return counts;
}

function outcome(patch, threshold) {
  const called = probabilities[patch] >= threshold;
  return malignant[patch] ? (called ? "tp" : "fn") : called ? "fp" : "tn";
}

const ratio = (part, whole) => (whole ? part / whole : null);
const rounded = (value, digits = 3) => (value === null ? "not defined" : value.toFixed(digits));

function showFigures() {
  const { tn, fp, fn, tp } = confusion(state.threshold);
  const sensitivity = ratio(tp, tp + fn);
  const specificity = ratio(tn, tn + fp);
  const figures = { sensitivity, specificity, ppv: ratio(tp, tp + fp), npv: ratio(tn, tn + fn) };
  figures["bayes-ppv"] = figures["bayes-npv"] = null;
  if (sensitivity !== null && specificity !== null) {
    // Bayes' rule: what the predictive values would be where another share is malignant.
    const [sick, healthy] = [state.prevalence, 1 - state.prevalence];
    const [rightly, falsely] = [sensitivity * sick, (1 - specificity) * healthy];
    const [cleared, missed] = [specificity * healthy, (1 - sensitivity) * sick];
    figures["bayes-ppv"] = ratio(rightly, rightly + falsely);
    figures["bayes-npv"] = ratio(cleared, cleared + missed);
  }
  for (const [name, count] of Object.entries({ tn, fp, fn, tp })) {
    element(`live-${name}`).textContent = count.toLocaleString("en-US");
  }
  for (const [name, value] of Object.entries(figures)) {
    element(`live-${name}`).textContent = rounded(value);
  }
}

function setThreshold(threshold) {
  if (!(threshold >= 0 && threshold <= 1)) return; // An empty field, or one being typed in.
  state.threshold = threshold;
  element("slider").value = threshold;
  if (document.activeElement !== element("threshold")) {
    element("threshold").value = +threshold.toFixed(4);
  }
  showFigures();
  colourErrors();
  showReadout();
}

element("slider").addEventListener("input", (event) => setThreshold(event.target.valueAsNumber));
element("threshold").addEventListener("input", (event) => setThreshold(event.target.valueAsNumber));
for (const button of document.querySelectorAll("[data-threshold]")) {
  button.addEventListener("click", () => setThreshold(Number(button.dataset.threshold)));
}
element("prevalence").addEventListener("input", (event) => {
  const percent = event.target.valueAsNumber;
  if (!(percent >= 0 && percent <= 100)) return;
  state.prevalence = percent / 100;
  showFigures();
});

// --- Sorting ----------------------------------------------------------------------------------

for (const button of document.querySelectorAll("th button")) {
  button.addEventListener("click", () => {
    const header = button.closest("th");
    const table = header.closest("table");
    const column = header.cellIndex;
    const up = header.getAttribute("aria-sort") !== "ascending";
    for (const other of table.querySelectorAll("th")) other.removeAttribute("aria-sort");
    header.setAttribute("aria-sort", up ? "ascending" : "descending");
    const rows = Array.from(table.tBodies[0].rows);
    const value = (row) => row.cells[column].dataset.value;
    rows.sort((one, two) => {
      // What is not defined stays at the end, whichever way round.
      if (value(one) === "" || value(two) === "") return (value(one) === "") - (value(two) === "");
      const order = value(one).localeCompare(value(two), "en", { numeric: column === 0 });
      const difference = column === 0 ? order : value(one) - value(two);
      return up ? difference : -difference;
    });
    table.tBodies[0].append(...rows);
  });
}

// --- Slides -----------------------------------------------------------------------------------

const COLOURS = { tn: "#c9d5e1", tp: "#66788a", fp: "#e69f00", fn: "#0072b2" };
const WORDS = {
  tn: "benign, called benign: right",
  tp: "malignant, called malignant: right",
  fp: "benign, called malignant: false alarm",
  fn: "malignant, called benign: missed",
};
const maps = ["truth", "probability", "errors"].map(element);

function mix(share) {
  // From --benign to --malignant.
  const [low, high] = [[201, 213, 225], [213, 94, 0]];
  return `rgb(${low.map((value, channel) => Math.round(value + share * (high[channel] - value)))})`;
}

function places(patient) {
  // Patches without a position stand in rows below the others.
  const known = patient.x.flatMap((x, patch) => (x === null ? [] : [patch]));
  const left = known.length ? Math.min(...known.map((patch) => patient.x[patch])) : 0;
  const below = known.length ? Math.max(...known.map((patch) => patient.y[patch])) + 2 * patient.pitch : 0;
  const columns = Math.ceil(Math.sqrt(patient.x.length - known.length));
  let placed = 0;
  return patient.x.map((x, patch) => {
    if (x !== null) return [x, patient.y[patch]];
    const place = [left + (placed % columns) * patient.pitch, below + Math.floor(placed / columns) * patient.pitch];
    placed++;
    return place;
  });
}

function showPatient(patient) {
  state.patient = patient;
  state.patch = null;
  element("patient").value = data.patients.indexOf(patient);
  const at = places(patient);
  const [xs, ys] = [at.map(([x]) => x), at.map(([, y]) => y)];
  const [left, top] = [Math.min(...xs), Math.min(...ys)];
  const box = [left, top, Math.max(...xs) - left + patient.pitch, Math.max(...ys) - top + patient.pitch];
  for (const map of maps) {
    map.setAttribute("viewBox", box.join(" "));
    map.replaceChildren(...at.map(([x, y], patch) => {
      const cell = document.createElementNS("http://www.w3.org/2000/svg", "rect");
      const share = map.id === "truth" ? Number(malignant[patient.first + patch]) : probabilities[patient.first + patch];
      const attributes = { x, y, width: patient.pitch, height: patient.pitch, fill: mix(share) };
      for (const [name, value] of Object.entries(attributes)) cell.setAttribute(name, value);
      cell.dataset.patch = patch;
      return cell;
    }));
    map.setAttribute("aria-label", `Map of ${map.id}, patient ${patient.name}, ${at.length} patches`);
  }
  const unplaced = patient.x.filter((x) => x === null).length;
  element("unplaced").textContent = unplaced
    ? `The names of ${unplaced} of ${at.length} patches tell no position: these stand in rows, in the order of their names.`
    : "";
  colourErrors();
  showReadout();
}

function colourErrors() {
  for (const cell of element("errors").children) {
    const patch = state.patient.first + Number(cell.dataset.patch);
    cell.setAttribute("fill", COLOURS[outcome(patch, state.threshold)]);
  }
}

function showReadout() {
  const { patient, patch } = state;
  if (patch === null) {
    element("readout").textContent =
      "Point at a patch, tap it, or move with the arrow keys: its file and figures stand here.";
    return;
  }
  const index = patient.first + patch;
  const [x, y, label] = [patient.x[patch], patient.y[patch], Number(malignant[index])];
  const name = patient.names ? patient.names[patch] : `${patient.name}_idx5_x${x}_y${y}_class${label}.png`;
  const place = x === null ? "position unknown" : `x ${x}, y ${y} pixels`;
  element("readout").textContent =
    `${data.folder}/${label}/${name} \u00b7 ${place} \u00b7 probability ${rounded(probabilities[index])}, ` +
    `recalibrated ${rounded(calibrated[index])} \u00b7 ${WORDS[outcome(index, state.threshold)]} ` +
    `at threshold ${+state.threshold.toFixed(4)}`;
}

function choose(patch) {
  for (const map of maps) {
    if (state.patch !== null) map.children[state.patch].classList.remove("chosen");
    map.children[patch].classList.add("chosen");
  }
  state.patch = patch;
  showReadout();
}

for (const map of maps) {
  for (const kind of ["pointerover", "click"]) {
    map.addEventListener(kind, (event) => {
      if (event.target.dataset.patch) choose(Number(event.target.dataset.patch));
    });
  }
  map.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
    if (!step) return;
    event.preventDefault();
    const count = map.children.length;
    choose(state.patch === null ? 0 : (state.patch + step + count) % count);
  });
}

data.patients.forEach((patient, index) => {
  const counts = patient.x.length.toLocaleString("en-US");
  element("patient").add(new Option(`${patient.name} (${counts} patches)`, index));
});
element("patient").addEventListener("change", (event) => showPatient(data.patients[event.target.value]));
for (const button of document.querySelectorAll("[data-step]")) {
  button.addEventListener("click", () => {
    const count = data.patients.length;
    const next = data.patients.indexOf(state.patient) + Number(button.dataset.step);
    showPatient(data.patients[(next + count) % count]);
  });
}
for (const button of document.querySelectorAll("[data-patient]")) {
  button.addEventListener("click", () => {
    showPatient(data.patients.find((patient) => patient.name === button.dataset.patient));
    element("slides").scrollIntoView();
  });
}

window.addEventListener("beforeprint", () => {
  for (const details of document.querySelectorAll("details")) details.open = true;
});

// The worst patient first, as in the table.
const worst = document.querySelector("[data-patient]");
showPatient(data.patients.find((patient) => patient.name === worst?.dataset.patient) ?? data.patients[0]);
setThreshold(0.5);
