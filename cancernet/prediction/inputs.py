"""What predict.py is asked to look at: paths to files, files to patches and larger images."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cancernet.cli import InputError, map_files
from cancernet.data.patches import ExcludedError, PatchFacts, check_image, read_facts
from cancernet.prediction.slides import LARGEST_PATCH, SLIDE_ENDINGS, TIFF_SIGNATURES

# Problems that are named where there is nothing else.
SHOWN = 5

IMAGE_ENDINGS = frozenset((".png", ".jpg", ".jpeg", ".tif", ".tiff"))


@dataclass(frozen=True)
class PatchFile:
    """An image small enough to be one patch: its path as given or found, what its name tells."""

    file: str
    facts: PatchFacts


@dataclass(frozen=True)
class Problem:
    """A file that cannot be used, and why."""

    file: str
    reason: str

    @classmethod
    def of(cls, file: str, excluded: ExcludedError) -> "Problem":
        """Makes a problem of what a check found."""
        return cls(file, str(excluded))


@dataclass(frozen=True)
class Found:
    """All that was named.

    Attributes:
        patches: One patch each, in the order found.
        images: To be cut up, in the order found; whether OpenSlide can read them is not known yet.
        problems: What cannot be used.
    """

    patches: list[PatchFile]
    images: list[str]
    problems: list[Problem]

    @property
    def with_position(self) -> bool:
        """Whether a patch has its place on a slide in its name."""
        return any(patch.facts.x is not None for patch in self.patches)


def list_files(paths: Sequence[str]) -> tuple[list[str], list[Problem]]:
    """Lists the files to look at; of a folder, the images at any depth, sorted.

    Args:
        paths: Files and folders, as given.

    Returns:
        Each file once, and the folders that cannot be opened.

    Raises:
        InputError: A path does not exist, or a folder holds no image.
    """
    files: list[str] = []
    problems: list[Problem] = []
    for path in paths:
        if not Path(path).exists():
            raise InputError(f"There is no {path}. Name an image, a whole slide or a folder.")
        if not Path(path).is_dir():
            files.append(path)
            continue
        inside = _list_folder(path, problems)
        if not inside:
            endings = ", ".join(sorted(IMAGE_ENDINGS | SLIDE_ENDINGS))
            raise InputError(
                f"The folder {path} holds no image: expected files ending in {endings}, "
                "at any depth."
            )
        files += inside
    return list(dict.fromkeys(files)), problems


def _list_folder(folder: str, problems: list[Problem]) -> list[str]:
    def note_closed_folder(error: OSError) -> None:
        problems.append(Problem(str(error.filename), f"unreadable folder: {error.strerror}"))

    inside = []
    for parent, subfolders, names in os.walk(folder, onerror=note_closed_folder):
        # Hidden folders and those of macOS hold no images of the user's.
        subfolders[:] = [name for name in subfolders if not name.startswith((".", "__MACOSX"))]
        inside += [
            os.path.join(parent, name)  # noqa: PTH118 (a Path would drop "./" from what was given)
            for name in names
            if not name.startswith(".")
            and Path(name).suffix.lower() in IMAGE_ENDINGS | SLIDE_ENDINGS
        ]
    return sorted(inside)


def examine(files: Sequence[str], *, max_pixels: int) -> Found:
    """Checks every file that is to be decoded whole, and tells patches from larger images.

    Args:
        files: As `list_files` gives them.
        max_pixels: The most pixels of an image; checked before it is decoded.
    """

    def examine_file(file: str) -> PatchFile | str | Problem:
        try:
            is_patch = _is_patch(Path(file), max_pixels=max_pixels)
        except ExcludedError as excluded:
            return Problem.of(file, excluded)
        except OSError as error:
            return Problem(file, f"unreadable file: {error.strerror}")
        return PatchFile(file, read_facts(Path(file))) if is_patch else file

    found = Found([], [], [])
    for result in map_files(examine_file, files, what="Checking"):
        if isinstance(result, PatchFile):
            found.patches.append(result)
        elif isinstance(result, Problem):
            found.problems.append(result)
        else:
            found.images.append(result)
    return found


def _is_patch(path: Path, *, max_pixels: int) -> bool:
    if not path.is_file():  # A pipe, say, which would be waited for.
        raise ExcludedError("no file", "a dangling link, a device or a pipe")
    if path.suffix.lower() in SLIDE_ENDINGS:
        return False
    with path.open("rb") as file:
        if file.read(4).startswith(TIFF_SIGNATURES):
            return False
    if path.stat().st_size > 4 * max_pixels:  # More than its pixels would take uncompressed.
        raise ExcludedError("file too large", f"{path.stat().st_size:,} bytes")
    width, height = check_image(path.read_bytes(), min_side=1, max_pixels=max_pixels)
    return max(width, height) <= LARGEST_PATCH


def nothing_usable(problems: Sequence[Problem]) -> InputError:
    """Makes the message for a run in which no file could be used."""
    shown = "; ".join(f"{problem.file}: {problem.reason}" for problem in problems[:SHOWN])
    more = f"; and {len(problems) - SHOWN:,} more" if len(problems) > SHOWN else ""
    return InputError(
        f"No file could be used. {shown}{more}. Expected whole PNG, JPEG or TIFF images with 8 "
        "bits a channel, or whole slides."
    )
