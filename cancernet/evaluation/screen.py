"""What train_model.py says at the end: the figures of metrics.json, laid out for a terminal."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from sklearn.metrics import classification_report

from cancernet.data.dataset import Row
from cancernet.evaluation.evaluation import FIGURES, Probabilities

NAMES = {
    "balanced_accuracy": "balanced accuracy",
    "ppv": "PPV",
    "npv": "NPV",
    "f1": "F1",
    "mcc": "MCC",
    "roc_auc": "ROC AUC",
    "average_precision": "average precision",
    "brier": "Brier score",
    "ece": "calibration error",
    "slope": "calibration slope",
    "intercept": "and intercept",
}


def lines(
    metrics: Mapping[str, Any],
    splits: Mapping[str, Sequence[Row]],
    probabilities: Mapping[str, Probabilities],
) -> Iterator[str]:
    """Lays out the figures: validation, testing with all that is said of it, then the notes."""
    judged = "testing" if "testing" in probabilities else "validation"
    for split in dict.fromkeys(("validation", judged)):
        figures = metrics[split]
        patients = figures["patients"]
        yield ""
        yield (
            f"{split.capitalize()}: {patients:,} patient{'s' if patients > 1 else ''}, "
            f"{figures['patches']:,} patches, {figures['prevalence']:.1%} malignant. "
            "Class 1, malignant, is positive."
        )
        yield ""
        if split == judged:
            yield classification_report(
                np.array([row.label for row in splits[split]]),
                probabilities[split] >= 0.5,
                labels=[0, 1],
                target_names=["0 benign", "1 malignant"],
                digits=3,
                zero_division=np.nan,
            )
            yield from _confusion_lines(figures["at_0.5"]["confusion_matrix"])
            yield ""
        yield from _figure_lines(figures)
    yield ""
    yield from _footnotes(metrics, judged)
    for note in metrics["notes"]:
        yield f"Note: {note}."


def _confusion_lines(outcome: Mapping[str, int]) -> Iterator[str]:
    yield f"{'at 0.5':<16}{'called benign':>16}{'called malignant':>18}"
    yield f"{'truly benign':<16}{outcome['tn']:>16,}{outcome['fp']:>18,}"
    yield f"{'truly malignant':<16}{outcome['fn']:>16,}{outcome['tp']:>18,}"


def _figure_lines(figures: Mapping[str, Any]) -> Iterator[str]:
    """Two columns of figures, each with its 95 % interval where there is one."""
    intervals = figures["ci95"] or {}
    both = ("at_0.5", "at_validation_threshold")
    threshold = figures["at_validation_threshold"]["threshold"]
    yield _row(
        "95 % intervals" if intervals else "", "at 0.5", f"at {threshold:.4g}, from validation"
    )
    for name in FIGURES:
        cells = [_cell(figures[at][name], intervals.get(at, {}).get(name)) for at in both]
        yield _row(NAMES.get(name, name), *cells)
    for name in ("roc_auc", "average_precision"):
        yield _row(NAMES[name], _cell(figures[name], intervals.get(name)))
    yield _row("", "raw", "recalibrated")
    calibration, intervals = figures["calibration"], intervals.get("calibration", {})
    for name in ("brier", "ece", "slope", "intercept"):
        cells = [
            _cell(calibration[kind][name], intervals.get(kind, {}).get(name))
            for kind in ("raw", "recalibrated")
        ]
        yield _row(NAMES[name], *cells)


def _row(name: str, *cells: str) -> str:
    return f"{name:<19}{''.join(f'{cell:<27}' for cell in cells)}".rstrip()


def _cell(value: float | None, interval: Sequence[float] | None) -> str:
    if value is None:
        return "not defined"
    ends = f" ({interval[0]:.3f} to {interval[1]:.3f})" if interval else ""
    return f"{value:.4f}{ends}"


def _footnotes(metrics: Mapping[str, Any], judged: str) -> Iterator[str]:
    """The baselines, and what the published scripts would have said."""
    reached = [
        f"{what} {_cell(figures['roc_auc'], (figures['ci95'] or {}).get('roc_auc'))}"
        for name, what in (("colour", "colours alone"), ("patient_identity", "patient alone"))
        if (figures := metrics["baselines"].get(name))
    ]
    if reached:
        yield f"Without a network: ROC AUC of {', of '.join(reached)}."
    at_half = metrics[judged]["at_0.5"]
    yield (
        f'The published scripts would print "sensitivity" {_cell(at_half["specificity"], None)} '
        f'and "specificity" {_cell(at_half["sensitivity"], None)}: each is the other.'
    )
