"""What is in the original directory: which files are used, which are left out and why."""

import hashlib
import os
import stat
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from imutils import paths

from cancernet.cli import InputError, map_files
from cancernet.data.patch import ExcludedError, PatchName, check_image, parse_source

HANDLE = "paultimothymooney/breast-histopathology-images"  # The public data set on Kaggle.

# The archive on Kaggle holds the whole data set twice, once more below this folder.
SECOND_COPY = "IDC_regular_ps50_idx5"
SECOND_COPY_REASON = "second copy of the data set"


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
    """Downloads the public IDC data set (1.6 GB), or finds it where an earlier call left it.

    Returns:
        The directory in kagglehub's cache that holds it; nothing is copied out of there.

    Raises:
        InputError: It cannot be had: no network, a full disk, Kaggle refuses.
    """
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
    original: Path, *, min_side: int, max_pixels: int
) -> tuple[list[Patch], list[Exclusion]]:
    """Lists every file below a directory and judges it.

    Args:
        original: Directory of `<patient>/<class>/<file>`, at any depth.
        min_side: The shortest side of a patch that is used, in pixels.
        max_pixels: The most pixels of an image that is used.

    Returns:
        The files used and those left out, each sorted by path; together they are all files there.

    Raises:
        InputError: There is no file that can be used.
    """
    if original.is_file():
        raise InputError(f"{original} is a file: expected the directory of the images.")
    names, exclusions = _list_patches(original)

    def examine_file(source: str) -> Patch | Exclusion:
        try:
            data = _read(original, source)
            width, height = check_image(data, min_side=min_side, max_pixels=max_pixels)
        except ExcludedError as excluded:
            return Exclusion(source, excluded.reason, excluded.detail)
        name = names[source]
        sha256 = hashlib.sha256(data).hexdigest()
        return Patch(
            source, name.patient, name.label, name.x, name.y, len(data), sha256, width, height
        )

    examined = list(map_files(examine_file, list(names), what="Checking"))
    exclusions += [each for each in examined if isinstance(each, Exclusion)]
    patches, same_content = _drop_same_content([e for e in examined if isinstance(e, Patch)])
    exclusions += same_content
    if not patches:
        found = f"Found {len(exclusions):,} files in {original}" + "".join(
            f"; {reason}: {count:,}"
            for reason, count in Counter(each.reason for each in exclusions).most_common()
        )
        raise InputError(
            f"{found}. Expected PNG or JPEG patches as <patient>/<class>/<file>, class 0 benign "
            f"and class 1 malignant. Put them into {original} or name another --original; "
            "--download fetches the public data set, --sample draws a synthetic one."
        )
    return patches, sorted(exclusions, key=lambda exclusion: exclusion.source)


def _list_patches(original: Path) -> tuple[dict[str, PatchName], list[Exclusion]]:
    """Finds all files, sorted, that their names do not rule out."""

    def relative(path: str) -> str:
        return path[len(str(original)) + 1 :].replace(os.sep, "/")

    names, exclusions = {}, []
    for source in sorted(map(relative, paths.list_files(str(original)))):
        try:
            source.encode()
            names[source] = parse_source(source)
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
    exclusions = [
        Exclusion(
            source,
            SECOND_COPY_REASON,
            f"patient {name.patient}, class {name.label} stands outside {SECOND_COPY}, too",
        )
        for source, name in names.items()
        if source in inside and (name.patient, name.label) in outside
    ]
    dropped = {exclusion.source for exclusion in exclusions}
    return {source: names[source] for source in names if source not in dropped}, exclusions


def _read(original: Path, source: str) -> bytes:
    """Reads a file that is a regular one, or a link to one inside the directory; else excludes it.

    Raises:
        ExcludedError: For the reason why it cannot be read.
    """
    path = f"{original}/{source}"  # Text: a Path of each file would cost as much as reading it.
    try:
        mode = os.lstat(path).st_mode
        if stat.S_ISLNK(mode):
            mode = _follow_link(Path(path), original)
        if not stat.S_ISREG(mode):  # Opening a pipe would wait for ever.
            raise ExcludedError("not a regular file", "")
        with open(path, "rb", buffering=0) as file:  # noqa: PTH123
            return file.read()
    except FileNotFoundError as error:
        raise ExcludedError("vanished during the build", "") from error
    except (OSError, RuntimeError) as error:  # Up to Python 3.12 a loop of links is the latter.
        raise ExcludedError("unreadable file", str(error)) from error


def _follow_link(path: Path, original: Path) -> int:
    """Gives the mode of what a link inside a directory leads to, if that is inside as well."""
    try:
        target = path.resolve(strict=True)
    except FileNotFoundError as error:
        raise ExcludedError("dangling link", "") from error
    if not target.is_relative_to(original.resolve()):
        raise ExcludedError("link out of the directory", str(path.readlink()))
    return target.stat().st_mode


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
