"""What stands in predictions.html, read without a browser; and how large it gets."""

import base64
import io
import json
import re

import made_up
import numpy as np
import pytest
from PIL import Image

from cancernet.cli import SAMPLE_NOTICE
from cancernet.prediction import page
from cancernet.prediction.page import Album, Slide


def make_slide(name="slide.svs", *, rows=8, columns=12, side=10, files=False, noise=0):
    """A slide with a patch in most cells, skipped ones in its first row, and holes in both."""
    rng = np.random.default_rng(rows)
    skipped = np.zeros((rows, columns), bool)
    skipped[0] = rng.random(columns) < 0.8
    row, column = np.nonzero(~skipped & (rng.random((rows, columns)) < 0.8))
    probability, calibrated, in_context = rng.random((3, len(row))).astype(np.float32)
    in_context[: len(row) // 4] = np.nan
    labels = rng.integers(0, 2, len(row)) if files else np.full(len(row), -1)
    colours = rng.integers(100, 256, (rows, columns, 3)).repeat(side, axis=0).repeat(side, axis=1)
    colours = colours + rng.integers(-noise, noise + 1, colours.shape)
    return Slide(
        name,
        column,
        row,
        probability,
        calibrated,
        in_context,
        labels,
        [f"p/{label}/<i>{n}.png" for n, label in enumerate(labels)] if files else None,
        np.clip(colours, 0, 255).astype(np.uint8),
        skipped,
        {"malignant_share": 0.125, "malignant_area_mm2": 1.5, "largest_focus_mm": None},
    )


def write(folder, *slides, context_threshold=0.375, model="cancernet.keras", sample=False):
    album = Album()
    for slide in slides:
        album.add(slide)
    path = folder / "predictions.html"
    thresholds = {"threshold": 0.5, "context_threshold": context_threshold}
    album.write(path, **thresholds, model=model, sample=sample)
    return path


def embedded(path):
    text = path.read_text("utf-8")
    (found,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', text, re.S)
    return json.loads(found)


def pictures(path):
    uris = re.findall(r'<img src="data:image/jpeg;base64,([^"]*)"', path.read_text("utf-8"))
    return [Image.open(io.BytesIO(base64.b64decode(uri))) for uri in uris]


def test_the_page_says_what_it_shows_and_names_are_text(tmp_path):
    slides = [make_slide(made_up.HOSTILE, files=True), make_slide("b\udcff.svs")]
    path = write(tmp_path, *slides, model=f"{made_up.HOSTILE}\udcff", sample=True)
    text = path.read_text("utf-8")
    for words in (SAMPLE_NOTICE, "Not a medical device.", "to the nearest square of 0.2 mm"):
        assert words in text
    assert "0.500 on, in the context of its slide from 0.375 on" in re.sub(r"\s+", " ", text)
    assert "did not fit" not in text
    assert not re.search("<script>alert|<!--|<i>[0-9]", text)
    assert text.count("<script") == text.count("</script>") == 2
    assert "b\\udcff.svs" in text
    first, second = embedded(path)["slides"]
    assert [first["name"], second["name"]] == [slide.name for slide in slides]
    assert [first["folder"] + file for file in first["files"]] == slides[0].files
    assert second["files"] is None
    assert first["figures"] == ["12.5% predicted malignant", "1.50 mm\u00b2"]
    assert [picture.size for picture in pictures(path)] == [(120, 80)] * 2
    plain = write(tmp_path, slides[1], context_threshold=None).read_text("utf-8")
    assert not any(words in plain for words in ("SYNTHETIC", "in the context", 'id="by"'))
    (tmp_path / "none").mkdir()
    assert not write(tmp_path / "none").exists()  # Without a slide there is no page.


@pytest.mark.parametrize(
    ("count", "left_out", "sides"),
    [(1, 0, [400] * 2), (30, 0, [150, 200]), (70, 27, [100, 150])],
)
def test_pictures_shrink_with_the_number_of_slides_and_then_slides_are_counted(
    tmp_path, monkeypatch, count, left_out, sides
):
    monkeypatch.setattr(page, "LIMIT", 1_000_000)
    slides = [make_slide(str(n), rows=20, columns=20, side=20, noise=60) for n in range(count)]
    path = write(tmp_path, *slides)
    assert path.stat().st_size < 1_000_000
    shown = embedded(path)["slides"]
    assert [slide["name"] for slide in shown] == [str(n) for n in range(count - left_out)]
    words = f"{left_out} more slides did not fit onto this page"
    assert (words in path.read_text("utf-8")) is bool(left_out)
    assert len(pictures(path)) == len(shown)
    for picture in pictures(path):
        assert sides[0] <= picture.width == picture.height <= sides[1]
