"""What a run leaves for its readers: metrics.json, predictions.csv, pictures, a page, and text."""

import platform
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.metrics import classification_report

from cancernet.data.dataset import Dataset, Split
from cancernet.evaluation import page, plots, scorecard
from cancernet.evaluation.calibration import Decision
from cancernet.evaluation.context import Scores
from cancernet.evaluation.metrics import METRICS, Probabilities, shortest
from cancernet.files import write_csv, write_json

PACKAGES = ("tensorflow", "keras", "numpy", "scikit-learn", "opencv-python-headless")

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


def versions() -> dict[str, str]:
    """Names the versions of Python, the platform and the packages that the metrics depend on."""
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        **{package: version(package) for package in PACKAGES},
    }


def inputs(constants: Mapping[str, Any], data: Dataset) -> dict[str, Any]:
    """Lists what the trained weights depend on: a run is resumed with the same alone."""
    known = {**constants, **versions(), "manifest.csv": data.digest}
    places = ("BASE_PATH", "OUTPUT_PATH", "platform")
    return {name: value for name, value in known.items() if name not in places}


def make_metrics(
    data: Dataset,
    probabilities: Mapping[str, Probabilities],
    decision: Decision,
    baselines: Mapping[str, Mapping[str, Probabilities] | None],
    *,
    config: Mapping[str, Any],
    seconds: Mapping[str, float],
    notes: Sequence[str],
) -> dict[str, Any]:
    """Makes the content of metrics.json.

    Args:
        data: The data set.
        probabilities: Of class 1, of each split that was scored, in the order of its rows.
        decision: What was fitted on validation.
        baselines: What `baselines.score` made.
        config: The constants of this run, THRESHOLD_MEASURE, RESAMPLES and SEED among them.
        seconds: Wall time of each part of the run.
        notes: What the reader of the metrics must know.
    """
    scores, more = scorecard.evaluate(data, probabilities, decision, baselines, config)
    return {
        "positive_class": "1",
        "sample": data.sample,
        **scores,
        "split": data.build,
        "config": config,
        "versions": versions(),
        "seconds": seconds,
        "notes": [*notes, *more],
    }


def write(
    folder: Path,
    data: Dataset,
    probabilities: Mapping[str, Probabilities],
    decision: Decision,
    metrics: Mapping[str, Any],
    history: Sequence[Mapping[str, float]],
) -> None:
    """Writes pictures and report.html of `data.judged`, predictions.csv and, last, metrics.json.

    Args as to `make_metrics`, and:
        folder: Directory to write to. The page tells what cancernet.json says, if it is there.
        metrics: What `make_metrics` made.
        history: The rows of history.csv.
    """
    judged = data.judged
    scores = Scores.of(judged, probabilities[judged.name], decision)
    weighted, sample = metrics["config"]["CLASS_WEIGHTS"], metrics["sample"]
    plots.plot_history(history, folder / "plot.png", weighted=weighted, sample=sample)
    plots.plot_scores(folder, judged, scores, metrics)
    page.write_page(folder, data, scores, metrics, history)
    if not data.testing:
        scores = Scores(*np.empty((3, 0), np.float32))
    write_predictions(folder / "predictions.csv", data.testing, scores)
    write_json(folder / "metrics.json", metrics)


def write_predictions(path: Path, split: Split, scores: Scores) -> None:
    """Writes predictions.csv, one row per patch in the order of the manifest."""
    columns = (scores.raw, scores.calibrated, scores.in_context)
    write_csv(
        path,
        ("file", "patient", "x", "y", "label", "probability", "calibrated", "in_context"),
        (
            (row.file, row.patient, row.x, row.y, row.label, *map(shortest, values))
            for row, *values in zip(split.rows, *columns, strict=True)
        ),
    )


def as_text(
    metrics: Mapping[str, Any], data: Dataset, probabilities: Mapping[str, Probabilities]
) -> str:
    """Lays `metrics` out for a terminal, with scikit-learn's table of the judged split."""
    judged = data.judged
    predicted = probabilities[judged.name] >= 0.5
    lines: list[str] = []
    for split in dict.fromkeys(("validation", judged.name)):
        lines += ["", _headline(split, metrics[split]), ""]
        if split == judged.name:
            settings: dict[str, Any] = {"labels": [0, 1], "digits": 3, "zero_division": np.nan}
            settings["target_names"] = ["0 benign", "1 malignant"]
            table = classification_report(judged.labels, predicted, **settings)
            lines += [table, *_confusion_lines(metrics[split]["at_0.5"]["confusion_matrix"]), ""]
        lines += _metric_lines(metrics[split])
    if metrics[judged.name]["in_context"]:
        lines += ["", *_context_lines(metrics[judged.name])]
    lines += ["", *_footnotes(metrics, judged.name)]
    return "\n".join([*lines, *(f"Note: {note}." for note in metrics["notes"])])


def _headline(split: str, shown: Mapping[str, Any]) -> str:
    return (
        f"{split.capitalize()}: {shown['patients']:,} patient{'s' * (shown['patients'] != 1)}, "
        f"{shown['patches']:,} patches, {shown['prevalence']:.1%} malignant. "
        "Class 1, malignant, is positive."
    )


def _confusion_lines(outcome: Mapping[str, int]) -> Iterator[str]:
    yield f"{'at 0.5':<16}{'predicted benign':>18}{'predicted malignant':>21}"
    yield f"{'truly benign':<16}{outcome['tn']:>18,}{outcome['fp']:>21,}"
    yield f"{'truly malignant':<16}{outcome['fn']:>18,}{outcome['tp']:>21,}"


def _metric_lines(shown: Mapping[str, Any]) -> Iterator[str]:
    """Two columns of metrics, each with its 95 % interval where there is one."""
    intervals = shown["ci95"] or {}
    threshold = shown["at_validation_threshold"]["threshold"]
    at = {name: shown[name] for name in ("at_0.5", "at_validation_threshold")}
    overall = {name: shown[name] for name in ("roc_auc", "average_precision")}
    calibration = shown["calibration"]
    head = "95 % intervals" * bool(intervals)
    yield _row(head, "at 0.5", f"at {threshold:.4g}, from validation")
    yield from _rows(METRICS, at, intervals)
    yield from _rows(tuple(overall), {"": overall}, {"": intervals})
    yield _row("", "raw", "recalibrated")
    ends = intervals.get("calibration", {})
    yield from _rows(("brier", "ece", "slope", "intercept"), calibration, ends)


def _context_lines(shown: Mapping[str, Any]) -> Iterator[str]:
    """The patches that have neighbours, alone and in context, side by side."""
    both = {"alone": shown["alone"], "in context": shown["in_context"]}
    patches = shown["alone"]["patches"]
    yield f"Alone and in context: the {patches:,} patches with neighbours on their slide."
    at = {how: one["at_validation_threshold"] for how, one in both.items()}
    yield _row("", *(f"{how}, at {one['threshold']:.4g}" for how, one in at.items()))
    ends = {how: one["ci95"] or {} for how, one in both.items()}
    within = {how: one.get("at_validation_threshold", {}) for how, one in ends.items()}
    yield from _rows(("balanced_accuracy", "sensitivity", "specificity"), at, within)
    yield from _rows(("roc_auc",), both, ends)
    yield "Sensitivity by size of the connected group of malignant patches:"
    yield _row("size", *both, "patches, groups")
    for row in shown["foci"]:
        found = [_cell(row[kind]) for kind in ("sensitivity", "sensitivity_in_context")]
        yield _row(row["patches_per_group"], *found, f"{row['patches']:,}, {row['groups']:,}")


def _rows(
    names: Sequence[str], columns: Mapping[str, Any], intervals: Mapping[str, Any]
) -> Iterator[str]:
    for name in names:
        cells = [_cell(columns[at][name], intervals.get(at, {}).get(name)) for at in columns]
        yield _row(NAMES.get(name, name), *cells)


def _row(name: str, *cells: str) -> str:
    return f"{name:<19}{''.join(f'{cell:<27}' for cell in cells)}".rstrip()


def _cell(value: float | None, interval: Sequence[float] | None = None) -> str:
    if value is None:
        return "not defined"
    return f"{value:.4f}" + (f" ({interval[0]:.3f} to {interval[1]:.3f})" if interval else "")


def _footnotes(metrics: Mapping[str, Any], judged: str) -> Iterator[str]:
    """The baselines, and what the published scripts would have said."""
    reached = [
        f"{what} {_cell(baseline['roc_auc'], (baseline['ci95'] or {}).get('roc_auc'))}"
        for name, what in (("colour", "colours alone"), ("patient_identity", "patient alone"))
        if (baseline := metrics["baselines"][name])
    ]
    if reached:
        yield f"Without a network: ROC AUC of {', of '.join(reached)}."
    at_half = metrics[judged]["at_0.5"]
    yield (
        f'The published scripts would print "sensitivity" {_cell(at_half["specificity"])} '
        f'and "specificity" {_cell(at_half["sensitivity"])}: each is the other.'
    )
