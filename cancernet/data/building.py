"""How a data set is built: files named and copied, no overlap proved, the older set replaced."""

import hashlib
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import astuple, fields
from pathlib import Path, PurePosixPath
from typing import Any

from cancernet.cli import InputError, map_files
from cancernet.data.dataset import BUILD, EXCLUDED, MANIFEST, Dataset, Row, count_splits, read_build
from cancernet.data.originals import Exclusion, read
from cancernet.data.patch import ExcludedError, Patch
from cancernet.data.splitting import SPLITS
from cancernet.files import finish_swap, replacing_folder, write_csv, write_json

LONGEST_NAME = 255  # Bytes.
ELSEWHERE = "Name another --dataset."


def check_replaceable(dataset: Path, *, original: Path, sample: bool) -> None:
    """Makes sure that building into a directory destroys nothing but an older data set.

    Nor may the sample replace real patches.
    """
    finish_swap(dataset)
    target, source = dataset.resolve(), original.resolve()
    if target.is_relative_to(source) or source.is_relative_to(target):
        raise InputError(f"{dataset} and {original} lie one in the other. {ELSEWHERE}")
    if not dataset.exists() or not any(dataset.iterdir()):
        return
    try:
        build = read_build(dataset)
    except InputError as error:
        problem = f"{dataset} exists, but is no data set of ours, so it is not replaced."
        raise InputError(f"{problem} {ELSEWHERE}") from error
    if sample and not build["sample"]:
        raise InputError(f"{dataset} is of real patches: no sample replaces it. {ELSEWHERE}")


def plan(
    patches: Sequence[Patch], split_of: Mapping[str, str], folders: Mapping[str, str]
) -> list[Row]:
    """Gives every patch its file in the data set, sorted by it, below the `folders` of the splits.

    Patches that share a file name all get `<patient>_<file name>`; where that is taken as well, a
    number before the ending keeps them apart.
    """
    sharers = Counter(_comparable(_name(patch.source)) for patch in patches)
    # In which split each name stands: those used once stay as they are, and are free in none.
    split_of_name = dict.fromkeys((name for name, count in sharers.items() if count == 1), "")
    taken, rows = set(), []
    for p in sorted(patches, key=lambda patch: patch.source):
        split, name = split_of[p.source], _name(p.source)
        if sharers[_comparable(name)] > 1:
            path, number = PurePosixPath(f"{p.patient}_{name}"), 1
            name = _short(path.name)
            while (
                split_of_name.setdefault(_comparable(name), split) != split
                or (_comparable(name), p.label) in taken
            ):
                number += 1
                name = _short(f"{path.stem}_{number}{path.suffix}")
            taken.add((_comparable(name), p.label))
        file = f"{folders[split]}/{p.label}/{name}"
        rows.append(Row(split, p.label, p.patient, p.x, p.y, p.source, file, p.bytes, p.sha256))
    return sorted(rows, key=lambda row: row.file)


def _name(path: str) -> str:
    return path.rsplit("/", maxsplit=1)[-1]


def _short(name: str) -> str:
    """A name as it is, or with a hash in the place of what file systems have no room for."""
    data, ending = name.encode(), PurePosixPath(name).suffix[:8]
    if len(data) <= LONGEST_NAME:
        return name
    end = f"_{hashlib.sha256(data).hexdigest()[:16]}{ending}"
    return data[: LONGEST_NAME - len(end.encode())].decode(errors="ignore") + end


def _comparable(name: str) -> str:
    """A name as macOS and Windows compare it: two that they take for one must not meet."""
    return unicodedata.normalize("NFC", name).casefold()


def build(
    dataset: Path,
    rows: Sequence[Row],
    exclusions: Sequence[Exclusion],
    *,
    original: Path,
    about: Mapping[str, Any],
) -> Dataset:
    """Builds a data set of planned rows beside the older one, and puts it in its place.

    `about` is what build.json tells beside `splits` and `overlap`. Files that vanish or change
    meanwhile come to the exclusions.
    """
    with replacing_folder(dataset) as new:
        copied = _copy(original, new, rows)
        staged = sorted((c for c in copied if isinstance(c, Row)), key=lambda row: row.file)
        gone = [each for each in copied if isinstance(each, Exclusion)]
        left_out = sorted([*exclusions, *gone], key=lambda exclusion: exclusion.source)
        content = prove(staged, about)
        for name, kind, items in ((MANIFEST, Row, staged), (EXCLUDED, Exclusion, left_out)):
            write_csv(new / name, [field.name for field in fields(kind)], map(astuple, items))
        write_json(new / BUILD, content)
    return Dataset.of(dataset, staged, content, left_out)


def _copy(original: Path, new: Path, rows: Sequence[Row]) -> list[Row | Exclusion]:
    for folder in {row.file.rsplit("/", maxsplit=1)[0] for row in rows}:
        (new / folder).mkdir(parents=True, exist_ok=True)

    def copy_file(row: Row) -> Row | Exclusion:
        try:
            data = read(f"{original}/{row.source}")
        except ExcludedError as error:
            return Exclusion(row.source, error.reason, error.detail)
        if hashlib.sha256(data).hexdigest() != row.sha256:
            return Exclusion(row.source, "changed during the build", "")
        with open(f"{new}/{row.file}", "wb") as file:  # noqa: PTH123 (as in `read`)
            file.write(data)
        return row

    results: list[Row | Exclusion] = []
    for split in SPLITS:
        print(f"Building {split} set ...", flush=True)
        results += map_files(copy_file, [r for r in rows if r.split == split], what="Copying")
    return results


def prove(rows: Sequence[Row], about: Mapping[str, Any]) -> dict[str, Any]:
    """Makes the content of build.json and refuses a split that no metric could be trusted on.

    Raises:
        InputError: A patient (except under `image`), file name or content stands in two splits, or
            a split lacks a class (under `published` it may be wholly empty).
    """
    method, splits = about["method"], count_splits(rows)
    for split, counts in splits.items():
        lacking = [label for label in ("benign", "malignant") if not counts[label]]
        if lacking and (counts["patches"] or method != "published"):
            raise InputError(
                f"The {split} split has no {lacking[0]} patch ({counts['patients']} patients, "
                f"{counts['patches']} patches): nothing can be learnt or measured there. Add more, "
                "change TRAIN_SPLIT or VAL_SPLIT, try another seed, or another --split."
            )
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
    overlap = {kind: len(items) for kind, items in shared.items()}
    return {**about, "splits": splits, "overlap": overlap}


def _in_two_splits(items: Iterable[tuple[str, str]]) -> set[str]:
    split_of: dict[str, str] = {}
    return {item for item, split in items if split_of.setdefault(item, split) != split}
