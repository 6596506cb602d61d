"""What a built data set is: manifest.csv, build.json, and the proof that no splits overlap.

A new set is built beside the old one and put in its place by two renames, so that a stop at any
moment leaves a whole set: `settle` finishes or undoes what a stop between the two left.
"""

import csv
import json
import shutil
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path, PurePosixPath
from typing import Any

from cancernet.console import InputError
from cancernet.originals import Exclusion
from cancernet.splitting import SPLITS

MANIFEST, EXCLUDED, BUILD = "manifest.csv", "excluded.csv", "build.json"
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
    for row in rows:
        path = dataset / row.file
        if not path.is_file() or path.stat().st_size != row.bytes:
            raise InputError(
                f"{path} is missing or changed since the data set was built. Build it again."
            )
    return splits, build


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
    except ValueError as error:
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
        return [_parse_row(line) for line in lines]
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
    path = PurePosixPath(file)
    if split not in SPLITS or label not in ("0", "1") or path.is_absolute() or ".." in path.parts:
        raise ValueError(f"a row has an unknown split or label, or a path that climbs out: {line}")
    return Row(
        split=split,
        label=int(label),
        patient=patient,
        x=int(x) if x else None,
        y=int(y) if y else None,
        source=source,
        file=file,
        bytes=int(size),
        sha256=sha256,
    )


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
        (new if (new / BUILD).exists() else old).rename(dataset)
    remove(old)


def remove(folder: Path) -> None:
    """Deletes a folder with all that is in it, if it is there."""
    if folder.exists():
        shutil.rmtree(folder)
