// The slides of a run, as prediction/page.py embeds them.
const SIDE = 0.2; // Of a patch, in mm.
state.threshold = { alone: data.threshold, context: data.context_threshold };
state.inContext = data.context_threshold !== null;

function describe(patch) {
  const { files, folder, name, columns, rows } = state.slide;
  const [x, y] = [columns[patch], rows[patch]].map((cell) => (cell * SIDE).toFixed(1));
  return `${files.length ? folder + files[patch] : name} \u00b7 x ${x} mm, y ${y} mm`;
}

function refresh() {
  const { slide } = state;
  const { columns, rows, width, height, at, skipped } = slide;
  for (const each of data.slides) each.button.setAttribute("aria-current", each === slide);
  element("name").textContent = slide.name;
  state.slid = kind();
  // The edges of what is predicted malignant, towards what is not.
  const malignant = (cell) => at[cell] >= 0 && values()[at[cell]] >= threshold();
  const edges = [];
  let count = 0;
  columns.forEach((x, patch) => {
    const [y, cell] = [rows[patch], rows[patch] * width + x];
    if (!malignant(cell) || at[cell] !== patch) return; // Of patches that share a cell the last counts.
    count++;
    if (x === 0 || !malignant(cell - 1)) edges.push(`M${x} ${y}v1`);
    if (x === width - 1 || !malignant(cell + 1)) edges.push(`M${x + 1} ${y}v1`);
    if (y === 0 || !malignant(cell - width)) edges.push(`M${x} ${y}h1`);
    if (y === height - 1 || !malignant(cell + width)) edges.push(`M${x} ${y + 1}h1`);
  });
  state.outline = edges.join("");
  const scored = at.filter((patch) => patch >= 0 && !Number.isNaN(values()[patch])).length;
  const share = scored ? `${((100 * count) / scored).toFixed(1)} %` : "not defined";
  element("live").textContent =
    `At threshold ${+threshold().toFixed(4)}${state.inContext ? ", in context" : ""}: ${count.toLocaleString("en-US")} of ` +
    `${scored.toLocaleString("en-US")} patches predicted malignant (${share}), ${(count * SIDE ** 2).toFixed(2)} mm\u00b2.`;
  element("skipped").textContent = skipped.length.toLocaleString("en-US");
  paint();
}

onClick("#reset", () => setThreshold(state.inContext ? data.context_threshold : data.threshold));
const setOpacity = () => { maps[0].canvas.style.opacity = element("opacity").value; };
element("opacity").addEventListener("input", setOpacity);

data.slides.forEach((slide, index) => {
  slide.button = element("list").children[index].firstElementChild;
  slide.button.addEventListener("click", () => show(slide));
  slide.tissue = slide.button.firstElementChild;
});
setOpacity();
show(data.slides[0]);
