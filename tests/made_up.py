"""A made-up run, whose page the tests of the page look at."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from cancernet.data.dataset import Row
from cancernet.data.originals import Exclusion
from cancernet.evaluation import evaluation, page

HOSTILE = "<script>alert(1)</script><!--"


def make_row(patient: str, number: int, *, label: int, placed: bool = True) -> Row:
    """A testing patch in a row of twenty, named as the download names it where it has a place."""
    x, y = (50 * (number % 20) + 1, 50 * (number // 20) + 1) if placed else (None, None)
    name = f"{patient}_idx5_x{x}_y{y}_class{label}.png" if placed else f"{patient}_{number}.png"
    return Row(
        split="testing",
        label=label,
        patient=patient,
        x=x,
        y=y,
        source=f"{patient}/{label}/{name}",
        file=f"testing/{label}/{name}",
        bytes=1,
        sha256="",
    )


def make_rows(patients: dict[str, int], *, without_place: tuple[str, ...] = ()) -> list[Row]:
    """Rows of each patient, every third patch malignant, in the manifest's order."""
    rows = [
        make_row(patient, number, label=int(number % 3 == 0), placed=patient not in without_place)
        for patient, patches in patients.items()
        for number in range(patches)
    ]
    return sorted(rows, key=lambda row: row.file)


def make_probabilities(rows: list[Row], *, seed: int = 1) -> np.ndarray:
    """float32 in [0, 1], higher for malignant patches on the whole."""
    logits = np.random.default_rng(seed).normal([2.0 * row.label - 1 for row in rows], 1.2)
    return (1 / (1 + np.exp(-logits))).astype(np.float32)


def at(labels: np.ndarray, probabilities: np.ndarray, threshold: float) -> dict[str, Any]:
    confusion = evaluation.confusion(labels, probabilities, threshold=threshold)
    return {"threshold": threshold, "confusion_matrix": asdict(confusion)} | {
        name: getattr(confusion, name) for name in evaluation.FIGURES
    }


def make_figures(rows: list[Row], probabilities: np.ndarray) -> dict[str, Any]:
    """All that metrics.json may have of a split; the intervals are made up."""
    labels = np.array([row.label for row in rows])
    patients = np.array([row.patient for row in rows])
    per_patient = []
    for patient in sorted(set(patients)):
        own = patients == patient
        point = at(labels[own], probabilities[own], float(np.float32(0.61)))
        per_patient.append(
            {
                "patient": str(patient),
                "patches": int(own.sum()),
                "prevalence": float(labels[own].mean()),
                "sensitivity": point["sensitivity"],
                "specificity": point["specificity"],
                "roc_auc": evaluation.roc_auc(labels[own], probabilities[own]),
            }
        )
    half = at(labels, probabilities, 0.5)
    return {
        "patients": len(per_patient),
        "patches": len(rows),
        "prevalence": float(labels.mean()),
        "at_0.5": half,
        "at_validation_threshold": at(labels, probabilities, float(np.float32(0.61))),
        "roc_auc": evaluation.roc_auc(labels, probabilities),
        "average_precision": evaluation.average_precision(labels, probabilities),
        "brier": float(np.mean((probabilities.astype(float) - labels) ** 2)),
        "calibration": {
            kind: {"brier": 0.11, "ece": 0.05, "slope": 0.7, "intercept": -0.9}
            for kind in ("raw", "recalibrated")
        },
        "ci95": {"at_0.5": {"sensitivity": [0.1234, 0.9876]}, "roc_auc": [0.7654, 0.8768]},
        "per_patient": sorted(per_patient, key=lambda each: each["roc_auc"] or 2),
    }


def make_metrics(rows: list[Row], probabilities: np.ndarray, **changes: Any) -> dict[str, Any]:
    counts = {"patients": 3, "patches": 30, "benign": 20, "malignant": 10}
    splits = {"training": counts, "validation": counts, "testing": counts}
    figures = make_figures(rows, probabilities)
    return {
        "positive_class": "1",
        "sample": False,
        "testing": figures,
        "validation": figures,
        "baselines": {
            "colour": {"roc_auc": 0.6, "network_lead": {"roc_auc": 0.2, "ci95": [0.1, 0.3]}},
            "patient_identity": None,
        },
        "split": {
            "method": "patient",
            "seed": 42,
            "fractions": {},
            "splits": splits,
            "overlap": {"patients": 0, "files": 0, "contents": 0},
            "sample": False,
        },
        "config": {"EPOCHS": 3, "SEED": 7, "OPTIMIZER": "adagrad", "BALANCE": "weights"},
        "versions": {"python": "3.11"},
        "seconds": {"training": 12.5},
        "notes": [],
    } | changes


def write_page(
    folder: Path,
    rows: list[Row],
    probabilities: np.ndarray,
    *,
    metrics: dict[str, Any] | None = None,
    exclusions: tuple[Exclusion, ...] = (),
    split: str = "testing",
) -> Path:
    """Writes a made-up run's page, with a grey patch for each row that has none yet."""
    dataset, run = folder / "data", folder / "run"
    run.mkdir(exist_ok=True)
    grey = cv2.imencode(".png", np.full((50, 50, 3), 128, np.uint8))[1].tobytes()
    for row in rows:
        path = dataset / row.file
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            path.write_bytes(grey)
    page.write_page(
        run,
        metrics=metrics or make_metrics(rows, probabilities),
        history=[{"epoch": epoch, "val_roc_auc": area} for epoch, area in ((1, 0.7), (2, 0.8))],
        splits={"training": [], "validation": [], "testing": []} | {split: rows},
        probabilities={split: probabilities},
        calibrated={split: probabilities / 2},
        exclusions=exclusions,
        dataset=dataset,
    )
    return run / "report.html"
