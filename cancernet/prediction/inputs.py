"""What predict.py is asked to look at: paths to files, files to patches and larger images."""

import glob
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import openslide

from cancernet.cli import InputError, map_files
from cancernet.data.patch import (
    JPEG_SIGNATURE,
    PNG_SIGNATURE,
    ExcludedError,
    PatchFacts,
    check_image,
    read_facts,
)
from cancernet.prediction.opening import TIFF_SIGNATURES
from cancernet.prediction.slides import LARGEST_PATCH

SHOWN = 5  # Problems that are named where there is nothing else.

# What lies in folders beside images; all else is scored or named.
LITTER = re.compile(
    r"\.(csv|tsv|txt|md|rst|json|geojson|xml|html?|log|ini|db|lnk|url|ya?ml|toml|pdf|rtf|docx?|xlsx?"
    r"|pptx?|py|ipynb|r|sh|bat|md5|sha256|npz|qpdata|qpproj)$|^\.|^Icon\r$|^__MACOSX$",
    re.IGNORECASE,
)

# As QuPath names an exported tile; x, y, w and h are pixels of the slide's finest level.
QUPATH_NAME = re.compile(
    r"(?P<slide>.*?) *\[(?:d=[0-9.]+,)?x=(?P<x>-?[0-9]+),y=(?P<y>-?[0-9]+),"
    r"w=(?P<width>[1-9][0-9]*),h=(?P<height>[1-9][0-9]*)[^\]]*\]"
)


Problem = tuple[str, str]  # A file that cannot be used, and why.


@dataclass(frozen=True)
class Source:
    """Where a patch is from."""

    file: str  # The path as given or found.
    facts: PatchFacts  # Patient, label and position, as far as known.
    slide: str  # What it is a part of: the patient, a slide of theirs, or an image.
    size: tuple[int, int] | None = None  # In pixels of its position, if that is not IDC's.


def read_source(file: str) -> Source:
    """Reads from a patch's path what it tells."""
    path = Path(file)
    facts = read_facts(path)
    named = QUPATH_NAME.match(path.name)
    if facts.x is not None or named is None:
        return Source(file, facts, facts.patient)
    facts = replace(facts, x=int(named["x"]), y=int(named["y"]))
    slide = " ".join(filter(None, (facts.patient, named["slide"]))) or path.parent.name
    return Source(file, facts, slide, (int(named["width"]), int(named["height"])))


@dataclass
class Found:
    """All that was named, in the order found."""

    patches: list[str] = field(default_factory=list)  # Files of one patch each.
    images: list[str] = field(default_factory=list)  # Else; most of them are to be cut up.
    problems: list[Problem] = field(default_factory=list)  # What cannot be used.

    @property
    def drawable(self) -> bool:
        """Whether a slide or a patient is known, of whom there may be something to draw."""
        return bool(self.images) or any(read_source(file).slide for file in self.patches)


def find(paths: Sequence[str], *, max_pixels: int) -> Found:
    """Lists the files to look at, and checks those that training could read.

    Args:
        paths: Files, folders, and patterns that no shell has expanded; each file counts once.
        max_pixels: A patch or plain image of more is refused before it is decoded.
    """
    found = Found()
    files = dict.fromkeys(file for path in paths for file in _list(path, found.problems))

    def examine(file: str) -> bool | str:
        try:
            return _is_patch(Path(file), max_pixels=max_pixels)
        except ExcludedError as excluded:
            return str(excluded)
        except Exception as error:  # Of the disk, or of what reads the file.
            return f"unreadable file: {getattr(error, 'strerror', None) or error!r}"

    for file, result in zip(files, map_files(examine, list(files), what="Checking"), strict=True):
        if isinstance(result, str):
            found.problems.append((file, result))
        else:
            (found.patches if result else found.images).append(file)
    if not found.patches and not found.images:
        raise nothing_usable(found.problems)
    return found


def _list(path: str, problems: list[Problem]) -> list[str]:
    """Lists a path's files, sorted; of a folder or a pattern, without litter."""
    folder = Path(path).is_dir()
    if not folder and Path(path).exists():
        return [path]
    matches = [path] if folder else []
    if not folder and glob.has_magic(path):  # Which cmd.exe does not expand.
        matches = sorted(glob.glob(path, recursive=True))  # noqa: PTH207 (a path, not a name)
    if not matches:
        raise InputError(f"There is no {path}. Name an image, a whole slide or a folder.")
    inside = []
    ours = _own_maps(matches)
    for match in matches:
        if Path(match).is_dir():
            inside += _list_folder(match, problems)
        elif match not in ours and not LITTER.search(Path(match).name):
            inside.append(match)
    if not inside and not problems:
        raise InputError(f"In {path} there is no image. Name an image, a whole slide or a folder.")
    return inside


def _list_folder(folder: str, problems: list[Problem]) -> list[str]:
    def note_closed_folder(error: OSError) -> None:
        problems.append((str(error.filename), f"unreadable folder: {error.strerror}"))

    inside = []
    for parent, subfolders, names in os.walk(folder, onerror=note_closed_folder):
        # Hidden folders and those of macOS hold no images of the user's; a .mrxs slide's data lie
        # in a folder of its name.
        no_images = {Path(name).stem for name in names if name.lower().endswith(".mrxs")}
        no_images |= set(filter(LITTER.search, [*subfolders, *names]))
        no_images |= _own_maps(names)
        subfolders[:] = set(subfolders) - no_images
        for name in set(names) - no_images:
            inside.append(os.path.join(parent, name))  # noqa: PTH118 (a Path drops "./")
    return sorted(inside)


def _own_maps(names: Sequence[str]) -> set[str]:
    """Finds the pictures that an earlier run of predict.py has left among a folder's files."""
    ends = "_heatmap.png", "_tissue.png", "_errors.png"
    stems = [name.removesuffix(ends[0]) for name in names if name.endswith(ends[0])]
    drawn = {stem + end for stem in stems if stem + ends[1] in names for end in ends}
    return drawn | {"explanation.png"} if drawn else set()


def _is_patch(path: Path, *, max_pixels: int) -> bool:
    """Tells a patch that training could read from what is opened later; refuses all else."""
    if not path.is_file():  # A pipe, say, which would be waited for.
        raise ExcludedError("no file", "a dangling link, a device or a pipe")
    with path.open("rb") as file:
        start = file.read(12)
    # A .mrxs slide is a JPEG with a folder beside it.
    plain = start.startswith((PNG_SIGNATURE, JPEG_SIGNATURE)) and path.suffix.lower() != ".mrxs"
    if start and not plain:
        later = start.startswith((*TIFF_SIGNATURES, b"BM")) or start[8:] == b"WEBP"
        if later or openslide.OpenSlide.detect_format(path):
            return False
        if not start.startswith(JPEG_SIGNATURE):
            raise ExcludedError("no image or slide of a known kind", f"starts with {start[:8]!r}")
    if path.stat().st_size > 4 * max_pixels:  # More than its pixels would take uncompressed.
        raise ExcludedError("file too large", f"{path.stat().st_size:,} bytes")
    data = path.read_bytes()
    width, height = check_image(data, min_side=1, max_pixels=max_pixels)
    # The reader of training would show what is hidden.
    transparent = data.startswith(PNG_SIGNATURE) and (
        data[25] in (4, 6) or b"tRNS" in data[: data.find(b"IDAT")]
    )
    return max(width, height) <= LARGEST_PATCH and not transparent


def nothing_usable(problems: Sequence[Problem]) -> InputError:
    """Makes the message for a run in which no file could be used."""
    shown = "; ".join(f"{file}: {reason}" for file, reason in problems[:SHOWN])
    more = f"; and {len(problems) - SHOWN:,} more" if len(problems) > SHOWN else ""
    expected = "PNG, JPEG, TIFF, BMP or WebP images with 8 bits per channel, or whole slides"
    return InputError(f"No file could be used. {shown}{more}. Expected {expected}.")
