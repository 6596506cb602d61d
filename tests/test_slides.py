"""Large images and whole slides, made here, through the tiles cut from them."""

from contextlib import closing

import numpy as np
import pytest
import tifffile
from PIL import Image

from cancernet.data import patch
from cancernet.data.patch import ExcludedError
from cancernet.prediction import slides

MANY = 10**8


def tissue(height, width):
    return np.random.default_rng(0).integers(0, 200, (height, width, 3), dtype=np.uint8)


def cut(path, *, mpp=None, min_side=25):
    with closing(slides.open_picture(path, mpp=mpp, max_pixels=MANY)) as picture:
        tiles = list(slides.cut(picture, min_side=min_side))
        rows, columns = slides.grid_size(picture, min_side=min_side)
        assert len(tiles) == rows * columns
        return tiles


def assert_tiles(tiles, pixels):
    """Holds tiles against the pixels of the whole picture."""
    for tile in tiles:
        x, y = tile.x or 0, tile.y or 0
        expected = pixels[y - 1 : y + 49, x - 1 : x + 49]
        np.testing.assert_array_equal(tile.pixels, expected)


def save(path, pixels):
    Image.fromarray(pixels).save(path)
    return path


def save_slide(path, pixels, *, mpp, levels=1, enlarged=1):
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


# --- Plain images ---------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", ["png", "tif"])
def test_an_image_is_cut_into_a_grid_with_smaller_tiles_at_its_edges(tmp_path, ending):
    pixels = tissue(130, 220)
    found = cut(save(tmp_path / f"image.{ending}", pixels))
    # 220 = 4 x 50 + 20: the last column is a sliver; 130 = 2 x 50 + 30: the last row is not.
    assert [(tile.x, tile.y) for tile in found] == [
        (x, y) for y in (1, 51, 101) for x in (1, 51, 101, 151)
    ]
    assert_tiles(found, pixels)
    assert found[-1].pixels.shape == (30, 50, 3)
    assert len(cut(tmp_path / f"image.{ending}", min_side=20)) == 15


@pytest.mark.parametrize(("height", "width"), [(100, 100), (1, 1), (30, 100)])
def test_a_small_image_is_one_patch(tmp_path, height, width):
    pixels = np.full((height, width, 3), 255, np.uint8)  # Not even white is skipped.
    (tile,) = cut(save(tmp_path / "patch.tif", pixels), mpp=0.5)
    assert (tile.x, tile.y, tile.background) == (None, None, False)
    np.testing.assert_array_equal(tile.pixels, pixels)
    assert len(cut(save(tmp_path / "wide.png", tissue(50, 101)))) == 2


def test_strips_are_put_together_without_a_seam_at_any_resolution(tmp_path, monkeypatch):
    pixels = tissue(60, 520)
    monkeypatch.setattr(slides, "STRIP", 120)
    for mpp, times in ((None, 1), (1.0, 4)):
        path = save(tmp_path / "image.png", pixels.repeat(times, 0).repeat(times, 1))
        found = cut(path, mpp=mpp, min_side=10)
        assert len(found) == 2 * 11
        assert_tiles(found, pixels)


@pytest.mark.parametrize("mpp", [1.0, 1.7, 2.9, 3.99])
def test_an_image_is_scaled_as_pillow_scales_it_whole(tmp_path, mpp):
    pixels = tissue(400, 500)
    path = save(tmp_path / "image.png", pixels)
    with closing(slides.open_picture(path, mpp=mpp, max_pixels=MANY)) as picture:
        width, height = picture.width, picture.height
        assert (width, height) == (int(500 * mpp / 4 + 1e-6), int(400 * mpp / 4 + 1e-6))
        x, y = width // 3, height // 2
        found = picture.read(x, y, width - x, height - y)
    box = (0, 0, width * 4 / mpp, height * 4 / mpp)
    whole = Image.fromarray(pixels).resize((width, height), Image.Resampling.BOX, box=box)
    assert np.abs(np.asarray(whole)[y:, x:].astype(int) - found).max() <= 1


def test_transparency_of_an_image_is_dropped_as_that_of_a_patch_is(tmp_path):
    pixels = np.dstack([tissue(120, 120), np.zeros((120, 120), np.uint8)])
    assert_tiles(cut(save(tmp_path / "image.png", pixels)), pixels[..., :3])


# --- Whole slides ---------------------------------------------------------------------------------


@pytest.mark.parametrize("levels", [1, 3, 4])
def test_a_slide_gives_the_pixels_of_4_micrometres(tmp_path, levels):
    pixels = tissue(110, 260)
    path = save_slide(tmp_path / "slide.tiff", pixels, mpp=0.5, levels=levels, enlarged=8)
    with closing(slides.open_picture(path, mpp=None, max_pixels=1)) as picture:
        assert (picture.width, picture.height) == (260, 110)
        # From the level just finer: 8 pixels a pixel with one level, 2 with three, 1 with four.
        assert picture.finer == 8 / 2 ** (levels - 1)
    assert_tiles(cut(path), pixels)


def test_a_slide_between_two_levels_is_scaled_by_the_mean(tmp_path):
    flat = np.full((400, 400, 3), 100, np.uint8)
    flat[:, 200:] = 180
    path = save_slide(tmp_path / "slide.tiff", flat, mpp=2.75)
    with closing(slides.open_picture(path, mpp=None, max_pixels=1)) as picture:
        assert (picture.width, picture.height) == (275, 275)
        row = picture.read(0, 0, 275, 50)[0, :, 0]
        outside = picture.read(500, 500, 50, 50)
    assert set(row[:137]) == {100}
    assert set(row[138:]) == {180}
    assert 100 < row[137] < 180  # Half of it lies on either side.
    assert (outside == 255).all()  # What the scanner did not see is glass.


def test_without_a_resolution_a_slide_needs_one_that_is_fine_enough(tmp_path):
    path = save_slide(tmp_path / "slide.tiff", tissue(120, 120), mpp=None)
    with pytest.raises(ExcludedError, match="--mpp"):
        cut(path)
    for mpp in (4.1, 100.0):
        with pytest.raises(ExcludedError, match="too coarse"):
            cut(path, mpp=mpp)
    assert len(cut(path, mpp=4.0)) == 4


# --- Bad files ------------------------------------------------------------------------------------


def write_bad_files(folder):
    """Writes files that cannot be used; gives what is said of each."""
    tifffile.imwrite(folder / "bits.tif", np.zeros((120, 120), np.uint16))
    pages = np.zeros((3, 120, 120), np.uint8)
    tifffile.imwrite(folder / "pages.tif", pages, photometric="minisblack")
    tifffile.imwrite(folder / "bomb.tif", shape=(20_000, 20_000), dtype=np.uint8, compression=None)
    for name, kept in (("bomb.tif", 1000), ("cut.tif", 50_000), ("cut.png", 5_000)):
        if name.startswith("cut"):
            save(folder / name, tissue(200, 200))
        (folder / name).write_bytes((folder / name).read_bytes()[:kept])
    slide = save_slide(folder / "slide.tiff", tissue(400, 400), mpp=1.0)
    data = bytearray(slide.read_bytes())
    data[200:-200] = b"\x55" * (len(data) - 400)
    slide.write_bytes(data)
    (folder / "slide.svs").write_bytes(b"no slide at all")
    save(folder / "narrow.png", tissue(20, 120))
    return {
        "bits.tif": "8 bits",
        "pages.tif": "several images",
        "bomb.tif": "more than 100,000,000 pixels",
        "cut.tif": "unreadable",
        "cut.png": "unreadable",
        "slide.tiff": "slide|unreadable",
        "slide.svs": "no slide that OpenSlide reads",
        "gone.png": "unreadable",
        "narrow.png": "side under 25 pixels",
    }


def test_what_cannot_be_used_is_refused_with_its_reason(tmp_path):
    for name, reason in write_bad_files(tmp_path).items():
        with pytest.raises(ExcludedError, match=reason):
            cut(tmp_path / name)
    grey = save(tmp_path / "grey.tif", np.full((120, 120), 50, np.uint8))
    assert (cut(grey)[0].pixels == 50).all()
    with pytest.raises(ExcludedError, match="more than 14,399 pixels"):
        slides.open_picture(grey, mpp=None, max_pixels=14_399)


# --- Tiles ----------------------------------------------------------------------------------------


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
    assert slides.is_background(random.clip(0, 255).astype(np.uint8)) == glass


def test_no_real_patch_is_taken_for_background(real_patches):
    files = sorted(real_patches.glob("*/*/*.png"))[::10]
    taken = [path.name for path in files if slides.is_background(patch.read_pixels(path))]
    assert taken == []


def test_a_small_picture_of_an_edge_is_in_the_upper_left_on_white():
    small = slides.shrink(np.full((50, 25, 3), 9, np.uint8), 4)
    assert small[..., 0].tolist() == [[9, 9, 255, 255]] * 4
    assert slides.shrink(tissue(90, 80), 10).shape == (10, 10, 3)
