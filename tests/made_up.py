"""A made-up run, whose metrics, pictures and page the tests look at."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from cancernet.data.dataset import Dataset, Row, count_splits
from cancernet.data.originals import Exclusion
from cancernet.evaluation import context, page, report
from cancernet.evaluation.calibration import Decision, Recalibration
from cancernet.evaluation.context import Context, Scores

HOSTILE = "<script>alert(1)</script><!--"
CONTEXT = Context(1.5, 2, slope=2.0, intercept=-0.5, threshold=0.375, patches=99, patients=1)
DECISION = Decision(float(np.float32(0.61)), Recalibration(0.5, -1.0), CONTEXT)
CONFIG = {"THRESHOLD_MEASURE": "f1", "RESAMPLES": 100, "SEED": 7, "EPOCHS": 3}
CONFIG |= {"CLASS_WEIGHTS": True}
HISTORY = [
    {"epoch": epoch, "loss": 0.9, "accuracy": 0.6, "val_loss": 1.0, "val_accuracy": 0.5}
    | {"val_roc_auc": area}
    for epoch, area in ((1, 0.7), (2, 0.8))
]


def make_row(
    patient: str, number: int, *, label: int, placed: bool = True, split: str = "testing"
) -> Row:
    """A patch in a row of twenty, named as the download names it where it has a place."""
    x, y = (50 * (number % 20) + 1, 50 * (number // 20) + 1) if placed else (None, None)
    name = f"{patient}_idx5_x{x}_y{y}_class{label}.png" if placed else f"{patient}_{number}.png"
    source, file = f"{patient}/{label}/{name}", f"{split}/{label}/{name}"
    return Row(split, label, patient, x, y, source, file, bytes=1, sha256="")


def make_rows(
    patients: dict[str, int], *, without_place: Sequence[str] = (), split: str = "testing"
) -> list[Row]:
    """Rows of each patient, every third patch malignant, in the manifest's order."""
    rows = [
        make_row(name, n, label=int(n % 3 == 0), placed=name not in without_place, split=split)
        for name, patches in patients.items()
        for n in range(patches)
    ]
    return sorted(rows, key=lambda row: row.file)


def make_probabilities(rows: Sequence[Row], *, seed: int = 1, quality: float = 2) -> np.ndarray:
    """float32 in [0, 1], higher for malignant patches on the whole."""
    malignant = np.array([row.label for row in rows])
    logits = np.random.default_rng(seed).normal(quality * (malignant - 0.5), 1.2)
    return (1 / (1 + np.exp(-logits))).astype(np.float32)


def make_data(
    rows: Sequence[Row],
    folder: Path = Path(),
    *,
    sample: bool = False,
    exclusions: Sequence[Exclusion] = (),
) -> Dataset:
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


def make_metrics(
    data: Dataset,
    probabilities: Mapping[str, np.ndarray],
    *,
    decision: Decision = DECISION,
    baselines: Mapping[str, Mapping[str, np.ndarray]] | None = None,
    notes: Sequence[str] = (),
) -> dict[str, Any]:
    """The content of metrics.json."""
    every = {"colour": None, "patient_identity": None} | dict(baselines or {})
    scores = context.score(data, probabilities, decision)
    settings: dict[str, Any] = {"config": CONFIG, "seconds": {"training": 12.5}, "notes": notes}
    return report.make_metrics(data, scores, decision, every, **settings)


def write_page(
    folder: Path, data: Dataset, probabilities: np.ndarray, metrics: dict[str, Any] | None = None
) -> Path:
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
