"""Where a run's files go: a stop at any moment leaves whole files and loses no older run."""

import csv
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from cancernet.cli import InputError

# A run's first file, an epoch old, and its last one; checkpoints are there while epochs are left.
HISTORY_FILE, LAST_FILE, CHECKPOINTS = "history.csv", "metrics.json", "checkpoint"
MODEL_FILE, CARD_FILE = "cancernet.keras", "cancernet.json"
PLOT_FILE, PAGE_FILE = "plot.png", "report.html"


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yields a path beside `path` to write to, and puts what was written there in its place.

    What was written is on the disk before it is put there, so that a loss of power leaves the old
    file or the new one.
    """
    beside = path.with_name(f".new-{path.name}")
    try:
        yield beside
        with beside.open("rb+") as file:
            os.fsync(file.fileno())
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


def write_rows(file: TextIO, rows: Iterable[Iterable[object]]) -> None:
    """Writes rows as CSV, None as nothing; any name reads back as it was."""
    plain = csv.writer(file, lineterminator="\n")
    # Up to Python 3.12 a carriage return, which a reader takes for a row's end, is not quoted else.
    quoted = csv.writer(file, lineterminator="\n", quoting=csv.QUOTE_ALL)
    for row in map(tuple, rows):
        (quoted if any("\r" in str(field) for field in row) else plain).writerow(row)


def begin_run(output: Path, *, plot_copy: Path | None = None, resume: bool = False) -> Path:
    """Makes the directory that a run writes to, which can be written to.

    Args:
        output: The output directory. Where it holds a finished run, a new one is written beside
            it, so that the old one stays whole until `finish_run`.
        plot_copy: Where a copy of the plot will go, if anywhere.
        resume: Go on with the run that is there, be it unfinished or finished, or begin one.

    Returns:
        The directory to write to.

    Raises:
        InputError: An unfinished run is there, or a place is none for such files.
        OSError: A place cannot be made or written to.
    """
    output = output.resolve()
    if not output.name:
        raise InputError(f"--output is {output}, a whole disk. Name a directory below it.")
    beside = output.with_name(f"{output.name}.unfinished")
    if (beside / LAST_FILE).exists():  # Finished, but stopped while it was put in place.
        finish_run(beside, output)
    unfinished = [place for place in (beside, output) if _is_unfinished(place)]
    if unfinished and not resume:
        raise InputError(
            f"{unfinished[0]} holds an unfinished run. Go on with it by --resume, name another "
            "--output, or delete it."
        )
    if resume:
        run = unfinished[0] if unfinished else output
    else:
        run = beside if (output / LAST_FILE).exists() else output
    run.mkdir(parents=True, exist_ok=True)
    try_writing(run)
    if plot_copy:
        if plot_copy.is_dir():
            raise InputError(f"--plot is {plot_copy}, a directory. Name a PNG file in it.")
        plot_copy.parent.mkdir(parents=True, exist_ok=True)
        try_writing(plot_copy.parent)
    return run


def _is_unfinished(run: Path) -> bool:
    """Whether a run has finished an epoch but not all; one ended by Ctrl-C has reported as well."""
    reported = (run / LAST_FILE).exists() and not (run / CHECKPOINTS).exists()
    return (run / HISTORY_FILE).exists() and not reported


def try_writing(folder: Path) -> None:
    """Finds out before the work whether its results can be written, by an empty file."""
    trial = folder / ".writable"
    trial.touch()
    trial.unlink()


def finish_run(
    run: Path, output: Path, *, plot_copy: Path | None = None, resumable: bool = True
) -> None:
    """Puts a reported run's files in the place of the older run's, the last file last.

    Args:
        run: What `begin_run` gave.
        output: The output directory.
        plot_copy: Where a copy of the plot goes, if anywhere.
        resumable: Whether epochs are left to train; otherwise the checkpoints go.
    """
    if not resumable and (run / CHECKPOINTS).exists():
        shutil.rmtree(run / CHECKPOINTS)
    if run != output.resolve():
        for path in sorted(run.iterdir(), key=lambda path: path.name == LAST_FILE):
            path.replace(output / path.name)
        run.rmdir()
    if plot_copy:
        with replacing(plot_copy) as beside:
            shutil.copyfile(output / PLOT_FILE, beside)
