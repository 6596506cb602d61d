"""predictions.html: one page for the slides of a run, which holds all that it needs.

Names of files are data, as in `evaluation.page`, whose viewer this page shares. The page stays
below LIMIT whatever the number of slides: the more there are the smaller are their pictures, and
when these are as small as is of use, further slides are left out and counted.
"""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jinja2.utils import htmlsafe_json_dumps
from numpy.typing import NDArray
from PIL import Image

from cancernet.evaluation.context import Context, Scores
from cancernet.evaluation.page import as_slide, as_uri, render
from cancernet.files import replacing
from cancernet.prediction.scored import Slide

TEMPLATES = Path(__file__).parent / "templates"

LIMIT = 25_000_000  # Bytes of the page,
FIXED, PER_SLIDE = 100_000, 1000  # of which so many hold neither numbers nor pictures.
SMALLEST = 10_000  # Bytes of a slide's picture that there must be room for.
QUALITY = 80  # Of JPEG, in percent.

# What the list says of a slide: its figures, and how each is written.
FIGURES = {
    "malignant_share": "{:.1%} predicted malignant",
    "malignant_area_mm2": "{:.2f} mm\u00b2",
    "largest_focus_mm": "largest focus {:.1f} mm",
}


class Shown(NamedTuple):
    """A slide as the page shows it."""

    content: dict[str, Any]  # What the page's script reads.
    picture: bytes  # JPEG.
    sample: bool
    context: Context | None


def show(slide: Slide, tissue: NDArray[np.uint8], figures: Mapping[str, Any]) -> Shown:
    """Makes a slide ready for the page: its tissue as `reassemble` makes it, its figures by name.

    Only what is returned need be kept until all slides of the run are scored.
    """
    picture = _jpeg(Image.fromarray(tissue))
    return Shown(_embedded(slide, figures), picture, slide.sample, slide.context)


def write(path: Path, slides: Sequence[Shown], *, threshold: float, model: str) -> None:
    """Writes the page, if there are slides; tells the model's name, and its threshold alone."""
    numbers = [PER_SLIDE + len(htmlsafe_json_dumps(slide.content)) for slide in slides]
    # What each picture may take if the page ends with it; base64 makes four bytes of three.
    room = (LIMIT - FIXED - np.cumsum(numbers)) * 3 // 4 // np.arange(1, len(numbers) + 1)
    if not (fit := int(np.sum(room >= SMALLEST))):
        return
    text = render(
        "predictions.html",
        TEMPLATES,
        data={
            "slides": [slide.content for slide in slides[:fit]],
            "threshold": threshold,
            "context_threshold": next(
                (each.context.threshold for each in slides if each.context), None
            ),
        },
        pictures=[as_uri(_smaller(slide.picture, room[fit - 1]), "jpeg") for slide in slides[:fit]],
        model=model,
        sample=any(slide.sample for slide in slides),
        left_out=len(slides) - fit,
        limit=LIMIT,
    )
    with replacing(path) as beside:
        # A file name that is no text is escaped.
        beside.write_text(text, encoding="utf-8", errors="backslashreplace")


def _embedded(slide: Slide, figures: Mapping[str, Any]) -> dict[str, Any]:
    squares = slide.place(np.arange(len(slide)), -1)
    own = squares[squares >= 0]
    scores = Scores(slide.probability[own], slide.calibrated[own], slide.in_context[own])
    places, labels = slide.cells[own].astype(int), slide.labels[own]
    # The file of each patch, unless all were cut from one image.
    files = [slide.sources[index].file for index in own] if slide.pictures is None else []
    told = [text.format(figures[key]) for key, text in FIGURES.items() if key in figures]
    own_slide = as_slide(slide.name, places, labels, scores, files, slide.background)
    return own_slide | {"figures": told}


def _jpeg(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, "JPEG", quality=QUALITY)
    return file.getvalue()


def _smaller(picture: bytes, most: int) -> bytes:
    """Scales a picture down until it takes no more than `most` bytes."""
    with Image.open(io.BytesIO(picture)) as opened:
        image = opened.convert("RGB")
    while len(picture) > most and max(image.size) > 1:
        scale = 0.95 * (most / len(picture)) ** 0.5
        width, height = (max(1, int(side * scale)) for side in image.size)
        image = image.resize((width, height), Image.Resampling.BOX)
        picture = _jpeg(image)
    return picture
