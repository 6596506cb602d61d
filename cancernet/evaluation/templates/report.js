// The slides of the split that the page shows, a patient each, as evaluation/page.py embeds them.
data.slides.forEach(prepare);
state.prevalence = data.prevalence;

function showMetrics() {
  const counts = { tn: 0, fp: 0, fn: 0, tp: 0 };
  for (const { labels, raw } of data.slides) {
    raw.forEach((value, patch) => counts[outcome(labels[patch], value, state.threshold.alone)]++);
  }
  const { tn, fp, fn, tp } = counts;
  const [sensitivity, specificity] = [tp / (tp + fn), tn / (tn + fp)]; // NaN where not defined.
  const metrics = { sensitivity, specificity, ppv: tp / (tp + fp), npv: tn / (tn + fn) };
  // Bayes' rule: what the predictive values would be where another share is malignant.
  const [sick, healthy] = [state.prevalence, 1 - state.prevalence];
  const [rightly, cleared] = [sensitivity * sick, specificity * healthy];
  metrics["bayes-ppv"] = rightly / (rightly + (1 - specificity) * healthy);
  metrics["bayes-npv"] = cleared / (cleared + (1 - sensitivity) * sick);
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
  table.tBodies[0].append(...Array.from(table.tBodies[0].rows).sort((...rows) => {
    const [one, two] = rows.map((row) => row.cells[column].dataset.value);
    if (!one || !two) return !one - !two; // What is not defined stays at the end, whichever way round.
    return (up ? 1 : -1) * (column ? one - two : one.localeCompare(two, "en", { numeric: true }));
  }));
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
  const { folder, files, x, y } = state.slide;
  const place = x[patch] === null ? "position unknown" : `x ${x[patch]}, y ${y[patch]} pixels`;
  return `${folder + files[patch]} \u00b7 ${place}`;
}

const slideOf = (link) => data.slides.find((slide) => slide.name === link.dataset.patient);
element("patient").addEventListener("change", (event) => show(data.slides[event.target.value]));
onClick("[data-patient]", (link) => show(slideOf(link)));

window.addEventListener("beforeprint", () => {
  for (const details of document.querySelectorAll("details")) details.open = true;
});

show(slideOf(document.querySelector("[data-patient]"))); // The worst first, as in the table.
