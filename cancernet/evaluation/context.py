"""The probability of class 1 in the light of a patch's neighbours on its slide.

Tumours do not come patch by patch. So the logits of a patch and of those around it are averaged,
nearer ones weighing more, and the mean becomes a probability again by logistic recalibration, which
is fitted on validation together with a threshold of its own. These are three numbers, which leave
the ranking as it is, so that even a single validation slide can give them. Labels take no part but
in that fit. A neighbour that is missing (glass, or no part of the data set) counts for nothing.
Averaging smooths away foci of a few patches: `foci` shows by how much.
"""

from collections.abc import Iterator, Sequence
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
SIZES = {"1": (1, 1), "2-4": (2, 4), "5-16": (5, 16), "more": (17, None)}


@dataclass(frozen=True)
class Grid:
    """Which slide each patch lies on, and where.

    Attributes:
        slides: Each patch's slide, counted from 0; -1 where it has no place. Shape (patches,).
        cells: Its column and row, in steps of a patch, shape (patches, 2).
    """

    slides: NDArray[np.int64]
    cells: NDArray[np.int64]

    @classmethod
    def of(
        cls, slides: Sequence[str], x: Sequence[int | None], y: Sequence[int | None], step: int
    ) -> "Grid":
        """Makes the grid of patches from their slides' names and left and upper edges.

        Args:
            slides: Each patch's slide, or the patient where every patient has one slide.
            x: Left edges, None where unknown.
            y: Upper edges, likewise.
            step: From one patch to the next, in the unit of x and y.
        """
        numbers = np.unique(np.asarray(slides, dtype=str), return_inverse=True)[1]
        cells = np.zeros((len(numbers), 2), np.int64)
        for index, (left, upper) in enumerate(zip(x, y, strict=True)):
            # Names tell numbers of any size.
            if left is None or upper is None or max(abs(left), abs(upper)) >= FARTHEST * step:
                numbers[index] = -1
            else:
                cells[index] = left // step, upper // step
        return cls(numbers, cells)

    @classmethod
    def of_split(cls, split: Split) -> "Grid":
        """Makes the grid of a split's patches: every patient has one slide."""
        x, y = [row.x for row in split.rows], [row.y for row in split.rows]
        return cls.of(split.patients, x, y, PATCH_SIDE)

    def neighbours(self, reach: int) -> Iterator[tuple[float, NDArray[np.intp]]]:
        """Yields, for each place around a patch, its distance and who is there, -1 where nobody.

        Args:
            reach: How far to look to each side, in patches. The patch itself is left out.
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
        pairs = [
            (here, there[here])
            for _, there in self.neighbours(1)
            for here in [np.flatnonzero(members & (there >= 0) & members[there])]
        ]
        ends = np.concatenate([np.stack(pair) for pair in pairs], axis=1)
        graph = coo_array((np.ones(ends.shape[1]), tuple(ends)), shape=(len(members),) * 2)
        return np.where(members, connected_components(graph, directed=False)[1], -1)


@dataclass(frozen=True)
class Context:
    """What turns the logits around a patch into a probability.

    Attributes:
        width: Standard deviation of the Gaussian kernel, in patches.
        reach: How far it reaches to each side, in patches.
        slope: in_context = sigmoid(slope * mean logit + intercept).
        intercept: Likewise.
        threshold: From it on a patch is predicted malignant in context.
        patches: Those of validation, with neighbours, that this was fitted on.
        patients: Their patients.
    """

    width: float
    reach: int
    slope: float
    intercept: float
    threshold: float
    patches: int
    patients: int

    def apply(self, grid: Grid, probabilities: Probabilities) -> NDArray[np.float32]:
        """Gives the probabilities of class 1 in context, float32; NaN where nobody is around.

        Args:
            grid: Where the patches lie.
            probabilities: Of class 1, in [0, 1], shape (patches,).
        """
        mean = average(grid, probabilities, width=self.width, reach=self.reach)
        return recalibrate(mean, Recalibration(self.slope, self.intercept))


def average(grid: Grid, probabilities: Probabilities, *, width: float, reach: int) -> Probabilities:
    """Averages the logits around each patch by a Gaussian kernel.

    Returns:
        The probabilities of these means, float64; NaN where nobody is around.
    """
    logits = to_logits(probabilities)
    total, weights = logits.copy(), np.ones(len(logits))
    for distance, there in grid.neighbours(reach):
        weight = np.where(there >= 0, np.exp(-0.5 * (distance / width) ** 2), 0)
        total += weight * logits[there]
        weights += weight
    return np.where(weights > 1, 1 / (1 + np.exp(-total / weights)), np.nan)


def fit(
    grid: Grid,
    labels: Labels,
    probabilities: Probabilities,
    patients: Sequence[str],
    *,
    measure: str,
) -> tuple[Context | None, list[str]]:
    """Fits line and threshold on the validation patches that have neighbours.

    Args:
        grid: Where the patches lie.
        labels: 0 benign, 1 malignant, shape (patches,).
        probabilities: Of class 1, in [0, 1], shape (patches,).
        patients: Each patch's patient.
        measure: What the threshold maximises, one of `metrics.MEASURES`.

    Returns:
        What was fitted, or None and a note on why it was not.
    """
    mean = average(grid, probabilities, width=WIDTH, reach=REACH)
    there = ~np.isnan(mean)
    benign, malignant = (int(np.sum(labels[there] == label)) for label in (0, 1))
    if min(benign, malignant) < FEWEST:
        return None, [
            f"no probabilities in context: their fit takes {FEWEST} validation patches of each "
            f"class that have neighbours on their slide, found {benign} benign and {malignant} "
            "malignant"
        ]
    line = fit_line(labels[there], mean[there])
    if line is None or line.slope <= 0 or np.std(to_logits(mean[there])) < LEAST_SPREAD:
        return None, ["no probabilities in context: on validation they hardly tell the classes"]
    in_context = recalibrate(mean[there], line)
    threshold = choose_threshold(labels[there], in_context, measure=measure)
    among = len(set(np.asarray(patients)[there]))
    number = len(in_context)
    return Context(WIDTH, REACH, line.slope, line.intercept, threshold or 0.5, number, among), []


def decide(
    validation: Split, probabilities: Probabilities, *, measure: str
) -> tuple[Decision, list[str]]:
    """Fits all that is fitted on validation: `fit_decision` of the patches alone, and `fit`."""
    labels, patients = validation.labels, validation.patients
    alone, notes = fit_decision(labels, probabilities, measure=measure)
    grid = Grid.of_split(validation)
    context, more = fit(grid, labels, probabilities, patients, measure=measure)
    return replace(alone, context=context), notes + more


@dataclass(frozen=True)
class Scores:
    """The probabilities of class 1 of a split's patches, float32, each of shape (patches,).

    Attributes:
        raw: The network's own.
        calibrated: The same after recalibration.
        in_context: NaN where no context was fitted, or nobody is around.
    """

    raw: NDArray[np.float32]
    calibrated: NDArray[np.float32]
    in_context: NDArray[np.float32]

    @classmethod
    def of(cls, split: Split, probabilities: Probabilities, decision: Decision) -> "Scores":
        """Makes them of the network's probabilities, by what was fitted on validation."""
        in_context = np.full(len(split), np.nan, np.float32)
        if decision.context:
            in_context = decision.context.apply(Grid.of_split(split), probabilities)
        raw, calibrated = (
            recalibrate(probabilities, line) for line in (None, decision.recalibration)
        )
        return cls(raw, calibrated, in_context)


def foci(
    grid: Grid, labels: Labels, alone: NDArray[np.bool_], in_context: NDArray[np.bool_]
) -> list[dict[str, Any]]:
    """Counts what is found of the connected groups of malignant patches, by the group's size.

    Args:
        grid: Where the patches lie; only those with a place belong to a group.
        labels: 0 benign, 1 malignant, shape (patches,).
        alone: Whether each patch is predicted malignant by itself.
        in_context: Whether it is so in context.

    Returns:
        A mapping per size: the number of groups and patches, and the share of these patches that is
        found, "sensitivity" alone and "sensitivity_in_context"; None where there are none.
    """
    groups = grid.groups((labels == 1) & (grid.slides >= 0))
    sizes = np.bincount(groups[groups >= 0], minlength=1)[np.maximum(groups, 0)]
    rows = []
    for name, (fewest, most) in SIZES.items():
        own = (groups >= 0) & (sizes >= fewest) & (sizes <= (most or np.inf))
        some = bool(own.any())
        rows.append(
            {
                "patches_per_group": name,
                "groups": len(np.unique(groups[own])),
                "patches": int(own.sum()),
                "sensitivity": float(alone[own].mean()) if some else None,
                "sensitivity_in_context": float(in_context[own].mean()) if some else None,
            }
        )
    return rows
