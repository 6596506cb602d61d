"""How uncertain the figures are: the bootstrap over patients.

Patches of one patient are alike, so thousands of patches say little more than their few dozen
patients do. A resample therefore draws whole patients, with replacement, as many as there are
(C. A. Field & A. H. Welsh 2007, J. R. Stat. Soc. B 69); the interval is between the 2.5th and the
97.5th percentile of a figure over all resamples (B. Efron & R. J. Tibshirani 1993, chapter 13).

A resample is never laid out: it is how often each patient is drawn, and figures are sums over
patients, weighted by that.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cancernet.evaluation.calibration import BINS, bins
from cancernet.evaluation.evaluation import Confusion, Labels, Probabilities

Values = NDArray[np.float64]


@dataclass(frozen=True)
class Resamples:
    """Resamples of the patients of a split.

    Attributes:
        owner: Each patch's patient, counted from 0, shape (patches,).
        times: How often each patient is drawn, float64, shape (resamples, patients).
    """

    owner: NDArray[np.intp]
    times: Values

    def sums(
        self, kinds: NDArray[np.integer], values: Values | None = None, *, number: int
    ) -> Values:
        """Adds up the patches of each kind in each resample.

        Args:
            kinds: Each patch's kind, 0 to number - 1, shape (patches,).
            values: What a patch adds, shape (patches,); 1 where it is None.
            number: Of kinds.

        Returns:
            Shape (resamples, number).
        """
        patients = self.times.shape[1]
        cells = np.bincount(self.owner * number + kinds, values, minlength=patients * number)
        return self.times @ cells.reshape(patients, number)


def draw(patients: Sequence[str], *, resamples: int, seed: int) -> Resamples:
    """Draws the resamples: the same seed, the same ones, whatever the order of the patches."""
    names, owner = np.unique(np.asarray(patients), return_inverse=True)
    shares = np.full(len(names), 1 / len(names))
    times = np.random.default_rng(seed).multinomial(len(names), shares, size=resamples)
    return Resamples(owner, times.astype(np.float64))


def confusion(
    labels: Labels, probabilities: Probabilities, drawn: Resamples, *, threshold: float
) -> Confusion:
    """Counts the four outcomes in each resample: arrays of shape (resamples,)."""
    kinds = 2 * (labels == 1) + (probabilities >= threshold)
    tn, fp, fn, tp = drawn.sums(kinds, number=4).T
    return Confusion(tn=tn, fp=fp, fn=fn, tp=tp)


def mean(values: Values, drawn: Resamples) -> Values:
    """The mean over patches in each resample, shape (resamples,)."""
    one_kind = np.zeros(len(values), dtype=np.intp)
    sums = drawn.sums(one_kind, values, number=1) / drawn.sums(one_kind, number=1)
    return sums[:, 0]


def expected_calibration_error(
    labels: Labels, probabilities: Probabilities, drawn: Resamples
) -> Values:
    """The expected calibration error in each resample, shape (resamples,)."""
    kinds = bins(probabilities)
    excess = drawn.sums(kinds, np.asarray(probabilities, np.float64) - labels, number=BINS)
    return np.abs(excess).sum(axis=1) / drawn.sums(kinds, number=BINS).sum(axis=1)


def areas(labels: Labels, probabilities: Probabilities, drawn: Resamples) -> tuple[Values, Values]:
    """ROC AUC and average precision in each resample; NaN where a class is missing.

    Args:
        labels: 0 benign, 1 malignant, shape (patches,).
        probabilities: Of class 1, shape (patches,).
        drawn: The resamples.

    Returns:
        Two arrays of shape (resamples,).
    """
    order = np.argsort(-probabilities, kind="stable")
    ranked = probabilities[order]
    owner, malignant = drawn.owner[order], labels[order] == 1
    # Patches of one probability count at once: the curves have no corner between them.
    first = np.flatnonzero(np.append(True, ranked[1:] != ranked[:-1]))
    results = np.full((2, len(drawn.times)), np.nan)
    for number, times in enumerate(drawn.times):
        weights = times[owner]
        called = np.add.reduceat(weights, first)
        found = np.add.reduceat(weights * malignant, first)
        alarms = called - found
        positives, negatives = found.sum(), alarms.sum()
        if positives == 0 or negatives == 0:
            continue
        # A malignant patch wins against the benign ones below it and half of those beside it.
        below = negatives - np.cumsum(alarms) + alarms / 2
        precision = np.cumsum(found) / np.maximum(np.cumsum(called), 1)
        # Not `@`: for vectors its threads cost more than they save.
        results[0, number] = (found * below).sum() / (positives * negatives)
        results[1, number] = (found * precision).sum() / positives
    return results[0], results[1]


def interval(values: Values) -> list[float] | None:
    """The 95 % interval; resamples where the figure is not defined (NaN) are left out."""
    defined = values[np.isfinite(values)]
    return [float(end) for end in np.percentile(defined, (2.5, 97.5))] if len(defined) else None
