"""What is in the original directory: which files are used, which are left out and why."""

import hashlib
import os
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from imutils import paths

from cancernet.cli import InputError, map_files
from cancernet.data.patch import (
    OTHER_LAYOUTS,
    ExcludedError,
    Layout,
    Patch,
    check_image,
    parse_source,
)

HANDLE = "paultimothymooney/breast-histopathology-images"  # The public data set on Kaggle.
SECOND_COPY = "IDC_regular_ps50_idx5/"  # Below this folder its archive holds all patches again.

ARCHIVES = (".zip", ".tar", ".tgz", ".gz", ".bz2", ".xz", ".7z", ".rar")
WAYS_ON = (
    "Fetch the public data set (--download, 1.6 GB), draw a synthetic sample (--sample), or name "
    "the directory of your images (--original DIR), unpacked and laid out as "
    f"<patient>/<class>/<file>. If they are laid out otherwise: {OTHER_LAYOUTS}"
)


@dataclass(frozen=True)
class Exclusion:
    """A file that is not used: its path below the original directory, the reason, a detail."""

    source: str
    reason: str
    detail: str


def download() -> Path:
    """Downloads the public IDC data set into kagglehub's cache, or finds it there."""
    import kagglehub

    try:
        return Path(kagglehub.dataset_download(HANDLE))
    # Whatever kagglehub, requests or the disk raise, the user can do the same about it.
    except Exception as error:
        raise InputError(
            f"Could not download {HANDLE} ({type(error).__name__}: {error}). Check the network and "
            "try again, or download it by hand from https://www.kaggle.com/datasets/"
            f"{HANDLE} and unpack it into datasets/original, or try things out with --sample."
        ) from error


def examine(
    original: Path, layout: Layout, *, min_side: int, max_pixels: int
) -> tuple[list[Patch], list[Exclusion]]:
    """Parts all files below a directory into those used and those left out, each sorted by path.

    An InputError where there is no such directory, or not a file of each class that can be used.
    """
    if not original.is_dir():
        raise InputError(f"There is no directory {original}. {WAYS_ON}")
    named, exclusions = _list_patches(original, layout)

    def examine_file(patch: Patch) -> Patch | Exclusion:
        try:
            data = read(f"{original}/{patch.source}")
            size = check_image(data, min_side=min_side, max_pixels=max_pixels)
        except ExcludedError as error:
            return Exclusion(patch.source, error.reason, error.detail)
        sha256 = hashlib.sha256(data).hexdigest()
        return replace(patch, bytes=len(data), sha256=sha256, size=size)

    examined = list(map_files(examine_file, named, what="Checking"))
    patches, same_content = _drop_same_content([e for e in examined if isinstance(e, Patch)])
    exclusions += same_content + [each for each in examined if isinstance(each, Exclusion)]
    exclusions.sort(key=lambda exclusion: exclusion.source)
    if len({patch.label for patch in patches}) < 2:
        raise InputError(_nothing_to_learn(original, patches, exclusions))
    return patches, exclusions


def read(path: str) -> bytes:
    """Reads a file; an ExcludedError where it cannot be read."""
    try:
        with open(path, "rb", buffering=0) as file:  # noqa: PTH123 (a Path takes as long again)
            return file.read()
    except OSError as error:
        raise ExcludedError("unreadable file", str(error)) from error


def list_files(folder: Path) -> list[str]:
    """Lists the files below a folder, sorted: their paths from there, with forward slashes."""
    return sorted(_relative(path, folder) for path in paths.list_files(str(folder)))


def _relative(path: str, folder: Path) -> str:
    return path[len(str(folder)) + 1 :].replace(os.sep, "/")


def _list_patches(original: Path, layout: Layout) -> tuple[list[Patch], list[Exclusion]]:
    named: dict[str, Patch] = {}
    exclusions = []
    for source in list_files(original):
        try:
            first = source.replace(SECOND_COPY, "")
            if first != source and first in named:  # Sorted: digits come before letters.
                raise ExcludedError("second copy of the data set", first)
            named[source] = parse_source(source, layout)
        except ExcludedError as error:
            exclusions.append(Exclusion(source, error.reason, error.detail))

    # What list_files passes over without a word: folders that are closed, and links to folders.
    def note_closed_folder(error: OSError) -> None:
        source = _relative(error.filename, original)
        exclusions.append(Exclusion(source, "unreadable folder", str(error)))

    for folder, subfolders, _ in os.walk(original, onerror=note_closed_folder):
        for path in (Path(folder, subfolder) for subfolder in subfolders):
            if path.is_symlink():
                source = _relative(str(path), original)
                exclusions.append(Exclusion(source, "linked folder", str(path.readlink())))
    return list(named.values()), exclusions


def _drop_same_content(patches: Sequence[Patch]) -> tuple[list[Patch], list[Exclusion]]:
    """Keeps the first of files with the same content, or none where their labels differ."""
    same: dict[str, list[Patch]] = defaultdict(list)
    for patch in patches:
        same[patch.sha256].append(patch)
    kept, exclusions = [], []
    for alike in same.values():
        sources = [patch.source for patch in alike]
        if len({patch.label for patch in alike}) > 1:
            reason, detail = "same content, different labels", ", ".join(sources)
        else:
            kept.append(alike[0])
            reason, detail = "same content", sources.pop(0)
        exclusions += [Exclusion(source, reason, detail) for source in sources]
    return kept, exclusions


def _nothing_to_learn(
    original: Path, patches: Sequence[Patch], exclusions: Sequence[Exclusion]
) -> str:
    malignant = sum(patch.label for patch in patches)
    found = f"{len(patches) - malignant:,} benign and {malignant:,} malignant patches"
    example = {exclusion.reason: exclusion.source for exclusion in reversed(exclusions)}
    for reason, count in Counter(exclusion.reason for exclusion in exclusions).items():
        found += f"; {reason}: {count:,}, e.g. {example[reason]!r}"
    archives = [each.source for each in exclusions if each.source.lower().endswith(ARCHIVES)]
    unpack = f"Unpack {', '.join(archives[:3])} first. " if archives else ""
    return (
        f"Found {len(patches) + len(exclusions):,} files in {original}: {found}. Expected PNG or "
        "JPEG patches of both classes, 0 benign and 1 malignant, such as "
        f"{original / 'anna' / '0' / 'tile.png'}. {unpack}{WAYS_ON}"
    )
