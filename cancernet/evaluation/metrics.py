"""Metrics from labels and probabilities, and their bootstrap over patients.

Class 1, malignant, is the positive class. Labels are 0 or 1, probabilities are of class 1, both of
shape (patches,). Without `Weights` a metric is a number, or None where it is not defined, as the
sensitivity is where no patch is malignant; with them it is an array of shape (resamples,), NaN
where it is not defined: the bootstrap computes it by the same lines.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Labels = NDArray[np.integer[Any]]
Probabilities = NDArray[np.floating[Any]]
Values = NDArray[np.float64]

# Keras' epsilon: probabilities nearer to 0 or 1 than this count as this in losses and logits.
CLIP = 1e-7

# Equal-width bins of the expected calibration error, as in C. Guo et al. 2017 (ICML).
BINS = 15

# Of a confusion matrix.
METRICS = ("accuracy", "sensitivity", "specificity", "ppv", "npv", "balanced_accuracy", "f1", "mcc")

# Those to choose a threshold by: each falls when all patches are predicted malignant, or none.
MEASURES = ("accuracy", "balanced_accuracy", "f1", "mcc")


@dataclass(frozen=True)
class Weights:
    """How much each patch counts in each of some resamples, which are never laid out."""

    owner: NDArray[np.intp]  # Each patch's patient, counted from 0, shape (patches,).
    times: Values  # How often each patient is drawn, shape (resamples, patients).


@dataclass(frozen=True)
class Confusion:
    """Patches by truth and prediction: true negatives, false positives, and so on.

    Each count may also be an array, one number per resample or threshold; so are the rates then.
    """

    tn: Any
    fp: Any
    fn: Any
    tp: Any

    def rates(self) -> dict[str, Any]:
        """Computes the metrics that METRICS names."""
        tn, fp, fn, tp = self.tn, self.fp, self.fn, self.tp
        sensitivity, specificity = _ratio(tp, tp + fn), _ratio(tn, tn + fp)
        one_class = sensitivity is None or specificity is None
        margins = (tp + fp) * (tp + fn) * (tn + fp) * (tn + fn)
        return {
            "accuracy": _ratio(tn + tp, tn + fp + fn + tp),
            "sensitivity": sensitivity,  # Share of the malignant patches that are predicted so.
            "specificity": specificity,  # Share of the benign patches that are predicted so.
            "ppv": _ratio(tp, tp + fp),  # Share of those predicted malignant that are.
            "npv": _ratio(tn, tn + fn),  # Share of those predicted benign that are.
            "balanced_accuracy": None if one_class else (sensitivity + specificity) / 2,
            "f1": _ratio(2 * tp, 2 * tp + fp + fn),  # Harmonic mean of sensitivity and PPV.
            # Matthews correlation (B. W. Matthews 1975, Biochim. Biophys. Acta 405).
            "mcc": _ratio(tp * tn - fp * fn, margins**0.5),
        }


def _ratio(part: Any, whole: Any) -> Any:
    if isinstance(whole, np.ndarray):
        return np.divide(part, whole, out=np.full(whole.shape, np.nan), where=whole != 0)
    return float(part / whole) if whole else None


def confusion(
    labels: Labels,
    probabilities: Probabilities,
    *,
    threshold: float,
    weights: Weights | None = None,
) -> Confusion:
    """Counts the four outcomes; a patch of at least the threshold is predicted malignant."""
    kinds = 2 * (labels == 1) + (probabilities >= threshold)
    counts = _sums(kinds, None, weights, 4)
    return Confusion(*(counts.tolist() if weights is None else counts.T))


def rank(
    labels: Labels, probabilities: Probabilities, weights: Weights | None = None
) -> Iterator[tuple[Probabilities, Values, Values]]:
    """Yields each resample's probabilities, high to low, and their malignant and benign patches."""
    order = np.argsort(-probabilities, kind="stable")
    ranked, malignant = probabilities[order], labels[order] == 1
    # Patches of one probability count at once: the curves have no corner between them.
    first = np.flatnonzero(np.append(True, ranked[1:] != ranked[:-1]))
    owner = order if weights is None else weights.owner[order]
    for times in np.ones((1, len(labels))) if weights is None else weights.times:
        drawn = times[owner]
        found = np.add.reduceat(drawn * malignant, first)
        yield ranked[first], found, np.add.reduceat(drawn, first) - found


def areas(
    labels: Labels, probabilities: Probabilities, weights: Weights | None = None
) -> tuple[Any, Any]:
    """Computes ROC AUC and average precision; neither is defined unless both classes are there."""
    if weights is None and not rankable(labels, probabilities):
        return None, None
    found = []
    for _, malignant, benign in rank(labels, probabilities, weights):
        tp, fp = np.cumsum(malignant), np.cumsum(benign)
        # A malignant patch wins against the benign ones below it and half of those beside it.
        wins = (malignant * (fp[-1] - fp + benign / 2)).sum()
        # Nothing is predicted malignant where nothing of the highest probabilities is drawn.
        precision = tp / np.maximum(tp + fp, np.finfo(float).tiny)
        steps = (malignant * precision).sum()
        found.append((_ratio(wins, tp[-1] * fp[-1]), _ratio(steps, tp[-1] * (fp[-1] > 0))))
    return found[0] if weights is None else tuple(np.array(found, np.float64).T)  # None is NaN.


def roc_auc(labels: Labels, probabilities: Probabilities, weights: Weights | None = None) -> Any:
    """Area under the receiver operating characteristic."""
    return areas(labels, probabilities, weights)[0]


def rankable(labels: Labels, probabilities: Probabilities) -> bool:
    """Tells whether both classes are there, and no probability is NaN or infinite."""
    return len(np.unique(labels)) == 2 and bool(np.all(np.isfinite(probabilities)))


def brier(labels: Labels, probabilities: Probabilities, weights: Weights | None = None) -> Any:
    """Mean squared difference of probability and label (G. W. Brier 1950, Mon. Weather Rev.)."""
    squares = np.square(np.asarray(probabilities, np.float64) - labels)
    if weights is None:
        return float(squares.mean())
    alike = np.zeros(len(squares), dtype=np.intp)
    return (_sums(alike, squares, weights, 1) / _sums(alike, None, weights, 1))[:, 0]


def cross_entropy(labels: Labels, probabilities: Probabilities) -> float:
    """Mean of -log(probability of the true class), in nats: the loss without class weights."""
    of_true_class = np.where(labels == 1, probabilities, 1 - probabilities)
    return float(-np.log(np.maximum(of_true_class, CLIP)).mean())


def expected_calibration_error(
    labels: Labels, probabilities: Probabilities, weights: Weights | None = None
) -> Any:
    """Mean over patches of |mean probability - share of malignant| of their bin.

    M. P. Naeini et al. 2015 (AAAI). Chance alone makes it too high where a bin has few patches.
    """
    exact = np.asarray(probabilities, np.float64)
    bins = np.minimum((exact * BINS).astype(np.intp), BINS - 1)  # 1.0 belongs to the last.
    sums = _sums(bins, exact - labels, weights, BINS)
    return np.abs(sums).sum(axis=-1) / _sums(bins, None, weights, BINS).sum(axis=-1)


def _sums(
    kinds: NDArray[np.integer[Any]], values: Values | None, weights: Weights | None, number: int
) -> NDArray[Any]:
    """Adds up values (1 where None) by kind: (resamples, number), or (number,) without weights."""
    if weights is None:
        return np.bincount(kinds, values, minlength=number)
    patients = weights.times.shape[1]
    cells = np.bincount(weights.owner * number + kinds, values, minlength=patients * number)
    return weights.times @ cells.reshape(patients, number)


def draw(patients: Sequence[str], *, resamples: int, seed: int) -> Weights:
    """Draws the resamples of the bootstrap: whole patients, with replacement, as many as there are.

    Patches of one patient are alike, so thousands of them say little more than a few dozen patients
    do (C. A. Field & A. H. Welsh 2007, J. R. Stat. Soc. B 69). The order of the patches does not
    matter.
    """
    names, owner = np.unique(np.asarray(patients), return_inverse=True)
    alike = np.full(len(names), 1 / len(names))
    times = np.random.default_rng(seed).multinomial(len(names), alike, size=resamples)
    return Weights(owner, times.astype(np.float64))


def interval(values: Values) -> list[float] | None:
    """Gives the 2.5th and 97.5th percentile of a metric's values in the resamples.

    B. Efron & R. J. Tibshirani 1993, chapter 13. Resamples where the metric is not defined are left
    out; None where it is so in none.
    """
    defined = values[np.isfinite(values)]
    return [float(end) for end in np.percentile(defined, (2.5, 97.5))] if len(defined) else None


def per_patient(
    labels: Labels, probabilities: Probabilities, patients: Sequence[str], *, threshold: float
) -> list[dict[str, Any]]:
    """Lists the patients, the worst first: lowest balanced accuracy at the threshold, then size.

    Where a patient has patches of one class alone, the one metric that is defined takes its place.
    """
    rows, owner = [], np.asarray(patients)
    for patient in sorted(set(patients)):
        own = owner == patient
        rates = confusion(labels[own], probabilities[own], threshold=threshold).rates()
        row = {
            "patient": patient,
            "patches": int(own.sum()),
            "prevalence": float(np.mean(labels[own] == 1)),
            **{name: rates[name] for name in ("sensitivity", "specificity")},
            "roc_auc": roc_auc(labels[own], probabilities[own]),
        }
        defined = np.array([row["sensitivity"], row["specificity"]], np.float64)  # None is NaN.
        rows.append((np.nanmean(defined), -row["patches"], row))
    return [row for *_, row in sorted(rows, key=lambda item: item[:2])]


def shortest(probability: float | np.floating[Any]) -> str:
    """Writes a probability in the shortest form that gives the same float32; NaN is empty."""
    return "" if np.isnan(probability) else str(np.float32(probability))
