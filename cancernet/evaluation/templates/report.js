// The slides of the split that the page shows, a patient each, as evaluation/page.py embeds them.
data.slides.forEach(prepare);
state.prevalence = data.prevalence;

function confusion(least) {
  const counts = { tn: 0, fp: 0, fn: 0, tp: 0 };
  for (const { labels, raw } of data.slides) raw.forEach((value, patch) => counts[outcome(labels[patch], value, least)]++);
  return counts;
}

function showMetrics() {
  const { tn, fp, fn, tp } = confusion(state.threshold.alone);
  const [sensitivity, specificity] = [tp / (tp + fn), tn / (tn + fp)]; // NaN where not defined.
  const metrics = { sensitivity, specificity, ppv: tp / (tp + fp), npv: tn / (tn + fn) };
  // Bayes' rule: what the predictive values would be where another share is malignant.
  const [sick, healthy] = [state.prevalence, 1 - state.prevalence];
  const [rightly, falsely] = [sensitivity * sick, (1 - specificity) * healthy];
  const [cleared, missed] = [specificity * healthy, (1 - sensitivity) * sick];
  metrics["bayes-ppv"] = rightly / (rightly + falsely);
  metrics["bayes-npv"] = cleared / (cleared + missed);
  const counts = { tn, fp, fn, tp };
  for (const name in counts) element(`live-${name}`).textContent = counts[name].toLocaleString("en-US");
  for (const name in metrics) element(`live-${name}`).textContent = rounded(metrics[name]);
}

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

function refresh() {
  const { slide } = state;
  showMetrics();
  element("patient").value = data.slides.indexOf(slide);
  const unplaced = slide.x.filter((x) => x === null).length;
  element("unplaced").textContent = unplaced
    ? `The names of ${unplaced} of ${slide.x.length} patches tell no position: these stand in rows, in the order of their names.`
    : "";
  paint();
}

function describe(patch) {
  const { slide } = state;
  const [x, y, label] = [slide.x[patch], slide.y[patch], slide.labels[patch]];
  const name = slide.names ? slide.names[patch] : `${slide.name}_idx5_x${x}_y${y}_class${label}.png`;
  return `${data.folder}/${label}/${name} \u00b7 ${x === null ? "position unknown" : `x ${x}, y ${y} pixels`}`;
}

const slideOf = (button) => data.slides.find((slide) => slide.name === button.dataset.patient);
data.slides.forEach((slide, index) => {
  const counts = slide.x.length.toLocaleString("en-US");
  element("patient").add(new Option(`${slide.name} (${counts} patches)`, index));
});
element("patient").addEventListener("change", (event) => show(data.slides[event.target.value]));
onClick("[data-patient]", (button) => {
  show(slideOf(button));
  element("slides").scrollIntoView();
});

window.addEventListener("beforeprint", () => {
  for (const details of document.querySelectorAll("details")) details.open = true;
});

show(slideOf(document.querySelector("[data-patient]"))); // The worst first, as in the table.
