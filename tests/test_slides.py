"""Images and slides of any container, made here: their scale, their page, their tiles."""

import math
import re
from contextlib import closing
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image

from cancernet.data.patch import ExcludedError
from cancernet.prediction import slides
from cancernet.prediction.opening import open_picture

MANY = 10**8


def tissue(height, width):
    return np.random.default_rng(0).integers(0, 200, (height, width, 3), dtype=np.uint8)


def opened(path, *, mpp=None, max_pixels=MANY):
    return closing(open_picture(path, mpp=mpp, max_pixels=max_pixels))


def cut(path, *, mpp=None, min_side=25):
    with opened(path, mpp=mpp) as picture:
        tiles = list(slides.cut(picture, min_side=min_side))
        assert len(tiles) == math.prod(slides.grid_size(picture, min_side=min_side))
        return tiles


def assert_tiles(tiles, pixels):
    """Holds tiles against the pixels of the whole picture."""
    for tile in tiles:
        expected = pixels[tile.y - 1 : tile.y + 49, tile.x - 1 : tile.x + 49]
        np.testing.assert_array_equal(tile.pixels, expected)


def save(path, pixels, **settings):
    Image.fromarray(pixels).save(path, **settings)
    return path


def enlarged(pixels, times):
    return pixels.repeat(times, 0).repeat(times, 1)


def save_tiff(path, *pages, mpp=None, levels=False, **settings):
    """Writes the pages of a TIFF, or the levels of a slide; it states a scale or none."""
    if mpp:
        settings |= {"resolution": (1e4 / mpp,) * 2, "resolutionunit": "CENTIMETER"}
    own = {name: settings.pop(name) for name in ("bigtiff", "imagej") if name in settings}
    with tifffile.TiffWriter(path, **own) as writer:
        for number, page in enumerate(pages):
            reduced = {"subfiletype": 1} if levels and number else {}
            writer.write(page, **{"photometric": "rgb", **settings, **reduced})
    return path


# --- Scales and containers ------------------------------------------------------------------------


EXIF = Image.Exif()
EXIF[282], EXIF[283], EXIF[296] = 1e4, 1e4, 3
OME = '<OME><Pixels PhysicalSizeX="{0}" PhysicalSizeXUnit="{1}" PhysicalSizeY="{0}"/></OME>'.format
INCH = {"dpi": (25_400, 25_400)}
IMAGEJ = {"imagej": True, "resolution": (1, 1), "metadata": {"unit": "um", "axes": "YXS"}}
# What Pillow or, of a .tiff, tifffile is told; what the picture says of its scale.
STATED: dict[str, Any] = {
    "inch.png": (INCH, "1 micrometres per pixel, stated by its header"),
    "inch.tif": (INCH, "1 micrometres per pixel, stated by its tags"),
    "exif.webp": ({"lossless": True, "exif": EXIF}, "1 .* stated by its tags"),
    "ome.tiff": ({"description": OME(1, "µm").encode()}, "1 .* OME's"),
    "nanometres.tiff": ({"description": OME(1000, "nm"), "resolution": (72, 72)}, "1 .* OME's"),
    "imagej.tiff": (IMAGEJ, "1 .* stated by ImageJ's description"),
    "big.tiff": ({"mpp": 1, "bigtiff": True}, "1 .* stated by its tags"),
    "tiled.tiff": ({"mpp": 1, "tile": (64, 64)}, "1 .* stated by the slide"),
}


@pytest.mark.parametrize("name", STATED)
def test_the_same_pixels_in_any_container_give_the_same_tiles(tmp_path, name):
    settings, words = STATED[name]
    pixels = tissue(110, 120)
    write = save_tiff if name.endswith(".tiff") else save
    path = write(tmp_path / name, enlarged(pixels, 4), **settings)
    path.rename(tmp_path / "any.dat")  # Whatever its ending.
    with opened(tmp_path / "any.dat") as picture:
        assert (picture.width, picture.height) == (120, 110)
        np.testing.assert_array_equal(picture.read_all(), pixels)
    assert re.match(words, picture.scale)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({}, "since it states no scale: where that is wrong, name --mpp"),
        ({"dpi": (72, 72)}, "implausible scale .352.8 by its tags.*name --mpp"),
        ({"dpi": (25.4, 25.4)}, "implausible scale .1000 by its tags"),
        ({"dpi": (0, 0)}, "states no scale"),
        ({"description": OME("abc", "µm")}, "states no scale"),
    ],
)
def test_a_missing_or_implausible_scale_is_said(tmp_path, settings, words):
    path = save(tmp_path / "image.tif", tissue(120, 120), **settings)
    with opened(path) as picture:
        assert re.search(f"taken as 4 micrometres .*{words}", picture.scale)
    with opened(path, mpp=2) as picture:
        assert picture.scale.startswith("2 micrometres per pixel by --mpp (stated: ")
        assert picture.width == 60


# What a TIFF is made of, and why it is refused.
REFUSED: dict[str, Any] = {
    "16 bits": (([tissue(120, 120).astype(np.uint16) * 16], {}), "not 8 bits a channel: 16"),
    "grey, 16 bits": (
        ([np.zeros((120, 120), np.uint16)], {"photometric": "minisblack"}),
        "not 8 bits a channel: 16",
    ),
    "stack": (([tissue(120, 120)] * 3, {}), "3 pages of like size"),
    "stack, tiled": (([tissue(120, 120)] * 3, {"tile": (64, 64), "mpp": 4}), "3 pages of like"),
    "tiled, no scale": (([tissue(120, 120)], {"tile": (64, 64)}), "no scale: name .* --mpp"),
    "coarse": (([tissue(120, 120)], {"mpp": 4.1}), "too coarse .* --mpp"),
    "narrow": (([tissue(20, 120)], {}), "side under 25 pixels"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_may_be_taken_wrongly_is_refused(tmp_path, name):
    (pages, settings), reason = REFUSED[name]
    save_tiff(tmp_path / "image.tif", *pages, **settings)
    with pytest.raises(ExcludedError, match=reason):
        cut(tmp_path / "image.tif")


@pytest.mark.parametrize("tiled", [{}, {"tile": (64, 64), "mpp": 4}])
@pytest.mark.parametrize("order", [1, -1])
def test_of_several_pages_the_full_one_is_opened(tmp_path, tiled, order):
    pixels = tissue(200, 200)
    path = save_tiff(tmp_path / "image.tif", *(pixels, pixels[::4, ::4])[::order], **tiled)
    assert_tiles(cut(path), pixels)


def test_whatever_a_reader_fails_of_is_a_reason(tmp_path, monkeypatch):
    whole = {
        "flat.tif": save_tiff(tmp_path / "a.tif", tissue(120, 120)),
        "tiled.tif": save_tiff(tmp_path / "b.tif", tissue(120, 120), tile=(64, 64), mpp=4),
        "image.png": save(tmp_path / "c.png", tissue(120, 120)),
        "image.webp": save(tmp_path / "d.webp", tissue(120, 120)),
    }
    for name, path in whole.items():
        data = path.read_bytes()
        for kept in (0, 3, 9, 100, 200, 300, len(data) // 2):
            (tmp_path / name).write_bytes(data[:kept])
            with pytest.raises(ExcludedError):
                cut(tmp_path / name)
    with pytest.raises(ExcludedError, match="more than 14,399 pixels"):
        opened(whole["image.png"], max_pixels=14_399)

    def fail(*_: object) -> None:
        raise MemoryError

    with opened(whole["tiled.tif"]) as picture:
        monkeypatch.setattr(picture._slide, "read_region", fail)
        with pytest.raises(ExcludedError, match="MemoryError"):
            picture.read(0, 0, 50, 50)


def test_what_is_transparent_lies_on_white(tmp_path):
    pixels = np.dstack([tissue(120, 120), np.zeros((120, 120), np.uint8)])
    pixels[:50, :50, 3] = 255
    expected = np.where(pixels[..., 3:] == 255, pixels[..., :3], 255)
    assert_tiles(cut(save(tmp_path / "image.png", pixels)), expected)


# --- Tiles ----------------------------------------------------------------------------------------


def test_an_image_is_cut_into_a_grid_with_smaller_tiles_at_its_edges(tmp_path):
    pixels = tissue(130, 220)
    found = cut(save(tmp_path / "image.png", pixels))
    # 220 = 4 x 50 + 20: the last column is a sliver; 130 = 2 x 50 + 30: the last row is not.
    assert [(tile.x, tile.y) for tile in found] == [
        (x, y) for y in (1, 51, 101) for x in (1, 51, 101, 151)
    ]
    assert_tiles(found, pixels)
    assert found[-1].pixels.shape == (30, 50, 3)
    assert len(cut(tmp_path / "image.png", min_side=20)) == 15


@pytest.mark.parametrize(("height", "width"), [(1, 1), (30, 100)])
def test_a_small_image_is_one_patch_at_any_scale(tmp_path, height, width):
    pixels = tissue(height, width)
    with opened(save(tmp_path / "patch.tif", pixels), mpp=0.5) as picture:
        assert picture.one_patch
        np.testing.assert_array_equal(picture.read_all(), pixels)
    assert len(cut(save(tmp_path / "wide.png", tissue(50, 101)))) == 2


def test_strips_are_put_together_without_a_seam_at_any_resolution(tmp_path, monkeypatch):
    pixels = tissue(60, 520)
    monkeypatch.setattr(slides, "STRIP", 120)
    for mpp, times in ((None, 1), (1.0, 4)):
        path = save(tmp_path / "image.png", enlarged(pixels, times))
        found = cut(path, mpp=mpp, min_side=10)
        assert len(found) == 2 * 11
        assert_tiles(found, pixels)


@pytest.mark.parametrize("mpp", [1.7, 3.99])
def test_an_image_is_scaled_as_pillow_scales_it_whole(tmp_path, mpp):
    pixels = tissue(400, 500)
    with opened(save(tmp_path / "image.png", pixels), mpp=mpp) as picture:
        width, height = picture.width, picture.height
        assert (width, height) == (int(500 * mpp / 4 + 1e-6), int(400 * mpp / 4 + 1e-6))
        x, y = width // 3, height // 2
        found = picture.read(x, y, width - x, height - y)
    box = (0, 0, width * 4 / mpp, height * 4 / mpp)
    whole = Image.fromarray(pixels).resize((width, height), Image.Resampling.BOX, box=box)
    assert np.abs(np.asarray(whole)[y:, x:].astype(int) - found).max() <= 1


@pytest.mark.parametrize("levels", [1, 3, 4])
def test_a_slide_gives_the_pixels_of_4_micrometres(tmp_path, levels):
    pixels = tissue(110, 260)
    pages = [enlarged(pixels, 8 // 2**level) for level in range(levels)]
    path = save_tiff(tmp_path / "slide.tiff", *pages, levels=True, mpp=0.5, tile=(64, 64))
    with opened(path, max_pixels=1) as picture:
        assert (picture.width, picture.height) == (260, 110)
        # From the level just finer: 8 pixels a pixel with one level, 2 with three, 1 with four.
        assert picture.finer == 8 / 2 ** (levels - 1)
        outside = picture.read(500, 500, 50, 50)
    assert (outside == 255).all()  # What the scanner did not see is glass.
    assert_tiles(cut(path), pixels)


@pytest.mark.parametrize(
    ("colour", "noise", "glass"),
    [
        ((240, 240, 240), 2, True),  # Glass, with the noise of a camera.
        ((203, 203, 203), 8, True),  # Grey glass.
        ((232, 226, 215), 2, True),  # Under a yellow lamp.
        ((0, 0, 0), 0, True),  # A border.
        ((8, 8, 8), 6, True),  # A noisy one.
        ((30, 60, 190), 10, True),  # A blue pen,
        ((45, 35, 190), 10, True),  # a bluer one,
        ((30, 140, 70), 10, True),  # a green one,
        ((40, 40, 45), 8, True),  # and a black one.
        ((225, 180, 205), 6, False),  # Eosin, pale.
        ((110, 70, 150), 20, False),  # Haematoxylin.
    ],
)
def test_glass_borders_and_pens_are_no_tissue(colour, noise, glass):
    random = np.random.default_rng(3).normal(colour, noise, (50, 50, 3))
    pixels = random.clip(0, 255).astype(np.uint8)
    assert slides.is_background(pixels) == glass
    pixels[10:20, 10:20] = 225, 140, 190  # A little tissue is enough.
    assert not slides.is_background(pixels)


def test_a_small_picture_of_an_edge_is_in_the_upper_left_on_white():
    small = slides.shrink(np.full((50, 25, 3), 9, np.uint8), 4)
    assert small[..., 0].tolist() == [[9, 9, 255, 255]] * 4
    assert slides.shrink(tissue(90, 80), 10).shape == (10, 10, 3)
