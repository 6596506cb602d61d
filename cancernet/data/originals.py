"""What is in the original directory: which files are used, which are left out and why."""

import hashlib
import os
import stat
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from imutils import paths

from cancernet.cli import InputError, map_files
from cancernet.data.patch import (
    LABELS,
    OTHER_CLASS,
    ExcludedError,
    Layout,
    PatchName,
    check_image,
    layout_options,
    parse_source,
)

HANDLE = "paultimothymooney/breast-histopathology-images"  # The public data set on Kaggle.

# The archive on Kaggle holds the whole data set twice, once more below this folder.
SECOND_COPY = "IDC_regular_ps50_idx5"
SECOND_COPY_REASON = "second copy of the data set"

ARCHIVES = (".zip", ".tar", ".tgz", ".gz", ".bz2", ".xz", ".7z", ".rar")
WAYS_ON = (
    "Fetch the public data set (--download, 1.6 GB), draw a synthetic sample (--sample), or name "
    "the directory of your images (--original DIR), laid out as <patient>/<class>/<file>."
)


@dataclass(frozen=True)
class Patch:
    """A file that is used; what its name does not tell is None."""

    source: str  # Path below the original directory, with forward slashes.
    patient: str  # The patient's number, or the name of the patient's folder.
    label: int  # 0 benign, 1 malignant.
    x: int | None  # Left edge on the slide, in pixels.
    y: int | None  # Upper edge.
    bytes: int
    sha256: str  # Of the file's bytes, in hexadecimal.
    width: int  # In pixels.
    height: int


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
    """Tells all files below a directory that are used from those left out, each sorted by path.

    An InputError where there is no such directory, or not a file of each class that can be used.
    """
    if original.is_file():
        unpack = " Unpack it first." if original.name.lower().endswith(ARCHIVES) else ""
        raise InputError(f"{original} is a file: expected the directory of the images.{unpack}")
    if not original.is_dir():
        raise InputError(f"There is no directory {original}. {WAYS_ON}")
    names, exclusions = _list_patches(original, layout)

    def examine_file(source: str) -> Patch | Exclusion:
        try:
            data = _read(original, source)
            size = check_image(data, min_side=min_side, max_pixels=max_pixels)
        except ExcludedError as excluded:
            return Exclusion(source, excluded.reason, excluded.detail)
        name, sha256 = names[source], hashlib.sha256(data).hexdigest()
        return Patch(source, name.patient, name.label, name.x, name.y, len(data), sha256, *size)

    examined = list(map_files(examine_file, list(names), what="Checking"))
    exclusions += [each for each in examined if isinstance(each, Exclusion)]
    patches, same_content = _drop_same_content([e for e in examined if isinstance(e, Patch)])
    exclusions = sorted(exclusions + same_content, key=lambda exclusion: exclusion.source)
    if len({patch.label for patch in patches}) < 2:
        raise InputError(_nothing_to_learn(original, patches, exclusions))
    return patches, exclusions


def _nothing_to_learn(
    original: Path, patches: Sequence[Patch], exclusions: Sequence[Exclusion]
) -> str:
    """Says what was found in the place of patches of both classes, and what to do."""
    malignant = sum(patch.label for patch in patches)
    found = (
        f"Found {len(patches) + len(exclusions):,} files in {original}: "
        f"{len(patches) - malignant:,} benign and {malignant:,} malignant patches"
    )
    of_reason: dict[str, list[str]] = defaultdict(list)
    for exclusion in exclusions:
        of_reason[exclusion.reason].append(exclusion.source)
    for reason, sources in of_reason.items():
        found += f"; {reason}: {len(sources):,} ({sources[0]!r}{', ...' if sources[1:] else ''})"
    expected = (
        "Expected PNG or JPEG patches of both classes, 0 benign and 1 malignant, such as "
        f"{original / 'anna' / '0' / 'tile.png'}."
    )
    return f"{found}. {expected} {_way_on(of_reason)}"


def _way_on(left_out: Mapping[str, Sequence[str]]) -> str:
    archives = [s for of in left_out.values() for s in of if s.lower().endswith(ARCHIVES)]
    if archives:
        return f"Unpack {', '.join(archives[:3])} first."
    with_class = [
        folders
        for *folders, _ in (source.split("/") for source in left_out.get(OTHER_CLASS, ()))
        if sum(folder in LABELS for folder in folders) == 1
    ]
    if "no patient" in left_out or any(len(folders) == 1 for folders in with_class):
        return (
            "Do the files' names begin with the patient? Then take --layout class/patient_file, "
            "with what follows the patient in the place of _."
        )
    if with_class:
        ways = layout_options(with_class[0], ["file"])
        return f"Which folder above or below the class is the patient? Take {ways}."
    return WAYS_ON


def _list_patches(original: Path, layout: Layout) -> tuple[dict[str, PatchName], list[Exclusion]]:
    """Finds all files, sorted, that their names do not rule out."""

    def relative(path: str) -> str:
        return path[len(str(original)) + 1 :].replace(os.sep, "/")

    names, exclusions = {}, []
    for source in sorted(map(relative, paths.list_files(str(original)))):
        try:
            source.encode()
            names[source] = parse_source(source, layout)
        except UnicodeEncodeError:
            exclusions.append(Exclusion(source, "name is not valid UTF-8", ""))
        except ExcludedError as excluded:
            exclusions.append(Exclusion(source, excluded.reason, excluded.detail))

    # What list_files passes over without a word: folders that are closed, and links to folders.
    def note_closed_folder(error: OSError) -> None:
        exclusions.append(Exclusion(relative(error.filename), "unreadable folder", str(error)))

    for folder, subfolders, _ in os.walk(original, onerror=note_closed_folder):
        for path in (Path(folder, subfolder) for subfolder in subfolders):
            if path.is_symlink():
                target = str(path.readlink())
                exclusions.append(Exclusion(relative(str(path)), "linked folder", target))
    names, second_copies = _drop_second_copy(names)
    return names, exclusions + second_copies


def _drop_second_copy(
    names: Mapping[str, PatchName],
) -> tuple[dict[str, PatchName], list[Exclusion]]:
    """Leaves out the archive's second copy where the same patient and class stand outside it."""
    inside = {source for source in names if SECOND_COPY in source.split("/")[:-1]}
    outside = {(name.patient, name.label) for source, name in names.items() if source not in inside}
    kept, exclusions = {}, []
    for source, name in names.items():
        if source in inside and (name.patient, name.label) in outside:
            detail = f"patient {name.patient}, class {name.label} stands outside {SECOND_COPY}, too"
            exclusions.append(Exclusion(source, SECOND_COPY_REASON, detail))
        else:
            kept[source] = name
    return kept, exclusions


def _read(original: Path, source: str) -> bytes:
    """Reads a regular file, or a link to one inside the directory; else raises ExcludedError."""
    path = f"{original}/{source}"  # Text: a Path of each file would cost as much as reading it.
    is_link = os.path.islink(path)  # noqa: PTH114
    try:
        mode = os.stat(path).st_mode  # noqa: PTH116
        if is_link and not Path(path).resolve().is_relative_to(original.resolve()):
            raise ExcludedError("link out of the directory", str(Path(path).readlink()))
        if not stat.S_ISREG(mode):  # Opening a pipe would wait for ever.
            raise ExcludedError("not a regular file", "")
        with open(path, "rb", buffering=0) as file:  # noqa: PTH123
            return file.read()
    except FileNotFoundError as error:
        reason = "dangling link" if is_link else "vanished during the build"
        raise ExcludedError(reason, "") from error
    except OSError as error:
        raise ExcludedError("unreadable file", str(error)) from error


def _drop_same_content(patches: Sequence[Patch]) -> tuple[list[Patch], list[Exclusion]]:
    """Keeps the first of files with the same content, or none where their labels differ."""
    same: dict[str, list[Patch]] = defaultdict(list)
    for patch in patches:
        same[patch.sha256].append(patch)
    kept, exclusions = [], []
    for patch in patches:
        alike = same[patch.sha256]
        if len({other.label for other in alike}) > 1:
            sources = ", ".join(other.source for other in alike if other is not patch)
            exclusions.append(Exclusion(patch.source, "same content, different labels", sources))
        elif patch is not alike[0]:
            exclusions.append(Exclusion(patch.source, "same content", alike[0].source))
        else:
            kept.append(patch)
    return kept, exclusions
