"""predictions.html: one page for the slides of a run, which holds all that it needs.

Names of files are data, as in `evaluation.page`, whose viewer this page shares. The page stays
below LIMIT whatever the number of slides: the more there are the smaller are their pictures, and
when these are as small as is of use, further slides are left out and counted.
"""

import io
from collections.abc import Mapping
from os.path import commonprefix
from pathlib import Path
from typing import Any

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


class Album:
    """The slides of a run, made ready for the page one by one."""

    def __init__(self) -> None:
        """Starts without a slide."""
        self.slides: list[dict[str, Any]] = []
        self._pictures: list[bytes] = []
        self._sample = False  # Whether any slide is synthetic, or the model.
        self._context: Context | None = None  # What put any patch of them in context.

    def add(
        self, slide: Slide, tissue: NDArray[np.uint8], figures: Mapping[str, float | None]
    ) -> None:
        """Takes in a slide, its tissue as `reassemble` makes it, and its figures, by name."""
        self._sample |= slide.sample
        self._context = self._context or slide.context
        self.slides.append(embedded(slide, figures))
        self._pictures.append(_jpeg(Image.fromarray(tissue), LIMIT))

    def write(self, path: Path, *, threshold: float, model: str) -> None:
        """Writes the page, if it has a slide; tells the model's name, and its threshold alone."""
        numbers = [PER_SLIDE + len(htmlsafe_json_dumps(slide)) for slide in self.slides]
        # What each picture may take if the page ends with it; base64 makes four bytes of three.
        room = (LIMIT - FIXED - np.cumsum(numbers)) * 3 // 4 // np.arange(1, len(numbers) + 1)
        if not (fit := int(np.sum(room >= SMALLEST))):
            return
        pictures = (_smaller(picture, room[fit - 1]) for picture in self._pictures[:fit])
        thresholds = {
            "threshold": threshold,
            "context_threshold": self._context.threshold if self._context else None,
        }
        text = render(
            "predictions.html",
            TEMPLATES,
            data={"slides": self.slides[:fit], **thresholds},
            pictures=[as_uri(picture, "jpeg") for picture in pictures],
            model=model,
            sample=self._sample,
            left_out=len(self.slides) - fit,
            limit=LIMIT,
        )
        with replacing(path) as beside:
            # A file name that is no text is escaped.
            beside.write_text(text, encoding="utf-8", errors="backslashreplace")


def embedded(slide: Slide, figures: Mapping[str, float | None]) -> dict[str, Any]:
    """Makes what the page's script reads of a slide, but for the picture."""
    own = slide.first[slide.first < len(slide)]  # Of patches that share a square, the first.
    scores = Scores(slide.probability[own], slide.calibrated[own], slide.in_context[own])
    places, labels = slide.cells[own].astype(int), slide.labels[own]
    # The file of each patch, unless all were cut from one image.
    files = [slide.sources[index].file for index in own] if slide.pictures is None else []
    folder = commonprefix(files)  # noqa: RUF071 (as text: it is put back)
    known = {name: figures.get(name) for name in FIGURES}
    return as_slide(slide.name, places, labels, scores, slide.background) | {
        "folder": folder,
        "files": [file.removeprefix(folder) for file in files] or None,
        "figures": [
            FIGURES[name].format(value) for name, value in known.items() if value is not None
        ],
    }


def _jpeg(image: Image.Image, most: int) -> bytes:
    """Encodes a picture, scaled down until it takes no more than `most` bytes."""
    while True:
        file = io.BytesIO()
        image.save(file, "JPEG", quality=QUALITY)
        if file.tell() <= most or max(image.size) == 1:
            return file.getvalue()
        scale = 0.95 * (most / file.tell()) ** 0.5
        width, height = (max(1, int(side * scale)) for side in image.size)
        image = image.resize((width, height), Image.Resampling.BOX)


def _smaller(picture: bytes, most: int) -> bytes:
    return picture if len(picture) <= most else _jpeg(Image.open(io.BytesIO(picture)), most)
