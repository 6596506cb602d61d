"""Figures from labels and probabilities. Class 1, malignant, is the positive class throughout.

NumPy and scikit-learn, no TensorFlow. A figure that is not defined, such as the sensitivity where
no patch is malignant, is None: never a silent 0.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn import metrics

Labels = NDArray[np.integer[Any]]
Probabilities = NDArray[np.floating[Any]]

# Keras' epsilon: probabilities nearer to 0 or 1 than this count as this in losses and logits.
CLIP = 1e-7


@dataclass(frozen=True)
class Confusion:
    """Patches by truth and by what they are called, and the figures that follow from that.

    Each count may also be an array, one number a resample or a threshold, say: then each figure
    is an array as well, with NaN instead of None where it is not defined.

    Attributes:
        tn: True negatives: benign, called benign.
        fp: False positives: benign, called malignant.
        fn: False negatives: malignant, called benign.
        tp: True positives: malignant, called malignant.
    """

    tn: Any
    fp: Any
    fn: Any
    tp: Any

    @property
    def accuracy(self) -> Any:
        """Share of all patches that are called right."""
        return _ratio(self.tn + self.tp, self.tn + self.fp + self.fn + self.tp)

    @property
    def sensitivity(self) -> Any:
        """Share of the malignant patches that are called malignant."""
        return _ratio(self.tp, self.tp + self.fn)

    @property
    def specificity(self) -> Any:
        """Share of the benign patches that are called benign."""
        return _ratio(self.tn, self.tn + self.fp)

    @property
    def ppv(self) -> Any:
        """Positive predictive value: share of those called malignant that are."""
        return _ratio(self.tp, self.tp + self.fp)

    @property
    def npv(self) -> Any:
        """Negative predictive value: share of those called benign that are."""
        return _ratio(self.tn, self.tn + self.fn)

    @property
    def balanced_accuracy(self) -> Any:
        """Mean of sensitivity and specificity."""
        if self.sensitivity is None or self.specificity is None:
            return None
        return (self.sensitivity + self.specificity) / 2

    @property
    def f1(self) -> Any:
        """Harmonic mean of sensitivity and positive predictive value."""
        return _ratio(2 * self.tp, 2 * self.tp + self.fp + self.fn)

    @property
    def mcc(self) -> Any:
        """Matthews correlation coefficient (B. W. Matthews 1975, Biochim. Biophys. Acta 405)."""
        margins = (
            (self.tp + self.fp) * (self.tp + self.fn) * (self.tn + self.fp) * (self.tn + self.fn)
        )
        return _ratio(self.tp * self.tn - self.fp * self.fn, margins**0.5)


FIGURES = (
    "accuracy",
    "sensitivity",
    "specificity",
    "ppv",
    "npv",
    "balanced_accuracy",
    "f1",
    "mcc",
)

# Those to choose a threshold by: each falls when all patches are called malignant, or none.
MEASURES = ("accuracy", "balanced_accuracy", "f1", "mcc")


def _ratio(part: Any, whole: Any) -> Any:
    if isinstance(whole, np.ndarray):
        return np.divide(part, whole, out=np.full(whole.shape, np.nan), where=whole != 0)
    return part / whole if whole else None


def shortest(probability: float | np.floating[Any]) -> str:
    """Writes a probability in the shortest form that reads back as the same float32."""
    return str(np.float32(probability))


def confusion(labels: Labels, probabilities: Probabilities, *, threshold: float) -> Confusion:
    """Counts the four outcomes.

    Args:
        labels: 0 benign, 1 malignant, shape (patches,).
        probabilities: Of class 1, in [0, 1], shape (patches,).
        threshold: A patch is called malignant where its probability is at least this.
    """
    malignant = labels == 1
    called = probabilities >= threshold
    return Confusion(
        tn=int(np.sum(~malignant & ~called)),
        fp=int(np.sum(~malignant & called)),
        fn=int(np.sum(malignant & ~called)),
        tp=int(np.sum(malignant & called)),
    )


def choose_threshold(labels: Labels, probabilities: Probabilities, *, measure: str) -> float | None:
    """Chooses the threshold with the highest measure, to be used on patches not seen here.

    Every cut between two neighbouring probabilities is tried, and the one below all of them. The
    threshold lies halfway between the neighbours, and is a float32 as the probabilities are, so
    that rounding cannot move it past one of them. Of cuts as good as each other it is the one
    nearest to 0.5, and of two as near the lower.

    Args:
        labels: 0 benign, 1 malignant, shape (patches,).
        probabilities: Of class 1, float32 in [0, 1], shape (patches,).
        measure: One of MEASURES.

    Returns:
        None where there is nothing to choose by: a class is missing, or all probabilities are the
        same.
    """
    upper, place = np.unique(np.asarray(probabilities, np.float32), return_inverse=True)
    if not _rankable(labels, probabilities) or len(upper) < 2:
        return None
    tp = np.cumsum(np.bincount(place, labels == 1)[::-1])[::-1]  # Called: this value and above.
    fp = np.cumsum(np.bincount(place, labels == 0)[::-1])[::-1]
    values = getattr(Confusion(tn=fp[0] - fp, fp=fp, fn=tp[0] - tp, tp=tp), measure)
    lower = np.concatenate([[0], upper[:-1]])
    halfway = ((lower + upper) / 2).astype(np.float32)
    thresholds = np.where(halfway > lower, halfway, upper)
    best = thresholds[values >= np.nanmax(values) - 1e-12]  # Equal but for rounding is equal.
    return float(best[np.argmin(np.abs(best - np.float32(0.5)))])


def roc_auc(labels: Labels, probabilities: Probabilities) -> float | None:
    """Area under the receiver operating characteristic; None unless both classes are there."""
    if not _rankable(labels, probabilities):
        return None
    return float(metrics.roc_auc_score(labels, probabilities))


def average_precision(labels: Labels, probabilities: Probabilities) -> float | None:
    """Area under the precision-recall curve, as a step sum; None unless both classes are there."""
    if not _rankable(labels, probabilities):
        return None
    return float(metrics.average_precision_score(labels, probabilities))


def _rankable(labels: Labels, probabilities: Probabilities) -> bool:
    return len(np.unique(labels)) == 2 and bool(np.all(np.isfinite(probabilities)))


def cross_entropy(labels: Labels, probabilities: Probabilities) -> float:
    """Mean of -log(probability of the true class), in nats: the loss without class weights."""
    of_true_class = np.where(labels == 1, probabilities, 1 - probabilities)
    return float(-np.log(np.maximum(of_true_class, CLIP)).mean())


def per_patient(
    labels: Labels, probabilities: Probabilities, patients: Sequence[str], *, threshold: float
) -> list[dict[str, Any]]:
    """Lists the patients, the worst first.

    Worst is the lowest balanced accuracy at the threshold, or, where a patient has patches of one
    class alone, the lowest of the one figure that is defined; then the more patches.

    Args:
        labels: 0 benign, 1 malignant, shape (patches,).
        probabilities: Of class 1, shape (patches,).
        patients: Each patch's patient.
        threshold: For sensitivity and specificity.
    """
    rows = []
    names, owner = np.unique(np.asarray(patients), return_inverse=True)
    for number, patient in enumerate(names):
        own = owner == number
        counts = confusion(labels[own], probabilities[own], threshold=threshold)
        row = {
            "patient": str(patient),
            "patches": int(own.sum()),
            "prevalence": float(np.mean(labels[own] == 1)),
            "sensitivity": counts.sensitivity,
            "specificity": counts.specificity,
            "roc_auc": roc_auc(labels[own], probabilities[own]),
        }
        defined = [rate for rate in (counts.sensitivity, counts.specificity) if rate is not None]
        rows.append((sum(defined) / len(defined), -row["patches"], row))
    return [row for _, _, row in sorted(rows, key=lambda item: item[:2])]
