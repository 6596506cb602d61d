"""A slide and what a model says of its patches, in columns from which all results are written."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cancernet.data.patch import PATCH_SIDE
from cancernet.data.sample import SAMPLE_PATIENTS
from cancernet.evaluation.calibration import recalibrate
from cancernet.evaluation.context import FARTHEST, Grid
from cancernet.evaluation.metrics import shortest
from cancernet.prediction.inputs import Source, read_source
from cancernet.prediction.model import Metadata
from cancernet.prediction.slides import Frame

HEADER = (
    *("file", "patient", "x", "y", "probability", "calibrated", "malignant"),
    *("in_context", "malignant_in_context"),
)


@dataclass
class Slide:
    """The patches of one slide, or of an image that was cut.

    Arrays have a value per patch unless said otherwise. Probabilities are those of class 1,
    malignant, float32 in [0, 1].

    Attributes:
        name: The patient, a slide of theirs, or the image; empty where none is known.
        sources: Where each patch is from.
        places: Left and upper edge in pixels, NaN where unknown, shape (patches, 2).
        probability: The network's own.
        metadata: Of the model.
        frame: How places become pixels of the slide's finest level.
        skipped: The places of tiles without tissue, shape (tiles, 2).
        pictures: Of an image that was cut: a picture per patch, then per skipped tile, uint8, RGB,
            shape (patches and tiles, side, side, 3).
        identity: The same for all files of one slide, where it may have several.
        labels: 0 benign, 1 malignant, -1 unknown.
        placed: Whether its place is known.
        step: Width and height of a whole patch, in pixels of the places.
        calibrated: The probability after recalibration.
        malignant: Whether the probability reaches the model's threshold.
        in_context: In the light of its neighbours; NaN where it has none.
        sample: Whether model or patches are synthetic.
        context: What put patches in context; None where none is.

    Of what maps show, which is a patch in context where any is:

    Attributes:
        how: What to add to words about what is shown.
        threshold: From it on a patch is predicted malignant.
        shown: The probability.
        predicted: Whether it is predicted malignant.
    """

    name: str
    sources: Sequence[Source]
    places: NDArray[np.float64]
    probability: NDArray[np.float32]
    metadata: Metadata
    frame: Frame = field(default_factory=Frame)
    skipped: NDArray[np.float64] = field(default_factory=lambda: np.empty((0, 2)))
    pictures: NDArray[np.uint8] | None = None
    identity: str | None = None

    def __post_init__(self) -> None:
        """Applies what was fitted on validation: recalibration, thresholds and context."""
        metadata, known = self.metadata, [source.facts.label for source in self.sources]
        self.labels = np.array([-1 if label is None else label for label in known], int)
        self.placed = ~np.isnan(self.places[:, 0])
        sizes = [source.size for source in self.sources if source.size]
        self.step = np.max(sizes or [(PATCH_SIDE, PATCH_SIDE)], axis=0)
        self.sample = metadata.sample or self.name in SAMPLE_PATIENTS
        self.calibrated = recalibrate(self.probability, metadata.recalibration)
        self.malignant = self.probability >= metadata.threshold
        self.in_context = np.full(len(known), np.nan, np.float32)
        if metadata.context:
            # Names tell numbers of any size.
            cells = np.clip(np.nan_to_num(self.cells[: len(known)]), 0, FARTHEST - 1)
            grid = Grid(np.where(self.placed, 0, -1), cells.astype(np.int64))
            self.in_context = metadata.context.apply(grid, self.probability)

        alone = np.isnan(self.in_context)
        self.context = None if alone.all() else metadata.context
        self.how = ", in context" if self.context else ""
        self.threshold = (self.context or metadata).threshold
        # Where neighbours are missing, the calibrated probability is nearest to one in context.
        instead = self.calibrated if self.context else self.probability
        self.shown = np.where(alone, instead, self.in_context)
        self.predicted = np.where(alone, self.malignant, self.in_context >= self.threshold)

    def __len__(self) -> int:
        """Counts the patches."""
        return len(self.sources)

    def rows(self) -> Iterator[tuple[object, ...]]:
        """Yields a row of the CSV per patch, as HEADER names its columns."""
        predictions = zip(
            *(self.sources, self.places.tolist(), self.probability, self.calibrated),
            *(self.malignant, self.in_context, self.predicted),
            strict=True,
        )
        for source, place, alone, calibrated, malignant, in_context, predicted in predictions:
            x, y = (None if np.isnan(edge) else int(edge) for edge in place)
            around = None if np.isnan(in_context) else int(predicted)
            yield (
                *(source.file, source.facts.patient, x, y, shortest(alone), shortest(calibrated)),
                *(int(malignant), shortest(in_context), around),
            )

    # --- Squares: a grid with one cell per patch, row 0 the upper edge, column 0 the left one ----

    @cached_property
    def cells(self) -> NDArray[np.float64]:
        """Column and row, whole numbers or NaN, of each patch, then of each skipped tile."""
        cells = np.concatenate([self.places, self.skipped])
        placed = ~np.isnan(cells[:, 0])
        first = cells[placed].min(axis=0, initial=np.inf)
        # The nearest square: QuPath's tiles may be a pixel apart.
        cells[placed] = (cells[placed] - first + self.step // 2) // self.step
        return cells

    @cached_property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of the grid."""
        columns, rows = np.nanmax(self.cells, axis=0)
        return int(rows) + 1, int(columns) + 1

    def place(self, values: NDArray[Any], missing: Any) -> NDArray[Any]:
        """Puts values of the patches, or of these and the skipped tiles, into their squares.

        Where patches share a square, the first counts. Returns the dtype of `values`, shape (rows,
        columns, ...).
        """
        grid = np.full((*self.shape, *values.shape[1:]), missing, values.dtype)
        placed = np.flatnonzero(~np.isnan(self.cells[: len(values), 0]))
        backwards = placed[::-1]  # What is written last stays.
        columns, rows = self.cells[backwards].T.astype(int)
        grid[rows, columns] = values[backwards]
        return grid

    @property
    def taken(self) -> NDArray[np.bool_]:
        """True in the squares of patches and of skipped tiles, shape (rows, columns)."""
        return self.place(np.full(len(self.cells), True), False)

    @property
    def background(self) -> NDArray[np.bool_]:
        """True in the squares of skipped tiles, shape (rows, columns)."""
        return self.place(np.arange(len(self.cells)) >= len(self), False)

    @cached_property
    def edges(self) -> NDArray[np.float64]:
        """Left, upper, right and lower edge of each patch in pixels of the finest level.

        Shape (patches, 4). Neighbours share theirs to the bit.
        """
        starts = self.places - self.frame.first
        ends = starts + np.array([source.size or self.step for source in self.sources])
        if self.frame.size:
            ends = np.minimum(ends, self.frame.size)
        scale, corner = np.array(self.frame.scale * 2), np.array(self.frame.corner * 2)
        return np.concatenate([starts, ends], axis=1) * scale + corner


def of_image(
    file: str, metadata: Metadata, *, places: Any, probability: NDArray[np.float32], **others: Any
) -> Slide:
    """Makes the slide of an image that was cut; `others` are attributes of `Slide`."""
    places = np.reshape(np.asarray(places, float), (-1, 2))
    others["skipped"] = np.reshape(np.asarray(others["skipped"], float), (-1, 2))
    sources = [read_source(file)] * len(places)
    return Slide(Path(file).stem, sources, places, probability, metadata, **others)


def group(patches: Mapping[str, np.float32], metadata: Metadata) -> list[Slide]:
    """Puts patches, the probability of each file, into the slides that they make up."""
    found: dict[str, list[Source]] = {}
    for file in patches:
        source = read_source(file)
        found.setdefault(source.slide, []).append(source)
    slides = []
    for name, sources in found.items():
        places = np.array([(source.facts.x, source.facts.y) for source in sources], float)
        probability = np.array([patches[source.file] for source in sources], np.float32)
        # What QuPath has exported is of any scale.
        frame = Frame(micrometres=None) if any(source.size for source in sources) else Frame()
        slides.append(Slide(name, sources, places, probability, metadata, frame))
    return slides
