"""predictions.html: one page for the slides of a run, which holds all that it needs.

Names of files are data, as in `evaluation.page`, whose viewer this page shares. The page stays
below LIMIT whatever the number of slides: their pictures shrink as slides are added, and when they
are as small as is of use, further slides are left out and counted.
"""

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from os.path import commonprefix
from pathlib import Path
from typing import Any

import numpy as np
from jinja2.utils import htmlsafe_json_dumps
from numpy.typing import NDArray
from PIL import Image

from cancernet.evaluation.context import Scores
from cancernet.evaluation.page import as_slide, as_uri, render
from cancernet.files import replacing

TEMPLATES = Path(__file__).parent / "templates"

LIMIT = 25_000_000  # Bytes of the page.
SMALLEST = 10_000  # Bytes of a slide's picture that there must be room for.
MOST_CELLS = 10_000  # Of a side of the grid: what every browser draws.
QUALITY = 80  # Of JPEG, in percent.

# What the list says of a slide: its figures, and how each is written.
FIGURES = {
    "malignant_share": "{:.1%} predicted malignant",
    "malignant_area_mm2": "{:.2f} mm\u00b2",
    "largest_focus_mm": "largest focus {:.1f} mm",
}


@dataclass(frozen=True)
class Slide:
    """What the page shows of a slide, an image or a patient.

    Attributes:
        name: Any text.
        columns: Of each patch's cell in the grid, from 0 at the left, shape (patches,).
        rows: Likewise, from 0 at the top.
        probability: Of class 1, shape (patches,).
        calibrated: Likewise, after recalibration.
        in_context: Likewise, NaN where there is none.
        labels: 0 or 1, -1 where unknown, shape (patches,).
        files: The file of each patch, None where all were cut from one image.
        tissue: The grid as a picture: uint8, RGB, shape (rows * side, columns * side, 3).
        skipped: True where a tile was skipped as background, shape (rows, columns).
        figures: Some of FIGURES, at the model's threshold; None is left out.
        square_mm: The side of a cell.
    """

    name: str
    columns: NDArray[np.integer[Any]]
    rows: NDArray[np.integer[Any]]
    probability: NDArray[np.float32]
    calibrated: NDArray[np.float32]
    in_context: NDArray[np.float32]
    labels: NDArray[np.integer[Any]]
    files: Sequence[str] | None
    tissue: NDArray[np.uint8]
    skipped: NDArray[np.bool_]
    figures: Mapping[str, float | None]
    square_mm: float = 0.2

    def embedded(self) -> dict[str, Any]:
        """Makes what the page's script reads, but for the picture."""
        places = np.stack([self.columns, self.rows], axis=1)
        scores = Scores(self.probability, self.calibrated, self.in_context)
        folder = commonprefix(list(self.files or []))  # noqa: RUF071 (as text: it is put back)
        return as_slide(self.name, places, self.labels, scores, self.skipped) | {
            "folder": folder,
            "files": self.files and [file.removeprefix(folder) for file in self.files],
            "figures": [
                FIGURES[name].format(value)
                for name, value in self.figures.items()
                if value is not None
            ],
            "square_mm": self.square_mm,
        }


class Album:
    """The slides of a run, made ready for the page one by one."""

    def __init__(self) -> None:
        """Starts without a slide."""
        self.slides: list[dict[str, Any]] = []
        self._pictures: list[bytes] = []
        self._numbers = 100_000  # Bytes of all but the pictures, the page's own among them.
        self._share = LIMIT  # Bytes of a picture at most.
        self._left_out = 0

    def add(self, slide: Slide) -> None:
        """Takes a slide in, or counts it where the page is full."""
        facts = slide.embedded()
        numbers = len(htmlsafe_json_dumps(facts))
        room = LIMIT - self._numbers - numbers
        least = _encoded(SMALLEST) * (len(self.slides) + 1)
        if least > room or max(slide.skipped.shape) > MOST_CELLS:
            self._left_out += 1
            return
        self.slides.append(facts)
        self._numbers += numbers
        self._pictures.append(_jpeg(Image.fromarray(slide.tissue), self._share))
        while sum(map(_encoded, map(len, self._pictures))) > LIMIT - self._numbers:
            self._share //= 2
            self._pictures = [_smaller(picture, self._share) for picture in self._pictures]

    def write(
        self,
        path: Path,
        *,
        threshold: float,
        context_threshold: float | None,
        model: str,
        sample: bool,
    ) -> None:
        """Writes the page, if it has a slide.

        Args:
            path: File to write.
            threshold: A patch is predicted malignant from this probability on.
            context_threshold: The same in context, None where the model has no context.
            model: The model's file, as the page names it.
            sample: Whether model or patches are synthetic, which the page then says.
        """
        if not self.slides:
            return
        thresholds = {"threshold": threshold, "context_threshold": context_threshold}
        text = render(
            "predictions.html",
            TEMPLATES,
            data={"slides": self.slides, **thresholds},
            pictures=[as_uri(picture, "jpeg") for picture in self._pictures],
            model=model,
            sample=sample,
            squares=sorted({slide["square_mm"] for slide in self.slides}),
            left_out=self._left_out,
            limit=LIMIT,
        )
        with replacing(path) as beside:
            # A file name that is no text is escaped.
            beside.write_text(text, encoding="utf-8", errors="backslashreplace")


def _encoded(size: int) -> int:
    """Counts the bytes that so many take in base64, with what stands around them."""
    return size * 4 // 3 + 100


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
