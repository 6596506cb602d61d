"""Patches and tiles through the network, some thousand at a time."""

import math
import sys
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from itertools import chain, islice
from multiprocessing.pool import ThreadPool
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from cancernet.cli import FILES_PER_TASK, InputError
from cancernet.data import pipeline
from cancernet.data.patch import ExcludedError
from cancernet.prediction import slides
from cancernet.prediction.done import Done
from cancernet.prediction.gradcam import Example
from cancernet.prediction.inputs import Problem
from cancernet.prediction.model import SavedModel, averaged, load
from cancernet.prediction.opening import open_picture
from cancernet.prediction.scored import Slide, of_image

CHUNK = 2048  # Patches between two moves of the progress bar, and in memory at a time.
LARGEST_FILE = 100_000  # Bytes; a patch of 100 x 100 pixels takes 40,000 where nothing is packed.
MOST_EXAMPLES = 64  # Patches that are explained.

Item = TypeVar("Item")


class Predictor:
    """A network at work.

    Attributes:
        network, path, metadata: As `load` makes it, its file, and what lies beside.
        patches: The probability of class 1, malignant, of each file of one patch scored so far.
        problems: The files that could not be used.
        examples: The first 64 patches, if they are kept.
    """

    def __init__(
        self,
        saved: SavedModel,
        *,
        batch_size: int,
        average_symmetries: bool = False,
        keep_examples: bool = False,
    ) -> None:
        """Loads a network, to score a patch, or the mean over its mirror images and turns."""
        self.network = load(saved)
        self.path, self.metadata = saved.path, saved.metadata
        self.patches: dict[str, np.float32] = {}
        self.problems: list[Problem] = []
        self.examples: list[Example] = []
        self._scorer = averaged(self.network) if average_symmetries else self.network
        self._most_examples = MOST_EXAMPLES if keep_examples else 0
        self._reading = pipeline.Reading(saved.image_size, batch_size)
        # In whole batches all batches are as in one go, and so is each sum's rounding.
        self._chunk = max(1, CHUNK // batch_size) * batch_size

    def score(
        self, files: Sequence[str], done: Done, *, min_side: int, **limits: Any
    ) -> Iterator[Slide]:
        """Scores patches, images and whole slides within the `limits` of `open_picture` and `cut`.

        Yields each that is cut up; `done` keeps it. What is one patch goes to `patches`.
        """
        patches: dict[str, NDArray[np.uint8]] = {}
        seen: dict[str, str] = {}
        bar = tqdm(files, "Predicting", unit=" files", disable=None, leave=False)
        for file, pixels in zip(bar, self._read_ahead(files, limits), strict=True):
            if pixels is not None:
                patches[file] = pixels
            elif (slide := done.load(file, self.metadata)) is not None:
                if not _is_part(file, slide.identity, seen):
                    note(f"{file}: done before with the same model and options; --again repeats it")
                    yield slide
            else:
                try:
                    with closing(open_picture(Path(file), **limits)) as picture:
                        if _is_part(file, picture.identity, seen):
                            continue
                        if picture.scale:
                            note(f"{file}: {picture.scale}")
                        if picture.one_patch:
                            patches[file] = picture.read_all()
                        else:
                            slide = self._score_picture(file, picture, min_side)
                            done.save(file, slide)
                            yield slide
                except ExcludedError as excluded:
                    self.problems.append((file, str(excluded)))
            if len(patches) == self._chunk:
                self._score_patches(patches)
        self._score_patches(patches)

    def _read_ahead(
        self, files: Sequence[str], limits: dict[str, Any]
    ) -> Iterator[NDArray[np.uint8] | None]:
        """Reads what is plainly one patch in threads, the next some thousand while these are used.

        All else is None, to be looked into when it is its turn.
        """

        def read(file: str) -> NDArray[np.uint8] | None:
            with suppress(ExcludedError, OSError):
                if Path(file).stat().st_size <= LARGEST_FILE:
                    with closing(open_picture(Path(file), **limits)) as picture:
                        if picture.one_patch and not picture.scale:
                            return picture.read_all()
            return None

        starts = range(0, len(files), self._chunk)
        with ThreadPool() as threads:
            parts = (threads.map(read, files[n : n + self._chunk], FILES_PER_TASK) for n in starts)
            with closing(_one_ahead(parts)) as ahead:
                yield from chain.from_iterable(ahead)

    def _score_patches(self, patches: dict[str, NDArray[np.uint8]]) -> None:
        if patches:
            probabilities = self._score(list(patches), list(patches.values()))
            self.patches |= zip(patches, probabilities, strict=True)
        patches.clear()

    def _score_picture(self, file: str, picture: slides.Picture, min_side: int) -> Slide:
        grid = slides.grid_size(picture, min_side=min_side)
        side = slides.picture_side(*grid)
        tiles: list[slides.Tile] = []  # With small pictures for pixels.

        def tissue() -> Iterator[NDArray[np.uint8]]:
            for tile in slides.cut(picture, min_side=min_side):
                tiles.append(tile._replace(pixels=slides.shrink(tile.pixels, side)))
                if not tile.background:
                    yield tile.pixels

        found = tissue()
        probabilities = [np.empty(0, np.float32)]
        with tqdm(total=math.prod(grid), unit=" tiles", disable=None, leave=False) as bar:
            for part in _one_ahead(iter(lambda: list(islice(found, self._chunk)), [])):
                probabilities.append(self._score([file] * len(part), part))
                bar.update(len(tiles) - bar.n)
        tiles.sort(key=lambda tile: tile.background)
        places = [(tile.x, tile.y) for tile in tiles]
        number = sum(map(len, probabilities))
        note(f"{file}: patches {number:,}, skipped without tissue {len(tiles) - number:,}")
        return of_image(
            file,
            self.metadata,
            places=places[:number],
            probability=np.concatenate(probabilities),
            skipped=places[number:],
            pictures=np.stack([tile.pixels for tile in tiles]),
            frame=picture.frame,
            identity=picture.identity,
        )

    def _score(
        self, files: Sequence[str], patches: Sequence[NDArray[np.uint8]]
    ) -> NDArray[np.float32]:
        batches = pipeline.tile_batches(patches, self._reading)
        probabilities = self._scorer.predict(batches, verbose=0)[:, 1]
        if np.isnan(probabilities).any():
            raise InputError(
                "The model gives no probabilities but NaN: it is damaged, or its training went "
                "astray. Train it again."
            )
        if (missing := self._most_examples - len(self.examples)) > 0:
            images = batches.unbatch().take(missing).as_numpy_iterator()
            self.examples += zip(files, probabilities, images, strict=False)
        return probabilities


def _is_part(file: str, identity: str | None, seen: dict[str, str]) -> bool:
    # Of a slide in several files the first is scored.
    first = seen.setdefault(identity or file, file)
    if first != file:
        note(f"{file}: a part of the slide {first}")
    return first != file


def _one_ahead(items: Iterator[Item]) -> Generator[Item]:
    """Gets the next item in a thread while one is in use: reading and scoring overlap."""
    with ThreadPoolExecutor(max_workers=1) as thread:
        coming = thread.submit(next, items, None)
        while (item := coming.result()) is not None:
            coming = thread.submit(next, items, None)
            yield item


def note(*lines: str) -> None:
    """Says what is no result, on stderr, above a progress bar if there is one."""
    tqdm.write("\n".join(lines), file=sys.stderr)
