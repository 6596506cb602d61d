"""What stands in predictions.html, read without a browser; and how large it gets."""

import base64
import io
import json
import re

import made_up
import numpy as np
import pytest
from made_slides import make_noise
from PIL import Image

from cancernet.cli import SAMPLE_NOTICE
from cancernet.prediction import page

FIGURES = {"malignant_share": 0.125, "malignant_area_mm2": 1.5, "roc_auc": 0.5}


def tissue_of(slide, *, side=10, noise=0):
    """A colour in each cell."""
    rng = np.random.default_rng(1)
    colours = rng.integers(150, 256, (*slide.shape, 3)).repeat(side, axis=0).repeat(side, axis=1)
    colours = colours + rng.integers(-noise, noise + 1, colours.shape)
    return np.clip(colours, 0, 255).astype(np.uint8)


def write(folder, *slides, model="cancernet.keras", **looks):
    shown = [page.show(slide, tissue_of(slide, **looks), FIGURES) for slide in slides]
    page.write(folder / "predictions.html", shown, threshold=0.5, model=model)
    return folder / "predictions.html"


def embedded(path):
    text = path.read_text("utf-8")
    (found,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', text, re.S)
    return json.loads(found)


def pictures(path):
    uris = re.findall(r'<img src="data:image/jpeg;base64,([^"]*)"', path.read_text("utf-8"))
    return [Image.open(io.BytesIO(base64.b64decode(uri))) for uri in uris]


def test_the_page_says_what_it_shows_and_names_are_text(tmp_path):
    slides = [make_noise(made_up.HOSTILE, files=True, sample=True), make_noise("b\udcff.svs")]
    path = write(tmp_path, *slides, model=f"{made_up.HOSTILE}\udcff")
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
    assert {first["folder"] + file for file in first["files"]} == {
        source.file for source in slides[0].sources
    }
    assert second["files"] == []
    assert first["figures"] == ["12.5% predicted malignant", "1.50 mm\u00b2"]
    assert [picture.size for picture in pictures(path)] == [(120, 80)] * 2
    assert "SYNTHETIC" not in write(tmp_path, slides[1]).read_text("utf-8")
    (tmp_path / "none").mkdir()
    assert not write(tmp_path / "none").exists()  # Without a slide there is no page.


@pytest.mark.parametrize(
    ("count", "left_out", "sides"),
    [(1, 0, [400] * 2), (30, 0, [150, 250]), (70, 29, [100, 150])],
)
def test_pictures_shrink_with_the_number_of_slides_and_then_slides_are_counted(
    tmp_path, monkeypatch, count, left_out, sides
):
    monkeypatch.setattr(page, "LIMIT", 1_000_000)
    slides = [make_noise(str(n), rows=20, columns=20) for n in range(count)]
    path = write(tmp_path, *slides, side=20, noise=60)
    assert path.stat().st_size < 1_000_000
    shown = embedded(path)["slides"]
    assert [slide["name"] for slide in shown] == [str(n) for n in range(count - left_out)]
    words = f"{left_out} more slides did not fit onto this page"
    assert (words in path.read_text("utf-8")) is bool(left_out)
    assert len(pictures(path)) == len(shown)
    for picture in pictures(path):
        assert sides[0] <= picture.width == picture.height <= sides[1]
