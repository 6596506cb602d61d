"""Patches and tiles through the network, some thousand at a time."""

import math
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from typing import TypeVar

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray
from tqdm import tqdm

from cancernet.cli import InputError
from cancernet.data import pipeline
from cancernet.data.patches import PatchFacts
from cancernet.evaluation.calibration import recalibrate
from cancernet.evaluation.evaluation import shortest
from cancernet.prediction import slides, tiles
from cancernet.prediction.explain import MOST_PATCHES
from cancernet.prediction.inputs import PatchFile, Problem
from cancernet.prediction.models import TrainedModel
from cancernet.training import fused

# Patches between two moves of the progress bar, and in memory at a time.
CHUNK = 2048

Item = TypeVar("Item")


@dataclass(frozen=True)
class Scored:
    """A patch with its probability: a row of the result.

    Attributes:
        file: The file's path as given or found.
        facts: Patient, label and position, as far as known.
        probability: Of class 1, malignant, in [0, 1].
        calibrated: The same after recalibration.
        malignant: Whether the probability reaches the model's threshold.
    """

    file: str
    facts: PatchFacts
    probability: np.float32
    calibrated: np.float32
    malignant: bool


HEADER = ("file", "patient", "x", "y", "probability", "calibrated", "malignant")


def csv_row(row: Scored) -> tuple[object, ...]:
    """Makes a row of the CSV on stdout; malignant is 1 or 0."""
    return (
        row.file,
        row.facts.patient,
        row.facts.x,
        row.facts.y,
        shortest(row.probability),
        shortest(row.calibrated),
        int(row.malignant),
    )


# A patch and its image: float32 in [0, 1], shape (height, width, 3), or as the network has it.
Example = tuple[Scored, NDArray[np.float32]]


@dataclass
class ScoredImage:
    """The tiles of a larger image.

    Attributes:
        scored: Those with tissue.
        background: Positions of those that were skipped as glass.
        pictures: All of them, small: uint8, RGB; first those with tissue, then those without.
        examples: The first ones with tissue as the network sees them, where they were wanted.
    """

    scored: list[Scored] = field(default_factory=list)
    background: list[tuple[int, int]] = field(default_factory=list)
    pictures: list[NDArray[np.uint8]] = field(default_factory=list)
    examples: list[Example] = field(default_factory=list)


def score_files(
    model: TrainedModel, patches: Sequence[PatchFile], *, batch_size: int
) -> tuple[list[Scored], list[Problem]]:
    """Scores patch files with the reader that training uses.

    Returns:
        The patches scored, in their order, and the files that cannot be decoded.

    Raises:
        InputError: The network gives something else than probabilities.
    """
    scored, problems = [], []
    chunk = _whole_batches(batch_size)
    with _bar(len(patches)) as bar:
        for start in range(0, len(patches), chunk):
            part = patches[start : start + chunk]
            probabilities = _score_chunk(model, [patch.file for patch in part], batch_size)
            rows = _rows(model, [(patch.file, patch.facts) for patch in part], probabilities)
            for row in rows:
                if np.isnan(row.probability):
                    problems.append(Problem(row.file, "unreadable image (damaged pixel data)"))
                else:
                    scored.append(row)
            bar.update(len(part))
    return scored, problems


def _whole_batches(batch_size: int) -> int:
    """About CHUNK patches, in whole batches: then all batches are as in one go, to the last bit."""
    return max(1, CHUNK // batch_size) * batch_size


def _score_chunk(model: TrainedModel, files: Sequence[str], batch_size: int) -> NDArray[np.float32]:
    """Scores files; NaN for those that TensorFlow cannot decode, though OpenCV could."""

    def score(files: Sequence[str]) -> NDArray[np.float32]:
        return _predict(
            model,
            pipeline.scoring_batches(
                files,
                image_size=model.image_size,
                batch_size=batch_size,
                data_format=model.data_format,
            ),
        )

    try:
        return score(files)
    except tf.errors.OpError:
        readable = np.array([_readable(file) for file in files])
        if readable.all():
            raise
        probabilities = np.full(len(files), np.nan, np.float32)
        if readable.any():
            good = [file for file, whole in zip(files, readable, strict=True) if whole]
            probabilities[readable] = score(good)
        return probabilities


def _readable(file: str) -> bool:
    try:
        pipeline.read_patch(tf.constant(os.fsencode(file)), height=1, width=1)
    except tf.errors.OpError:
        return False
    return True


def score_image(
    model: TrainedModel,
    file: str,
    picture: slides.Picture,
    *,
    facts: PatchFacts,
    min_side: int,
    batch_size: int,
    picture_side: int,
    keep_examples: bool,
) -> ScoredImage:
    """Cuts an image up and scores the tiles that hold tissue.

    Args:
        model: The network and its threshold.
        file: The image's path as given or found.
        picture: The image, open.
        facts: What its name tells; each tile's own position takes the place of that there.
        min_side: The shortest side of a tile, in pixels.
        batch_size: Tiles a step.
        picture_side: Pixels of the small picture that is kept of a tile.
        keep_examples: Whether to keep some tiles as the network sees them.

    Raises:
        ExcludedError: A part of it is damaged.
        InputError: The network gives something else than probabilities.
    """
    result, glass = ScoredImage(), []
    chunk = _whole_batches(batch_size)

    def tissue() -> Iterator[tiles.Tile]:
        for tile in tiles.cut(picture, min_side=min_side):
            small = slides.shrink(tile.pixels, picture_side)
            if tile.background and tile.x is not None and tile.y is not None:
                result.background.append((tile.x, tile.y))
                glass.append(small)
            else:
                result.pictures.append(small)
                yield tile

    left = tissue()
    with _bar(math.prod(tiles.grid_size(picture, min_side=min_side))) as bar:
        for part in _one_ahead(iter(lambda: list(islice(left, chunk)), [])):
            batches = pipeline.tile_batches(
                [tile.pixels for tile in part],
                image_size=model.image_size,
                batch_size=batch_size,
                data_format=model.data_format,
            )
            sources = [
                (file, PatchFacts(facts.patient, facts.label, tile.x, tile.y)) for tile in part
            ]
            rows = _rows(model, sources, _predict(model, batches))
            result.scored += rows
            if keep_examples and len(result.examples) < MOST_PATCHES:
                result.examples += _first(rows, batches)
            bar.update(len(result.scored) + len(result.background) - bar.n)
    result.pictures += glass
    return result


def example_files(model: TrainedModel, scored: Sequence[Scored]) -> list[Example]:
    """Reads the first patch files as the network sees them."""
    first = scored[:MOST_PATCHES]
    if not first:
        return []
    batches = pipeline.scoring_batches(
        [row.file for row in first],
        image_size=model.image_size,
        batch_size=len(first),
        data_format=model.data_format,
    )
    return _first(first, batches)


def _first(rows: Sequence[Scored], batches: tf.data.Dataset) -> list[Example]:
    images = batches.unbatch().take(MOST_PATCHES).as_numpy_iterator()
    return list(zip(rows, images, strict=False))


def _one_ahead(items: Iterator[Item]) -> Iterator[Item]:
    """Gets the next item in a thread while one is in use: reading and scoring overlap."""
    with ThreadPoolExecutor(max_workers=1) as thread:
        coming = thread.submit(next, items, None)
        while (item := coming.result()) is not None:
            coming = thread.submit(next, items, None)
            yield item


def _rows(
    model: TrainedModel,
    sources: Sequence[tuple[str, PatchFacts]],
    probabilities: NDArray[np.float32],
) -> list[Scored]:
    calibrated = recalibrate(probabilities, model.recalibration)
    return [
        Scored(file, facts, probability, after, bool(probability >= model.threshold))
        for (file, facts), probability, after in zip(
            sources, probabilities, calibrated, strict=True
        )
    ]


def _predict(model: TrainedModel, batches: tf.data.Dataset) -> NDArray[np.float32]:
    probabilities = fused.predict(model.scorer, batches)
    if not np.all((probabilities >= 0) & (probabilities <= 1)):  # Not a number, for one.
        raise InputError(
            "The model gives values that are no probabilities. Its weights are damaged, or its "
            "last layer is no softmax: use a model that train_model.py made."
        )
    return probabilities


def _bar(total: int) -> tqdm:
    return tqdm(total=total, desc="Predicting", unit=" patches", disable=None, leave=False)
