"""All figures of one split, under the names that metrics.json has, with their uncertainty."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from cancernet.cli import InputError
from cancernet.evaluation import bootstrap, calibration, evaluation
from cancernet.evaluation.calibration import BINS, Recalibration
from cancernet.evaluation.evaluation import Confusion, Labels, Probabilities

# With fewer the percentiles are those of a handful of patients, and far too narrow.
FEWEST_PATIENTS = 10

# A hundred patches a bin: chance alone still makes an error of some 0.03 of them.
FEWEST_PATCHES = 100 * BINS

# More resamples than this share without a figure are worth a note.
FEW = 0.05

NO_LINE = "no line can be fitted where a class is missing or one cut parts the classes"


@dataclass(frozen=True)
class Fitted:
    """What is chosen on validation alone and used on every other patch.

    Attributes:
        threshold: A patch is called malignant where its probability is at least this.
        recalibration: What makes `calibrated` of a probability; None changes nothing.
    """

    threshold: float
    recalibration: Recalibration | None


def check_settings(*, measure: str, resamples: int) -> None:
    """Refuses settings that the figures cannot be made with.

    Raises:
        InputError: Naming the constant to change.
    """
    problem = None
    if measure not in evaluation.MEASURES:
        problem = f"THRESHOLD_MEASURE is {measure!r}: expected {' or '.join(evaluation.MEASURES)}"
    elif not isinstance(resamples, int) or not 100 <= resamples <= 100_000:
        problem = f"RESAMPLES is {resamples!r}: expected a whole number from 100 to 100,000"
    if problem:
        raise InputError(f"{problem}. Change it in cancernet/config.py.")


def fit(
    labels: Labels | Sequence[int], probabilities: Probabilities, *, measure: str
) -> tuple[Fitted, list[str]]:
    """Chooses threshold and recalibration on the validation split.

    Args:
        labels: 0 benign, 1 malignant, shape (patches,).
        probabilities: Of class 1, float32 in [0, 1], shape (patches,).
        measure: What the threshold maximises, one of `evaluation.MEASURES`.

    Returns:
        Both, and a note on each that could not be fitted: the threshold is 0.5 then.
    """
    labels = np.asarray(labels)
    notes = []
    threshold = evaluation.choose_threshold(labels, probabilities, measure=measure)
    if threshold is None:
        notes.append(
            "the threshold stays 0.5: a class is missing or all probabilities are the same, so "
            f"there is no highest {measure}"
        )
        threshold = 0.5
    recalibration = calibration.fit_recalibration(labels, probabilities)
    if recalibration is None:
        line = calibration.fit_line(labels, probabilities)
        reason = f"the slope, {line.slope:.3f}, is not above 0" if line else NO_LINE
        notes.append(f"probabilities are not recalibrated: {reason}")
    return Fitted(threshold, recalibration), notes


def score(
    labels: Labels,
    probabilities: Probabilities,
    patients: Sequence[str],
    *,
    fitted: Fitted,
    resamples: int,
    seed: int,
) -> tuple[dict[str, Any], list[str]]:
    """Makes the figures of one split.

    Args:
        labels: 0 benign, 1 malignant, shape (patches,).
        probabilities: Of class 1, float32 in [0, 1], shape (patches,).
        patients: Each patch's patient.
        fitted: What `fit` chose on validation.
        resamples: Of the patients, for the intervals.
        seed: Fixes the resamples.

    Returns:
        The figures, and a note on what is not defined or must be read with caution.
    """
    calibrated = calibration.recalibrate(probabilities, fitted.recalibration)
    thresholds = {"at_0.5": 0.5, "at_validation_threshold": fitted.threshold}
    counts = {
        name: evaluation.confusion(labels, probabilities, threshold=threshold)
        for name, threshold in thresholds.items()
    }
    figures: dict[str, Any] = {
        "patients": len(set(patients)),
        "patches": len(labels),
        "prevalence": float(np.mean(labels == 1)),
        **{name: _at(counts[name], threshold) for name, threshold in thresholds.items()},
        "roc_auc": evaluation.roc_auc(labels, probabilities),
        "average_precision": evaluation.average_precision(labels, probabilities),
        "brier": calibration.brier(labels, probabilities),
        "calibration": {
            "raw": _calibration(labels, probabilities),
            "recalibrated": _calibration(labels, calibrated),
        },
    }
    notes = list(_undefined(figures, counts))
    if figures["patients"] < FEWEST_PATIENTS or figures["patches"] < FEWEST_PATCHES:
        notes.append(
            "chance alone makes the expected calibration error too high with few patches "
            f"({figures['patches']:,}) or patients ({figures['patients']})"
        )
    if figures["patients"] < FEWEST_PATIENTS:
        figures["ci95"] = None
        notes.append(
            f"no intervals (ci95): they take {FEWEST_PATIENTS} patients, "
            f"found {figures['patients']}"
        )
    else:
        drawn = bootstrap.draw(patients, resamples=resamples, seed=seed)
        samples = _samples(labels, probabilities, calibrated, drawn, thresholds)
        figures["ci95"] = _intervals(samples)
        if left_out := ", ".join(_left_out(samples)):
            notes.append(f"ci95 leaves out resamples where a figure is not defined: {left_out}")
    figures["per_patient"] = evaluation.per_patient(
        labels, probabilities, patients, threshold=fitted.threshold
    )
    if single := sum(row["roc_auc"] is None for row in figures["per_patient"]):
        notes.append(
            "per_patient is null where a patient has patches of one class alone, as "
            f"{single} of {figures['patients']} have"
        )
    return figures, notes


def _at(counts: Confusion, threshold: float) -> dict[str, Any]:
    return {"threshold": threshold, "confusion_matrix": asdict(counts)} | {
        name: getattr(counts, name) for name in evaluation.FIGURES
    }


def _calibration(labels: Labels, probabilities: Probabilities) -> dict[str, float | None]:
    line = calibration.fit_line(labels, probabilities)
    return {
        "brier": calibration.brier(labels, probabilities),
        "ece": calibration.expected_calibration_error(labels, probabilities),
        "slope": line.slope if line else None,
        "intercept": line.intercept if line else None,
    }


def _undefined(figures: Mapping[str, Any], counts: Mapping[str, Confusion]) -> Iterator[str]:
    """Says of each figure that is None why it is."""
    for name, at in counts.items():
        missing = [figure for figure in evaluation.FIGURES if figures[name][figure] is None]
        if missing:
            yield (
                f"{', '.join(missing)} {name.replace('_', ' ')}: not defined with {at.tn} true and "
                f"{at.fn} false negatives, {at.tp} true and {at.fp} false positives"
            )
    if figures["roc_auc"] is None:
        yield "roc_auc, average_precision: not defined where a class is missing"
    if any(kind["slope"] is None for kind in figures["calibration"].values()):
        yield f"calibration slope, intercept: {NO_LINE}"


def _samples(
    labels: Labels,
    probabilities: Probabilities,
    calibrated: Probabilities,
    drawn: bootstrap.Resamples,
    thresholds: Mapping[str, float],
) -> dict[str, Any]:
    """Makes each figure in each resample, under the names that the figures have."""
    samples: dict[str, Any] = {}
    for name, threshold in thresholds.items():
        counts = bootstrap.confusion(labels, probabilities, drawn, threshold=threshold)
        samples[name] = {figure: getattr(counts, figure) for figure in evaluation.FIGURES}
    roc_auc, average_precision = bootstrap.areas(labels, probabilities, drawn)
    both = {
        name: {
            "brier": bootstrap.mean(np.square(values.astype(np.float64) - labels), drawn),
            "ece": bootstrap.expected_calibration_error(labels, values, drawn),
        }
        for name, values in (("raw", probabilities), ("recalibrated", calibrated))
    }
    return samples | {
        "roc_auc": roc_auc,
        "average_precision": average_precision,
        "brier": both["raw"]["brier"],
        "calibration": both,
    }


def _intervals(samples: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: _intervals(values) if isinstance(values, dict) else bootstrap.interval(values)
        for name, values in samples.items()
    }


def _left_out(samples: Mapping[str, Any], where: str = "") -> Iterator[str]:
    """Names the figures that more than a few resamples could not be used for."""
    for name, values in samples.items():
        if isinstance(values, dict):
            yield from _left_out(values, f" {name.replace('_', ' ')}")
        elif FEW < (share := np.mean(np.isnan(values))) < 1:
            yield f"{name}{where} ({share:.0%})"
