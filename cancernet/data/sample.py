"""The synthetic sample: made-up slides on which the whole pipeline can be tried out.

Sixteen patients, one small slide each, cut up as those of Cruz-Roa et al. (2014) are: patches of
50 x 50 pixels, 4 micrometres a pixel. A program draws them. They have the difficulties of real ones
(classes overlap, stains differ from patient to patient), but their figures say nothing of cancer.
"""

import math
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from cancernet.cli import InputError
from cancernet.files import replacing_folder

# Above every number of the published table, whose highest is 16896.
SAMPLE_PATIENTS: tuple[str, ...] = tuple(str(number) for number in range(99901, 99917))

# Malignant patches of each patient, in that order; together 28 %, as published.
MALIGNANT_PERCENT = (28, 10, 45, 19, 33, 8, 24, 52, 13, 38, 21, 60, 11, 30, 16, 40)
FEWEST_PATCHES, MOST_PATCHES = 180, 220  # Of one patient; those without tissue do not count.

PATCH, GRID = 50, 18  # Side of a patch, in pixels, and of the slide, in patches.
SIDE = GRID * PATCH  # Side of the slide, in pixels.
PIXEL = 4.0  # Side of a pixel, in micrometres.
FINE = 2  # Nuclei are 2 to 4 pixels wide: they are drawn on points this many times as fine.

# Optical density of red, green and blue for one unit of stain: the reference of the usual
# implementation (github.com/mitkovetta/staining-normalization) of Macenko et al., ISBI 2009.
HAEMATOXYLIN = (0.5626, 0.7201, 0.4062)
EOSIN = (0.2159, 0.8012, 0.5581)
# How far patients differ in those densities and in the amount of stain: standard deviations of log.
HUE_SHIFT, STRENGTH_SHIFT = 0.05, 0.08

Image = NDArray[np.uint8]  # RGB, shape (SIDE, SIDE, 3).
Labels = NDArray[np.int8]  # 1 malignant, 0 benign, -1 no tissue: shape (GRID, GRID).
Field = NDArray[Any]  # One value a pixel of the slide: float32, shape (SIDE, SIDE).


class Cells(NamedTuple):
    """The nuclei of a kind of cell, in micrometres.

    Malignant ones are larger and vary more (Elston & Ellis, Histopathology 1991).
    """

    diameter: float
    variation: float  # Deviation of the diameter's logarithm.
    elongation: float  # Length over width, at least 1.
    spacing: float  # Mean distance between neighbours where the tissue is full of them.
    stain: float  # Units of haematoxylin in the nucleus.


FIBROBLAST = Cells(diameter=6.0, variation=0.15, elongation=2.6, spacing=16, stain=0.40)
LYMPHOCYTE = Cells(diameter=6.5, variation=0.10, elongation=1.1, spacing=9, stain=0.55)
MALIGNANT = Cells(diameter=9.5, variation=0.25, elongation=1.4, spacing=11, stain=0.45)


def draw_sample(folder: Path, *, seed: int) -> None:
    """Draws the sample, laid out and named as the public download; the same seed, the same bytes.

    An older sample is replaced; what is none is an InputError.
    """
    there = {path.name for path in folder.iterdir()} if folder.exists() else set()
    if foreign := there - {*SAMPLE_PATIENTS, ".DS_Store"}:
        raise InputError(
            f"{folder} holds {min(foreign)!r}, which drawing the sample would delete: move what is "
            "yours away, or draw the sample into another folder (SAMPLE_PATH)."
        )
    with replacing_folder(folder) as drawing:
        for index, patient in enumerate(SAMPLE_PATIENTS):
            rng = np.random.default_rng([seed, index])
            slide, labels = _draw_slide(rng, malignant_share=MALIGNANT_PERCENT[index] / 100)
            _write_patches(drawing / patient, slide, labels)


def _write_patches(folder: Path, slide: Image, labels: Labels) -> None:
    for row, column in np.argwhere(labels >= 0):
        label, top, left = labels[row, column], row * PATCH, column * PATCH
        patch = slide[top : top + PATCH, left : left + PATCH]
        file = folder / str(label) / f"{folder.name}_idx5_x{left + 1}_y{top + 1}_class{label}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        # Not cv2.imwrite: on Windows it fails on paths with letters other than ASCII.
        _, png = cv2.imencode(".png", cv2.cvtColor(patch, cv2.COLOR_RGB2BGR))
        file.write_bytes(png.tobytes())


def _draw_slide(rng: Generator, malignant_share: float) -> tuple[Image, Labels]:
    y, x = np.indices((SIDE, SIDE), dtype=np.float32) / (SIDE / 2) - 1
    depth = 1 - x**2 - y**2 + 0.16 * _noise(rng, 900) + 0.02 * _noise(rng, 80)
    patch_depth = cv2.resize(depth, (GRID, GRID), interpolation=cv2.INTER_AREA)
    edge = np.sort(patch_depth, axis=None)[-rng.integers(FEWEST_PATCHES, MOST_PATCHES + 1)]
    with_tissue = patch_depth >= edge

    growth = _noise(rng, 1100) + 0.25 * _noise(rng, 350)
    patch_growth = cv2.resize(growth, (GRID, GRID), interpolation=cv2.INTER_AREA)
    front = float(np.quantile(patch_growth[with_tissue], 1 - malignant_share))
    labels = np.where(with_tissue, patch_growth > front, -1).astype(np.int8)
    # The tumour's border is frayed, that of the labels is not: patches on it are hard to tell.
    tumour = _step(growth + 0.25 * _noise(rng, 100), at=front, width=0.25)

    fibres, direction = _fibres(rng)
    inflamed = _noise(rng, 300) + 0.5 * _noise(rng, 60)
    inflamed = _step(inflamed, at=rng.uniform(0.8, 1.7), width=0.6)
    fatty = _noise(rng, 500) + 0.5 * _noise(rng, 120) - 0.6 * tumour - rng.uniform(0.1, 1.3)
    solid = _step(depth, at=float(edge), width=0.03) * (1 - _fat(rng, fatty))
    haematoxylin = _haematoxylin(rng, tumour, inflamed, direction)
    clefts = _step(fibres + 0.6 * _noise(rng, 40), at=1.6, width=0.8)
    eosin = 0.26 + 0.05 * fibres + 0.05 * _noise(rng, 200) - 0.18 * clefts
    eosin = np.maximum(eosin - 0.07 * np.maximum(tumour, inflamed), 0.03)
    return _stained(rng, haematoxylin * solid, eosin * solid), labels


def _noise(rng: Generator, wavelength: float) -> Field:
    """Smooth noise of mean 0 and deviation near 1; `wavelength` in micrometres."""
    points = round(SIDE * PIXEL / wavelength)
    coarse = rng.standard_normal((points, points), dtype=np.float32)
    return cv2.resize(coarse, (SIDE, SIDE), interpolation=cv2.INTER_CUBIC)


def _step(field: Field, *, at: float, width: float) -> Field:
    """From 0 below `at` to 1 above it, with a slope of `width` between."""
    return np.clip((field - at) / width + 0.5, 0, 1)


def _scattered(rng: Generator, spacing: float) -> NDArray[np.float64]:
    """Rows and columns, in pixels, of points that are random but not in heaps: one a square."""
    squares = int(SIDE * PIXEL / spacing)
    corners = np.indices((squares, squares)).reshape(2, -1)
    return (corners + rng.random(corners.shape)) * (spacing / PIXEL)


def _fibres(rng: Generator) -> tuple[Field, Field]:
    """Wavy collagen fibres, mean 0, deviation near 1, and their direction in radians."""
    y, x = np.indices((SIDE, SIDE), dtype=np.float32) * PIXEL
    angle = rng.uniform(0, math.pi)
    along = x * math.cos(angle) + y * math.sin(angle)
    waves = 60 * _noise(rng, 500) + 12 * _noise(rng, 140)
    across = y * math.cos(angle) - x * math.sin(angle) + waves
    # Noise drawn out: a grain is 90 micrometres long and 10 wide.
    grains = rng.standard_normal((512, 512), dtype=np.float32)
    fibres = cv2.remap(grains, along / 90, across / 10, cv2.INTER_LINEAR, None, cv2.BORDER_WRAP)
    downwards, rightwards = np.gradient(across)
    return fibres, np.arctan2(-rightwards, downwards)


def _fat(rng: Generator, fatty: Field) -> Field:
    """1 inside fat cells, which are empty on a slide; 0 in their walls and where `fatty` < 0."""
    seeds = np.ones((SIDE, SIDE), np.uint8)
    seeds[tuple(_scattered(rng, rng.uniform(55, 75)).astype(int))] = 0
    # A cell is all that lies nearest to its seed.
    _, cell = cv2.distanceTransformWithLabels(seeds, cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL)
    inside = cv2.morphologyEx(cell.astype(np.float32), cv2.MORPH_GRADIENT, np.ones((2, 2))) == 0
    to_wall = PIXEL * cv2.distanceTransform(inside.astype(np.uint8), cv2.DIST_L2, 5)
    rounded = cv2.GaussianBlur(to_wall, (0, 0), 8 / PIXEL)
    return _step(rounded + 40 * np.minimum(fatty, 0), at=7, width=4)


def _haematoxylin(rng: Generator, tumour: Field, inflamed: Field, direction: Field) -> Field:
    """Units of haematoxylin: the nuclei, and a haze of cytoplasm about them."""
    nests = _step(_noise(rng, 70), at=rng.uniform(-0.9, 0.4), width=0.5)
    crowding = rng.uniform(0.4, 1.0) * (0.3 + 0.7 * _step(_noise(rng, 250), at=-0.6, width=1.2))
    everywhere = np.full_like(tumour, rng.uniform(0.15, 0.35))
    nuclei: Field = np.zeros((SIDE * FINE, SIDE * FINE), np.float32)
    _add_nuclei(rng, nuclei, FIBROBLAST, everywhere, direction)
    _add_nuclei(rng, nuclei, LYMPHOCYTE, 0.8 * inflamed, direction)
    _add_nuclei(rng, nuclei, MALIGNANT, tumour * nests * crowding, direction + _noise(rng, 60))
    nuclei = cv2.resize(nuclei, (SIDE, SIDE), interpolation=cv2.INTER_AREA)
    return 0.02 + nuclei + 0.6 * cv2.GaussianBlur(nuclei, (0, 0), 6 / PIXEL)


def _add_nuclei(rng: Generator, nuclei: Field, kind: Cells, density: Field, along: Field) -> None:
    """Draws ellipses with their long axis `along` an angle; `density`: share of places taken."""
    centres = _scattered(rng, kind.spacing)
    centres = centres[:, rng.random(centres.shape[1]) < density[tuple(centres.astype(int))]]
    count = len(centres[0])
    angle = along[tuple(centres.astype(int))] + rng.normal(0, 0.25, count)
    diameter = kind.diameter * np.exp(rng.normal(0, kind.variation, count)) * FINE / PIXEL
    elongation = kind.elongation * np.exp(rng.normal(0, kind.variation, count))
    stain = kind.stain * rng.uniform(0.7, 1.25, count)

    # All nuclei at once: a square of points about each, of which those inside count.
    reach = math.ceil(1.3 * kind.diameter * FINE / PIXEL)
    down, right = np.indices((2 * reach + 1, 2 * reach + 1)).reshape(2, -1) - reach
    lengthwise = np.outer(np.cos(angle), right) + np.outer(np.sin(angle), down)
    sideways = np.outer(np.cos(angle), down) - np.outer(np.sin(angle), right)
    squared = lengthwise**2 / elongation[:, None] + sideways**2 * elongation[:, None]
    nucleus, point = np.nonzero(squared < (diameter[:, None] / 2) ** 2)
    rows, columns = (centres * FINE).astype(int)[:, nucleus] + (down[point], right[point])
    last = len(nuclei) - 1  # What reaches over the slide's edge ends on it.
    nuclei[rows.clip(0, last), columns.clip(0, last)] = stain[nucleus]


def _stained(rng: Generator, haematoxylin: Field, eosin: Field) -> Image:
    """The slide in the patient's shade of both stains, by the law of Beer and Lambert."""
    densities = np.array([HAEMATOXYLIN, EOSIN]) * np.exp(rng.normal(0, HUE_SHIFT, (2, 3)))
    densities *= np.exp(rng.normal(0, STRENGTH_SHIFT, (2, 1)))
    stains = np.stack([haematoxylin, eosin], axis=-1)
    slide = rng.uniform(238, 248) * 10 ** -(stains @ densities.astype(np.float32))
    slide += 2 * rng.standard_normal(slide.shape, dtype=np.float32)
    return np.clip(slide, 0, 255).astype(np.uint8)
