"""What a built data set is: its lists, and files in three splits."""

import csv
import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cancernet.cli import InputError, map_files
from cancernet.data.originals import Exclusion, list_files
from cancernet.data.patch import LABELS
from cancernet.data.splitting import SPLITS
from cancernet.files import finish_swap, read_json

MANIFEST, EXCLUDED, BUILD = "manifest.csv", "excluded.csv", "build.json"
BUILD_KEYS = {"method", "seed", "fractions", "splits", "overlap", "sample"}
WINDOWS_EXPLORER = {"Thumbs.db", "desktop.ini"}  # What it puts into folders that it shows.
ANEW = "Build the data set again."


@dataclass(frozen=True)
class Row:
    """A row of manifest.csv: a patch of the data set. Its paths have forward slashes."""

    split: str  # "training", "validation" or "testing".
    label: int  # 0 benign, 1 malignant.
    patient: str
    x: int | None  # Left and upper edge on the slide in pixels; None where unknown.
    y: int | None
    source: str  # Path below the original directory.
    file: str  # Path below the data set directory.
    bytes: int
    sha256: str  # Of the file's bytes, in hexadecimal.


@dataclass(frozen=True)
class Split:
    """The patches of one split, sorted by file; an empty one is falsy."""

    name: str  # "training", "validation" or "testing".
    folder: Path  # The data set's directory.
    rows: list[Row]

    def __len__(self) -> int:
        """Counts the patches."""
        return len(self.rows)

    @cached_property
    def files(self) -> list[Path]:
        """Where each patch is."""
        return [self.folder / row.file for row in self.rows]

    @cached_property
    def labels(self) -> NDArray[np.int64]:
        """0 benign or 1 malignant, shape (patches,)."""
        return np.array([row.label for row in self.rows], np.int64)

    @cached_property
    def patients(self) -> list[str]:
        """Each patch's patient."""
        return [row.patient for row in self.rows]


@dataclass(frozen=True)
class Dataset:
    """A built data set."""

    folder: Path
    training: Split  # What the network learns from.
    validation: Split  # What the best epoch and the threshold are chosen on.
    testing: Split  # What the network is tested on; it may be empty.
    build: dict[str, Any]  # What build.json holds.
    exclusions: list[Exclusion]  # The files left out, sorted by source.

    @classmethod
    def open(cls, folder: Path, *, verify: bool = False) -> "Dataset":
        """Reads a data set; `verify` compares each file's content with its hash as well.

        What is damaged, missing or too much is an InputError.
        """
        finish_swap(folder)
        build, rows = read_build(folder), _read_table(folder / MANIFEST, Row)
        if count_splits(rows) != build["splits"]:
            raise InputError(f"{folder}: {MANIFEST} and {BUILD} do not count the same. {ANEW}")
        data = cls.of(folder, rows, build, _read_table(folder / EXCLUDED, Exclusion))
        for split in (data.training, data.validation):
            if not split:
                raise InputError(
                    f"The {split.name} split of {folder} is empty, but training needs it to learn "
                    "from or to choose the best epoch on. Build it with --split patient."
                )
        _check_files(folder, rows)
        if verify:
            _verify(folder, rows)
        return data

    @classmethod
    def of(
        cls, folder: Path, rows: Sequence[Row], build: dict[str, Any], exclusions: list[Exclusion]
    ) -> "Dataset":
        """Makes a data set of rows sorted by file."""
        training, validation, testing = (
            Split(name, folder, [row for row in rows if row.split == name]) for name in SPLITS
        )
        return cls(folder, training, validation, testing, build, exclusions)

    @property
    def sample(self) -> bool:
        """Whether it is made of the synthetic sample."""
        return bool(self.build["sample"])

    @property
    def splits(self) -> dict[str, Split]:
        """All three splits by name."""
        return {split.name: split for split in (self.training, self.validation, self.testing)}

    @property
    def judged(self) -> Split:
        """What the network is judged on: testing, or validation where testing is empty."""
        return self.testing or self.validation

    @cached_property
    def digest(self) -> str:
        """The SHA-256 of manifest.csv, which holds those of all patches."""
        return hashlib.sha256((self.folder / MANIFEST).read_bytes()).hexdigest()


def count_splits(rows: Sequence[Row]) -> dict[str, dict[str, int]]:
    """Counts patients, patches, benign and malignant patches of each split."""
    counts = {}
    for split in SPLITS:
        of_split = [row for row in rows if row.split == split]
        malignant = sum(row.label for row in of_split)
        counts[split] = {
            "patients": len({row.patient for row in of_split}),
            "patches": len(of_split),
            "benign": len(of_split) - malignant,
            "malignant": malignant,
        }
    return counts


def read_build(folder: Path) -> dict[str, Any]:
    """Reads build.json; a missing or foreign one is an InputError."""
    path = folder / BUILD
    try:
        build = read_json(path)
    except FileNotFoundError as error:
        raise InputError(
            f"Found no data set {folder}, which has a {BUILD}. Make one with build_dataset.py, or "
            "with build_dataset.py --sample to try things out, or name another --dataset."
        ) from error
    except InputError as error:
        raise InputError(f"{error} {ANEW}") from error
    if not isinstance(build, dict) or not build.keys() >= BUILD_KEYS:
        raise InputError(f"{path} is not of build_dataset.py: expected {sorted(BUILD_KEYS)} in it.")
    return build


def _read_table(path: Path, kind: type) -> list[Any]:
    names = [field.name for field in fields(kind)]
    try:
        with path.open(newline="", encoding="utf-8") as file:
            header, *lines = csv.reader(file, strict=True)
        if header != names:
            raise ValueError(f"its columns are {header}, expected {names}")
        return [_parse_row(line) if kind is Row else kind(*line) for line in lines]
    except (FileNotFoundError, TypeError, ValueError, csv.Error) as error:
        raise InputError(f"{path} is damaged: {error}. {ANEW}") from error


def _parse_row(line: list[str]) -> Row:
    split, label, patient, x, y, source, file, size, sha256 = line
    if label not in LABELS or file.split("/")[-2:-1] != [label]:
        raise ValueError(f"label {label} contradicts the folder: {file}")
    place = (int(x) if x else None, int(y) if y else None)
    return Row(split, LABELS[label], patient, *place, source, file, int(size), sha256)


def _check_files(folder: Path, rows: Sequence[Row]) -> None:
    expected = {row.file: row.bytes for row in rows}
    found = {
        file: os.path.getsize(folder / file)  # noqa: PTH202
        for file in list_files(folder)
        if not (name := file.split("/")[-1]).startswith(".") and name not in WINDOWS_EXPLORER
    }
    for file, size in expected.items():
        if found.get(file) != size:
            was = f"found {found[file]} bytes" if file in found else "it is missing"
            raise InputError(f"{folder / file} was changed: {was}, expected {size} bytes. {ANEW}")
    if added := found.keys() - expected.keys() - {MANIFEST, EXCLUDED, BUILD}:
        raise InputError(
            f"{folder / min(added)} was added ({len(added)} files were): expected those of "
            f"{MANIFEST} alone. Move it away, or to the originals. {ANEW}"
        )


def _verify(folder: Path, rows: Sequence[Row]) -> None:
    def digest(row: Row) -> str:
        return hashlib.sha256((folder / row.file).read_bytes()).hexdigest()

    digests = map_files(digest, rows, what="Verifying")
    changed = [row.file for row, sha256 in zip(rows, digests, strict=True) if sha256 != row.sha256]
    if changed:
        raise InputError(
            f"{folder / changed[0]} was changed ({len(changed)} of {len(rows):,} files were): its "
            f"hash is not that of {MANIFEST}. {ANEW}"
        )
