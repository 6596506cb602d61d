"""What predict.py is asked to look at: paths to files, files to patches and larger images."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from cancernet.cli import InputError, map_files
from cancernet.data.patch import ExcludedError, check_image, read_facts
from cancernet.prediction.slides import LARGEST_PATCH, SLIDE_ENDINGS, TIFF_SIGNATURES

SHOWN = 5  # Problems that are named where there is nothing else.

# Files of a folder that are looked at.
ENDINGS = SLIDE_ENDINGS | {".png", ".jpg", ".jpeg", ".tif", ".tiff"}


class Problem(NamedTuple):
    """A file that cannot be used, and why."""

    file: str
    reason: str


@dataclass(frozen=True)
class Found:
    """All that was named.

    Attributes:
        patches: Files of one patch each, in the order found.
        images: To be cut up, in the order found; whether OpenSlide can read them is not known yet.
        problems: What cannot be used.
    """

    patches: list[str]
    images: list[str]
    problems: list[Problem]

    @property
    def with_position(self) -> bool:
        """Whether a patch has its place on a slide in its name."""
        return any(read_facts(Path(file)).x is not None for file in self.patches)


def list_files(paths: Sequence[str]) -> tuple[list[str], list[Problem]]:
    """Lists the files to look at; of a folder, the images at any depth, sorted.

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
        inside = _list_folder(path, problems) if Path(path).is_dir() else [path]
        if not inside:
            endings = ", ".join(sorted(ENDINGS))
            raise InputError(
                f"The folder {path} holds no image: expected files ending in {endings}."
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
            if not name.startswith(".") and Path(name).suffix.lower() in ENDINGS
        ]
    return sorted(inside)


def examine(files: Sequence[str], *, max_pixels: int) -> Found:
    """Checks every file that is to be decoded whole, and tells patches from larger images.

    An image of more than `max_pixels` is refused before it is decoded.
    """
    found = Found([], [], [])

    def examine_file(file: str) -> bool | str:
        try:
            return _is_patch(Path(file), max_pixels=max_pixels)
        except ExcludedError as excluded:
            return str(excluded)
        except OSError as error:
            return f"unreadable file: {error.strerror}"

    results = map_files(examine_file, files, what="Checking")
    for file, result in zip(files, results, strict=True):
        if isinstance(result, str):
            found.problems.append(Problem(file, result))
        else:
            (found.patches if result else found.images).append(file)
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
    expected = "Expected PNG, JPEG or TIFF images with 8 bits per channel, or whole slides."
    return InputError(f"No file could be used. {shown}{more}. {expected}")
