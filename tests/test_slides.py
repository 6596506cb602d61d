"""Large images and whole slides, made here, through the tiles cut from them."""

import sys
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from cancernet.data import patches
from cancernet.data.patches import ExcludedError
from cancernet.prediction import slides, tiles

MANY = 10**8


def tissue(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 200, (height, width, 3), dtype=np.uint8)


def cut(path: Path, *, mpp: float | None = None, min_side: int = 25) -> list[tiles.Tile]:
    with closing(slides.open_picture(path, mpp=mpp, max_pixels=MANY)) as picture:
        cut_up = list(tiles.cut(picture, min_side=min_side))
        rows, columns = tiles.grid_size(picture, min_side=min_side)
        assert len(cut_up) == rows * columns
        return cut_up


def save(path: Path, pixels: np.ndarray) -> Path:
    Image.fromarray(pixels).save(path)
    return path


def save_slide(
    path: Path, pixels: np.ndarray, *, mpp: float | None, levels: int = 1, enlarged: int = 1
) -> Path:
    """Writes a tiled, pyramidal TIFF: each pixel `enlarged` times, each level half the last."""
    with tifffile.TiffWriter(path) as writer:
        for level in range(levels):
            times = enlarged // 2**level
            writer.write(
                pixels.repeat(times, 0).repeat(times, 1),
                tile=(64, 64),
                photometric="rgb",
                compression="zlib",
                resolutionunit="CENTIMETER" if mpp else "NONE",
                subfiletype=1 if level else 0,
                resolution=(1e4 / (mpp * 2**level),) * 2 if mpp else None,
            )
    return path


@pytest.mark.parametrize("ending", ["png", "tif"])
def test_an_image_is_cut_into_a_grid_with_smaller_tiles_at_its_edges(tmp_path, ending):
    pixels = tissue(130, 220)
    found = cut(save(tmp_path / f"image.{ending}", pixels))
    # 220 = 4 x 50 + 20: the last column is a sliver; 130 = 2 x 50 + 30: the last row is not.
    assert [(tile.x, tile.y) for tile in found] == [
        (x, y) for y in (1, 51, 101) for x in (1, 51, 101, 151)
    ]
    for tile in found:
        assert tile.x is not None
        assert tile.y is not None
        expected = pixels[tile.y - 1 : tile.y + 49, tile.x - 1 : tile.x + 49]
        np.testing.assert_array_equal(tile.pixels, expected)
    assert found[-1].pixels.shape == (30, 50, 3)
    assert len(cut(tmp_path / f"image.{ending}", min_side=20)) == 15


@pytest.mark.parametrize(("height", "width"), [(100, 100), (1, 1), (30, 100)])
def test_a_small_image_is_one_patch(tmp_path, height, width):
    pixels = np.full((height, width, 3), 255, np.uint8)  # Not even white is skipped.
    (tile,) = cut(save(tmp_path / "patch.tif", pixels), mpp=0.5)
    assert (tile.x, tile.y, tile.background) == (None, None, False)
    np.testing.assert_array_equal(tile.pixels, pixels)


def test_an_image_101_pixels_wide_is_not(tmp_path):
    assert len(cut(save(tmp_path / "image.png", tissue(50, 101)))) == 2


def test_strips_are_put_together_without_a_seam(tmp_path, monkeypatch):
    path = save(tmp_path / "image.png", tissue(60, 520))
    whole = cut(path)
    monkeypatch.setattr(tiles, "STRIP", 120)
    for one, other in zip(whole, cut(path), strict=True):
        assert one[:2] == other[:2]
        np.testing.assert_array_equal(one.pixels, other.pixels)


def test_an_image_of_a_finer_resolution_is_scaled_down(tmp_path):
    pixels = tissue(100, 150)
    path = save(tmp_path / "image.png", pixels.repeat(4, 0).repeat(4, 1))
    found = cut(path, mpp=1.0)
    assert len(found) == 6
    np.testing.assert_array_equal(found[-1].pixels, pixels[50:, 100:])


@pytest.mark.parametrize(("mpp", "levels"), [(0.5, 1), (0.5, 3), (0.5, 4)])
def test_a_slide_gives_the_pixels_of_4_micrometres(tmp_path, mpp, levels):
    pixels = tissue(110, 260)
    path = save_slide(tmp_path / "slide.tiff", pixels, mpp=mpp, levels=levels, enlarged=8)
    with closing(slides.open_picture(path, mpp=None, max_pixels=1)) as picture:
        assert isinstance(picture, slides.WholeSlide)
        assert (picture.width, picture.height) == (260, 110)
        # From the level just finer: 8 pixels a pixel with one level, 2 with three, 1 with four.
        assert picture.finer == 8 / 2 ** (levels - 1)
    for tile in cut(path):
        assert tile.x is not None
        assert tile.y is not None
        expected = pixels[tile.y - 1 : tile.y + 49, tile.x - 1 : tile.x + 49]
        np.testing.assert_array_equal(tile.pixels, expected)


def test_a_slide_between_two_levels_is_scaled_by_the_mean(tmp_path):
    flat = np.full((400, 400, 3), 100, np.uint8)
    flat[:, 200:] = 180
    path = save_slide(tmp_path / "slide.tiff", flat, mpp=2.75)
    with closing(slides.open_picture(path, mpp=None, max_pixels=1)) as picture:
        assert (picture.width, picture.height) == (275, 275)
        row = picture.read(0, 0, 275, 50)[0, :, 0]
    assert set(row[:137]) == {100}
    assert set(row[138:]) == {180}
    assert 100 < row[137] < 180  # Half of it lies on either side.


def test_without_a_resolution_a_slide_needs_one(tmp_path):
    path = save_slide(tmp_path / "slide.tiff", tissue(120, 120), mpp=None)
    with pytest.raises(ExcludedError, match="--mpp"):
        cut(path)
    assert len(cut(path, mpp=4.0)) == 4


@pytest.mark.parametrize("mpp", [4.1, 100.0])
def test_too_coarse_a_resolution_is_refused(tmp_path, mpp):
    path = save_slide(tmp_path / "slide.tiff", tissue(120, 120), mpp=None)
    with pytest.raises(ExcludedError, match="too coarse"):
        cut(path, mpp=mpp)


def test_what_the_scanner_did_not_see_is_glass(tmp_path, monkeypatch):
    path = save_slide(tmp_path / "slide.tiff", tissue(120, 120), mpp=4.0)
    with closing(slides.open_picture(path, mpp=None, max_pixels=1)) as picture:
        outside = picture.read(500, 500, 50, 50)
    assert (outside == 255).all()


def test_without_openslide_what_to_install_is_said(tmp_path, monkeypatch):
    slide = save_slide(tmp_path / "slide.tiff", tissue(120, 120), mpp=4.0)
    plain = save(tmp_path / "plain.tiff", tissue(120, 120))
    named = tmp_path / "slide.svs"
    named.write_bytes(b"whatever")
    monkeypatch.setitem(sys.modules, "openslide", None)
    for path in (slide, named):
        with pytest.raises(ExcludedError, match=r"pip install -r requirements-slides\.txt"):
            cut(path)
    assert len(cut(plain)) == 4


def test_a_damaged_slide_is_refused(tmp_path):
    path = save_slide(tmp_path / "slide.tiff", tissue(400, 400), mpp=1.0)
    data = bytearray(path.read_bytes())
    data[200:-200] = b"\x55" * (len(data) - 400)
    path.write_bytes(data)
    with pytest.raises(ExcludedError):
        cut(path)
    path.with_suffix(".svs").write_bytes(b"no slide at all")
    with pytest.raises(ExcludedError, match="OpenSlide"):
        cut(path.with_suffix(".svs"))


def test_a_bomb_is_refused_by_its_header(tmp_path):
    path = tmp_path / "bomb.tif"
    tifffile.imwrite(path, shape=(20_000, 20_000), dtype=np.uint8, compression=None)
    path.write_bytes(path.read_bytes()[:1000])  # Its header alone.
    with pytest.raises(ExcludedError, match="more than 100,000,000 pixels"):
        cut(path)
    small = save(tmp_path / "image.png", tissue(101, 101))
    with pytest.raises(ExcludedError, match="more than 10,200 pixels"):
        slides.open_picture(small, mpp=None, max_pixels=10_200)


def test_other_kinds_of_tiff_are_named(tmp_path):
    sixteen = tmp_path / "16 bits.tif"
    tifffile.imwrite(sixteen, np.zeros((120, 120), np.uint16))
    pages = tmp_path / "pages.tif"
    tifffile.imwrite(pages, np.zeros((3, 120, 120), np.uint8), photometric="minisblack")
    cut_off = save(tmp_path / "cut.tif", tissue(200, 200))
    cut_off.write_bytes(cut_off.read_bytes()[:50_000])
    for path, reason in ((sixteen, "8 bits"), (pages, "several images"), (cut_off, "unreadable")):
        with pytest.raises(ExcludedError, match=reason):
            cut(path)
    grey = save(tmp_path / "grey.tif", np.full((120, 120), 50, np.uint8))
    assert (cut(grey)[0].pixels == 50).all()


@pytest.mark.parametrize(
    ("colour", "noise", "glass"),
    [
        (240, 2, True),  # Glass, with the noise of a camera.
        (215, 2, True),  # Glass under a weaker lamp.
        (240, 12, False),  # Something pale lies there.
        (150, 4, False),  # Even, but not pale.
        (0, 0, True),  # Black: what some scanners write where they saw nothing.
    ],
)
def test_background_is_pale_and_even_or_of_one_colour(colour, noise, glass):
    random = np.random.default_rng(3).normal(colour, noise, (50, 50, 3))
    assert tiles.is_background(random.clip(0, 255).astype(np.uint8)) == glass


def test_no_real_patch_is_taken_for_background(real_patches):
    files = sorted(real_patches.glob("*/*/*.png"))[::10]
    taken = [path.name for path in files if tiles.is_background(patches.read_pixels(path))]
    assert taken == []
