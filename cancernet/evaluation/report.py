"""What a run leaves for its readers: metrics.json, predictions.csv, pictures, a page, and text."""

import platform
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.metrics import classification_report

from cancernet.data.dataset import Dataset
from cancernet.evaluation import page, plots, scorecard
from cancernet.evaluation.calibration import Decision
from cancernet.evaluation.context import Scores
from cancernet.evaluation.metrics import METRICS, Probabilities, shortest
from cancernet.evaluation.scorecard import pick
from cancernet.files import write_csv, write_json

PACKAGES = ("tensorflow", "keras", "numpy", "scikit-learn", "opencv-python-headless")


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
    scores: Mapping[str, Scores],
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
        scores: By split, of those that were scored.
        decision: What was fitted on validation.
        baselines: What `baselines.score` made.
        config: The constants of this run.
        seconds: Wall time of each part of the run.
        notes: What the reader of the metrics must know.
    """
    metrics: dict[str, Any] = {"positive_class": "1", "sample": data.sample}
    metrics |= {"testing": None, "validation": None, "baselines": {}}
    notes, network = list(notes), {}
    if not data.testing:
        notes.append("testing: not scored, this split of the data set is empty")
    for name in ("testing", "validation"):
        if name in scores:
            found = scorecard.score_network(data.splits[name], scores[name], decision, config)
            network[name], metrics[name] = found, found.metrics
            notes += found.notes
    for name, own in baselines.items():
        metrics["baselines"][name], more = scorecard.score_baseline(
            name, data, own, network[data.judged.name], config
        )
        notes += more
    about = {"split": data.build, "config": config, "versions": versions(), "seconds": seconds}
    return metrics | about | {"notes": notes}


def write(
    folder: Path,
    data: Dataset,
    scores: Mapping[str, Scores],
    metrics: Mapping[str, Any],
    history: Sequence[Mapping[str, float]],
) -> None:
    """Writes pictures and report.html of `data.judged`, predictions.csv and, last, metrics.json.

    `history` is as history.csv. The page tells what cancernet.json says, if it is in the folder.
    """
    own, sample = scores[data.judged.name], metrics["sample"]
    weighted = metrics["config"]["CLASS_WEIGHTS"]
    plots.plot_history(history, folder / "plot.png", weighted=weighted, sample=sample)
    plots.plot_scores(folder, data.judged, own, metrics)
    page.write_page(folder, data, own, metrics, history)
    tested = scores["testing"] if data.testing else own[:0]
    header = ["file", "patient", "x", "y", "label", "probability", "calibrated", "in_context"]
    rows = (
        (row.file, row.patient, row.x, row.y, row.label, *map(shortest, values))
        for row, *values in zip(data.testing.rows, *vars(tested).values(), strict=True)
    )
    write_csv(folder / "predictions.csv", header, rows)
    write_json(folder / "metrics.json", metrics)


def as_text(metrics: Mapping[str, Any], data: Dataset, scores: Mapping[str, Scores]) -> str:
    """Lays `metrics` out for a terminal, named as there, with scikit-learn's table."""
    judged, shown = data.judged, metrics[data.judged.name]
    outcome = shown["at_0.5"]["confusion_matrix"]
    table = classification_report(
        judged.labels,
        scores[judged.name].raw >= 0.5,
        labels=[0, 1],
        target_names=["0 benign", "1 malignant"],
        digits=3,
        zero_division=np.nan,
    )
    lines = []
    if data.testing:
        validation = metrics["validation"]
        lines += [_headline("Validation", validation), *_metric_lines(validation)]
    lines += [
        _headline(judged.name.capitalize(), shown),
        table,
        f"{'at 0.5':<16}{'predicted benign':>18}{'predicted malignant':>21}",
        f"{'truly benign':<16}{outcome['tn']:>18,}{outcome['fp']:>21,}",
        f"{'truly malignant':<16}{outcome['fn']:>18,}{outcome['tp']:>21,}",
        "",
        *_metric_lines(shown),
        "",
    ]
    if shown["in_context"]:
        lines += [*_context_lines(shown), ""]
    for name, what in (("colour", "colours alone"), ("patient_identity", "patient alone")):
        if own := metrics["baselines"][name]:
            lines.append(f"Without a network, {what}: roc_auc {_cell(*pick(own, 'roc_auc'))}")
    return "\n".join([*lines, *(f"Note: {note}." for note in metrics["notes"])])


def _headline(name: str, shown: Mapping[str, Any]) -> str:
    return (
        f"\n{name}: {shown['patients']:,} patient{'s' * (shown['patients'] != 1)}, "
        f"{shown['patches']:,} patches, {shown['prevalence']:.1%} malignant. "
        "Class 1, malignant, is positive.\n"
    )


def _metric_lines(shown: Mapping[str, Any]) -> Iterator[str]:
    """Two columns of metrics, each with its 95 % interval where there is one."""
    threshold = shown["at_validation_threshold"]["threshold"]
    head = "95 % intervals" * bool(shown["ci95"])
    yield _row(head, "at 0.5", f"at {threshold:.4g}, from validation")
    for name in METRICS:
        yield _metric_line(*((shown, at, name) for at in scorecard.AT))
    for name in ("roc_auc", "average_precision"):
        yield _metric_line((shown, name))
    yield _row("calibration", "raw", "recalibrated")
    for name in ("brier", "ece", "slope", "intercept"):
        yield _metric_line(*((shown, "calibration", kind, name) for kind in shown["calibration"]))


def _context_lines(shown: Mapping[str, Any]) -> Iterator[str]:
    """The patches that have neighbours, alone and in context, side by side."""
    both, at = (shown["alone"], shown["in_context"]), "at_validation_threshold"
    patches, (alone, context) = both[0]["patches"], (one[at]["threshold"] for one in both)
    yield f"Alone and in context: the {patches:,} patches with neighbours on their slide."
    yield _row("", f"alone, at {alone:.4g}", f"in context, at {context:.4g}")
    for name in ("balanced_accuracy", "sensitivity", "specificity"):
        yield _metric_line(*((one, at, name) for one in both))
    yield _metric_line(*((one, "roc_auc") for one in both))


def _metric_line(*places: tuple[Any, ...]) -> str:
    return _row(places[0][-1], *(_cell(*pick(*place)) for place in places))


def _row(name: str, *cells: str) -> str:
    return f"{name:<19}{''.join(f'{cell:<27}' for cell in cells)}".rstrip()


def _cell(value: float | None, ends: Sequence[float] | None) -> str:
    if value is None:
        return "not defined"
    return f"{value:.4f}" + (f" ({ends[0]:.3f} to {ends[1]:.3f})" if ends else "")
