"""A made-up run, whose metrics, pictures and page the tests look at."""

from pathlib import Path

import cv2
import numpy as np

from cancernet.data.dataset import Dataset, Row, count_splits
from cancernet.evaluation import page, report
from cancernet.evaluation.calibration import Decision, Recalibration
from cancernet.evaluation.context import Context, Scores

HOSTILE = "<script>alert(1)</script><!--"
CONTEXT = Context(1.5, 2, slope=2.0, intercept=-0.5, threshold=0.375, patches=99, patients=1)
DECISION = Decision(float(np.float32(0.61)), Recalibration(0.5, -1.0), CONTEXT)
CONFIG = {"THRESHOLD_MEASURE": "f1", "RESAMPLES": 100, "SEED": 7, "EPOCHS": 3}
CONFIG |= {"CLASS_WEIGHTS": True}
FOLDER, NONE = Path(), {"colour": None, "patient_identity": None}
HISTORY = [
    {"epoch": epoch, "loss": 0.9, "accuracy": 0.6, "val_loss": 1.0, "val_accuracy": 0.5}
    | {"val_roc_auc": area}
    for epoch, area in ((1, 0.7), (2, 0.8))
]


def make_row(patient, number, *, label, placed=True, split="testing"):
    """A patch in a row of twenty, named as the download names it where it has a place."""
    x, y = (50 * (number % 20) + 1, 50 * (number // 20) + 1) if placed else (None, None)
    name = f"{patient}_idx5_x{x}_y{y}_class{label}.png" if placed else f"{patient}_{number}.png"
    if patient == HOSTILE:
        name = f"attack{number}<b>&amp;.png"
    source, file = f"{patient}/{label}/{name}", f"{split}/{label}/{name}"
    return Row(split, label, patient, x, y, source, file, bytes=1, sha256="")


def make_rows(patients, *, without_place=(), split="testing"):
    """Rows of each patient, every third patch malignant, in the manifest's order."""
    rows = [
        make_row(name, n, label=int(n % 3 == 0), placed=name not in without_place, split=split)
        for name, patches in patients.items()
        for n in range(patches)
    ]
    return sorted(rows, key=lambda row: row.file)


def make_probabilities(rows, *, seed=1, quality=2.0):
    """float32 in [0, 1], higher for malignant patches on the whole."""
    malignant = np.array([row.label for row in rows])
    logits = np.random.default_rng(seed).normal(quality * (malignant - 0.5), 1.2)
    return (1 / (1 + np.exp(-logits))).astype(np.float32)


def make_data(rows, folder=FOLDER, *, sample=False, exclusions=()):
    """A data set of those rows, whose patients stand in no two splits."""
    build = {
        "method": "patient",
        "seed": 42,
        "fractions": {},
        "splits": count_splits(rows),
        "overlap": {"patients": 0, "files": 0, "contents": 0},
        "sample": sample,
    }
    return Dataset.of(folder, rows, build, list(exclusions))


def scores_of(data, probabilities, decision=DECISION):
    """The scores of each split that has probabilities."""
    return {name: Scores.of(data.splits[name], p, decision) for name, p in probabilities.items()}


def make_metrics(data, probabilities, *, decision=DECISION, baselines=NONE, notes=()):
    """The content of metrics.json."""
    scores, seconds = scores_of(data, probabilities, decision), {"training": 12.5}
    return report.make_metrics(
        data, scores, decision, NONE | baselines, config=CONFIG, seconds=seconds, notes=notes
    )


def write_page(folder, data, probabilities, metrics=None):
    """Writes the page, with grey pictures, and a grey patch for each row that has none yet."""
    run = folder / "run"
    run.mkdir(exist_ok=True)
    data = Dataset.of(folder / "data", data.judged.rows, data.build, data.exclusions)
    grey = cv2.imencode(".png", np.full((50, 50, 3), 128, np.uint8))[1].tobytes()
    for path in (*data.judged.files, *(run / f"{name}.png" for name in page.PICTURES)):
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            path.write_bytes(grey)
    metrics = metrics or make_metrics(data, {data.judged.name: probabilities})
    page.write_page(run, data, Scores.of(data.judged, probabilities, DECISION), metrics, HISTORY)
    return run / "report.html"
