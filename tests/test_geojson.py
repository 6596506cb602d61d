"""GeoJSON: the form that QuPath reads, outlines that shapely finds valid, sizes in millimetres."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import openslide
import pytest
import shapely
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageDraw

from cancernet.data.patch import PatchFacts
from cancernet.prediction import geojson, slides
from cancernet.prediction.geojson import Tiles
from cancernet.prediction.inputs import Source
from cancernet.prediction.scored import Scored, Slide

RING = ["###", "#.#", "###"]


def tiles_of(drawing: list[str], *, side: float = 50, at: tuple[float, float] = (0, 0)) -> Tiles:
    """Tiles of a drawing: `#` predicted malignant, `.` benign, a space for none."""
    cells = [
        (column, row, sign == "#")
        for row, line in enumerate(drawing)
        for column, sign in enumerate(line)
        if sign != " "
    ]
    columns, rows, malignant = map(np.array, zip(*cells, strict=True))
    ends = [columns, rows, columns + 1, rows + 1]
    edges = np.stack([at[n % 2] + side * end for n, end in enumerate(ends)], axis=1)
    probability = np.where(malignant, 0.9, 0.1).astype(np.float32)
    half = np.where(columns % 2, np.nan, probability)
    measurements = {"probability": probability, "in context": half}
    return Tiles(edges.astype(np.float64), malignant.astype(bool), measurements, (4.0, 4.0))


def written(tmp_path: Path, tiles: Tiles) -> list[dict[str, Any]]:
    geojson.write(tmp_path / "slide.geojson", "slide", tiles, about="Predicted malignant")
    content = json.loads((tmp_path / "slide.geojson").read_text(encoding="utf-8"))
    assert content["type"] == "FeatureCollection"
    return list(content["features"])


def test_each_tile_is_a_locked_detection_and_the_malignant_ones_an_annotation(
    tmp_path: Path,
) -> None:
    *detections, annotation = written(tmp_path, tiles_of(RING))
    assert len({feature["id"] for feature in (*detections, annotation)}) == 10
    for feature in (*detections, annotation):
        assert feature.keys() == {"type", "id", "geometry", "properties"}
        properties = feature["properties"]
        assert properties["isLocked"] is True
        assert properties["classification"] in (geojson.MALIGNANT, geojson.BENIGN)
        assert all(isinstance(value, float) for value in properties["measurements"].values())
        for ring in feature["geometry"]["coordinates"]:
            assert ring[0] == ring[-1]
    assert [feature["properties"]["objectType"] for feature in detections] == ["detection"] * 9
    first, second = (feature["properties"]["measurements"] for feature in detections[:2])
    assert first == {"probability": 0.9, "in context": 0.9}
    assert second == {"probability": 0.9}  # NaN is no number in JSON.
    centre = detections[4]
    assert centre["properties"]["classification"]["name"] == "benign"
    assert centre["geometry"]["coordinates"][0][0] == [50, 50]
    assert annotation["properties"]["objectType"] == "annotation"
    # One polygon with a hole, and QuPath takes no MultiPolygon of one.
    assert annotation["geometry"]["type"] == "Polygon"
    assert len(annotation["geometry"]["coordinates"]) == 2


def test_what_is_nowhere_malignant_twice_or_of_no_scale(tmp_path: Path) -> None:
    assert len(written(tmp_path, tiles_of(["..", ". "]))) == 3
    # Two patches of one place, on no known scale.
    double = Tiles(np.array([[0.0, 0, 5, 5]] * 2), np.array([True, True]), {}, None)
    *detections, annotation = written(tmp_path, double)
    assert len({feature["id"] for feature in (*detections, annotation)}) == 3
    assert annotation["properties"]["measurements"] == {}
    assert tiles_of([".."]).extent() == {"malignant_area_mm2": 0, "largest_focus_mm": 0}


@pytest.mark.parametrize(
    ("drawing", "area", "focus"),
    [
        (["#"], 0.04, 0.2 * 2**0.5),
        (["#.#"], 0.08, 0.2 * 2**0.5),
        (["####"], 0.16, (0.8**2 + 0.2**2) ** 0.5),
        (RING, 0.32, 0.6 * 2**0.5),
    ],
)
def test_sizes_are_in_millimetres(drawing: list[str], area: float, focus: float) -> None:
    # A tile has 50 pixels of 4 micrometres per side: 0.2 mm.
    extent = tiles_of(drawing).extent()
    assert extent == pytest.approx({"malignant_area_mm2": area, "largest_focus_mm": focus})


@given(st.lists(st.text("#. ", min_size=6, max_size=6), min_size=1, max_size=6))
def test_the_outline_holds_the_malignant_tiles_alone(drawing: list[str]) -> None:
    if not "".join(drawing).strip():
        return
    # A shifted, scaled level whose pixels are no whole number: drawn back over the tiles.
    tiles = tiles_of(drawing, side=402.7, at=(1234.5, 77.25))
    outline = tiles.outline
    assert outline.is_valid
    for edges, malignant in zip(tiles.edges, tiles.malignant, strict=True):
        box = shapely.box(*edges)
        assert outline.intersection(box).area == pytest.approx(box.area * malignant, abs=1e-3)


@pytest.mark.parametrize("corner", [(0, 0), (130, 75)])
@pytest.mark.parametrize("mpp", [(1.0, 1.0), (0.9137, 0.9137), (1.3, 1.1)])
def test_the_outline_falls_on_the_tissue_of_a_shifted_and_scaled_slide(
    mpp: tuple[float, float], corner: tuple[int, int]
) -> None:
    bounds = {f"openslide.bounds-{axis}": str(at) for axis, at in zip("xy", corner, strict=True)}

    class Shifted(openslide.ImageSlide):
        properties = property(lambda self: bounds)

    # Dark where the tiles of columns 1 and 2, rows 2 and 3 are; the rest is pale.
    image = Image.new("RGB", (1100, 1300), "white")
    across, down = (4 / each for each in mpp)  # Pixels of the slide per pixel of the tiles.
    ImageDraw.Draw(image).rectangle([50 * across, 100 * down, 150 * across, 200 * down], "navy")
    picture = slides.Picture(Shifted(image), mpp)
    facts = [
        (PatchFacts("", None, tile.x, tile.y), bool(tile.pixels.mean() < 128))
        for tile in slides.cut(picture, min_side=25)
    ]
    rows = [
        Scored(Source("slide", each, "slide"), np.float32(dark), np.float32(dark), dark)
        for each, dark in facts
    ]
    malignant = np.array([row.malignant for row in rows])
    assert malignant.sum() == 4
    edges = Slide("slide", rows, frame=picture.frame).edges()
    outline = Tiles(edges, malignant, {}, None).outline
    # QuPath shows the slide from the corner of what was scanned.
    shown = image.crop((*corner, *image.size))
    drawn = Image.new("1", shown.size)
    for polygon in outline.geoms:
        ImageDraw.Draw(drawn).polygon(list(polygon.exterior.coords), fill=1)
    dark = np.asarray(shown.convert("L")) < 128
    assert np.mean(np.asarray(drawn) != dark) < 0.002  # A line of pixels around, at the most.


def test_a_large_slide_stays_small(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    drawing = ["".join(rng.choice(list("#."), 200)) for _ in range(100)]  # 20,000 tiles.
    written(tmp_path, tiles_of(drawing, side=402.7))
    assert (tmp_path / "slide.geojson").stat().st_size < 12e6


def test_the_same_slide_gives_the_same_file(tmp_path: Path) -> None:
    first, second = (written(tmp_path, tiles_of(RING)) for _ in range(2))
    assert first == second
