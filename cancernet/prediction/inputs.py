"""What predict.py is asked to look at: paths to files, and what these are called."""

import glob
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from cancernet.cli import InputError
from cancernet.data.patch import PatchFacts, read_facts

SHOWN = 5  # Problems that are named where there is nothing else.

# What lies in folders beside images; all else is scored or named.
LITTER = re.compile(
    r"\.(csv|tsv|txt|md|rst|json|geojson|xml|html?|log|ini|db|lnk|url|ya?ml|toml|pdf|rtf|docx?|xlsx?"
    r"|pptx?|py|ipynb|r|sh|bat|md5|sha256|npz|qpdata|qpproj)$|^\.|^Icon\r$|^__MACOSX$",
    re.IGNORECASE,
)

MAP = re.compile(r"_(heatmap|tissue|errors)\.png$|^explanation\.png$")  # Beside predictions.html.

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


def find(paths: Sequence[str]) -> tuple[list[str], list[Problem]]:
    """Lists the files of files, folders, and patterns that no shell has expanded, each once.

    Returns:
        The files, and the folders that are closed.
    """
    problems: list[Problem] = []
    return list(dict.fromkeys(file for path in paths for file in _list(path, problems))), problems


def _list(path: str, problems: list[Problem]) -> list[str]:
    if Path(path).exists() and not Path(path).is_dir():
        return [path]
    matches = [path]
    if not Path(path).is_dir():  # A pattern, which cmd.exe does not expand.
        matches = sorted(glob.glob(path, recursive=True))  # noqa: PTH207 (a path, not a name)
    if not matches:
        raise InputError(f"There is no {path}. Name an image, a whole slide or a folder.")

    def note_closed_folder(error: OSError) -> None:
        problems.append((str(error.filename), f"unreadable folder: {error.strerror}"))

    inside = []
    for match in matches:
        found = [match]
        if Path(match).is_dir():
            found = []
            for folder, subfolders, names in os.walk(match, onerror=note_closed_folder):
                subfolders[:] = [name for name in subfolders if not LITTER.search(name)]
                found += [os.path.join(folder, name) for name in names]  # noqa: PTH118 (a Path drops "./")
        inside += sorted(each for each in found if not _is_litter(Path(each)))
    if not inside and not problems:
        raise InputError(f"In {path} there is no image. Name an image, a whole slide or a folder.")
    return inside


def _is_litter(file: Path) -> bool:
    """Tells what is no image of the user's, such as the maps of an earlier run."""
    drawn = MAP.search(file.name) and file.with_name("predictions.html").exists()
    # A .mrxs slide's data lie in a folder of its name.
    of_slide = Path(f"{file.parent}.mrxs").exists()
    return bool(drawn or of_slide or LITTER.search(file.name))


def nothing_usable(problems: Sequence[Problem]) -> InputError:
    """Makes the message for a run in which no file could be used."""
    shown = "; ".join(f"{file}: {reason}" for file, reason in problems[:SHOWN])
    more = f"; and {len(problems) - SHOWN:,} more" if len(problems) > SHOWN else ""
    expected = "PNG, JPEG, TIFF, BMP or WebP images with 8 bits per channel, or whole slides"
    return InputError(f"No file could be used. {shown}{more}. Expected {expected}.")
