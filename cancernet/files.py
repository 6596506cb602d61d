"""Where a run's files go: a stop at any moment leaves whole files and loses no older run."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cancernet.console import InputError

# The last file of a run: where it stands, the run is finished. And the first one, an epoch old.
LAST_FILE, FIRST_FILE = "metrics.json", "history.csv"


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yields a path beside `path` to write to, and puts what was written there in its place."""
    beside = path.with_name(f".new-{path.name}")
    try:
        yield beside
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


def begin_run(output: Path) -> Path:
    """Makes the directory that a new run writes to, which can be written to.

    Args:
        output: The output directory. Where it holds a finished run, the new one is written beside
            it, so that the old one stays whole until `finish_run`.

    Returns:
        The directory to write to.

    Raises:
        InputError: An unfinished run is there.
        OSError: The directory cannot be made or written to.
    """
    output = output.resolve()
    beside = output.with_name(f"{output.name}.unfinished")
    if (beside / LAST_FILE).exists():  # Finished, but stopped while it was put in place.
        finish_run(beside, output)
    run = beside if (output / LAST_FILE).exists() else output
    if (run / FIRST_FILE).exists() and not (run / LAST_FILE).exists():
        raise InputError(
            f"{run} holds an unfinished run. Name another --output, or move or delete it."
        )
    run.mkdir(parents=True, exist_ok=True)
    with replacing(run / ".writable") as trial:
        trial.touch()
    (run / ".writable").unlink()
    return run


def finish_run(run: Path, output: Path) -> None:
    """Puts a finished run's files in the place of the older run's, the last file last."""
    if run == output.resolve():
        return
    for path in sorted(run.iterdir(), key=lambda path: path.name == LAST_FILE):
        path.replace(output / path.name)
    run.rmdir()
