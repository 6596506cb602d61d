"""The maps of one run of predict.py: which patches make up a slide, what its files are called."""

import hashlib
import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from cancernet.cli import map_files
from cancernet.data import patch
from cancernet.data.sample import SAMPLE_PATIENTS
from cancernet.files import try_writing, write_json
from cancernet.prediction import geojson, gradcam, maps, page
from cancernet.prediction.maps import Grid
from cancernet.prediction.predictor import Predictor, note
from cancernet.prediction.scored import Scored, Slide, group
from cancernet.prediction.slides import PATCH_SIDE, WHITE, picture_side, shrink

# What is said of a slide, in this order, where it is known.
FIGURES = {
    "malignant_share": "predicted malignant {} of them",
    "malignant_area_mm2": "{} mm\u00b2",
    "largest_focus_mm": "largest focus {} mm (to the nearest 0.2 mm)",
    "prevalence": "truly malignant {}",
    "sensitivity": "sensitivity {}",
    "specificity": "specificity {}",
    "roc_auc": "ROC AUC {}",
}

MOST_BYTES = 80  # Of a file name's first part; file systems take 255, encrypting ones 143.


@dataclass
class Atlas:
    """Draws slides into a folder and says what it drew, on stderr."""

    folder: Path
    predictor: Predictor  # Whose probabilities the maps show.
    taken: set[str] = field(default_factory=set)  # The file names given so far.
    album: page.Album = field(default_factory=page.Album)  # The slides of predictions.html.
    sample: bool = False  # Whether any of them is synthetic, or the model.
    in_context: bool = False  # Whether any of them has patches in context.

    def open(self) -> None:
        """Makes the folder, and finds out before the work whether it can be written to."""
        self.folder.mkdir(parents=True, exist_ok=True)
        try_writing(self.folder)

    def explain(self) -> None:
        """Draws explanation.png, the contact sheet of the first patches, if they were kept."""
        if not self.predictor.examples:
            return
        rows, images = zip(*self.predictor.examples, strict=True)
        path = self.folder / "explanation.png"
        gradcam.draw_sheet(
            path,
            np.stack(images),
            gradcam.grad_cam(self.predictor.network, np.stack(images)),
            [f"{row.probability:.2f}  {Path(row.source.file).name[-32:]}" for row in rows],
            sample=any(self._is_sample(row.source.facts.patient) for row in rows),
        )
        note(f"Explanation of the first {len(rows)} patches: {path}")

    def draw_patches(self, scored: Sequence[Scored]) -> None:
        """Draws the slides that patches from files of their own make up."""
        for slide in tqdm(group(scored), "Drawing", unit=" maps", disable=None, leave=False):
            self.draw(slide)
        if nowhere := sum(row.source.facts.x is None for row in scored):
            note(
                f"Patches on no map: {nowhere:,}, whose names tell no position, as "
                "8863_idx5_x51_y101_class0.png or 'slide [x=512,y=0,w=512,h=512].png' do."
            )

    def draw(self, slide: Slide) -> None:
        """Draws a slide, where positions are known, and makes its metrics, where classes are."""
        placed = [row for row in slide.rows if row.source.facts.x is not None]
        labelled = [row for row in slide.rows if row.source.facts.label is not None]
        if not slide.name or not (placed or slide.skipped or labelled):
            return
        stem = safe_name(slide.name, self.taken)
        figures: dict[str, Any] = {"patient": slide.name, "sample": self._is_sample(slide.name)}
        if labelled:
            figures |= self._metrics(labelled) | {"labelled": len(labelled)}
        figures |= {"patches": len(slide.rows)}
        if placed:
            figures |= self._write_geojson(stem, replace(slide, rows=placed))
        note(_figures_line(slide.name, figures, in_context=slide.in_context))
        if slide.rows:
            write_json(self.folder / f"{stem}_figures.json", figures)
        if placed or slide.skipped:
            self._draw_maps(stem, replace(slide, rows=placed), figures)

    def close(self) -> None:
        """Writes the page of all slides."""
        metadata = self.predictor.metadata
        context = metadata.context
        self.album.write(
            self.folder / "predictions.html",
            threshold=metadata.threshold,
            context_threshold=context.threshold if context and self.in_context else None,
            model=self.predictor.path.name,
            sample=self.sample,
        )

    def _metrics(self, rows: Sequence[Scored]) -> dict[str, Any]:
        """Makes the metrics of patches of known class: alone, and of those in context."""
        metadata = self.predictor.metadata

        def measure(rows: Sequence[Scored], name: str, threshold: float) -> dict[str, Any]:
            labels = np.array([row.source.facts.label for row in rows])
            probabilities = np.array([getattr(row, name) for row in rows])
            return maps.slide_metrics(labels, probabilities, threshold=threshold)

        found = measure(rows, "probability", metadata.threshold)
        around = [row for row in rows if row.in_context is not None]
        if metadata.context and around:
            found["in_context"] = measure(around, "in_context", metadata.context.threshold)
        return found

    def _write_geojson(self, stem: str, slide: Slide) -> dict[str, float]:
        """Writes <stem>.geojson; returns share and size of what is predicted malignant."""
        rows = slide.rows
        names = ("probability", "calibrated", *["in_context"] * slide.in_context)
        values = {
            name.replace("_", " "): np.array([getattr(row, name) for row in rows], np.float32)
            for name in names
        }
        malignant = np.array([row.predicted for row in rows])
        micrometres = slide.frame.micrometres
        across, down = slide.frame.scale
        per_pixel = (micrometres / across, micrometres / down) if micrometres else None
        tiles = geojson.Tiles(slide.edges(), malignant, values, per_pixel)
        about = "Predicted malignant" + ", in context" * slide.in_context
        geojson.write(self.folder / f"{stem}.geojson", slide.name, tiles, about=about)
        return {"malignant_share": float(malignant.mean()), **tiles.extent()}

    def _draw_maps(self, stem: str, slide: Slide, figures: dict[str, Any]) -> None:
        """Puts patches and background into their squares, draws them, and adds them to the page."""
        number = len(slide.rows)
        places = [(row.source.facts.x, row.source.facts.y) for row in slide.rows]
        x, y = np.array([*places, *slide.skipped]).T
        try:
            grid = Grid(x, y, slide.step)
        except ValueError as error:
            note(f"{slide.name}: no map, since {error}.")
            return
        drawn = self._slide_map(slide, grid, sample=figures["sample"])
        shown = grid.first[grid.first < number]
        if double := number - len(shown):
            note(
                f"{slide.name}: {double:,} patches share a square with another; the map shows one."
            )
        maps.draw(self.folder, stem, drawn)
        if not number:
            return
        self.sample = self.sample or drawn.sample
        self.in_context = self.in_context or drawn.in_context
        rows = [slide.rows[index] for index in shown]
        probability, calibrated, in_context = (
            np.array([getattr(row, name) for row in rows], np.float32)
            for name in ("probability", "calibrated", "in_context")
        )
        self.album.add(
            page.Slide(
                name=slide.name,
                columns=grid.column[shown],
                rows=grid.row[shown],
                probability=probability,
                calibrated=calibrated,
                in_context=in_context,
                labels=drawn.label[grid.row[shown], grid.column[shown]],
                files=None if slide.pictures else [row.source.file for row in rows],
                tissue=drawn.tissue,
                skipped=drawn.background,
                figures={name: figures[name] for name in page.FIGURES if name in figures},
            )
        )

    def _slide_map(self, slide: Slide, grid: Grid, *, sample: bool) -> maps.SlideMap:
        """Makes the grids of a slide: in context where it is, else of each patch alone."""
        rows, skipped = slide.rows, [None] * len(slide.skipped)
        metadata, context = self.predictor.metadata, self.predictor.metadata.context
        if context and slide.in_context:
            # Where neighbours are missing, the calibrated probability is nearest to one in context.
            values = [row.calibrated if row.in_context is None else row.in_context for row in rows]
            threshold, in_context = context.threshold, True
        else:
            values = [row.probability for row in rows]
            threshold, in_context = metadata.threshold, False
        labels = [row.source.facts.label for row in rows] + skipped
        (height, width), side = grid.shape, picture_side(*grid.shape)
        tissue = grid.place(np.stack(slide.pictures or _read_pictures(rows, side)), WHITE)
        return maps.SlideMap(
            name=slide.name,
            probability=grid.place(np.array([*values, *skipped], np.float32), np.nan),
            malignant=grid.place(np.array([row.predicted for row in rows] + skipped, bool), False),
            background=grid.place(np.arange(len(labels)) >= len(rows), False),
            label=grid.place(
                np.array([-1 if each is None else each for each in labels], np.int8), -1
            ),
            tissue=tissue.swapaxes(1, 2).reshape(height * side, width * side, 3),
            threshold=threshold,
            in_context=in_context,
            sample=sample,
            to_scale=slide.frame.micrometres is not None,
        )

    def _is_sample(self, patient: str) -> bool:
        return self.predictor.metadata.sample or patient in SAMPLE_PATIENTS


def _read_pictures(rows: Sequence[Scored], side: int) -> list[NDArray[np.uint8]]:
    def read(row: Scored) -> NDArray[np.uint8]:
        try:
            pixels = patch.read_pixels(Path(row.source.file))
        except Exception:  # Gone meanwhile, or no image but a slide.
            return np.full((side, side, 3), WHITE, np.uint8)
        return shrink(pixels, side, whole=max(pixels.shape) if row.source.size else PATCH_SIDE)

    return list(map_files(read, rows, what="Reassembling"))


def _figures_line(name: str, figures: dict[str, Any], *, in_context: bool) -> str:
    """Says in a line what is known of a slide."""
    shown = [f"{name}: patches {figures['patches']:,}"]
    for key, text in FIGURES.items():
        if key in figures:
            value = figures[key]
            shown.append(text.format("not defined" if value is None else f"{value:.3f}"))
            if in_context and key == "malignant_share":
                shown[-1] += " in context"
    return ", ".join(shown)


def safe_name(name: str, taken: set[str]) -> str:
    """Makes a file name of a patient's or an image's name: same letters, nothing else but `._-`.

    Args:
        name: Any text; file systems count its bytes, so a long one ends in a hash of the whole.
        taken: Names given before, in small letters; gets the new one. A number behind keeps them
            apart, also on disks that take `A` for `a`.
    """
    kept = "".join(sign if sign.isalnum() or sign in "._-" else "_" for sign in name)
    stem = kept.lstrip(".-") or "unnamed"
    if len(stem.encode()) > MOST_BYTES:
        digest = hashlib.sha256(name.encode(errors="surrogatepass")).hexdigest()[:8]
        stem = f"{stem.encode()[:MOST_BYTES].decode(errors='ignore')}-{digest}"
    names = itertools.chain([stem], (f"{stem}-{count}" for count in itertools.count(2)))
    unique = next(each for each in names if each.lower() not in taken)
    taken.add(unique.lower())
    return unique
