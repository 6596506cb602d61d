"""Whole files and whole folders or none, and locks on who works with a folder."""

import atexit
import csv
import json
import os
import shutil
import sqlite3
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Literal, TextIO

from filelock import ReadWriteLock, Timeout

from cancernet.cli import InputError

# --- Files ---------------------------------------------------------------------------------------


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yields a path beside `path` to write to; once it is on the disk, it takes `path`'s place."""
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
    # Up to Python 3.12 a carriage return (macOS has files named "Icon\\r") is not quoted else.
    quoted = csv.writer(file, lineterminator="\n", quoting=csv.QUOTE_ALL)
    for row in map(tuple, rows):
        (quoted if any("\r" in str(field) for field in row) else plain).writerow(row)


def write_csv(path: Path, header: Iterable[str], rows: Iterable[Iterable[object]]) -> None:
    """Writes a CSV file, whole or not at all."""
    with (
        replacing(path) as beside,
        # A file name on Linux need not be valid text.
        beside.open("w", newline="", encoding="utf-8", errors="backslashreplace") as file,
    ):
        write_rows(file, [header])
        write_rows(file, rows)


def write_json(path: Path, content: object) -> None:
    """Writes a JSON file, whole or not at all; NaN and infinite numbers are a ValueError."""
    text = json.dumps(content, indent=2, allow_nan=False) + "\n"
    with replacing(path) as beside:
        beside.write_text(text, encoding="utf-8")


def read_json(path: Path) -> Any:
    """Reads a JSON file; a damaged one is an InputError."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:  # The latter where it is nested without end.
        raise InputError(f"{path} is damaged: {error}.") from error


def try_writing(folder: Path) -> None:
    """Finds out before the work, by an empty file, whether its results can be written."""
    trial = folder / ".writable"
    trial.touch()
    trial.unlink(missing_ok=True)  # Another process may try at the same time.


def check_copy(path: Path, *, option: str, begins: bytes = b"") -> None:
    """Finds out before the work whether a file can be written to a path.

    What is there may be replaced if it is empty, or `begins` as its kind does.
    """
    if path.exists():
        if not path.is_file():
            raise InputError(f"{option} is {path}, a directory or a device. Name a file in it.")
        with path.open("rb") as file:
            start = file.read(max(1, len(begins)))
        if start and not start.startswith(begins):
            raise InputError(f"{option} is {path}, which holds something else. Name another file.")
    path.parent.mkdir(parents=True, exist_ok=True)
    try_writing(path.parent)


def copy(source: Path, target: Path) -> None:
    """Copies a file, whole or not at all."""
    with replacing(target) as beside:
        shutil.copyfile(source, beside)


# --- Folders -------------------------------------------------------------------------------------


@contextmanager
def replacing_folder(folder: Path) -> Iterator[Path]:
    """Yields an empty folder beside `folder` to fill, and puts it in its place once it is whole.

    Two renames do that; `finish_swap` finishes what a stop between the two left. Only one process
    may do this at a time.
    """
    folder = folder.resolve()
    finish_swap(folder)
    new, old = swap_places(folder)
    for leftover in filter(Path.exists, (new, old)):  # Nothing half-made may lie beside an old one.
        shutil.rmtree(leftover)
    new.mkdir(parents=True)
    try:
        yield new
        if folder.exists():
            folder.rename(old)
        else:
            new.rename(folder)
    finally:
        finish_swap(folder)  # The second rename, where the first is done, even after Ctrl-C.
        if new.exists():
            shutil.rmtree(new)


def finish_swap(folder: Path) -> None:
    """Finishes the replacement of a folder, if a stop left it half done."""
    new, old = swap_places(folder)
    folder = folder.resolve()
    if old.exists() and not folder.exists():
        # The new one is whole: only then is the old one moved aside.
        (new if new.exists() else old).rename(folder)
    # What cannot be removed here, on a disk to be read only, the next replacement removes.
    shutil.rmtree(old, ignore_errors=True)


def swap_places(folder: Path) -> tuple[Path, Path]:
    """Where a new folder is filled, and where the old one stands while the new one is put there."""
    return _beside(folder, "new"), _beside(folder, "old")


def _beside(folder: Path, what: str) -> Path:
    folder = folder.resolve()  # Where it is a link, beside what it leads to.
    if not folder.name:
        raise InputError(f"{folder} is a whole disk: name a directory below it.")
    return folder.with_name(f".{folder.name}.cancernet-{what}")


# --- Locks ---------------------------------------------------------------------------------------
#
# A lock is one of the operating system on a hidden, empty file beside the folder, so that a killed
# process holds nothing. The last to use the file takes it away; one that stays behind does no harm.

PATIENCE = 0.2  # Seconds: who goes holds the file for a moment, to take it away.


def lock_for_writing(folder: Path, *, option: str = "--dataset") -> Callable[[], None]:
    """Keeps every other process out of a folder, which need not exist, until this one ends.

    Where no lock can be made, though files can be written, it says so. What it returns releases
    the lock earlier. An InputError, which names `option`, where another process works with the
    folder, an OSError where no file can be written beside it.
    """
    parent = _beside(folder, "lock").parent
    parent.mkdir(parents=True, exist_ok=True)
    try_writing(folder if folder.is_dir() else parent)
    busy = f"{folder} is in use by another build_dataset.py or train_model.py."
    return _lock(folder, "write", busy, option, "let no other process write to it meanwhile")


def lock_for_reading(folder: Path) -> Callable[[], None]:
    """Keeps builds from a data set until this process ends; others may read it, too.

    Else as `lock_for_writing`, but that nothing need be written: the disk may be read-only.
    """
    if not _beside(folder, "lock").parent.is_dir():
        return lambda: None  # There is nothing to read, as will be said elsewhere.
    busy = f"{folder} is being built by another build_dataset.py."
    return _lock(folder, "read", busy, "--dataset", "do not build it anew meanwhile")


def _lock(
    folder: Path, mode: Literal["read", "write"], busy: str, option: str, advice: str
) -> Callable[[], None]:
    path = _beside(folder, "lock")
    try:
        if not path.exists():
            path.touch(mode=0o666)  # Open to all users, since they may share the folder.
        # Not a singleton: within one process, too, each lock is one of its own.
        lock = ReadWriteLock(path, timeout=PATIENCE, is_singleton=False)
        (lock.acquire_read if mode == "read" else lock.acquire_write)()
    except Timeout as error:  # Which is an OSError, too.
        raise InputError(f"{busy} Wait until it has ended, or name another {option}.") from error
    except (OSError, sqlite3.Error) as error:
        print(f"Note: {folder} cannot be locked ({error}): {advice}.", file=sys.stderr)
        return lambda: None

    def release() -> None:
        atexit.unregister(release)
        # Nobody else holds a lock on the file that goes; who waits for one takes a new file.
        with suppress(OSError, sqlite3.Error):  # On Windows an open file cannot be deleted.
            if mode == "read":
                lock.release()
                lock.acquire_write(timeout=0)  # Not while others read.
            path.unlink()
        lock.close()

    atexit.register(release)
    return release
