"""The files of one run of predict.py: what is drawn of a slide, and what the files are called."""

import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from cancernet.cli import map_files
from cancernet.data import patch
from cancernet.data.sample import SAMPLE_PATIENTS
from cancernet.evaluation import metrics
from cancernet.files import try_writing, write_json
from cancernet.prediction import geojson, gradcam, maps, page
from cancernet.prediction.inputs import read_source
from cancernet.prediction.predictor import Predictor, note
from cancernet.prediction.scored import Slide
from cancernet.prediction.slides import PATCH_SIDE, WHITE, picture_side, shrink

# What is said of a slide, in this order, where it is known.
FIGURES = {
    "malignant_share": "predicted malignant {} of them{how}",
    "malignant_area_mm2": "{} mm\u00b2",
    "largest_focus_mm": "largest focus {} mm (to the nearest 0.2 mm)",
    "prevalence": "truly malignant {}",
    "sensitivity": "sensitivity {}",
    "specificity": "specificity {}",
    "roc_auc": "ROC AUC {}",
}

# A slide of 20 x 20 cm; positions in names that stray further apart would fill the memory.
MOST_SQUARES = 1_000_000
MOST_BYTES = 80  # Of a file name's first part; file systems take 255, encrypting ones 143.


@dataclass
class Atlas:
    """Draws slides into a folder and says what it drew, on stderr."""

    folder: Path
    predictor: Predictor  # Whose probabilities the maps show.
    taken: set[str] = field(default_factory=set)  # The file names given so far.
    shown: list[page.Shown] = field(default_factory=list)  # The slides of predictions.html.
    patches: int = 0  # Of all slides,
    malignant: int = 0  # and how many of them are predicted malignant.

    def open(self) -> None:
        """Makes the folder, and finds out before the work whether it can be written to."""
        self.folder.mkdir(parents=True, exist_ok=True)
        try_writing(self.folder)

    def draw_patches(self, slides: Sequence[Slide]) -> None:
        """Draws the slides that patches from files of their own make up."""
        for slide in tqdm(slides, "Drawing", unit=" maps", disable=None, leave=False):
            self.draw(slide)
        if nowhere := sum(int(np.sum(~slide.placed)) for slide in slides):
            note(
                f"Patches on no map: {nowhere:,}, whose names tell no position, as "
                "8863_idx5_x51_y101_class0.png or 'slide [x=512,y=0,w=512,h=512].png' do."
            )

    def draw(self, slide: Slide) -> None:
        """Draws a slide, where positions are known, and makes its metrics, where classes are."""
        self.patches += len(slide)
        self.malignant += int(slide.malignant.sum())
        placed, labelled = slide.placed.any(), (slide.labels >= 0).any()
        drawable = placed or len(slide.skipped)
        if not slide.name or not (drawable or labelled):
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        stem = safe_name(slide.name, self.taken)
        figures: dict[str, Any] = {"patient": slide.name, "sample": slide.sample}
        if labelled:
            figures |= slide_metrics(slide)
        figures |= {"patches": len(slide)}
        if placed:
            figures["malignant_share"] = float(slide.predicted[slide.placed].mean())
            figures |= geojson.write(self.folder / f"{stem}.geojson", slide)
        told = [f"{slide.name}: patches {len(slide):,}"]
        for key, text in FIGURES.items():
            if key in figures:
                value = "not defined" if figures[key] is None else f"{figures[key]:.3f}"
                told.append(text.format(value, how=slide.how.replace(",", "")))
        note(", ".join(told))
        if len(slide):
            write_json(self.folder / f"{stem}_figures.json", figures)
        if drawable:
            self._draw_maps(stem, slide, figures)

    def _draw_maps(self, stem: str, slide: Slide, figures: Mapping[str, Any]) -> None:
        rows, columns = slide.shape
        if rows * columns > MOST_SQUARES:
            words = f"{columns:,} x {rows:,} squares, over {MOST_SQUARES:,} in all"
            note(f"{slide.name}: no map, since the positions span {words}.")
            return
        if double := np.sum(~np.isnan(slide.cells[:, 0])) - slide.taken.sum():
            note(
                f"{slide.name}: {double:,} patches share a square with another: the first is shown"
            )
        tissue = reassemble(slide)
        maps.draw(self.folder, stem, slide, tissue)
        if len(slide):
            self.shown.append(page.show(slide, tissue, figures))

    def close(self) -> None:
        """Writes the page of all slides, and explains the first patches, if they were kept."""
        predictor, metadata = self.predictor, self.predictor.metadata
        path, model = self.folder / "predictions.html", predictor.path.name
        page.write(path, self.shown, threshold=metadata.threshold, model=model)
        if examples := predictor.examples:
            path = self.folder / "explanation.png"
            patients = {read_source(file).facts.patient for file, _, _ in examples}
            sample = metadata.sample or not patients.isdisjoint(SAMPLE_PATIENTS)
            gradcam.draw_sheet(path, predictor.network, examples, sample=sample)
            note(f"Explanation of the first {len(examples)} patches: {path}")


def slide_metrics(slide: Slide) -> dict[str, Any]:
    """Makes the metrics of patches of known class: alone, and of those in context."""

    def measure(patches: NDArray[np.bool_], scores: NDArray[Any], threshold: float) -> Any:
        labels, scores = slide.labels[patches], scores[patches]
        outcome = metrics.confusion(labels, scores, threshold=threshold)
        return {
            "patches": len(labels),
            "prevalence": float(np.mean(labels == 1)),
            "threshold": threshold,
            "confusion_matrix": asdict(outcome),
            **outcome.rates(),
            "roc_auc": metrics.roc_auc(labels, scores),
        }

    known = slide.labels >= 0
    found = measure(known, slide.probability, slide.metadata.threshold)
    around = known & np.isfinite(slide.in_context)
    if around.any():
        found["in_context"] = measure(around, slide.in_context, slide.threshold)
    return found | {"labelled": int(known.sum())}


def reassemble(slide: Slide) -> NDArray[np.uint8]:
    """Makes a picture of a slide: uint8, RGB, shape (rows * side, columns * side, 3)."""
    (rows, columns), pictures = slide.shape, slide.pictures
    side, to_scale = picture_side(rows, columns), slide.frame.micrometres is not None

    def read(file: str) -> NDArray[np.uint8]:
        try:
            pixels = patch.read_pixels(Path(file))
        except Exception:  # Gone meanwhile, or no image but a slide.
            return np.full((side, side, 3), WHITE, np.uint8)
        # Without a scale every patch fills its square, but for those at an edge.
        return shrink(pixels, side, whole=PATCH_SIDE if to_scale else max(pixels.shape))

    if pictures is None:
        files = [source.file for source in slide.sources]
        pictures = np.stack(list(map_files(read, files, what="Reassembling")))
    tissue = slide.place(pictures, WHITE)
    return tissue.swapaxes(1, 2).reshape(rows * side, columns * side, 3)


def safe_name(name: str, taken: set[str]) -> str:
    """Makes a file name of any text: its letters, nothing else but `._-`, cut where it is long.

    A number behind keeps it apart from those `taken`, in small letters, which it is added to: some
    disks take `A` for `a`.
    """
    plain = re.sub(r"[^\w.-]", "_", name).lstrip(".-") or "unnamed"
    stem = plain.encode()[:MOST_BYTES].decode(errors="ignore")
    names = itertools.chain([stem], (f"{stem}-{count}" for count in itertools.count(2)))
    unique = next(each for each in names if each.lower() not in taken)
    taken.add(unique.lower())
    return unique
