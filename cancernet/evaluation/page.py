"""report.html: one page that shows the whole run, holds all that it needs and loads nothing.

Whatever comes from a file's name or a file's content is data: Jinja2 escapes it in the page, and
`tojson` escapes it in the JSON that the page's script reads, where even `</script>` is harmless.
"""

import base64
from collections import Counter
from collections.abc import Mapping, Sequence
from decimal import ROUND_HALF_UP, Decimal
from pathlib import Path, PurePosixPath
from typing import Any

import cv2
import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from cancernet.cli import SAMPLE_NOTICE
from cancernet.data.dataset import Dataset, Row, Split
from cancernet.data.patch import ExcludedError, read_pixels
from cancernet.evaluation.metrics import Probabilities
from cancernet.files import read_json, replacing

TEMPLATES = Path(__file__).parent / "templates"

# Errors of each kind in the gallery, and the longest side of a patch in it, in pixels.
ERRORS_SHOWN, THUMBNAIL_SIDE = 12, 100

PICTURES = ("confusion_matrix", "roc", "precision_recall", "calibration", "plot")


def write_page(
    folder: Path,
    data: Dataset,
    probabilities: Probabilities,
    calibrated: Probabilities,
    metrics: Mapping[str, Any],
    history: Sequence[Mapping[str, float]],
) -> None:
    """Writes report.html, of `data.judged`.

    Args:
        folder: Directory to write to, which holds the pictures of the run, and cancernet.json.
        data: The data set.
        probabilities: Of class 1, float32 in [0, 1], of the patches of `data.judged`.
        calibrated: The same after recalibration.
        metrics: The content of metrics.json.
        history: The rows of history.csv.
    """
    split = data.judged
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES, encoding="utf-8"),
        autoescape=True,
        undefined=StrictUndefined,  # A misspelt key is an error; None is "not defined".
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"rounded": rounded, "interval": interval}
    environment.policies["json.dumps_kwargs"] = {"separators": (",", ":")}
    metadata = folder / "cancernet.json"
    text = environment.get_template("report.html").render(
        metrics=metrics,
        split=split.name,
        history=history,
        metadata=read_json(metadata) if metadata.is_file() else {},
        pictures={name: _as_uri((folder / f"{name}.png").read_bytes()) for name in PICTURES},
        data=embedded(split, probabilities, calibrated),
        gallery=confident_errors(split, probabilities),
        used=sum(map(len, data.splits.values())),
        excluded=Counter(exclusion.reason for exclusion in data.exclusions).most_common(),
        sample_notice=SAMPLE_NOTICE,
    )
    with replacing(folder / "report.html") as beside:
        beside.write_text(text, encoding="utf-8")


def rounded(value: float | None, digits: int = 3) -> str:
    """Rounds for the eye as JavaScript's `toFixed` does, so that slider and tables agree."""
    if value is None:
        return "not defined"
    return str(Decimal(float(value)).quantize(Decimal(1).scaleb(-digits), ROUND_HALF_UP))


def interval(intervals: Mapping[str, Any] | None, *names: str) -> str:
    """Lays out the 95 % interval of the metric of that name; nothing where there is none."""
    bounds: Any = intervals
    for name in names:
        bounds = bounds and bounds[name]
    return f"{rounded(bounds[0])} to {rounded(bounds[1])}" if bounds else ""


def embedded(
    split: Split, probabilities: Probabilities, calibrated: Probabilities
) -> dict[str, Any]:
    """Makes what the page's script reads: the patches of the split, patient by patient.

    Labels are a text of 0 and 1, probabilities float32 in base64: small enough for a whole data
    set, and the very numbers that `metrics` compared.
    """
    of_patient: dict[str, list[int]] = {}
    for index, patient in enumerate(split.patients):
        of_patient.setdefault(patient, []).append(index)
    order = [index for indices in of_patient.values() for index in indices]
    return {
        "folder": PurePosixPath(split.rows[0].file).parent.parent.as_posix(),
        "labels": "".join(map(str, split.labels[order])),
        "probabilities": _base64(probabilities[order].astype("<f4").tobytes()),
        "calibrated": _base64(calibrated[order].astype("<f4").tobytes()),
        "prevalence": float(np.mean(split.labels)),
        "patients": [
            _patient(name, [split.rows[index] for index in indices])
            for name, indices in of_patient.items()
        ],
    }


def _patient(name: str, rows: Sequence[Row]) -> dict[str, Any]:
    """Lists the places of a patient's patches, and their names unless they follow from these."""
    names = [PurePosixPath(row.file).name for row in rows]
    derived = [f"{name}_idx5_x{row.x}_y{row.y}_class{row.label}.png" for row in rows]
    steps: Counter[int] = Counter()
    for places in ({row.x for row in rows}, {row.y for row in rows}):
        known = sorted(place for place in places if place is not None)
        steps.update(np.diff(known).tolist())
    return {
        "name": name,
        "pitch": steps.most_common(1)[0][0] if steps else 50,  # Pixels between neighbours.
        "x": [row.x for row in rows],
        "y": [row.y for row in rows],
        "names": None if names == derived else names,
    }


def confident_errors(
    split: Split, probabilities: Probabilities
) -> list[tuple[str, list[dict[str, Any]]]]:
    """Finds the errors at 0.5 that are farthest from it: a heading and those errors, by kind."""
    predicted = probabilities >= 0.5
    kinds = []
    for heading, wrong, order in (
        ("Benign, predicted malignant", (split.labels == 0) & predicted, -probabilities),
        ("Malignant, predicted benign", (split.labels == 1) & ~predicted, probabilities),
    ):
        found = [index for index in np.argsort(order, kind="stable") if wrong[index]]
        errors = [
            {
                "row": split.rows[index],
                "probability": float(probabilities[index]),
                "picture": _thumbnail(split.files[index]),
            }
            for index in found[:ERRORS_SHOWN]
        ]
        kinds.append((f"{heading}: {len(errors)} of {len(found):,}", errors))
    return kinds


def _thumbnail(path: Path) -> str | None:
    """Makes a picture for the page, as PNG; None where the patch is unreadable or gone by now."""
    try:
        pixels = cv2.cvtColor(read_pixels(path), cv2.COLOR_RGB2BGR)
    except (OSError, cv2.error, ExcludedError):
        return None
    scale = min(1.0, THUMBNAIL_SIDE / max(pixels.shape[:2]))
    if scale < 1:
        pixels = cv2.resize(pixels, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    return _as_uri(cv2.imencode(".png", pixels)[1].tobytes())


def _as_uri(png: bytes) -> str:
    return "data:image/png;base64," + _base64(png)


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")
