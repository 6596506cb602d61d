"""What a built data set is: manifest.csv, build.json, and the proof that no splits overlap.

A new set is built beside the old one and put in its place by two renames, so that a stop at any
moment leaves a whole set: `settle` finishes or undoes what a stop between the two left.
"""

import csv
import hashlib
import json
import os
import shutil
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from cancernet.cli import InputError, map_files
from cancernet.data.originals import Exclusion
from cancernet.data.patches import ExcludedError, PatchName, parse_source
from cancernet.data.splitting import SPLITS

MANIFEST, EXCLUDED, BUILD = "manifest.csv", "excluded.csv", "build.json"
WINDOWS_EXPLORER = {"Thumbs.db", "desktop.ini"}  # What it puts into folders that it shows.
ANEW = "Build the data set again."
BUILD_KEYS = {"method", "seed", "fractions", "splits", "overlap", "sample"}


@dataclass(frozen=True)
class Row:
    """A row of manifest.csv: a patch of the data set.

    Attributes:
        split: "training", "validation" or "testing".
        label: 0 benign, 1 malignant.
        patient: The patient's number, or the name of the patient's folder.
        x: Left edge on the slide in pixels; None where unknown.
        y: Upper edge on the slide in pixels; None where unknown.
        source: Path below the original directory, with forward slashes.
        file: Path below the data set directory, with forward slashes.
        bytes: Size of the file.
        sha256: Hash of the file's bytes, in hexadecimal.
    """

    split: str
    label: int
    patient: str
    x: int | None
    y: int | None
    source: str
    file: str
    bytes: int
    sha256: str


def open_dataset(dataset: Path) -> tuple[dict[str, list[Row]], dict[str, Any]]:
    """Reads the lists of a data set, after finishing or undoing a half-done swap.

    Returns:
        The rows of each split, sorted by file (testing may have none), and what build.json holds.

    Raises:
        InputError: There is no data set, its lists or files are damaged, or there is nothing to
            train on or to choose the best epoch on.
    """
    settle(dataset)
    if not dataset.is_dir():
        raise InputError(
            f"Found no data set {dataset}. Make one with build_dataset.py, or with "
            "build_dataset.py --sample to try things out, or name another --dataset."
        )
    build = read_build(dataset)
    rows = _read_manifest(dataset / MANIFEST)
    if count_splits(rows) != build["splits"]:
        raise InputError(
            f"{dataset / MANIFEST} and {dataset / BUILD} do not count the same patches: one of "
            "them was changed. Build the data set again."
        )
    splits = {split: [row for row in rows if row.split == split] for split in SPLITS}
    for split in ("training", "validation"):
        if not splits[split]:
            raise InputError(
                f"The {split} split of {dataset} is empty: training needs patches to learn from "
                "and patches to choose the best epoch on. Build it with --split patient."
            )
    _check_files(dataset, rows)
    return splits, build


def _check_files(dataset: Path, rows: Iterable[Row]) -> None:
    """Makes sure that the files of the manifest are there in their sizes, and no others."""
    expected = {row.file: row.bytes for row in rows}
    found = dict(_list_files(str(dataset), ""))
    for file, size in expected.items():
        if file not in found:
            raise InputError(f"{dataset / file} is missing: expected {size} bytes. {ANEW}")
        if found[file] != size:
            raise InputError(
                f"{dataset / file} was changed since the data set was built: found {found[file]} "
                f"bytes, expected {size}. {ANEW}"
            )
    if added := found.keys() - expected.keys() - {MANIFEST, EXCLUDED, BUILD}:
        raise InputError(
            f"{dataset / min(added)} was added since the data set was built ({len(added)} files "
            "were): expected those of manifest.csv alone. Move it away, or put it into the "
            "original directory and build the data set again."
        )


def _list_files(folder: str, below: str) -> Iterator[tuple[str, int]]:
    """Lists the files of a data set, with their sizes; hidden ones are the file managers'."""
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir():
                yield from _list_files(entry.path, f"{below}{entry.name}/")
            elif not entry.name.startswith(".") and entry.name not in WINDOWS_EXPLORER:
                # A link whose file is gone has no size.
                yield below + entry.name, entry.stat().st_size if entry.is_file() else -1


def verify(dataset: Path, rows: Sequence[Row]) -> None:
    """Compares the content of each file with its hash in the manifest, which takes a while.

    Raises:
        InputError: A file was changed; it is named.
    """

    def is_same(row: Row) -> bool:
        with (dataset / row.file).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest() == row.sha256

    same = map_files(is_same, rows, what="Verifying")
    changed = [row.file for row, as_built in zip(rows, same, strict=True) if not as_built]
    if changed:
        raise InputError(
            f"{dataset / changed[0]} was changed since the data set was built ({len(changed)} of "
            f"{len(rows):,} files were): its hash is not that of manifest.csv. {ANEW}"
        )


def digest(dataset: Path) -> str:
    """Gives the hash of manifest.csv, which holds those of all patches."""
    return hashlib.sha256((dataset / MANIFEST).read_bytes()).hexdigest()


def read_build(dataset: Path) -> dict[str, Any]:
    """Reads build.json.

    Raises:
        InputError: It is missing or not ours.
    """
    path = dataset / BUILD
    try:
        build = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise InputError(
            f"There is no {path}. Build the data set with build_dataset.py."
        ) from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is damaged: {error}. Build the data set again.") from error
    if not isinstance(build, dict) or not build.keys() >= BUILD_KEYS:
        raise InputError(f"{path} is not of build_dataset.py: expected {sorted(BUILD_KEYS)} in it.")
    return build


def read_exclusions(dataset: Path) -> list[Exclusion]:
    """Reads excluded.csv: the files left out, sorted by source.

    Raises:
        InputError: It is missing or damaged.
    """
    return [Exclusion(*line) for line in _read_table(dataset / EXCLUDED, Exclusion)]


def _read_manifest(path: Path) -> list[Row]:
    lines = _read_table(path, Row)
    try:
        rows = [_parse_row(line) for line in lines]
        if len({row.file for row in rows}) != len(rows):
            raise ValueError("two rows have the same file")
        return rows
    except ValueError as error:
        raise InputError(f"{path} is damaged: {error}. Build the data set again.") from error


def _read_table(path: Path, kind: type) -> list[list[str]]:
    """Reads the rows of a CSV file whose columns are the fields of a dataclass."""
    names = [field.name for field in fields(kind)]
    try:
        with path.open(newline="", encoding="utf-8") as file:
            header, *lines = csv.reader(file, strict=True)
        if header != names:
            raise ValueError(f"its columns are {header}, expected {names}")
        for line in lines:
            if len(line) != len(names):
                raise ValueError(f"a row has {len(line)} fields: {line}")
        return lines
    except FileNotFoundError as error:
        raise InputError(f"There is no {path}. Build the data set again.") from error
    except (ValueError, csv.Error) as error:
        raise InputError(f"{path} is damaged: {error}. Build the data set again.") from error


def _parse_row(line: Sequence[str]) -> Row:
    split, label, patient, x, y, source, file, size, sha256 = line
    *folders, _ = file.split("/")  # No Path of each file: that takes as long as all else here.
    climbs_out = folders[:1] == [""] or ".." in folders
    if split not in SPLITS or label not in ("0", "1") or climbs_out:
        raise ValueError(f"a row has an unknown split or label, or a path that climbs out: {line}")
    name = PatchName(patient, int(label), int(x) if x else None, int(y) if y else None)
    try:
        as_built = parse_source(source) == name and folders[-1:] == [label]
    except ExcludedError:
        as_built = False
    if not as_built:
        raise ValueError(f"a row contradicts its source or its file: {line}")
    return Row(split, name.label, patient, name.x, name.y, source, file, int(size), sha256)


def describe(
    rows: Sequence[Row],
    *,
    method: str,
    seed: int,
    fractions: Mapping[str, float],
    sample: bool,
) -> dict[str, Any]:
    """Makes the content of build.json and refuses a split that no figure could be trusted on.

    Raises:
        InputError: A patient (except under `image`), file name or content stands in two splits, or
            a split lacks a class (under `published` it may be wholly empty).
    """
    splits = count_splits(rows)
    way_out = "Add patients, change TRAIN_SPLIT or VAL_SPLIT, or try another seed."
    if method == "published":
        way_out = "Add patients, or take --split patient."
    for split, counts in splits.items():
        if method == "published" and counts["patches"] == 0:
            continue
        for label in ("benign", "malignant"):
            if counts[label] == 0:
                raise InputError(
                    f"The {split} split has no {label} patch ({counts['patients']} patients, "
                    f"{counts['patches']} patches): nothing can be learnt or measured there. "
                    + way_out
                )
    shared = {
        "patients": _in_two_splits((row.patient, row.split) for row in rows),
        "files": _in_two_splits(
            (comparable(row.file.rsplit("/", maxsplit=1)[-1]), row.split) for row in rows
        ),
        "contents": _in_two_splits((row.sha256, row.split) for row in rows),
    }
    for kind, items in shared.items():
        if items and not (method == "image" and kind == "patients"):
            raise InputError(
                f"{len(items)} {kind} stand in two splits, {min(items)!r} first. Rename or remove "
                "them in the original directory, or choose the 'patient' split."
            )
    return {
        "method": method,
        "seed": seed,
        # The published lists follow no fractions.
        "fractions": None if method == "published" else dict(fractions),
        "splits": splits,
        "overlap": {kind: len(items) for kind, items in shared.items()},
        "sample": sample,
    }


def count_splits(rows: Iterable[Row]) -> dict[str, dict[str, int]]:
    """Counts patients, patches, benign and malignant patches of each split."""
    patients: dict[str, set[str]] = {split: set() for split in SPLITS}
    labels = {split: [0, 0] for split in SPLITS}
    for row in rows:
        patients[row.split].add(row.patient)
        labels[row.split][row.label] += 1
    return {
        split: {
            "patients": len(patients[split]),
            "patches": sum(labels[split]),
            "benign": labels[split][0],
            "malignant": labels[split][1],
        }
        for split in SPLITS
    }


def _in_two_splits(items: Iterable[tuple[str, str]]) -> set[str]:
    split_of: dict[str, str] = {}
    return {item for item, split in items if split_of.setdefault(item, split) != split}


def comparable(name: str) -> str:
    """A name as macOS and Windows compare it: two that they take for one must not meet."""
    return name.lower() if name.isascii() else unicodedata.normalize("NFC", name).casefold()


def beside(dataset: Path) -> tuple[Path, Path]:
    """Where the new set is built, and where the old one stands during the swap."""
    dataset = dataset.resolve()  # Where it is a link, beside what it leads to.
    if not dataset.name:
        raise InputError(f"--dataset is {dataset}, a whole disk. Name a directory below it.")
    return (
        dataset.with_name(f".{dataset.name}.cancernet-new"),
        dataset.with_name(f".{dataset.name}.cancernet-old"),
    )


def settle(dataset: Path) -> None:
    """Finishes or undoes the swap of an older set for a new one, if a stop left it half done."""
    new, old = beside(dataset)
    dataset = dataset.resolve()
    if old.exists() and not dataset.exists():
        try:
            (new if (new / BUILD).exists() else old).rename(dataset)
        except OSError:
            if not dataset.exists():  # Else another training was quicker.
                raise
    # What cannot be removed here, on a disk to be read only, the next build removes.
    shutil.rmtree(old, ignore_errors=True)


def remove(folder: Path) -> None:
    """Deletes a folder with all that is in it, if it is there."""
    if folder.exists():
        shutil.rmtree(folder)
