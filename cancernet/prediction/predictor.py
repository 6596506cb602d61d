"""Patches and tiles through the network, some thousand at a time."""

import math
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray
from tqdm import tqdm

from cancernet.cli import InputError
from cancernet.data import pipeline
from cancernet.data.patch import ExcludedError
from cancernet.evaluation.calibration import recalibrate
from cancernet.prediction import slides
from cancernet.prediction.done import Done
from cancernet.prediction.inputs import Problem, Source, read_source
from cancernet.prediction.model import SavedModel, averaged, load
from cancernet.prediction.opening import open_picture
from cancernet.prediction.scored import Scored, Slide, in_context

CHUNK = 2048  # Patches between two moves of the progress bar, and in memory at a time.
MOST_EXAMPLES = 64  # Patches that are explained.

Item = TypeVar("Item")


# A patch and its image as the network sees it: float32 in [0, 1], shape (height, width, 3).
Example = tuple[Scored, NDArray[np.float32]]


class Predictor:
    """A network at work, with its metadata, and the first patches scored if they are kept."""

    def __init__(
        self,
        saved: SavedModel,
        *,
        batch_size: int,
        average_symmetries: bool = False,
        keep_examples: bool = False,
    ) -> None:
        """Loads a network, to score a patch, or the mean over its mirror images and turns.

        Examples are the first 64 patches, as the network sees them.
        """
        self.network = load(saved)
        self.path, self.metadata = saved.path, saved.metadata
        self.examples: list[Example] = []
        self._scorer = averaged(self.network) if average_symmetries else self.network
        self._most_examples = MOST_EXAMPLES if keep_examples else 0
        self._reading = pipeline.Reading(saved.image_size, batch_size)
        # In whole batches all batches are as in one go, and so is each sum's rounding.
        self._chunk = max(1, CHUNK // batch_size) * batch_size

    def score_files(self, files: Sequence[str], images: list[str]) -> list[Scored]:
        """Scores patch files, PNG or JPEG, in their order, with the reader that training uses.

        They are not in context yet. Where it cannot read one, those around it are added to
        `images`, to be opened one by one.
        """
        scored: list[Scored] = []
        with _bar(len(files)) as bar:
            for start in range(0, len(files), self._chunk):
                part = files[start : start + self._chunk]
                batches = pipeline.scoring_batches(part, self._reading)
                try:
                    scored += self._score(list(map(read_source, part)), batches)
                except (tf.errors.InvalidArgumentError, tf.errors.NotFoundError):
                    # One is damaged since the check, or in a way that it does not notice.
                    images += part
                bar.update(len(part))
        return scored

    def score_images(
        self, files: Sequence[str], problems: list[Problem], done: Done, **limits: Any
    ) -> Iterator[Slide]:
        """Scores images and whole slides within the `limits` of `open_picture` and `cut`.

        Yields each that is cut up, and patches of other containers together, under no name and not
        in context, since their neighbours may be in any file. `problems` gets those that cannot be
        read, and `done` keeps what has been cut up and scored.
        """
        patches: list[tuple[Source, NDArray[np.uint8]]] = []
        seen: dict[str, str] = {}
        min_side = limits.pop("min_side")
        began = time.monotonic()
        for number, file in enumerate(files):
            if number and (left := (time.monotonic() - began) / number * (len(files) - number)) > 1:
                note(f"{number} of {len(files)} images, about {_duration(left)} left")
            if found := done.load(file):
                if not _is_part(file, found[0].identity, seen):
                    note(f"{file}: done before with the same model and options; --again repeats it")
                    yield self._recall(file, *found)
                continue
            try:
                with closing(open_picture(Path(file), **limits)) as picture:
                    if _is_part(file, picture.identity, seen):
                        continue
                    if picture.scale:
                        note(f"{file}: {picture.scale}")
                    if picture.one_patch:
                        whole = picture.read(0, 0, picture.width, picture.height)
                        patches.append((read_source(file), whole))
                    else:
                        slide = self._score_picture(file, picture, min_side)
                        done.save(file, slide)
                        yield slide
            except ExcludedError as excluded:
                problems.append((file, str(excluded)))
            if len(patches) == self._chunk:
                yield Slide("", self._score_tiles(patches))
                patches = []
        if patches:
            yield Slide("", self._score_tiles(patches))

    def _recall(self, file: str, slide: Slide, saved: dict[str, NDArray[Any]]) -> Slide:
        """Makes the rows of a slide that was scored before."""
        whole = read_source(file)
        sources = [
            Source(file, replace(whole.facts, x=x, y=y), slide.name)
            for x, y in saved["places"].tolist()
        ]
        rows = self._rows(sources, saved["probability"])
        slide.rows = in_context(rows, self.metadata.context)
        return slide

    def _score_picture(self, file: str, picture: slides.Picture, min_side: int) -> Slide:
        """Cuts an image up and scores the tiles that hold tissue."""
        grid = slides.grid_size(picture, min_side=min_side)
        slide, glass = Slide(Path(file).stem, frame=picture.frame, identity=picture.identity), []
        whole, side = read_source(file), slides.picture_side(*grid)

        def tissue() -> Iterator[tuple[Source, NDArray[np.uint8]]]:
            for tile in slides.cut(picture, min_side=min_side):
                small = slides.shrink(tile.pixels, side)
                if tile.background:
                    slide.skipped.append((tile.x, tile.y))
                    glass.append(small)
                else:
                    slide.pictures.append(small)
                    facts = replace(whole.facts, x=tile.x, y=tile.y)
                    yield Source(file, facts, slide.name), tile.pixels

        tiles = tissue()
        chunks = iter(lambda: list(islice(tiles, self._chunk)), [])
        with _bar(math.prod(grid)) as bar:
            for part in _one_ahead(chunks):
                slide.rows += self._score_tiles(part)
                bar.update(len(slide.rows) + len(slide.skipped) - bar.n)
        slide.pictures += glass
        slide.rows = in_context(slide.rows, self.metadata.context)
        note(f"{file}: patches {len(slide.rows):,}, skipped without tissue {len(slide.skipped):,}")
        return slide

    def _score_tiles(self, tiles: Sequence[tuple[Source, NDArray[np.uint8]]]) -> list[Scored]:
        batches = pipeline.tile_batches([pixels for _, pixels in tiles], self._reading)
        return self._score([source for source, _ in tiles], batches)

    def _score(self, sources: Sequence[Source], batches: tf.data.Dataset) -> list[Scored]:
        both = self._scorer.predict(batches, verbose=0)
        # Not a number, a logit or a probability of each class apart, for one.
        if not (np.all((both >= 0) & (both <= 1)) and np.allclose(both.sum(axis=1), 1, atol=1e-3)):
            raise InputError(
                "The model gives no probabilities: expected two outputs from 0 to 1 that sum to 1, "
                "as softmax gives them. It is damaged or another network: train it again."
            )
        scored = self._rows(sources, both[:, 1])
        if (missing := self._most_examples - len(self.examples)) > 0:
            images = batches.unbatch().take(missing).as_numpy_iterator()
            self.examples += zip(scored, images, strict=False)
        return scored

    def _rows(self, sources: Sequence[Source], probabilities: NDArray[np.float32]) -> list[Scored]:
        calibrated = recalibrate(probabilities, self.metadata.recalibration)
        return [
            Scored(source, probability, after, bool(probability >= self.metadata.threshold))
            for source, probability, after in zip(sources, probabilities, calibrated, strict=True)
        ]


def _is_part(file: str, identity: str | None, seen: dict[str, str]) -> bool:
    """Tells whether another file of the same slide was seen before, and says so."""
    first = seen.setdefault(identity or file, file)
    if first != file:
        note(f"{file}: a part of the slide {first}")
    return first != file


def _duration(seconds: float) -> str:
    return f"{seconds / 60:.0f} min" if seconds >= 90 else f"{seconds:.0f} s"


def _one_ahead(items: Iterator[Item]) -> Iterator[Item]:
    """Gets the next item in a thread while one is in use: reading and scoring overlap."""
    with ThreadPoolExecutor(max_workers=1) as thread:
        coming = thread.submit(next, items, None)
        while (item := coming.result()) is not None:
            coming = thread.submit(next, items, None)
            yield item


def _bar(total: int) -> tqdm:
    return tqdm(total=total, desc="Predicting", unit=" patches", disable=None, leave=False)


def note(text: str) -> None:
    """Says something on stderr, above a progress bar if there is one."""
    tqdm.write(text, file=sys.stderr)
