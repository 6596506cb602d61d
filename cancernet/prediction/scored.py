"""What a model says of patches: a row each, and the slides that they make up."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from cancernet.data.patch import PATCH_SIDE
from cancernet.evaluation.context import Context, Grid
from cancernet.evaluation.metrics import shortest
from cancernet.prediction.inputs import Source
from cancernet.prediction.slides import Frame

HEADER = (
    *("file", "patient", "x", "y", "probability", "calibrated", "malignant"),
    *("in_context", "malignant_in_context"),
)


@dataclass(frozen=True)
class Scored:
    """A patch with its probabilities of class 1, malignant, in [0, 1]: a row of the result."""

    source: Source
    probability: np.float32  # The network's own.
    calibrated: np.float32  # The same after recalibration.
    malignant: bool  # Whether the probability reaches the model's threshold.
    in_context: np.float32 | None = None  # In the light of its neighbours; None where it has none.
    malignant_in_context: bool | None = None  # Whether that reaches the context's threshold.

    @property
    def row(self) -> tuple[object, ...]:
        """A row of the CSV, as HEADER names its columns; malignant is 1 or 0."""
        facts = self.source.facts
        alone = (shortest(self.probability), shortest(self.calibrated), int(self.malignant))
        around: tuple[object, ...] = (None, None)
        if self.in_context is not None:
            around = (shortest(self.in_context), int(bool(self.malignant_in_context)))
        return (self.source.file, facts.patient, facts.x, facts.y, *alone, *around)

    @property
    def predicted(self) -> bool:
        """Whether it is predicted malignant: in context where it has one."""
        around = self.malignant_in_context
        return self.malignant if around is None else around


@dataclass
class Slide:
    """The patches of one slide."""

    name: str  # The patient, a slide of theirs, or the image that was cut; empty where not known.
    rows: list[Scored] = field(default_factory=list)  # Those that were scored.
    skipped: list[tuple[int, int]] = field(default_factory=list)  # Where there is no tissue.
    # Where an image was cut, small pictures: uint8, RGB; of the rows, then of what was skipped.
    pictures: list[NDArray[np.uint8]] = field(default_factory=list)
    frame: Frame = field(default_factory=Frame)
    identity: str | None = None  # The same for all files of one slide, where it may have several.

    @property
    def in_context(self) -> bool:
        """Whether any patch is in context."""
        return any(row.in_context is not None for row in self.rows)

    @property
    def first(self) -> tuple[int, int]:
        """The least of the positions, along x and along y."""
        facts = [row.source.facts for row in self.rows]
        across = (each.x for each in facts if each.x is not None)
        down = (each.y for each in facts if each.y is not None)
        return min(across, default=0), min(down, default=0)

    @property
    def step(self) -> tuple[int, int]:
        """Width and height of a whole patch, in the pixels of the positions."""
        sizes = [row.source.size for row in self.rows if row.source.size]
        width, height = np.max(sizes or [(PATCH_SIDE, PATCH_SIDE)], axis=0).tolist()
        return width, height

    def edges(self) -> NDArray[np.float64]:
        """Gives left, upper, right and lower edge of each patch in pixels of the finest level.

        Shape (patches, 4); the positions of all are known. Neighbours share theirs to the bit.
        """
        facts, step = [row.source.facts for row in self.rows], self.step
        whole = [row.source.size or step for row in self.rows]
        starts = np.array([(each.x, each.y) for each in facts], float) - self.frame.first
        ends = starts + np.array(whole)
        if self.frame.size:
            ends = np.minimum(ends, self.frame.size)
        scale, corner = np.array(self.frame.scale * 2), np.array(self.frame.corner * 2)
        return np.concatenate([starts, ends], axis=1) * scale + corner


def group(rows: Sequence[Scored]) -> list[Slide]:
    """Puts patches from files of their own into the slides that they make up."""
    found: dict[str, Slide] = {}
    for row in rows:
        found.setdefault(row.source.slide, Slide(row.source.slide)).rows.append(row)
    for slide in found.values():
        if any(row.source.size for row in slide.rows):
            slide.frame = Frame(micrometres=None)
    return list(found.values())


def in_context(rows: Sequence[Scored], context: Context | None) -> list[Scored]:
    """Gives patches, of any slides, their probabilities in context, where they have any."""
    if context is None:
        return list(rows)
    nets = {slide.name: (slide.first, slide.step) for slide in group(rows) if slide.name}
    cells = [_cell(row.source, nets) for row in rows]
    columns, lines = [column for column, _ in cells], [line for _, line in cells]
    grid = Grid.of([row.source.slide for row in rows], columns, lines, 1)
    values = context.apply(grid, np.array([row.probability for row in rows]))
    return [
        row
        if np.isnan(value)
        else replace(row, in_context=value, malignant_in_context=bool(value >= context.threshold))
        for row, value in zip(rows, values, strict=True)
    ]


def _cell(
    source: Source, nets: Mapping[str, tuple[tuple[int, int], tuple[int, int]]]
) -> tuple[int | None, int | None]:
    """Finds the square, or the nearest one, as maps do: QuPath's tiles may be a pixel apart."""
    x, y = source.facts.x, source.facts.y
    if x is None or y is None or source.slide not in nets:
        return None, None
    (left, upper), (width, height) = nets[source.slide]
    return (x - left + width // 2) // width, (y - upper + height // 2) // height
