"""GeoJSON: the form that QuPath reads, outlines that shapely finds valid, sizes in millimetres."""

import json

import numpy as np
import openslide
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from made_slides import make_slide
from PIL import Image, ImageDraw

from cancernet.prediction import geojson, slides
from cancernet.prediction.slides import Frame

RING = ["###", "#.#", "###"]


def slide_of(drawing, frame=None):
    """A slide of a drawing: `#` predicted malignant, `.` benign, a space for none."""
    cells = [(x, y) for y, line in enumerate(drawing) for x, sign in enumerate(line) if sign != " "]
    probability = [0.9 if drawing[y][x] == "#" else 0.1 for x, y in cells]
    return make_slide(cells, probability, frame=frame or Frame())


def written(tmp_path, slide):
    geojson.write(tmp_path / "slide.geojson", slide)
    content = json.loads((tmp_path / "slide.geojson").read_text(encoding="utf-8"))
    assert content["type"] == "FeatureCollection"
    return content["features"]


def test_each_tile_is_a_locked_detection_and_the_malignant_ones_an_annotation(tmp_path):
    features = written(tmp_path, slide_of(RING))
    assert features == written(tmp_path, slide_of(RING))  # The same slide gives the same file.
    *detections, annotation = features
    assert len({feature["id"] for feature in features}) == 10
    for feature in features:
        assert feature.keys() == {"type", "id", "geometry", "properties"}
        properties = feature["properties"]
        assert properties["isLocked"] is True
        assert properties["classification"] in (geojson.MALIGNANT, geojson.BENIGN)
        for ring in feature["geometry"]["coordinates"]:
            assert ring[0] == ring[-1]
    kinds = [feature["properties"]["objectType"] for feature in features]
    assert kinds == [*["detection"] * 9, "annotation"]
    first, centre = detections[0], detections[4]
    # Without neighbours there is no probability in context.
    assert first["properties"]["measurements"] == {"probability": 0.9, "calibrated": 0.9}
    assert centre["properties"]["classification"]["name"] == "benign"
    assert centre["geometry"]["coordinates"][0][0] == [50, 50]
    # One polygon with a hole, and QuPath takes no MultiPolygon of one.
    assert annotation["geometry"]["type"] == "Polygon"
    assert len(annotation["geometry"]["coordinates"]) == 2


def test_what_is_nowhere_malignant_twice_or_of_no_scale(tmp_path):
    assert len(written(tmp_path, slide_of(["..", ". "]))) == 3
    # Two patches of one place, on no known scale.
    double = make_slide([(0, 0)] * 2, [0.9] * 2, frame=Frame(micrometres=None))
    *detections, annotation = written(tmp_path, double)
    assert len({feature["id"] for feature in (*detections, annotation)}) == 3
    assert annotation["properties"]["measurements"] == {}


@pytest.mark.parametrize(
    ("drawing", "area", "focus"),
    [
        ([".."], 0, 0),
        (["#"], 0.04, 0.2 * 2**0.5),
        (["#.#"], 0.08, 0.2 * 2**0.5),
        (["####"], 0.16, (0.8**2 + 0.2**2) ** 0.5),
        (RING, 0.32, 0.6 * 2**0.5),
    ],
)
def test_sizes_are_in_millimetres(tmp_path, drawing, area, focus):
    # A tile has 50 pixels of 4 micrometres per side: 0.2 mm.
    extent = geojson.write(tmp_path / "slide.geojson", slide_of(drawing))
    assert extent == pytest.approx({"malignant_area_mm2": area, "largest_focus_mm": focus})


@settings(deadline=None)
@given(st.lists(st.text("#. ", min_size=6, max_size=6), min_size=1, max_size=6))
def test_the_outline_holds_the_malignant_tiles_alone(drawing):
    if not "".join(drawing).strip():
        return
    # A shifted, scaled level whose pixels are no whole number: drawn back over the tiles.
    slide = slide_of(drawing, Frame(scale=(8.054, 8.054), corner=(1234.5, 77.25)))
    outline = geojson.outline_of(slide)
    assert outline.is_valid
    for edges, malignant in zip(slide.edges, slide.malignant, strict=True):
        box = shapely.box(*edges)
        assert outline.intersection(box).area == pytest.approx(box.area * malignant, abs=1e-3)


@pytest.mark.parametrize(
    ("mpp", "corner"),
    [((1.0, 1.0), (0, 0)), ((0.9137, 0.9137), (130, 75)), ((1.3, 1.1), (130, 75))],
)
def test_the_outline_falls_on_the_tissue_of_a_shifted_and_scaled_slide(mpp, corner):
    bounds = {f"openslide.bounds-{axis}": str(at) for axis, at in zip("xy", corner, strict=True)}

    class Shifted(openslide.ImageSlide):
        properties = property(lambda self: bounds)

    # Dark where the tiles of columns 1 and 2, rows 2 and 3 are; the rest is pale.
    image = Image.new("RGB", (1100, 1300), "white")
    across, down = (4 / each for each in mpp)  # Pixels of the slide per pixel of the tiles.
    ImageDraw.Draw(image).rectangle([50 * across, 100 * down, 150 * across, 200 * down], "navy")
    picture = slides.Picture(Shifted(image), mpp)
    tiles = list(slides.cut(picture, min_side=25))
    cells = [(tile.x / 50, tile.y / 50) for tile in tiles]
    slide = make_slide(cells, [tile.pixels.mean() < 128 for tile in tiles], frame=picture.frame)
    assert slide.malignant.sum() == 4
    # QuPath shows the slide from the corner of what was scanned.
    shown = image.crop((*corner, *image.size))
    drawn = Image.new("1", shown.size)
    for polygon in geojson.outline_of(slide).geoms:
        ImageDraw.Draw(drawn).polygon(list(polygon.exterior.coords), fill=1)
    dark = np.asarray(shown.convert("L")) < 128
    assert np.mean(np.asarray(drawn) != dark) < 0.002  # A line of pixels around, at the most.
