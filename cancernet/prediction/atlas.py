"""The maps of one run of predict.py: which patches make up a slide, what its files are called."""

import sys
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from cancernet.cli import map_files
from cancernet.data import patches
from cancernet.data.sample import SAMPLE_PATIENTS
from cancernet.files import try_writing
from cancernet.prediction import explain, heatmap, maps, slides
from cancernet.prediction.inference import Example, Scored, ScoredImage
from cancernet.prediction.models import TrainedModel


@dataclass
class Atlas:
    """Draws slides into a folder and says what it drew, on stderr.

    Attributes:
        folder: Where the maps go.
        threshold: A patch is called malignant from this probability on.
        sample: Whether the model is of the synthetic sample.
        taken: The file names given so far.
        drawn: Slides drawn so far.
    """

    folder: Path
    threshold: float
    sample: bool
    taken: set[str] = field(default_factory=set)
    drawn: int = 0

    def open(self) -> None:
        """Makes the folder, and finds out before the work whether it can be written to."""
        self.folder.mkdir(parents=True, exist_ok=True)
        try_writing(self.folder)

    def explain(self, model: TrainedModel, examples: Sequence[Example]) -> None:
        """Draws explanation.png, the contact sheet of the first patches."""
        shown = examples[: explain.MOST_PATCHES]
        images = np.stack([image for _, image in shown])
        evidence = explain.grad_cam(model.network, images, data_format=model.data_format)
        if model.data_format == "channels_first":
            images = images.transpose(0, 2, 3, 1)
        path = self.folder / "explanation.png"
        explain.draw_sheet(
            path,
            images,
            evidence,
            [f"{row.probability:.2f}  {Path(row.file).name[-32:]}" for row, _ in shown],
            sample=self.sample or any(row.facts.patient in SAMPLE_PATIENTS for row, _ in shown),
        )
        print(f"Explanation of the first {len(shown)} patches: {path}", file=sys.stderr)

    def draw_patients(self, scored: Sequence[Scored]) -> None:
        """Draws one slide a patient, of the patches whose position is known."""
        of_patient: dict[str, list[Scored]] = defaultdict(list)
        for row in scored:
            if row.facts.x is not None:
                of_patient[row.facts.patient].append(row)
        bar = tqdm(of_patient.items(), desc="Drawing", unit=" maps", disable=None, leave=False)
        lines = [line for patient, rows in bar for line in self._patient(patient, rows)]
        if len(scored) > sum(map(len, of_patient.values())) > 0:
            lines.append("Patches without a position in their name are on no map.")
        print(*lines, sep="\n", end="\n" if lines else "", file=sys.stderr)

    def _patient(self, patient: str, rows: Sequence[Scored]) -> Iterator[str]:
        x, y = _positions(rows)
        try:
            layout = heatmap.lay_out(x, y)
        except ValueError as error:
            yield f"{patient}: no map, since {error}."
            return
        if double := heatmap.shared(layout, x, y):
            yield f"{patient}: {double:,} patches share a square with another; the map shows one."
        side = maps.picture_side(layout.rows, layout.columns)

        def picture(row: Scored) -> NDArray[np.uint8]:
            return slides.shrink(patches.read_pixels(Path(row.file)), side)

        pictures = list(map_files(picture, rows, what="Reassembling"))
        figures = self._draw(patient, layout, rows, [], pictures, side)
        if figures is not None:
            yield _figures_line(patient, figures)

    def draw_image(self, file: str, image: ScoredImage, *, side: int) -> None:
        """Draws one image that was cut up.

        Args:
            file: Its path as given or found.
            image: Its tiles.
            side: Pixels of a tile's small picture.
        """
        if image.scored and image.scored[0].facts.x is None:
            return  # One patch.
        x, y = _positions(image.scored)
        glass_x, glass_y = np.array(image.background, np.intp).reshape(-1, 2).T
        try:
            layout = heatmap.lay_out(np.r_[x, glass_x], np.r_[y, glass_y])
        except ValueError as error:
            print(f"{file}: no map, since {error}.", file=sys.stderr)
            return
        self._draw(Path(file).stem, layout, image.scored, image.background, image.pictures, side)

    def _draw(
        self,
        name: str,
        layout: heatmap.Layout,
        rows: Sequence[Scored],
        background: Sequence[tuple[int, int]],
        pictures: Sequence[NDArray[np.uint8]],
        side: int,
    ) -> dict[str, Any] | None:
        """Puts patches and background into their squares, and draws; `pictures` are of both."""
        x, y = _positions(rows)
        glass_x, glass_y = np.array(background, np.intp).reshape(-1, 2).T
        labels = np.array(
            [-1 if row.facts.label is None else row.facts.label for row in rows], np.int8
        )
        probabilities = np.array([row.probability for row in rows], np.float32)
        glass = np.ones(len(background), bool)
        slide = maps.SlideMap(
            name=name,
            probability=heatmap.place(layout, x, y, probabilities, missing=np.nan),
            background=heatmap.place(layout, glass_x, glass_y, glass, missing=False),
            label=heatmap.place(layout, x, y, labels, missing=-1),
            tissue=heatmap.mosaic(
                layout, np.r_[x, glass_x], np.r_[y, glass_y], pictures, side=side
            ),
            threshold=self.threshold,
            sample=self.sample or name in SAMPLE_PATIENTS,
        )
        self.drawn += 1
        return maps.draw(self.folder, safe_name(name, self.taken), slide)


def _positions(rows: Sequence[Scored]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    x = np.array([row.facts.x for row in rows], np.intp)
    return x, np.array([row.facts.y for row in rows], np.intp)


def _figures_line(patient: str, figures: dict[str, Any]) -> str:
    shown = [f"{patient}: patches {figures['patches']:,}, malignant {figures['prevalence']:.1%}"]
    for name in ("sensitivity", "specificity", "roc_auc"):
        value = figures[name]
        text = "not defined" if value is None else f"{value:.3f}"
        shown.append(f"{'ROC AUC' if name == 'roc_auc' else name} {text}")
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
    unique, count = stem, 1
    while unique.lower() in taken:
        count += 1
        unique = f"{stem}-{count}"
    taken.add(unique.lower())
    return unique
