"""Patches and tiles through the network, some thousand at a time."""

import math
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import TypeVar

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray
from tqdm import tqdm

from cancernet.cli import InputError
from cancernet.data import pipeline
from cancernet.data.patch import PatchFacts, read_facts
from cancernet.evaluation.calibration import recalibrate
from cancernet.evaluation.metrics import shortest
from cancernet.prediction import slides
from cancernet.prediction.inputs import Problem
from cancernet.prediction.model import SavedModel, averaged, load

CHUNK = 2048  # Patches between two moves of the progress bar, and in memory at a time.
MOST_EXAMPLES = 64  # Patches that are explained.

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

    @property
    def row(self) -> tuple[object, ...]:
        """A row of the CSV on stdout; malignant is 1 or 0."""
        facts, numbers = self.facts, (shortest(self.probability), shortest(self.calibrated))
        return (self.file, facts.patient, facts.x, facts.y, *numbers, int(self.malignant))


HEADER = ("file", "patient", "x", "y", "probability", "calibrated", "malignant")

# A patch and its image as the network sees it: float32 in [0, 1], shape (height, width, 3).
Example = tuple[Scored, NDArray[np.float32]]


@dataclass
class ScoredImage:
    """The tiles of a larger image.

    Attributes:
        scored: Those with tissue.
        background: Positions of those that were skipped as glass.
        pictures: All of them, small: uint8, RGB; first those with tissue, then those without.
    """

    scored: list[Scored] = field(default_factory=list)
    background: list[tuple[int | None, int | None]] = field(default_factory=list)
    pictures: list[NDArray[np.uint8]] = field(default_factory=list)


class Predictor:
    """A network at work.

    Attributes:
        network: From patches to the probabilities of both classes.
        metadata: What belongs to it.
        examples: The first patches scored, as the network saw them, if they are kept.
    """

    def __init__(
        self,
        saved: SavedModel,
        *,
        batch_size: int,
        average_symmetries: bool = False,
        keep_examples: bool = False,
    ) -> None:
        """Loads a network.

        Args:
            saved: Its file, as `model.read` gives it.
            batch_size: Patches per step.
            average_symmetries: Score each patch by the mean over its mirror images and turns.
            keep_examples: Whether to keep the first 64 patches as the network sees them.

        Raises:
            InputError: The file is damaged, or its patches cannot be turned.
        """
        self.network = load(saved)
        self.metadata = saved.metadata
        self.examples: list[Example] = []
        self._scorer = averaged(self.network) if average_symmetries else self.network
        self._most_examples = MOST_EXAMPLES if keep_examples else 0
        self._reading = pipeline.Reading(saved.image_size, batch_size)
        # In whole batches all batches are as in one go, and so is each sum's rounding.
        self._chunk = max(1, CHUNK // batch_size) * batch_size

    def score_files(self, files: Sequence[str]) -> tuple[list[Scored], list[Problem]]:
        """Scores patch files with the reader that training uses.

        Returns:
            The patches scored, in their order, and the files that cannot be decoded.

        Raises:
            InputError: The network gives something else than probabilities.
        """
        scored: list[Scored] = []
        problems: list[Problem] = []
        with _bar(len(files)) as bar:
            for start in range(0, len(files), self._chunk):
                part = files[start : start + self._chunk]
                try:
                    scored += self._score_files(part)
                except tf.errors.OpError:
                    # Damaged since the check, or in a way that it does not notice.
                    readable = list(filter(_readable, part))
                    if len(readable) == len(part):
                        raise
                    scored += self._score_files(readable)
                    broken = [file for file in part if file not in set(readable)]
                    problems += [Problem(file, "unreadable image (damaged)") for file in broken]
                bar.update(len(part))
        return scored, problems

    def score_image(
        self, file: str, *, mpp: float | None, min_side: int, max_pixels: int
    ) -> ScoredImage:
        """Cuts an image up and scores the tiles that hold tissue; `slides` has the arguments.

        Raises:
            ExcludedError: It cannot be read, or at no known resolution, or it is too narrow.
            InputError: The network gives something else than probabilities.
        """
        facts = read_facts(Path(file))
        image, glass = ScoredImage(), []

        def tissue(picture: slides.Picture, side: int) -> Iterator[slides.Tile]:
            for tile in slides.cut(picture, min_side=min_side):
                small = slides.shrink(tile.pixels, side)
                if tile.background:
                    image.background.append((tile.x, tile.y))
                    glass.append(small)
                else:
                    image.pictures.append(small)
                    yield tile

        opened = slides.open_picture(Path(file), mpp=mpp, max_pixels=max_pixels)
        with closing(opened) as picture:
            grid = slides.grid_size(picture, min_side=min_side)
            tiles = tissue(picture, slides.picture_side(*grid))
            chunks = iter(lambda: list(islice(tiles, self._chunk)), [])
            with _bar(math.prod(grid)) as bar:
                for part in _one_ahead(chunks):
                    batches = pipeline.tile_batches([tile.pixels for tile in part], self._reading)
                    sources = [(file, replace(facts, x=tile.x, y=tile.y)) for tile in part]
                    image.scored += self._score(sources, batches)
                    bar.update(len(image.scored) + len(image.background) - bar.n)
        image.pictures += glass
        return image

    def _score_files(self, files: Sequence[str]) -> list[Scored]:
        sources = [(file, read_facts(Path(file))) for file in files]
        return self._score(sources, pipeline.scoring_batches(files, self._reading)) if files else []

    def _score(
        self, sources: Sequence[tuple[str, PatchFacts]], batches: tf.data.Dataset
    ) -> list[Scored]:
        probabilities = self._scorer.predict(batches, verbose=0)[:, 1]
        if not np.all((probabilities >= 0) & (probabilities <= 1)):  # Not a number, for one.
            raise InputError("The model is damaged: it gives no probabilities. Train it again.")
        calibrated = recalibrate(probabilities, self.metadata.recalibration)
        scored = [
            Scored(*source, probability, after, bool(probability >= self.metadata.threshold))
            for source, probability, after in zip(sources, probabilities, calibrated, strict=True)
        ]
        if (missing := self._most_examples - len(self.examples)) > 0:
            images = batches.unbatch().take(missing).as_numpy_iterator()
            self.examples += zip(scored, images, strict=False)
        return scored


def _readable(file: str) -> bool:
    try:
        pipeline.read_patch(tf.constant(os.fsencode(file)), height=1, width=1)
    except tf.errors.OpError:
        return False
    return True


def _one_ahead(items: Iterator[Item]) -> Iterator[Item]:
    """Gets the next item in a thread while one is in use: reading and scoring overlap."""
    with ThreadPoolExecutor(max_workers=1) as thread:
        coming = thread.submit(next, items, None)
        while (item := coming.result()) is not None:
            coming = thread.submit(next, items, None)
            yield item


def _bar(total: int) -> tqdm:
    return tqdm(total=total, desc="Predicting", unit=" patches", disable=None, leave=False)
