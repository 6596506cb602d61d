"""report.html: one page that shows the whole run, holds all that it needs and loads nothing.

Whatever comes from a file's name or a file's content is data: Jinja2 escapes it in the page, and
`tojson` escapes it in the JSON that the page's script reads, where even `</script>` is harmless.
"""

import base64
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from decimal import ROUND_HALF_UP, Decimal
from pathlib import Path, PurePosixPath
from typing import Any

import cv2
import numpy as np
from jinja2 import ChainableUndefined, Environment, FileSystemLoader

from cancernet.cli import SAMPLE_NOTICE
from cancernet.data.dataset import Row
from cancernet.data.originals import Exclusion
from cancernet.evaluation.evaluation import Probabilities
from cancernet.files import PAGE_FILE, replacing

TEMPLATES = Path(__file__).parent / "templates"

# Errors of each kind in the gallery, and the longest side of a patch in it, in pixels.
ERRORS_SHOWN, THUMBNAIL_SIDE = 12, 100

PICTURES = ("confusion_matrix", "roc", "precision_recall", "calibration", "plot")


def write_page(
    run: Path,
    *,
    metrics: Mapping[str, Any],
    history: Sequence[Mapping[str, float]],
    splits: Mapping[str, Sequence[Row]],
    probabilities: Mapping[str, Probabilities],
    calibrated: Mapping[str, Probabilities],
    exclusions: Sequence[Exclusion],
    dataset: Path,
) -> None:
    """Writes report.html. It shows the testing split, or the validation split where that is empty.

    Args:
        run: Directory to write to, which holds the PNG files and cancernet.json of the run.
        metrics: The content of metrics.json; whatever is absent or None is shown as such.
        history: The rows of history.csv.
        splits: The rows of each split.
        probabilities: Of class 1, float32 in [0, 1], of each split that was scored, in the order of
            its rows.
        calibrated: The same after recalibration.
        exclusions: The files that the data set leaves out.
        dataset: The data set directory, for the patches of the gallery.
    """
    split = "testing" if metrics["testing"] else "validation"
    rows = splits[split]
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES, encoding="utf-8"),
        autoescape=True,
        undefined=ChainableUndefined,  # A figure may be absent, or None, with all that is below it.
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"figure": figure, "interval": interval}
    environment.policies["json.dumps_kwargs"] = {"separators": (",", ":")}
    text = environment.get_template("report.html").render(
        metrics=metrics,
        split=split,
        history=history,
        card=_read_card(run),
        pictures={name: _data_uri(run / f"{name}.png") for name in PICTURES},
        data=embedded(rows, probabilities[split], calibrated[split], figures=metrics[split]),
        gallery=confident_errors(rows, probabilities[split], dataset),
        used=sum(len(of_split) for of_split in splits.values()),
        excluded=Counter(exclusion.reason for exclusion in exclusions).most_common(),
        sample_notice=SAMPLE_NOTICE,
    )
    with replacing(run / PAGE_FILE) as beside:
        beside.write_text(text, encoding="utf-8")


def figure(value: Any, digits: int = 3) -> str:
    """Rounds for the eye as JavaScript's `toFixed` does, so that slider and tables agree."""
    if not isinstance(value, int | float):  # None, or what the run did not compute.
        return "not defined"
    return str(Decimal(value).quantize(Decimal(1).scaleb(-digits), ROUND_HALF_UP))


def interval(bounds: Any, digits: int = 3) -> str:
    """Lays out a 95 % interval; nothing where there is none."""
    return f"{figure(bounds[0], digits)} to {figure(bounds[1], digits)}" if bounds else ""


def embedded(
    rows: Sequence[Row],
    probabilities: Probabilities,
    calibrated: Probabilities,
    *,
    figures: Mapping[str, Any],
) -> dict[str, Any]:
    """Makes what the page's script reads, small enough for the patches of a whole data set.

    Args:
        rows: The patches, all of one split.
        probabilities: Of class 1, float32 in [0, 1], shape (patches,).
        calibrated: The same after recalibration.
        figures: The split's figures as metrics.json has them.

    Returns:
        The patches patient by patient: labels as a text of 0 and 1, probabilities as float32 in
        base64, so that the script compares the very numbers that `evaluation` compared. Names are
        left out for the patients whose names all follow from position and class.
    """
    of_patient: dict[str, list[int]] = {}
    for index, row in enumerate(rows):
        of_patient.setdefault(row.patient, []).append(index)
    order = [index for indices in of_patient.values() for index in indices]
    return {
        "folder": PurePosixPath(rows[0].file).parent.parent.as_posix(),
        "labels": "".join(str(rows[index].label) for index in order),
        "probabilities": _base64_float32(probabilities[order]),
        "calibrated": _base64_float32(calibrated[order]),
        "prevalence": figures["prevalence"],
        "patients": [
            _patient(name, [rows[index] for index in indices])
            for name, indices in of_patient.items()
        ],
    }


def _patient(name: str, rows: Sequence[Row]) -> dict[str, Any]:
    """Lists the places of a patient's patches, and their names unless they follow from these."""
    names = [PurePosixPath(row.file).name for row in rows]
    derived = [f"{name}_idx5_x{row.x}_y{row.y}_class{row.label}.png" for row in rows]
    return {
        "name": name,
        "pitch": _pitch(rows),
        "x": [row.x for row in rows],
        "y": [row.y for row in rows],
        "names": None if names == derived else names,
    }


def _pitch(rows: Sequence[Row]) -> int:
    """Finds how far apart neighbouring patches lie on the slide: the most frequent step, pixels."""
    steps: Counter[int] = Counter()
    for places in ({row.x for row in rows}, {row.y for row in rows}):
        known = sorted(place for place in places if place is not None)
        steps.update(int(step) for step in np.diff(known))
    return steps.most_common(1)[0][0] if steps else 50


def confident_errors(
    rows: Sequence[Row], probabilities: Probabilities, dataset: Path
) -> list[tuple[str, list[dict[str, Any]]]]:
    """Finds the errors at 0.5 that are farthest from it: false alarms, then misses.

    Returns:
        A heading and the errors of each kind, the most confident first, with their pictures.
    """
    labels = np.array([row.label for row in rows])
    kinds = []
    for heading, wrong, order in (
        ("Benign, called malignant", (labels == 0) & (probabilities >= 0.5), -probabilities),
        ("Malignant, called benign", (labels == 1) & (probabilities < 0.5), probabilities),
    ):
        found = [index for index in np.argsort(order, kind="stable") if wrong[index]]
        errors = [
            {
                "row": rows[index],
                "probability": float(probabilities[index]),
                "picture": _thumbnail(dataset / rows[index].file),
            }
            for index in found[:ERRORS_SHOWN]
        ]
        kinds.append((f"{heading}: {len(errors)} of {len(found):,}", errors))
    return kinds


def _thumbnail(path: Path) -> str | None:
    """Makes a picture for the page of a patch of any size, as PNG; None where it is unreadable."""
    try:
        data = np.fromfile(path, dtype=np.uint8)
    except OSError:  # Gone by now: hours of training must not end in an error for that.
        return None
    image = cv2.imdecode(data, cv2.IMREAD_COLOR) if len(data) else None
    if image is None:
        return None
    shrunk = min(1.0, THUMBNAIL_SIDE / max(image.shape[:2]))
    if shrunk < 1:
        image = cv2.resize(image, None, fx=shrunk, fy=shrunk, interpolation=cv2.INTER_AREA)
    return _as_uri(cv2.imencode(".png", image)[1].tobytes())


def _data_uri(path: Path) -> str | None:
    return _as_uri(path.read_bytes()) if path.is_file() else None


def _as_uri(png: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(png).decode("ascii")


def _base64_float32(values: Probabilities) -> str:
    return base64.b64encode(np.asarray(values, dtype="<f4").tobytes()).decode("ascii")


def _read_card(run: Path) -> dict[str, Any]:
    """Reads what belongs to the network, cancernet.json."""
    path = run / "cancernet.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
