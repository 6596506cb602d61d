"""The maps of one run of predict.py: which patches make up a slide, what its files are called."""

import itertools
import sys
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from cancernet.cli import map_files
from cancernet.data import patch
from cancernet.data.sample import SAMPLE_PATIENTS
from cancernet.files import try_writing
from cancernet.prediction import gradcam, maps
from cancernet.prediction.maps import Grid
from cancernet.prediction.predictor import Predictor, Scored, ScoredImage
from cancernet.prediction.slides import WHITE, picture_side, shrink


@dataclass
class Atlas:
    """Draws slides into a folder and says what it drew, on stderr.

    Attributes:
        folder: Where the maps go.
        predictor: Whose probabilities they show.
        taken: The file names given so far.
    """

    folder: Path
    predictor: Predictor
    taken: set[str] = field(default_factory=set)

    def open(self) -> None:
        """Makes the folder, and finds out before the work whether it can be written to."""
        self.folder.mkdir(parents=True, exist_ok=True)
        try_writing(self.folder)

    def explain(self) -> None:
        """Draws explanation.png, the contact sheet of the first patches."""
        rows, images = zip(*self.predictor.examples, strict=True)
        path = self.folder / "explanation.png"
        gradcam.draw_sheet(
            path,
            np.stack(images),
            gradcam.grad_cam(self.predictor.network, np.stack(images)),
            [f"{row.probability:.2f}  {Path(row.file).name[-32:]}" for row in rows],
            sample=any(self._is_sample(row.facts.patient) for row in rows),
        )
        _say(f"Explanation of the first {len(rows)} patches: {path}")

    def draw_patients(self, scored: Sequence[Scored]) -> None:
        """Draws one slide per patient, of the patches whose position is known."""
        of_patient: dict[str, list[Scored]] = defaultdict(list)
        for row in scored:
            if row.facts.x is not None:
                of_patient[row.facts.patient].append(row)
        bar = tqdm(of_patient.items(), desc="Drawing", unit=" maps", disable=None, leave=False)
        for patient, rows in bar:
            self._draw(patient, ScoredImage(rows))
        if len(scored) > sum(map(len, of_patient.values())) > 0:
            _say("Patches without a position in their name are on no map.")

    def draw_image(self, file: str, image: ScoredImage) -> None:
        """Draws one image that was cut up; `file` is its path as given or found."""
        if image.background or (image.scored and image.scored[0].facts.x is not None):
            self._draw(Path(file).stem, image)  # Else it is one patch.

    def _draw(self, name: str, image: ScoredImage) -> None:
        """Puts patches and background into their squares, and draws.

        Args:
            name: The patient, or the image.
            image: The patches; where it has no pictures, they are read from the patches' files.
        """
        rows, glass = image.scored, len(image.background)
        x, y = np.array([*((row.facts.x, row.facts.y) for row in rows), *image.background]).T
        try:
            grid = Grid(x, y)
        except ValueError as error:
            _say(f"{name}: no map, since {error}.")
            return
        labels = [-1 if row.facts.label is None else row.facts.label for row in rows]
        values = np.array([row.probability for row in rows] + [np.nan] * glass, np.float32)
        (height, width), side = grid.shape, picture_side(*grid.shape)
        tissue = grid.place(np.stack(image.pictures or _read_pictures(rows, side)), WHITE)
        slide = maps.SlideMap(
            name=name,
            probability=grid.place(values, np.nan),
            background=grid.place(np.isnan(values), False),
            label=grid.place(np.array(labels + [-1] * glass, np.int8), -1),
            tissue=tissue.swapaxes(1, 2).reshape(height * side, width * side, 3),
            threshold=self.predictor.metadata.threshold,
            sample=self._is_sample(name),
        )
        if double := len(rows) - np.sum(slide.scored):
            _say(f"{name}: {double:,} patches share a square with another; the map shows one.")
        if metrics := maps.draw(self.folder, safe_name(name, self.taken), slide):
            _say(_metrics_line(name, metrics))

    def _is_sample(self, patient: str) -> bool:
        return self.predictor.metadata.sample or patient in SAMPLE_PATIENTS


def _say(text: str) -> None:
    tqdm.write(text, file=sys.stderr)  # Above a progress bar, if there is one.


def _read_pictures(rows: Sequence[Scored], side: int) -> list[NDArray[np.uint8]]:
    def read(row: Scored) -> NDArray[np.uint8]:
        return shrink(patch.read_pixels(Path(row.file)), side)

    return list(map_files(read, rows, what="Reassembling"))


def _metrics_line(patient: str, metrics: dict[str, Any]) -> str:
    shown = [f"{patient}: patches {metrics['patches']:,}, malignant {metrics['prevalence']:.1%}"]
    for name in ("sensitivity", "specificity", "roc_auc"):
        text = "not defined" if metrics[name] is None else f"{metrics[name]:.3f}"
        shown.append(f"{name.replace('roc_auc', 'ROC AUC')} {text}")
    return ", ".join(shown)


def safe_name(name: str, taken: set[str]) -> str:
    """Makes a file name of a patient's or an image's name: same letters, nothing else but `._-`.

    Args:
        name: Any text.
        taken: Names given before, in small letters; gets the new one. A number behind keeps them
            apart, also on disks that take `A` for `a`.
    """
    kept = "".join(sign if sign.isalnum() or sign in "._-" else "_" for sign in name)
    stem = kept.lstrip(".-")[:80] or "unnamed"
    names = itertools.chain([stem], (f"{stem}-{count}" for count in itertools.count(2)))
    unique = next(each for each in names if each.lower() not in taken)
    taken.add(unique.lower())
    return unique
