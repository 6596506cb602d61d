"""How a data set is built: files named and copied, no overlap proved, the older set replaced."""

import errno
import hashlib
import os
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import astuple, fields
from pathlib import Path, PurePosixPath
from typing import Any

from cancernet.cli import InputError, map_files
from cancernet.data.dataset import BUILD, EXCLUDED, MANIFEST, Dataset, Row, count_splits, read_build
from cancernet.data.originals import Exclusion, Patch
from cancernet.data.patch import LAYOUT, ExcludedError
from cancernet.data.splitting import SPLITS
from cancernet.files import finish_swap, replacing_folder, write_csv, write_json

LONGEST_NAME = 255  # Bytes.
ELSEWHERE = "Name another --dataset."


def check_replaceable(dataset: Path, *, original: Path | None, sample: bool) -> None:
    """Makes sure that building into a directory destroys nothing but an older data set.

    Nor may the sample replace real patches. A half-done replacement is finished first. `original`
    is None where it is not known yet.
    """
    finish_swap(dataset)
    target = dataset.resolve()
    if target.is_file():
        raise InputError(f"{target} is a file: expected a directory. {ELSEWHERE}")
    if original is not None:
        source = original.resolve()
        if target.is_relative_to(source) or source.is_relative_to(target):
            raise InputError(f"{dataset} and {original} lie one in the other. {ELSEWHERE}")
    if not dataset.exists() or not any(dataset.iterdir()):
        return
    try:
        build = read_build(dataset)
    except InputError as error:
        raise InputError(
            f"{dataset} exists, but is no data set of ours, so it is not replaced ({error}) "
            f"{ELSEWHERE}"
        ) from error
    if sample and not build["sample"]:
        raise InputError(f"{dataset} is of real patches: no sample replaces it. {ELSEWHERE}")


# --- Names ---------------------------------------------------------------------------------------


def plan(
    patches: Sequence[Patch], split_of: Mapping[str, str], folders: Mapping[str, str]
) -> list[Row]:
    """Gives every patch its file in the data set, sorted by it.

    Patches that share a file name all get `<patient>_<file name>`; where that is taken as well, a
    number before the ending keeps them apart. `folders` are those of the splits.
    """
    same_name: dict[str, list[Patch]] = defaultdict(list)
    for patch in sorted(patches, key=lambda patch: patch.source):
        same_name[_comparable(_name(patch.source))].append(patch)

    rows = []
    # The split and class folder that each name stands in; those used once stay as they are.
    taken = {name: {("", -1)} for name, sharers in same_name.items() if len(sharers) == 1}
    for sharers in same_name.values():
        for p in sharers:
            split, name = split_of[p.source], _name(p.source)
            if len(sharers) > 1:
                name = _free_name(f"{p.patient}_{name}", (split, p.label), taken)
            file = f"{folders[split]}/{p.label}/{name}"
            rows.append(Row(split, p.label, p.patient, p.x, p.y, p.source, file, p.bytes, p.sha256))
    return sorted(rows, key=lambda row: row.file)


def _name(path: str) -> str:
    return path.rsplit("/", maxsplit=1)[-1]


def _comparable(name: str) -> str:
    """A name as macOS and Windows compare it: two that they take for one must not meet."""
    return name.lower() if name.isascii() else unicodedata.normalize("NFC", name).casefold()


def _free_name(name: str, place: tuple[str, int], taken: dict[str, set[tuple[str, int]]]) -> str:
    """Finds a name that stands in no other split and not yet in this split's class folder."""
    path, number, candidate = PurePosixPath(name), 1, _short(name)
    while True:
        places = taken.setdefault(_comparable(candidate), set())
        if place not in places and all(split == place[0] for split, _ in places):
            places.add(place)
            return candidate
        number += 1
        candidate = _short(f"{path.stem}_{number}{path.suffix}")


def _short(name: str) -> str:
    """A name as it is, or with a hash in the place of what file systems have no room for."""
    data = name.encode()
    if len(data) <= LONGEST_NAME:
        return name
    ending = PurePosixPath(name).suffix[:8]
    end = f"_{hashlib.sha256(data).hexdigest()[:16]}{ending}"
    return data[: LONGEST_NAME - len(end.encode())].decode(errors="ignore") + end


# --- Files ---------------------------------------------------------------------------------------


def build(
    dataset: Path,
    rows: Sequence[Row],
    exclusions: Sequence[Exclusion],
    *,
    original: Path,
    copy_mode: str,
    about: Mapping[str, Any],
) -> Dataset:
    """Builds a data set beside the older one, if there is one, and puts it in its place.

    `rows` are what `plan` gave, `about` the `method`, `seed`, `fractions`, `sample` and `layout` of
    build.json. Files that vanish or change meanwhile come to the exclusions.
    """
    with replacing_folder(dataset) as new:
        results = _stage(original, new, rows, copy_mode)
        gone = [each for each in results if isinstance(each, Exclusion)]
        staged = [each for each in results if isinstance(each, Row)]
        staged.sort(key=lambda row: row.file)
        content = prove(staged, about)
        left_out = sorted([*exclusions, *gone], key=lambda each: each.source)
        for name, kind, items in ((MANIFEST, Row, staged), (EXCLUDED, Exclusion, left_out)):
            write_csv(new / name, [field.name for field in fields(kind)], map(astuple, items))
        write_json(new / BUILD, content)
    return Dataset.of(dataset, staged, content, left_out)


def _stage(original: Path, new: Path, rows: Sequence[Row], copy_mode: str) -> list[Row | Exclusion]:
    """Puts the files into the new folder, but for those that vanished or changed."""
    for folder in {row.file.rsplit("/", maxsplit=1)[0] for row in rows}:
        (new / folder).mkdir(parents=True, exist_ok=True)

    def stage_file(row: Row) -> Row | Exclusion:
        # Text: a Path of each file would cost as much as reading it.
        source, target = f"{original}/{row.source}", f"{new}/{row.file}"
        try:
            if copy_mode == "copy":
                _copy(source, target, row.sha256)
            else:
                _link(source, target, os.link if copy_mode == "hardlink" else os.symlink)
        except ExcludedError as excluded:
            return Exclusion(row.source, excluded.reason, excluded.detail)
        except OSError as error:
            if not os.path.exists(source):  # noqa: PTH110
                return Exclusion(row.source, "vanished during the build", "")
            if error.errno not in (errno.ENAMETOOLONG, errno.ENOENT):  # ENOENT: on Windows.
                raise
            return Exclusion(row.source, "name too long", "")
        return row

    results: list[Row | Exclusion] = []
    for split in SPLITS:
        print(f"Building {split} set ...", flush=True)
        results += map_files(stage_file, [r for r in rows if r.split == split], what="Copying")
    return results


def _copy(source: str, target: str, sha256: str) -> None:
    with open(source, "rb", buffering=0) as file:  # noqa: PTH123
        data = file.read()
    if hashlib.sha256(data).hexdigest() != sha256:
        raise ExcludedError("changed during the build", "")
    with open(target, "wb") as file:  # noqa: PTH123
        file.write(data)


def _link(source: str, target: str, link: Callable[[str, str], None]) -> None:
    content = os.path.realpath(source, strict=True)
    try:
        link(content, target)
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            raise
        raise InputError(
            f"A link as COPY_MODE asks for cannot be made: {error}. Links need a file system, "
            "and on Windows a right, that allows them. Set COPY_MODE = 'copy' in "
            "cancernet/config.py."
        ) from error


# --- Proof ---------------------------------------------------------------------------------------


def prove(rows: Sequence[Row], about: Mapping[str, Any]) -> dict[str, Any]:
    """Makes the content of build.json and refuses a split that no metric could be trusted on.

    Raises:
        InputError: A patient (except under `image`), file name or content stands in two splits, or
            a split lacks a class (under `published` it may be wholly empty).
    """
    method, splits = about["method"], count_splits(rows)
    for split, counts in splits.items():
        if counts["patches"] or method != "published":
            _check_classes(split, counts, method)
    shared = {
        "patients": _in_two_splits((row.patient, row.split) for row in rows),
        "files": _in_two_splits((_comparable(_name(row.file)), row.split) for row in rows),
        "contents": _in_two_splits((row.sha256, row.split) for row in rows),
    }
    for kind, items in shared.items():
        if items and not (method == "image" and kind == "patients"):
            raise InputError(
                f"{len(items)} {kind} stand in two splits, {min(items)!r} first. Rename or remove "
                "them in the original directory, or choose the 'patient' split."
            )
    content = {
        "method": method,
        "seed": about["seed"],
        # The published lists follow no fractions.
        "fractions": None if method == "published" else dict(about["fractions"]),
        "splits": splits,
        "overlap": {kind: len(items) for kind, items in shared.items()},
        "sample": about["sample"],
    }
    if about["layout"] != LAYOUT.text:
        content["layout"] = about["layout"]
    return content


def _check_classes(split: str, counts: Mapping[str, int], method: str) -> None:
    more = "patches" if method == "image" else "patients"
    way_out = "change TRAIN_SPLIT or VAL_SPLIT, or try another seed"
    if method == "published":
        way_out = "or take --split patient"
    for label in ("benign", "malignant"):
        if counts[label] == 0:
            raise InputError(
                f"The {split} split has no {label} patch ({counts['patients']} patients, "
                f"{counts['patches']} patches): nothing can be learnt or measured there. "
                f"Add {more}, {way_out}."
            )


def _in_two_splits(items: Iterable[tuple[str, str]]) -> set[str]:
    split_of: dict[str, str] = {}
    return {item for item, split in items if split_of.setdefault(item, split) != split}
