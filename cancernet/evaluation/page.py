"""report.html: one page that shows the whole run, holds all that it needs and loads nothing.

Whatever comes from a file's name or a file's content is data: Jinja2 escapes it in the page, and
`tojson` escapes it in the JSON that the page's script reads, where even `</script>` is harmless.
"""

import base64
import io
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from decimal import ROUND_HALF_UP, Decimal
from os.path import commonprefix
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from numpy.typing import NDArray
from PIL import Image

from cancernet.cli import SAMPLE_NOTICE
from cancernet.data.dataset import Dataset, Row, Split
from cancernet.data.patch import ExcludedError, read_pixels
from cancernet.evaluation.context import Grid, Scores
from cancernet.evaluation.scorecard import pick
from cancernet.files import read_json, replacing

TEMPLATES = Path(__file__).parent / "templates"

ERRORS_SHOWN = 12  # Of each kind in the gallery.
THUMBNAIL_SIDE = 100  # The longest of a patch in the gallery, in pixels.
MOST_CELLS = 1000  # On the longest side of a patient's map.
PICTURES = ("confusion_matrix", "roc", "precision_recall", "calibration", "plot")


def write_page(
    folder: Path,
    data: Dataset,
    scores: Scores,
    metrics: Mapping[str, Any],
    history: Sequence[Mapping[str, float]],
) -> None:
    """Writes report.html of `data.judged`, whose scores it takes; else args as `report.write`."""
    split, metadata = data.judged, folder / "cancernet.json"
    text = render(
        "report.html",
        metrics=metrics,
        split=split.name,
        history=history,
        metadata=read_json(metadata) if metadata.is_file() else {},
        pictures={name: as_uri((folder / f"{name}.png").read_bytes()) for name in PICTURES},
        data=embedded(split, scores, metrics[split.name]),
        gallery=confident_errors(split, scores.raw),
        excluded=Counter(exclusion.reason for exclusion in data.exclusions).most_common(),
    )
    with replacing(folder / "report.html") as beside:
        beside.write_text(text, encoding="utf-8")


def render(template: str, *folders: Path, **values: Any) -> str:
    """Fills in a template of this folder, or of those given, which share this folder's parts."""
    environment = Environment(
        loader=FileSystemLoader([TEMPLATES, *folders], encoding="utf-8"),
        autoescape=True,
        undefined=StrictUndefined,  # A misspelt key is an error; None is "not defined".
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["rounded"] = rounded
    environment.globals["pick"] = pick
    environment.policies["json.dumps_kwargs"] = {"separators": (",", ":")}
    return environment.get_template(template).render(sample_notice=SAMPLE_NOTICE, **values)


def rounded(value: float | None, digits: int = 3) -> str:
    """Rounds for the eye as JavaScript's `toFixed` does, so that slider and tables agree."""
    if value is None:
        return "not defined"
    return str(Decimal(float(value)).quantize(Decimal(1).scaleb(-digits), ROUND_HALF_UP))


def embedded(split: Split, scores: Scores, shown: Mapping[str, Any]) -> dict[str, Any]:
    """Makes what the page's script reads, a slide per patient; `shown` are the split's metrics."""
    patients, grid, slides = np.asarray(split.patients), Grid.of_split(split), []
    for name in dict.fromkeys(split.patients):
        own = np.flatnonzero(patients == name)
        rows = [split.rows[index] for index in own]
        places = laid_out(grid.cells[own], grid.slides[own] >= 0)
        files = [row.file for row in rows]
        slide = as_slide(name, places, split.labels[own], scores[own], files)
        slides.append(slide | {"x": [row.x for row in rows], "y": [row.y for row in rows]})
    around = shown["in_context"]  # None where no patch is in context.
    least = around and around["at_validation_threshold"]["threshold"]
    return {"slides": slides, "context_threshold": least, "prevalence": shown["prevalence"]}


def laid_out(cells: NDArray[np.int64], placed: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Moves a patient's cells to a map's corner; patches without a place stand below, in rows."""
    found, below = np.zeros_like(cells), 0
    if placed.any():
        found[placed] = cells[placed] - cells[placed].min(axis=0)
        found //= found.max() // MOST_CELLS + 1  # Names may tell positions that no slide has.
        below = found[:, 1].max() + 2
    others = np.arange(np.sum(~placed))
    across = max(1, math.ceil(math.sqrt(len(others))))
    found[~placed] = np.stack([others % across, below + others // across], axis=1)
    return found


def as_slide(
    name: str,
    places: NDArray[np.integer[Any]],
    labels: NDArray[np.integer[Any]],
    scores: Scores,
    files: Sequence[str],
    skipped: NDArray[np.bool_] | None = None,
) -> dict[str, Any]:
    """Makes a slide as viewer.js takes it.

    Labels are a text of 0, 1 and - for unknown, probabilities float32 in base64: small enough for
    whole data sets, and the very numbers that `metrics` compared.

    Args:
        name: Any text.
        places: Column and row of each patch in the slide's grid, shape (patches, 2).
        labels: Of each patch, -1 where unknown.
        scores: Of each patch.
        files: Path of each patch, empty if all were cut from one image.
        skipped: True where a cell of the grid was skipped as background, shape (rows, columns);
            None for a grid that just holds the patches.
    """
    if skipped is None:
        skipped = np.zeros(places.max(axis=0)[::-1] + 1, bool)
    folder = commonprefix(files)  # noqa: RUF071 (as text: it is put back)
    return {
        "name": name,
        "folder": folder,
        "files": [file.removeprefix(folder) for file in files],
        "width": skipped.shape[1],
        "height": skipped.shape[0],
        "columns": as_base64(places[:, 0].astype("<u2")),
        "rows": as_base64(places[:, 1].astype("<u2")),
        "labels": "".join("01-"[label] for label in labels),
        "skipped": as_base64(np.packbits(skipped)),  # One bit per cell, row by row.
        **{kind: as_base64(values.astype("<f4")) for kind, values in vars(scores).items()},
    }


def confident_errors(
    split: Split, probabilities: NDArray[np.float32]
) -> list[tuple[str, list[tuple[Row, float, str | None]]]]:
    """Finds the errors farthest from 0.5: by kind a heading, and row, probability, picture."""
    kinds = []
    for label, heading in enumerate(("Benign, predicted malignant", "Malignant, predicted benign")):
        order = np.argsort(probabilities if label else -probabilities, kind="stable")
        wrong = (split.labels == label) & ((probabilities >= 0.5) != label)
        found = order[wrong[order]]
        errors = [
            (split.rows[index], float(probabilities[index]), _thumbnail(split.files[index]))
            for index in found[:ERRORS_SHOWN]
        ]
        kinds.append((f"{heading}: {len(errors)} of {len(found):,}", errors))
    return kinds


def _thumbnail(path: Path) -> str | None:
    """Makes a picture for the page, as PNG; None where the patch is unreadable or gone by now."""
    try:
        picture = Image.fromarray(read_pixels(path))
    except (OSError, ExcludedError):
        return None
    picture.thumbnail((THUMBNAIL_SIDE, THUMBNAIL_SIDE))
    file = io.BytesIO()
    picture.save(file, "PNG")
    return as_uri(file.getvalue())


def as_uri(picture: bytes, kind: str = "png") -> str:
    """Makes what a page loads a picture from, of the bytes of its file."""
    return f"data:image/{kind};base64," + as_base64(np.frombuffer(picture, np.uint8))


def as_base64(values: NDArray[Any]) -> str:
    """Makes what `decode` in viewer.js reads."""
    return base64.b64encode(values.tobytes()).decode("ascii")
