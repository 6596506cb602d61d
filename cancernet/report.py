"""What a run leaves for its readers: metrics.json, predictions.csv and the lines on the screen."""

import csv
import json
import platform
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.metrics import classification_report

from cancernet.dataset import Row
from cancernet.evaluation import Labels, Probabilities, score
from cancernet.files import LAST_FILE, replacing

PACKAGES = ("tensorflow", "keras", "numpy", "scikit-learn", "opencv-python-headless")


def versions() -> dict[str, str]:
    """Names the versions of Python, the platform and the packages that the figures depend on."""
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        **{package: version(package) for package in PACKAGES},
    }


def make_metrics(
    splits: Mapping[str, Sequence[Row]],
    probabilities: Mapping[str, Probabilities],
    *,
    build: Mapping[str, Any],
    config: Mapping[str, Any],
    seconds: Mapping[str, float],
    notes: Sequence[str],
) -> dict[str, Any]:
    """Makes the content of metrics.json.

    Args:
        splits: The rows of each split.
        probabilities: Of class 1, of each split that was scored, in the order of its rows.
        build: The content of build.json.
        config: The constants that this run used.
        seconds: Wall time of each part of the run.
        notes: What the reader of the figures must know.
    """
    notes = list(notes)
    scores: dict[str, Any] = {"testing": None, "validation": None}
    for split in scores:
        if split not in probabilities:
            notes.append(f"{split}: not scored, this split of the data set is empty")
            continue
        labels = np.array([row.label for row in splits[split]])
        patients = [row.patient for row in splits[split]]
        scores[split], undefined = score(labels, probabilities[split], patients)
        notes += [f"{split}: {note}" for note in undefined]
    return {
        "positive_class": "1",
        "sample": build["sample"],
        **scores,
        "split": build,
        "config": config,
        "versions": versions(),
        "seconds": seconds,
        "notes": notes,
    }


def write_metrics(run: Path, metrics: Mapping[str, Any]) -> None:
    """Writes metrics.json."""
    with replacing(run / LAST_FILE) as beside:
        text = json.dumps(metrics, indent=2, allow_nan=False) + "\n"
        beside.write_text(text, encoding="utf-8")


def shortest(probability: float | np.floating[Any]) -> str:
    """Writes a probability in the shortest form that reads back as the same float32."""
    return str(np.float32(probability))


def write_predictions(
    run: Path, rows: Sequence[Row], probabilities: Probabilities | Sequence[float]
) -> None:
    """Writes predictions.csv, one row a patch in the order of the manifest.

    Args:
        run: Directory to write to.
        rows: The patches scored.
        probabilities: Of class 1, float32 in [0, 1], shape (patches,).
    """
    with (
        replacing(run / "predictions.csv") as beside,
        beside.open("w", newline="", encoding="utf-8") as file,
    ):
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("file", "patient", "x", "y", "label", "probability", "calibrated"))
        for row, probability in zip(rows, probabilities, strict=True):
            text = shortest(probability)
            writer.writerow((row.file, row.patient, row.x, row.y, row.label, text, text))


def lines(
    metrics: Mapping[str, Any],
    splits: Mapping[str, Sequence[Row]],
    probabilities: Mapping[str, Probabilities],
) -> Iterator[str]:
    """Lays out the figures for the screen: validation, then testing, then the notes."""
    for split, predicted in probabilities.items():
        labels = np.array([row.label for row in splits[split]])
        yield from _split_lines(split, metrics[split], labels, predicted)
    for note in metrics["notes"]:
        yield f"Note: {note}."


def _split_lines(
    split: str, figures: Mapping[str, Any], labels: Labels, probabilities: Probabilities
) -> Iterator[str]:
    """Lays out one split's figures at the threshold 0.5 for the screen."""
    at_half = figures["at_0.5"]
    outcome = at_half["confusion_matrix"]
    yield ""
    yield (
        f"{split.capitalize()}: {figures['patients']:,} patients, {figures['patches']:,} patches, "
        f"{figures['prevalence']:.1%} malignant. Class 1, malignant, is positive."
    )
    yield ""
    yield classification_report(
        labels,
        probabilities >= 0.5,
        labels=[0, 1],
        target_names=["0 benign", "1 malignant"],
        digits=3,
        zero_division=np.nan,
    )
    yield f"{'':<16}{'called benign':>16}{'called malignant':>18}"
    yield f"{'truly benign':<16}{outcome['tn']:>16,}{outcome['fp']:>18,}"
    yield f"{'truly malignant':<16}{outcome['fn']:>16,}{outcome['tp']:>18,}"
    yield ""
    for name in ("accuracy", "sensitivity", "specificity"):
        yield f"{name:<12} {_figure(at_half[name])}"
    yield f"{'ROC AUC':<12} {_figure(figures['roc_auc'])}"


def _figure(value: float | None) -> str:
    return "not defined" if value is None else f"{value:.4f}"
