"""The files that the figures of a run go to: metrics.json, predictions.csv, the model's card."""

import json
import platform
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from cancernet.data.dataset import Row
from cancernet.data.originals import Exclusion
from cancernet.evaluation import page, plots, scorecard
from cancernet.evaluation.baselines import judge
from cancernet.evaluation.calibration import Recalibration, recalibrate
from cancernet.evaluation.evaluation import Probabilities, shortest
from cancernet.evaluation.scorecard import Fitted
from cancernet.files import CARD_FILE, LAST_FILE, PLOT_FILE, replacing, write_rows

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
    fitted: Fitted,
    baselines: Mapping[str, Mapping[str, Probabilities] | None],
    resampling: Mapping[str, int],
    build: Mapping[str, Any],
    config: Mapping[str, Any],
    seconds: Mapping[str, float],
    notes: Sequence[str],
) -> dict[str, Any]:
    """Makes the content of metrics.json.

    Args:
        splits: The rows of each split.
        probabilities: Of class 1, of each split that was scored, in the order of its rows.
        fitted: What was chosen on validation.
        baselines: By name, each baseline's probabilities in the place of the network's; None where
            it has none.
        resampling: `resamples` and `seed` of the intervals.
        build: The content of build.json.
        config: The constants that this run used.
        seconds: Wall time of each part of the run.
        notes: What the reader of the figures must know.
    """
    notes = list(notes)
    labels = {split: np.array([row.label for row in rows]) for split, rows in splits.items()}
    patients = {split: [row.patient for row in rows] for split, rows in splits.items()}
    scores: dict[str, Any] = {"testing": None, "validation": None}
    for split in scores:
        if split not in probabilities:
            notes.append(f"{split}: not scored, this split of the data set is empty")
            continue
        scores[split], more = scorecard.score(
            labels[split], probabilities[split], patients[split], fitted=fitted, **resampling
        )
        notes += [f"{split}: {note}" for note in [*_one_class(scores[split]), *more]]
    judged = "testing" if scores["testing"] else "validation"
    judgements: dict[str, Any] = {}
    for name, rival in baselines.items():
        judgements[name], more = judge(
            name,
            rival,
            probabilities[judged],
            labels,
            patients[judged],
            split=judged,
            measure=config["THRESHOLD_MEASURE"],
            resampling=resampling,
        )
        # What is said of the network's figures need not be said again.
        notes += [note for note in more if note.replace(f"baseline {name}", judged) not in notes]
    return {
        "positive_class": "1",
        "sample": build["sample"],
        **scores,
        "baselines": judgements,
        "split": build,
        "config": config,
        "versions": versions(),
        "seconds": seconds,
        "notes": notes,
    }


def _one_class(figures: Mapping[str, Any]) -> Iterator[str]:
    """Says where the network calls all patches the same: it has learnt nothing that shows there."""
    different = {
        tuple(figures[name]["confusion_matrix"].values()): name
        for name in ("at_validation_threshold", "at_0.5")
    }
    for name in sorted(different.values()):
        counts = figures[name]["confusion_matrix"]
        for called, others in (("malignant", ("tn", "fn")), ("benign", ("tp", "fp"))):
            if not any(counts[other] for other in others):
                yield (
                    f"THE NETWORK PREDICTS ONE CLASS ONLY {name.replace('_', ' ')}: "
                    f"it calls all {figures['patches']:,} patches {called}"
                )


def write_run(
    run: Path,
    metrics: Mapping[str, Any],
    *,
    splits: Mapping[str, Sequence[Row]],
    probabilities: Mapping[str, Probabilities],
    fitted: Fitted,
    history: Sequence[Mapping[str, float]],
    exclusions: Sequence[Exclusion],
    dataset: Path,
    trained_with: Mapping[str, object] | None = None,
) -> None:
    """Writes all that a run leaves: pictures, page, card, predictions.csv, metrics.json last.

    Pictures and page are of testing, or of validation where that is empty.

    Args:
        run: Directory to write to, with the card of the network in it.
        metrics: What `make_metrics` made.
        splits: The rows of each split.
        probabilities: Of class 1, of each split that was scored, in the order of its rows.
        fitted: What was chosen on validation.
        history: The rows of history.csv.
        exclusions: The rows of excluded.csv.
        dataset: The data set directory.
        trained_with: What the weights depend on, once there are no more epochs to train.
    """
    calibrated = {
        split: recalibrate(values, fitted.recalibration) for split, values in probabilities.items()
    }
    shown = "testing" if splits["testing"] else "validation"
    weighted = metrics["config"].get("BALANCE") == "weights"
    plots.plot_history(history, run / PLOT_FILE, weighted=weighted, sample=metrics["sample"])
    plots.plot_scores(
        run,
        split=shown,
        figures=metrics[shown],
        labels=np.array([row.label for row in splits[shown]]),
        probabilities=probabilities[shown],
        calibrated=calibrated[shown],
        sample=metrics["sample"],
    )
    page.write_page(
        run,
        metrics=metrics,
        history=history,
        splits=splits,
        probabilities=probabilities,
        calibrated=calibrated,
        exclusions=exclusions,
        dataset=dataset,
    )
    complete_card(run / CARD_FILE, fitted, trained_with)
    nothing = np.empty(0, dtype=np.float32)
    write_predictions(
        run, splits["testing"], probabilities.get("testing", nothing), fitted.recalibration
    )
    write_metrics(run, metrics)


def write_metrics(run: Path, metrics: Mapping[str, Any]) -> None:
    """Writes metrics.json."""
    with replacing(run / LAST_FILE) as beside:
        text = json.dumps(metrics, indent=2, allow_nan=False) + "\n"
        beside.write_text(text, encoding="utf-8")


def complete_card(
    path: Path, fitted: Fitted, trained_with: Mapping[str, object] | None = None
) -> None:
    """Writes what was fitted on validation into the JSON that belongs to the network.

    Args:
        path: cancernet.json, as it was saved with the network.
        fitted: Threshold and recalibration.
        trained_with: What the weights depend on, once all epochs are trained: such a run can be
            reported anew, but not gone on with.
    """
    card = json.loads(path.read_text(encoding="utf-8")) | asdict(fitted)
    if trained_with is not None:
        card["trained_with"] = dict(trained_with)
    with replacing(path) as beside:
        beside.write_text(json.dumps(card, indent=2) + "\n", encoding="utf-8")


def write_predictions(
    run: Path,
    rows: Sequence[Row],
    probabilities: Probabilities,
    recalibration: Recalibration | None,
) -> None:
    """Writes predictions.csv, one row a patch in the order of the manifest.

    Args:
        run: Directory to write to.
        rows: The patches scored.
        probabilities: Of class 1, float32 in [0, 1], shape (patches,).
        recalibration: What makes the calibrated probability of each.
    """
    calibrated = recalibrate(probabilities, recalibration)
    with (
        replacing(run / "predictions.csv") as beside,
        beside.open("w", newline="", encoding="utf-8") as file,
    ):
        write_rows(file, [("file", "patient", "x", "y", "label", "probability", "calibrated")])
        write_rows(
            file,
            (
                (row.file, row.patient, row.x, row.y, row.label, *map(shortest, both))
                for row, *both in zip(rows, probabilities, calibrated, strict=True)
            ),
        )
