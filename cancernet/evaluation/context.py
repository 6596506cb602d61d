"""The probability of class 1 in the light of a patch's neighbours on its slide.

Tumours do not come patch by patch. So the logits of a patch and of those around it are averaged,
nearer ones weighing more, and the mean becomes a probability again by logistic recalibration, which
is fitted on validation together with a threshold of its own. These are three numbers, which leave
the ranking as it is, so that even a single validation slide can give them. Labels take no part but
in that fit. A neighbour that is missing (glass, or no part of the data set) counts for nothing.
Averaging smooths away foci of a few patches: `foci` shows by how much.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from cancernet.data.dataset import Split
from cancernet.data.patch import PATCH_SIDE
from cancernet.evaluation.calibration import (
    Decision,
    Recalibration,
    choose_threshold,
    fit_decision,
    fit_line,
    recalibrate,
    to_logits,
)
from cancernet.evaluation.metrics import Labels, Probabilities

# Standard deviation of the Gaussian kernel, and its reach to each side, in patches.
WIDTH, REACH = 1.5, 3

# Patches of each class, with neighbours, that the fit on validation takes: a line and a threshold
# are three numbers, and neighbours are alike, so that dozens count for a few.
FEWEST = 50

# With a smaller standard deviation of the mean logits a network says the same of all patches, as it
# may after an epoch: no line makes probabilities of that.
LEAST_SPREAD = 0.05

# A grid's column and row lie between these, so that slide, row and column fit into 64 bits.
FARTHEST = 2**20

# Foci by their number of patches.
SIZES = {"1": (1, 1), "2-4": (2, 4), "5-16": (5, 16), "more": (17, np.inf)}


@dataclass(frozen=True)
class Grid:
    """Which slide each patch lies on, and where."""

    slides: NDArray[np.int64]  # Counted from 0, -1 where a patch has no place; shape (patches,).
    cells: NDArray[np.int64]  # Column and row, in steps of a patch; shape (patches, 2).

    @classmethod
    def of_split(cls, split: Split) -> "Grid":
        """Makes the grid of a split's patches: every patient has one slide."""
        slides = np.unique(np.asarray(split.patients, dtype=str), return_inverse=True)[1]
        cells = np.zeros((len(split), 2), np.int64)
        for index, (x, y) in enumerate((row.x, row.y) for row in split.rows):
            # Names tell numbers of any size.
            if x is None or y is None or max(abs(x), abs(y)) >= FARTHEST * PATCH_SIDE:
                slides[index] = -1
            else:
                cells[index] = x // PATCH_SIDE, y // PATCH_SIDE
        return cls(slides, cells)

    def neighbours(self, reach: int) -> Iterator[tuple[float, NDArray[np.intp]]]:
        """Yields, for each place up to `reach` patches around one, its distance and who is there.

        These are numbers of patches, shape (patches,), -1 where nobody is.
        """
        keys = self._keys(0, 0)
        order = np.argsort(keys, kind="stable")
        ranked = keys[order]
        for column in range(-reach, reach + 1):
            for row in range(-reach, reach + 1):
                if column or row:
                    wanted = self._keys(column, row)
                    at = np.minimum(np.searchsorted(ranked, wanted), max(len(ranked) - 1, 0))
                    there = (ranked[at] == wanted) & (self.slides >= 0)
                    yield float(np.hypot(column, row)), np.where(there, order[at], -1)

    def _keys(self, column: int, row: int) -> NDArray[np.int64]:
        """Numbers the places that lie so many columns and rows from each patch."""
        across, down = self.cells[:, 0] + column, self.cells[:, 1] + row
        return (self.slides * 4 * FARTHEST + down + FARTHEST) * 4 * FARTHEST + across + FARTHEST

    def groups(self, members: NDArray[np.bool_]) -> NDArray[np.intp]:
        """Numbers the connected groups of some patches, corners touching: -1 for all others."""
        pairs = []
        for _, there in self.neighbours(1):
            here = np.flatnonzero(members & (there >= 0) & members[there])
            pairs.append((here, there[here]))
        ends = np.hstack(pairs)
        graph = coo_array((np.ones(ends.shape[1]), tuple(ends)), shape=(len(members),) * 2)
        return np.where(members, connected_components(graph, directed=False)[1], -1)


@dataclass(frozen=True)
class Context:
    """What turns the logits around a patch into a probability."""

    width: float  # Standard deviation of the Gaussian kernel, in patches.
    reach: int  # How far it reaches to each side, in patches.
    slope: float  # in_context = sigmoid(slope * mean logit + intercept).
    intercept: float
    threshold: float  # From it on a patch is predicted malignant in context.
    patches: int  # Those of validation, with neighbours, that this was fitted on.
    patients: int  # Theirs.

    def apply(self, grid: Grid, probabilities: Probabilities) -> NDArray[np.float32]:
        """Makes the probabilities of class 1 in context of those alone; NaN with nobody around."""
        mean = average(grid, probabilities, width=self.width, reach=self.reach)
        return recalibrate(mean, Recalibration(self.slope, self.intercept))


def average(grid: Grid, probabilities: Probabilities, *, width: float, reach: int) -> Probabilities:
    """Averages the logits around each patch, as probabilities; NaN where nobody is around."""
    logits = to_logits(probabilities)
    total, weights = logits.copy(), np.ones(len(logits))
    for distance, there in grid.neighbours(reach):
        weight = np.where(there >= 0, np.exp(-0.5 * (distance / width) ** 2), 0)
        total += weight * logits[there]
        weights += weight
    return np.where(weights > 1, 1 / (1 + np.exp(-total / weights)), np.nan)


def fit(
    grid: Grid, labels: Labels, probabilities: Probabilities, *, measure: str
) -> tuple[Context | None, list[str]]:
    """Fits line and threshold on the validation patches with neighbours, or notes why not."""
    mean = average(grid, probabilities, width=WIDTH, reach=REACH)
    there = ~np.isnan(mean)
    labels, mean = labels[there], mean[there]
    benign, malignant = np.bincount(labels, minlength=2).tolist()
    if min(benign, malignant) < FEWEST:
        return None, [
            f"no probabilities in context: their fit takes {FEWEST} validation patches of each "
            f"class that have neighbours on their slide, found {benign} benign and {malignant} "
            "malignant"
        ]
    line = fit_line(labels, mean)
    if line is None or line.slope <= 0 or np.std(to_logits(mean)) < LEAST_SPREAD:
        return None, ["no probabilities in context: on validation they hardly tell the classes"]
    threshold = choose_threshold(labels, recalibrate(mean, line), measure=measure) or 0.5
    patients = len(np.unique(grid.slides[there]))
    return Context(WIDTH, REACH, line.slope, line.intercept, threshold, len(mean), patients), []


def decide(
    validation: Split, probabilities: Probabilities, *, measure: str
) -> tuple[Decision, list[str]]:
    """Fits all that is fitted on validation: `fit_decision` of the patches alone, and `fit`."""
    alone, notes = fit_decision(validation.labels, probabilities, measure=measure)
    grid = Grid.of_split(validation)
    context, more = fit(grid, validation.labels, probabilities, measure=measure)
    return replace(alone, context=context), notes + more


@dataclass(frozen=True)
class Scores:
    """The probabilities of class 1 of a split's patches, float32, each of shape (patches,)."""

    raw: NDArray[np.float32]  # The network's own.
    calibrated: NDArray[np.float32]  # The same after recalibration.
    in_context: NDArray[np.float32]  # NaN where no context was fitted, or nobody is around.

    @classmethod
    def of(cls, split: Split, probabilities: Probabilities, decision: Decision) -> "Scores":
        """Makes them of the network's probabilities, by what was fitted on validation."""
        in_context = np.full(len(split), np.nan, np.float32)
        if decision.context:
            in_context = decision.context.apply(Grid.of_split(split), probabilities)
        calibrated = recalibrate(probabilities, decision.recalibration)
        return cls(recalibrate(probabilities, None), calibrated, in_context)

    def __getitem__(self, patches: Any) -> "Scores":
        """Takes those of some patches, as NumPy does."""
        return Scores(self.raw[patches], self.calibrated[patches], self.in_context[patches])


def foci(
    grid: Grid, labels: Labels, alone: NDArray[np.bool_], in_context: NDArray[np.bool_]
) -> list[dict[str, Any]]:
    """Counts what is found of the connected groups of malignant patches, by the group's size.

    `alone` and `in_context` tell whether each patch is predicted malignant. Those without a place
    belong to no group.
    """
    groups = grid.groups((labels == 1) & (grid.slides >= 0))
    sizes = np.bincount(groups[groups >= 0], minlength=1)[np.maximum(groups, 0)]
    rows = []
    for name, (fewest, most) in SIZES.items():
        own = (groups >= 0) & (sizes >= fewest) & (sizes <= most)
        shares = [float(found[own].mean()) if own.any() else None for found in (alone, in_context)]
        row = {"patches_per_group": name, "groups": len(np.unique(groups[own]))}
        row |= {"patches": int(own.sum()), "sensitivity": shares[0]}
        rows.append(row | {"sensitivity_in_context": shares[1]})
    return rows
