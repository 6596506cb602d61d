// The slides of a run, as prediction/page.py embeds them.
state.threshold = { alone: data.threshold, context: data.context_threshold };
state.inContext = data.context_threshold !== null;

function describe(patch) {
  const { files, folder, name, columns, rows, square_mm } = state.slide;
  const [x, y] = [columns[patch], rows[patch]].map((cell) => (cell * square_mm).toFixed(1));
  return `${files ? folder + files[patch] : name} \u00b7 x ${x} mm, y ${y} mm`;
}

function refresh() {
  const { slide } = state;
  const { columns, rows, width, height, at, skipped, square_mm } = slide;
  for (const each of data.slides) each.button.setAttribute("aria-current", each === slide);
  element("name").textContent = slide.name;
  state.slid = kind();
  // The edges of what is predicted malignant, towards what is not.
  const malignant = (cell) => at[cell] >= 0 && values()[at[cell]] >= threshold();
  view.outline = new Path2D();
  let count = 0;
  columns.forEach((x, patch) => {
    const [y, cell] = [rows[patch], rows[patch] * width + x];
    if (!malignant(cell) || at[cell] !== patch) return; // Of patches that share a cell the last counts.
    count++;
    if (x === 0 || !malignant(cell - 1)) view.outline.rect(x, y, 0, 1);
    if (x === width - 1 || !malignant(cell + 1)) view.outline.rect(x + 1, y, 0, 1);
    if (y === 0 || !malignant(cell - width)) view.outline.rect(x, y, 1, 0);
    if (y === height - 1 || !malignant(cell + width)) view.outline.rect(x, y + 1, 1, 0);
  });
  const scored = at.filter((patch) => patch >= 0 && !Number.isNaN(values()[patch])).length;
  const share = scored ? `${((100 * count) / scored).toFixed(1)} %` : "not defined";
  element("live").textContent =
    `At threshold ${+threshold().toFixed(4)}${state.inContext ? ", in context" : ""}: ${count.toLocaleString("en-US")} of ` +
    `${scored.toLocaleString("en-US")} patches predicted malignant (${share}), ${(count * square_mm ** 2).toFixed(2)} mm\u00b2.`;
  element("skipped").textContent = skipped.length.toLocaleString("en-US");
  paint();
}

onClick("#reset", () => setThreshold(state.inContext ? data.context_threshold : data.threshold));
element("opacity").addEventListener("input", (event) => {
  view.opacity = event.target.valueAsNumber;
  draw();
});

data.slides.forEach((slide, index) => {
  slide.button = element("list").children[index].firstElementChild;
  slide.button.addEventListener("click", () => show(slide));
  slide.tissue = slide.button.firstElementChild;
  slide.tissue.addEventListener("load", draw);
});
view.opacity = element("opacity").valueAsNumber;
show(data.slides[0]);
