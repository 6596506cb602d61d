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

function onClick(selector, act) {
  for (const button of document.querySelectorAll(selector)) button.addEventListener("click", () => act(button));
}

function floats(base64) {
  const bytes = Uint8Array.from(atob(base64), (character) => character.charCodeAt(0));
  return new Float32Array(bytes.buffer);
}

function confusion(threshold) {
  const counts = { tn: 0, fp: 0, fn: 0, tp: 0 };
  probabilities.forEach((_, patch) => counts[outcome(patch, threshold)]++);
  return counts;
}

function outcome(patch, threshold) {
  const predicted = probabilities[patch] >= threshold;
  return malignant[patch] ? (predicted ? "tp" : "fn") : predicted ? "fp" : "tn";
}

const ratio = (part, whole) => (whole ? part / whole : null);
const rounded = (value, digits = 3) => (value === null ? "not defined" : value.toFixed(digits));

function showMetrics() {
  const { tn, fp, fn, tp } = confusion(state.threshold);
  const sensitivity = ratio(tp, tp + fn);
  const specificity = ratio(tn, tn + fp);
  const metrics = { sensitivity, specificity, ppv: ratio(tp, tp + fp), npv: ratio(tn, tn + fn) };
  metrics["bayes-ppv"] = metrics["bayes-npv"] = null;
  if (sensitivity !== null && specificity !== null) {
    // Bayes' rule: what the predictive values would be where another share is malignant.
    const [sick, healthy] = [state.prevalence, 1 - state.prevalence];
    const [rightly, falsely] = [sensitivity * sick, (1 - specificity) * healthy];
    const [cleared, missed] = [specificity * healthy, (1 - sensitivity) * sick];
    metrics["bayes-ppv"] = ratio(rightly, rightly + falsely);
    metrics["bayes-npv"] = ratio(cleared, cleared + missed);
  }
  for (const [name, count] of Object.entries({ tn, fp, fn, tp })) {
    element(`live-${name}`).textContent = count.toLocaleString("en-US");
  }
  for (const [name, value] of Object.entries(metrics)) {
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
  showMetrics();
  colourErrors();
  showReadout();
}

element("slider").addEventListener("input", (event) => setThreshold(event.target.valueAsNumber));
element("threshold").addEventListener("input", (event) => setThreshold(event.target.valueAsNumber));
onClick("[data-threshold]", (button) => setThreshold(Number(button.dataset.threshold)));
element("prevalence").addEventListener("input", (event) => {
  const percent = event.target.valueAsNumber;
  if (!(percent >= 0 && percent <= 100)) return;
  state.prevalence = percent / 100;
  showMetrics();
});

onClick("thead button", (button) => {
  const header = button.closest("th");
  const table = header.closest("table");
  const column = header.cellIndex;
  const up = header.getAttribute("aria-sort") !== "ascending";
  for (const other of table.querySelectorAll("th")) other.removeAttribute("aria-sort");
  header.setAttribute("aria-sort", up ? "ascending" : "descending");
  const value = (row) => row.cells[column].dataset.value;
  const rows = Array.from(table.tBodies[0].rows).sort((one, two) => {
    // What is not defined stays at the end, whichever way round.
    if (value(one) === "" || value(two) === "") return (value(one) === "") - (value(two) === "");
    const order = value(one).localeCompare(value(two), "en", { numeric: true });
    const difference = column === 0 ? order : value(one) - value(two);
    return up ? difference : -difference;
  });
  table.tBodies[0].append(...rows);
});

const COLOURS = { tn: "#c9d5e1", tp: "#66788a", fp: "#e69f00", fn: "#0072b2" };
const WORDS = {
  tn: "benign, predicted benign: right",
  tp: "malignant, predicted malignant: right",
  fp: "benign, predicted malignant: false alarm",
  fn: "malignant, predicted benign: missed",
};
const maps = ["truth", "probability", "errors"].map(element);

const mix = (share) => `color-mix(in srgb, var(--malignant) ${100 * share}%, var(--benign))`;

function places(patient) {
  // Patches without a position stand in rows below the others.
  const known = patient.x.flatMap((x, patch) => (x === null ? [] : [patch]));
  const left = known.length ? Math.min(...known.map((patch) => patient.x[patch])) : 0;
  const below = known.length ? Math.max(...known.map((patch) => patient.y[patch])) + 2 * patient.pitch : 0;
  const columns = Math.ceil(Math.sqrt(patient.x.length - known.length));
  let placed = -1;
  return patient.x.map((x, patch) => {
    if (x !== null) return [x, patient.y[patch]];
    placed++;
    return [left + (placed % columns) * patient.pitch, below + Math.floor(placed / columns) * patient.pitch];
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
  element("readout").textContent =
    "Point at a patch, tap it, or move with the arrow keys: its file and probabilities stand here.";
  if (patch === null) return;
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

const patientOf = (button) => data.patients.find((patient) => patient.name === button.dataset.patient);
data.patients.forEach((patient, index) => {
  const counts = patient.x.length.toLocaleString("en-US");
  element("patient").add(new Option(`${patient.name} (${counts} patches)`, index));
});
element("patient").addEventListener("change", (event) => showPatient(data.patients[event.target.value]));
onClick("[data-step]", (button) => {
  const next = data.patients.indexOf(state.patient) + Number(button.dataset.step);
  showPatient(data.patients.at(next % data.patients.length));
});
onClick("[data-patient]", (button) => {
  showPatient(patientOf(button));
  element("slides").scrollIntoView();
});

window.addEventListener("beforeprint", () => {
  for (const details of document.querySelectorAll("details")) details.open = true;
});

showPatient(patientOf(document.querySelector("[data-patient]"))); // The worst first, as in the table.
setThreshold(0.5);
