"""Where a run's files go: a stop at any moment leaves whole files and loses no older run."""

import csv
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from cancernet.console import InputError

# The last file of a run: where it stands, the run is finished. And the first one, an epoch old.
LAST_FILE, FIRST_FILE = "metrics.json", "history.csv"
PLOT_FILE = "plot.png"


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yields a path beside `path` to write to, and puts what was written there in its place."""
    beside = path.with_name(f".new-{path.name}")
    try:
        yield beside
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


def begin_run(output: Path, *, plot_copy: Path | None = None) -> Path:
    """Makes the directory that a new run writes to, which can be written to.

    Args:
        output: The output directory. Where it holds a finished run, the new one is written beside
            it, so that the old one stays whole until `finish_run`.
        plot_copy: Where a copy of the plot will go, if anywhere.

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
    run = beside if (output / LAST_FILE).exists() else output
    if (run / FIRST_FILE).exists() and not (run / LAST_FILE).exists():
        raise InputError(
            f"{run} holds an unfinished run. Name another --output, or move or delete it."
        )
    run.mkdir(parents=True, exist_ok=True)
    _try_writing(run)
    if plot_copy:
        if plot_copy.is_dir():
            raise InputError(f"--plot is {plot_copy}, a directory. Name a PNG file in it.")
        plot_copy.parent.mkdir(parents=True, exist_ok=True)
        _try_writing(plot_copy.parent)
    return run


def _try_writing(folder: Path) -> None:
    """Finds out before the work whether its results can be written, by an empty file."""
    trial = folder / ".writable"
    trial.touch()
    trial.unlink()


def finish_run(run: Path, output: Path, *, plot_copy: Path | None = None) -> None:
    """Puts a finished run's files in the place of the older run's, the last file last.

    Args:
        run: What `begin_run` gave.
        output: The output directory.
        plot_copy: Where a copy of the plot goes, if anywhere.
    """
    if run != output.resolve():
        for path in sorted(run.iterdir(), key=lambda path: path.name == LAST_FILE):
            path.replace(output / path.name)
        run.rmdir()
    if plot_copy:
        with replacing(plot_copy) as beside:
            shutil.copyfile(output / PLOT_FILE, beside)
