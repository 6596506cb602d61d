"""What is fitted on validation alone: the threshold, and logistic recalibration.

The published recipe weighs a malignant patch more than a benign one, so probabilities are too high
on the whole. A logistic regression on their logits, fitted on validation, takes that back (J. Platt
1999, Advances in Large Margin Classifiers). The same fit on the patches that are scored is D. R.
Cox's check of calibration (1958, Biometrika 45): slope 1 and intercept 0 are perfect; a slope below
1 says that the probabilities are too extreme, an intercept below 0 that they are too high.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression

from cancernet.evaluation.metrics import CLIP, Confusion, Labels, Probabilities, rank, rankable

if TYPE_CHECKING:  # It is fitted by what is here.
    from cancernet.evaluation.context import Context

NO_LINE = "no line can be fitted where a class is missing or one cut parts the classes"


@dataclass(frozen=True)
class Recalibration:
    """calibrated = sigmoid(slope * logit(probability) + intercept)."""

    slope: float
    intercept: float


@dataclass(frozen=True)
class Decision:
    """What is chosen on validation alone and used on every other patch."""

    threshold: float
    recalibration: Recalibration | None
    context: Context | None = None


def fit_decision(
    labels: Labels, probabilities: Probabilities, *, measure: str
) -> tuple[Decision, list[str]]:
    """Fits threshold and recalibration on validation; notes say what could not be fitted."""
    notes = []
    threshold = choose_threshold(labels, probabilities, measure=measure)
    if threshold is None:
        notes.append(
            "the threshold stays 0.5: a class is missing or all probabilities are the same, so "
            f"there is no highest {measure}"
        )
    line = fit_line(labels, probabilities)
    if line is None or line.slope <= 0:  # It would turn the order of the patches round.
        reason = f"the slope, {line.slope:.3f}, is not above 0" if line else NO_LINE
        notes.append(f"probabilities are not recalibrated: {reason}")
        line = None
    return Decision(0.5 if threshold is None else threshold, line), notes


def choose_threshold(labels: Labels, probabilities: Probabilities, *, measure: str) -> float | None:
    """Chooses the threshold with the highest measure, one of `metrics.MEASURES`.

    It lies halfway between neighbouring probabilities, a float32 as they are, so that rounding
    cannot move it past one of them; of equally good cuts it is the one nearest to 0.5. None where
    a class is missing, or all probabilities are the same.
    """
    if not rankable(labels, probabilities) or np.ptp(probabilities) == 0:
        return None
    ((ranked, malignant, benign),) = rank(labels, np.asarray(probabilities, np.float32))
    upper, tp, fp = ranked[::-1], np.cumsum(malignant)[::-1], np.cumsum(benign)[::-1]
    values = Confusion(tn=fp[0] - fp, fp=fp, fn=tp[0] - tp, tp=tp).rates()[measure]
    lower = np.concatenate([[0], upper[:-1]])
    halfway = ((lower + upper) / 2).astype(np.float32)
    thresholds = np.where(halfway > lower, halfway, upper)
    best = thresholds[values >= np.nanmax(values) - 1e-12]  # Equal but for rounding is equal.
    return float(best[np.argmin(np.abs(best - np.float32(0.5)))])


def fit_line(labels: Labels, probabilities: Probabilities) -> Recalibration | None:
    """Fits the labels on the logits by logistic regression without a penalty.

    None where there is no such line: one class alone, one cut through the probabilities that parts
    the classes (as a constant probability does), or no convergence.
    """
    logits = to_logits(probabilities)
    benign, malignant = logits[labels == 0], logits[labels == 1]
    if not rankable(labels, logits):
        return None
    if benign.max() <= malignant.min() or malignant.max() <= benign.min():
        return None  # The steeper, the better: the slope has no end.
    regression = LogisticRegression(C=np.inf, solver="newton-cholesky", tol=1e-8)
    try:
        with warnings.catch_warnings(action="error", category=ConvergenceWarning):
            regression.fit(logits[:, np.newaxis], labels)
    except ConvergenceWarning:
        return None
    return Recalibration(float(regression.coef_[0, 0]), float(regression.intercept_[0]))


def cox_line(labels: Labels, probabilities: Probabilities) -> Recalibration | None:
    """Fits the line that checks calibration; None where it is not known well enough to tell one.

    Slope 1 is perfect. With a standard error above 1 even 0 and 2 are hardly told apart, and where
    the classes are nearly parted, or all probabilities nearly the same, the slope may be anything.
    """
    line = fit_line(labels, probabilities)
    if line is None:
        return None
    logits = to_logits(probabilities)
    fitted = expit(line.slope * logits + line.intercept)
    weights = fitted * (1 - fitted) + np.finfo(float).tiny  # The variance of each label.
    information = weights @ (logits - np.average(logits, weights=weights)) ** 2
    return line if information >= 1 else None  # It is one by the slope's variance.


def recalibrate(
    probabilities: Probabilities, recalibration: Recalibration | None
) -> NDArray[np.float32]:
    """Applies a recalibration to probabilities in [0, 1]; None leaves them as they are. float32."""
    if recalibration is None:
        return np.asarray(probabilities, dtype=np.float32)
    line = recalibration.slope * to_logits(probabilities) + recalibration.intercept
    with np.errstate(invalid="ignore"):  # NaN stays NaN.
        return np.exp(-np.logaddexp(0, -line)).astype(np.float32)  # The sigmoid, without overflow.


def to_logits(probabilities: Probabilities) -> NDArray[np.float64]:
    """Turns probabilities in [0, 1] into logits, finite ones."""
    # The logits of 0 and of 1 would be infinite.
    clipped = np.clip(np.asarray(probabilities, np.float64), CLIP, 1 - CLIP)
    return np.log(clipped) - np.log1p(-clipped)
