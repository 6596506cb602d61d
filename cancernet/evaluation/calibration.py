"""Whether probabilities can be taken at their word, and the slope and intercept that mend them.

The published recipe weighs a malignant patch more than a benign one, so probabilities are too high
on the whole. A logistic regression on their logits, fitted on validation, takes that back (J. Platt
1999, Advances in Large Margin Classifiers). The same fit on the patches that are scored is D. R.
Cox's check of calibration (1958, Biometrika 45): slope 1 and intercept 0 are perfect; a slope below
1 says that the probabilities are too extreme, an intercept below 0 that they are too high.

NumPy and scikit-learn, no TensorFlow.
"""

import warnings
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression

from cancernet.evaluation.evaluation import CLIP, Labels, Probabilities

# Equal-width bins of the expected calibration error, as in C. Guo et al. 2017 (ICML).
BINS = 15


@dataclass(frozen=True)
class Recalibration:
    """calibrated = sigmoid(slope * logit(probability) + intercept)."""

    slope: float
    intercept: float


def fit_line(labels: Labels, probabilities: Probabilities) -> Recalibration | None:
    """Fits the labels on the logits by logistic regression without a penalty.

    Args:
        labels: 0 benign, 1 malignant, shape (patches,).
        probabilities: Of class 1, in [0, 1], shape (patches,).

    Returns:
        None where there is no such line: one class alone, or one cut through the probabilities
        that parts the classes (as a constant probability does), or no convergence.
    """
    logits = _logits(probabilities)
    benign, malignant = logits[labels == 0], logits[labels == 1]
    if not len(benign) or not len(malignant) or not np.all(np.isfinite(logits)):
        return None
    if benign.max() <= malignant.min() or malignant.max() <= benign.min():
        return None  # The steeper, the better: the slope has no end.
    regression = LogisticRegression(C=np.inf, solver="newton-cholesky", tol=1e-8)
    with warnings.catch_warnings():
        warnings.simplefilter("error", ConvergenceWarning)
        try:
            regression.fit(logits[:, np.newaxis], labels)
        except ConvergenceWarning:
            return None
    return Recalibration(
        slope=float(regression.coef_[0, 0]), intercept=float(regression.intercept_[0])
    )


def fit_recalibration(labels: Labels, probabilities: Probabilities) -> Recalibration | None:
    """Fits the recalibration on validation.

    Args:
        labels: 0 benign, 1 malignant, shape (patches,).
        probabilities: Of class 1, in [0, 1], shape (patches,).

    Returns:
        None where `fit_line` finds no line, or one that does not rise: it would turn the order
        of the patches round.
    """
    line = fit_line(labels, probabilities)
    return line if line and line.slope > 0 else None


def recalibrate(
    probabilities: Probabilities, recalibration: Recalibration | None
) -> NDArray[np.float32]:
    """Applies a recalibration; without one the probabilities stay as they are.

    Args:
        probabilities: Of class 1, in [0, 1], shape (patches,).
        recalibration: Slope and intercept, or None.

    Returns:
        float32 in [0, 1], shape (patches,).
    """
    if recalibration is None:
        return np.asarray(probabilities, dtype=np.float32)
    line = recalibration.slope * _logits(probabilities) + recalibration.intercept
    return np.exp(-np.logaddexp(0, -line)).astype(np.float32)  # The sigmoid, without overflow.


def brier(labels: Labels, probabilities: Probabilities) -> float:
    """Mean squared difference of probability and label (G. W. Brier 1950, Mon. Weather Rev.)."""
    return float(np.mean(np.square(np.asarray(probabilities, dtype=np.float64) - labels)))


def bins(probabilities: Probabilities) -> NDArray[np.intp]:
    """Tells each probability's bin, 0 to BINS - 1; 1.0 belongs to the last."""
    return np.minimum((np.asarray(probabilities, np.float64) * BINS).astype(np.intp), BINS - 1)


def expected_calibration_error(labels: Labels, probabilities: Probabilities) -> float:
    """Mean over patches of |mean probability - share of malignant| of their bin.

    M. P. Naeini et al. 2015 (AAAI). On small sets it is too high: in a bin of few patches the
    share of malignant ones strays from the probability by chance alone.
    """
    excess = np.asarray(probabilities, np.float64) - labels
    sums = np.bincount(bins(probabilities), weights=excess, minlength=BINS)
    return float(np.abs(sums).sum() / len(labels))


def _logits(probabilities: Probabilities) -> NDArray[np.float64]:
    # The logits of 0 and of 1 would be infinite.
    clipped = np.clip(np.asarray(probabilities, np.float64), CLIP, 1 - CLIP)
    return np.log(clipped) - np.log1p(-clipped)
