"""How a data set is built: names given, files copied, the new set put in the old one's place."""

import hashlib
import json
import os
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import fields
from operator import attrgetter
from pathlib import Path, PurePath, PurePosixPath
from typing import Any

from cancernet.cli import InputError, map_files
from cancernet.data.dataset import (
    BUILD,
    EXCLUDED,
    MANIFEST,
    Row,
    beside,
    comparable,
    read_build,
    remove,
    settle,
)
from cancernet.data.originals import Exclusion, Patch
from cancernet.data.patches import ExcludedError
from cancernet.data.splitting import SPLITS
from cancernet.files import write_rows


def check_replaceable(dataset: Path, *, original: Path, sample: bool) -> None:
    """Makes sure that building into a directory destroys nothing but an older data set.

    Raises:
        InputError: The directory is no data set, is built from real patches and would be replaced
            by the sample, or lies in the original directory or around it.
    """
    target, source = dataset.resolve(), original.resolve()
    if target.is_file():
        raise InputError(f"--dataset is {target}, a file: expected a directory.")
    if target.is_relative_to(source) or source.is_relative_to(target):
        raise InputError(
            f"The data set {dataset} and the originals {original} lie one in the other. "
            "Name another --dataset."
        )
    if not dataset.exists() or (dataset.is_dir() and not any(dataset.iterdir())):
        return
    try:
        build = read_build(dataset)
    except InputError as error:
        raise InputError(
            f"{dataset} exists, but is no data set of ours, so it is not replaced ({error}) "
            "Name another --dataset, or move it away."
        ) from error
    if sample and not build["sample"]:
        raise InputError(
            f"{dataset} is built from real patches: the sample does not replace it. "
            "Name another --dataset."
        )


def split_folders(base: str, split_paths: Sequence[str]) -> dict[str, str]:
    """Turns the paths of the splits into folders below the data set directory.

    Args:
        base: The data set directory as configured.
        split_paths: The directories of training, validation and testing, as configured.

    Returns:
        Each split's folder relative to `base`, with forward slashes.

    Raises:
        InputError: A path is not below `base`, or lies in another one.
    """
    if not all(isinstance(path, str) for path in split_paths):
        raise InputError(
            f"TRAIN_PATH, VAL_PATH and TEST_PATH are {split_paths!r}: expected paths, as text. "
            "Change them in cancernet/config.py."
        )
    folders = {}
    for split, path in zip(SPLITS, map(PurePath, split_paths), strict=True):
        below = path.is_relative_to(base) and path != PurePath(base) and ".." not in path.parts
        overlapping = [
            other
            for other in map(PurePath, split_paths)
            if path.is_relative_to(other) or other.is_relative_to(path)
        ]
        if not below or len(overlapping) > 1:  # Each path is relative to itself.
            raise InputError(
                f"The {split} split's directory is {path}: expected one of its own below {base}. "
                "Change TRAIN_PATH, VAL_PATH and TEST_PATH in cancernet/config.py."
            )
        folders[split] = path.relative_to(base).as_posix()
    return folders


def plan(
    patches: Sequence[Patch], split_of: Mapping[str, str], folders: Mapping[str, str]
) -> list[Row]:
    """Gives every patch its file in the data set, sorted by it.

    Patches that share a file name all get `<patient>_<file name>`; where that is taken as well, a
    number before the ending keeps them apart.
    """
    same_name: dict[str, list[Patch]] = defaultdict(list)
    for patch in sorted(patches, key=lambda patch: patch.source):
        same_name[comparable(_name(patch.source))].append(patch)

    rows = []
    taken = {name: {("", -1)} for name, sharers in same_name.items() if len(sharers) == 1}
    for sharers in same_name.values():
        for patch in sharers:
            split, name = split_of[patch.source], _name(patch.source)
            if len(sharers) > 1:
                name = _free_name(f"{patch.patient}_{name}", (split, patch.label), taken)
            rows.append(
                Row(
                    split=split,
                    label=patch.label,
                    patient=patch.patient,
                    x=patch.x,
                    y=patch.y,
                    source=patch.source,
                    file=f"{folders[split]}/{patch.label}/{name}",
                    bytes=patch.bytes,
                    sha256=patch.sha256,
                )
            )
    return sorted(rows, key=lambda row: row.file)


def _name(source: str) -> str:
    return source.rsplit("/", maxsplit=1)[-1]


def _free_name(name: str, place: tuple[str, int], taken: dict[str, set[tuple[str, int]]]) -> str:
    """Finds a name that stands in no other split and not yet in this split's class folder."""
    path, number, candidate = PurePosixPath(name), 1, name
    while True:
        places = taken.setdefault(comparable(candidate), set())
        if place not in places and all(split == place[0] for split, _ in places):
            places.add(place)
            return candidate
        number += 1
        candidate = f"{path.stem}_{number}{path.suffix}"


# Names are text from here on: a Path of each file would cost as much as reading it.


def _copy(source: str, target: str, sha256: str) -> None:
    try:
        with open(source, "rb", buffering=0) as file:  # noqa: PTH123
            data = file.read()
    except FileNotFoundError as error:
        raise ExcludedError("vanished during the build", "") from error
    if hashlib.sha256(data).hexdigest() != sha256:
        raise ExcludedError("changed during the build", "")
    with open(target, "wb") as file:  # noqa: PTH123
        file.write(data)


def _hardlink(source: str, target: str, _sha256: str) -> None:
    _link(os.link, source, target)


def _symlink(source: str, target: str, _sha256: str) -> None:
    _link(os.symlink, source, target)


def _link(link: Callable[[str, str], None], source: str, target: str) -> None:
    try:
        content = os.path.realpath(source, strict=True)
    except FileNotFoundError as error:
        raise ExcludedError("vanished during the build", "") from error
    try:
        link(content, target)
    except OSError as error:
        raise InputError(
            f"A link as COPY_MODE asks for cannot be made: {error}. Links need a file system, "
            "and on Windows a right, that allows them. Set COPY_MODE = 'copy' in "
            "cancernet/config.py."
        ) from error


COPY_MODES = {"copy": _copy, "hardlink": _hardlink, "symlink": _symlink}


@contextmanager
def new_set(dataset: Path) -> Iterator[None]:
    """Makes room for a new set beside the old one, and clears away what does not get finished."""
    new, old = beside(dataset)
    remove(new)
    remove(old)
    new.mkdir(parents=True)
    try:
        yield
    finally:
        settle(dataset)  # First: a stop in the middle of the swap must not cost the new set.
        remove(new)


def check_copy_mode(copy_mode: str) -> None:
    """Raises InputError where there is no such copy mode."""
    if copy_mode not in tuple(COPY_MODES):  # A tuple takes what cannot be hashed, too.
        raise InputError(f"COPY_MODE is {copy_mode!r}: expected one of {', '.join(COPY_MODES)}.")


def stage(
    original: Path, dataset: Path, rows: Sequence[Row], *, copy_mode: str
) -> tuple[list[Row], list[Exclusion]]:
    """Puts the files into the new data set, which stands beside the old one until `swap`.

    Args:
        original: Where the sources are.
        dataset: The data set directory that the new set is for.
        rows: The files.
        copy_mode: "copy", "hardlink" or "symlink".

    Returns:
        The rows that are there now, and the files that vanished or changed since they were checked.

    Raises:
        InputError: Unknown copy mode, or one that the file system refuses.
    """
    check_copy_mode(copy_mode)
    place = COPY_MODES[copy_mode]
    new, _ = beside(dataset)
    for folder in {row.file.rsplit("/", maxsplit=1)[0] for row in rows}:
        (new / folder).mkdir(parents=True, exist_ok=True)

    def stage_file(row: Row) -> Row | Exclusion:
        try:
            place(f"{original}/{row.source}", f"{new}/{row.file}", row.sha256)
        except ExcludedError as excluded:
            return Exclusion(row.source, excluded.reason, excluded.detail)
        return row

    staged, exclusions = [], []
    for split in SPLITS:
        print(f"Building {split} set ...", flush=True)
        of_split = [row for row in rows if row.split == split]
        for result in map_files(stage_file, of_split, what="Copying"):
            if isinstance(result, Row):
                staged.append(result)
            else:
                exclusions.append(result)
    return sorted(staged, key=lambda row: row.file), exclusions


def swap(
    dataset: Path, rows: Sequence[Row], exclusions: Sequence[Exclusion], build: Mapping[str, Any]
) -> None:
    """Writes the lists of the new data set and puts it in the old one's place.

    Args:
        dataset: The data set directory.
        rows: What was staged, sorted by file.
        exclusions: All files left out.
        build: The content of build.json.
    """
    new, old = beside(dataset)
    _write_csv(new / MANIFEST, Row, rows)
    _write_csv(new / EXCLUDED, Exclusion, sorted(exclusions, key=lambda each: each.source))
    # Last, since it says that the set is whole.
    (new / BUILD).write_text(json.dumps(build, indent=2) + "\n", encoding="utf-8")
    dataset = dataset.resolve()
    if dataset.exists():
        dataset.rename(old)
    try:
        new.rename(dataset)
    except OSError:
        if old.exists():
            old.rename(dataset)
        raise


def _write_csv(path: Path, kind: type, items: Iterable[Any]) -> None:
    names = [field.name for field in fields(kind)]
    # A name on Linux need not be valid text.
    with path.open("w", newline="", encoding="utf-8", errors="backslashreplace") as file:
        write_rows(file, [names, *map(attrgetter(*names), items)])
