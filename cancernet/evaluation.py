"""Figures from labels and probabilities. Class 1, malignant, is the positive class throughout.

NumPy and scikit-learn, no TensorFlow. A figure that is not defined, such as the sensitivity where
no patch is malignant, is None: never a silent 0.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn import metrics

Labels = NDArray[np.integer[Any]]
Probabilities = NDArray[np.floating[Any]]

# Keras' epsilon: probabilities nearer to 0 than this count as this in the loss.
CLIP = 1e-7


@dataclass(frozen=True)
class Confusion:
    """Patches by truth and by what they are called.

    Attributes:
        tn: True negatives: benign, called benign.
        fp: False positives: benign, called malignant.
        fn: False negatives: malignant, called benign.
        tp: True positives: malignant, called malignant.
    """

    tn: int
    fp: int
    fn: int
    tp: int

    @property
    def accuracy(self) -> float | None:
        """Share of all patches that are called right."""
        return _ratio(self.tn + self.tp, self.tn + self.fp + self.fn + self.tp)

    @property
    def sensitivity(self) -> float | None:
        """Share of the malignant patches that are called malignant."""
        return _ratio(self.tp, self.tp + self.fn)

    @property
    def specificity(self) -> float | None:
        """Share of the benign patches that are called benign."""
        return _ratio(self.tn, self.tn + self.fp)

    @property
    def ppv(self) -> float | None:
        """Positive predictive value: share of those called malignant that are."""
        return _ratio(self.tp, self.tp + self.fp)

    @property
    def npv(self) -> float | None:
        """Negative predictive value: share of those called benign that are."""
        return _ratio(self.tn, self.tn + self.fn)

    @property
    def balanced_accuracy(self) -> float | None:
        """Mean of sensitivity and specificity."""
        if self.sensitivity is None or self.specificity is None:
            return None
        return (self.sensitivity + self.specificity) / 2

    @property
    def f1(self) -> float | None:
        """Harmonic mean of sensitivity and positive predictive value."""
        return _ratio(2 * self.tp, 2 * self.tp + self.fp + self.fn)

    @property
    def mcc(self) -> float | None:
        """Matthews correlation coefficient (B. W. Matthews 1975, Biochim. Biophys. Acta 405)."""
        margins = (
            (self.tp + self.fp) * (self.tp + self.fn) * (self.tn + self.fp) * (self.tn + self.fn)
        )
        return _ratio(self.tp * self.tn - self.fp * self.fn, math.sqrt(margins))


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


def _ratio(part: float, whole: float) -> float | None:
    return part / whole if whole else None


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


def score(
    labels: Labels, probabilities: Probabilities, patients: Sequence[str]
) -> tuple[dict[str, Any], list[str]]:
    """Makes the figures of one split, under the names that metrics.json has.

    Args:
        labels: 0 benign, 1 malignant, shape (patches,).
        probabilities: Of class 1, in [0, 1], shape (patches,).
        patients: Each patch's patient.

    Returns:
        The figures, and a note on each that is not defined.
    """
    at_half = confusion(labels, probabilities, threshold=0.5)
    figures: dict[str, Any] = {
        "patients": len(set(patients)),
        "patches": len(labels),
        "prevalence": float(np.mean(labels == 1)),
        "at_0.5": {"threshold": 0.5, "confusion_matrix": asdict(at_half)}
        | {name: getattr(at_half, name) for name in FIGURES},
        "roc_auc": roc_auc(labels, probabilities),
        "average_precision": average_precision(labels, probabilities),
    }
    undefined = [name for name in FIGURES if figures["at_0.5"][name] is None]
    undefined += [name for name in ("roc_auc", "average_precision") if figures[name] is None]
    if not undefined:
        return figures, []
    outcomes = f"{at_half.tn} true and {at_half.fn} false negatives, "
    outcomes += f"{at_half.tp} true and {at_half.fp} false positives at 0.5"
    return figures, [f"{', '.join(undefined)}: not defined with {outcomes}"]
