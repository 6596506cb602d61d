"""Who works with a directory: a data set is built by one process alone, but read by many.

A lock is one of the operating system on a hidden, empty file beside the directory. It is held until
the process ends, however it ends: a killed one holds nothing. The file is taken away at the end,
where it can be; one that stays behind does no harm.
"""

import atexit
import os
import sys
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from cancernet.cli import InputError

# Each training holds one of these, a build all of them.
SLOTS = 16


def alone(directory: Path, *, option: str, slots: int = 1) -> Callable[[], None]:
    """Keeps every other process out of a directory until this one ends.

    Args:
        directory: What is locked; it need not exist.
        option: What names another directory on the command line, for the message.
        slots: All the locks that there are for it.

    Returns:
        What releases it earlier.

    Raises:
        InputError: Another process works with it.
        OSError: No file can be written beside it.
    """
    with ExitStack() as held:
        for path in _paths(directory, option, slots):
            if not _lock(path, held):
                raise InputError(
                    f"{directory} is in use by another build_dataset.py or train_model.py. "
                    f"Wait until that has ended, or name another {option}."
                )
        return _until_the_end(held)


def build(dataset: Path) -> Callable[[], None]:
    """Keeps all others from a data set, as `alone` does."""
    return alone(dataset, option="--dataset", slots=SLOTS)


def write(output: Path) -> Callable[[], None]:
    """Keeps other trainings from an output directory, as `alone` does.

    Where no lock can be had, though the directory can be written to, it says so on stderr.
    """
    try:
        return alone(output, option="--output")
    except OSError as error:
        if not os.access(output, os.W_OK):
            raise
        return _unlocked(output, error, "do not let another training write to it meanwhile")


def share(dataset: Path) -> Callable[[], None]:
    """Keeps builds from a data set until this process ends; others may read it, too.

    Where no lock can be had, as on a disk that is read-only, it says so on stderr.

    Returns:
        What releases it earlier.

    Raises:
        InputError: A build works with it.
    """
    with ExitStack() as held:
        try:
            if any(_lock(path, held) for path in _paths(dataset, "--dataset", SLOTS)):
                return _until_the_end(held)
        except OSError as error:
            return _unlocked(dataset, error, "do not build it anew meanwhile")
        raise InputError(
            f"{dataset} is being built by another build_dataset.py (or read by {SLOTS} trainings "
            "already). Wait until that has ended, or name another --dataset."
        )


def _unlocked(directory: Path, error: OSError, what_to_do: str) -> Callable[[], None]:
    print(f"Note: {directory} cannot be locked ({error}): {what_to_do}.", file=sys.stderr)
    return lambda: None


def _paths(directory: Path, option: str, slots: int) -> list[Path]:
    directory = directory.resolve()  # Where it is a link, beside what it leads to.
    if not directory.name:
        raise InputError(f"{option} is {directory}, a whole disk. Name a directory below it.")
    return [
        directory.with_name(f".{directory.name}.cancernet-lock-{slot}") for slot in range(slots)
    ]


def _lock(path: Path, held: ExitStack) -> bool:
    """Tries to lock a file, and leaves it to `held` to undo that."""
    for folder in reversed([parent for parent in path.parents if not parent.exists()]):
        folder.mkdir(exist_ok=True)
        held.callback(_try, folder.rmdir)  # Goes if nothing was put there.
    # Open to all users, since they may share the directory. No fallback to a "soft" lock, which a
    # killed process would hold for ever.
    lock = FileLock(path, timeout=0, mode=0o666, fallback_to_soft=False, thread_local=False)
    try:
        lock.acquire()
    except Timeout:
        return False
    if sys.platform == "win32":  # An open file cannot be deleted there.
        held.callback(_try, path.unlink)
        held.callback(lock.release)
    else:  # First, so that nobody else holds a lock on a file that is gone.
        held.callback(lock.release)
        held.callback(_try, path.unlink)
    return True


def _try(clean: Callable[[], None]) -> None:
    with suppress(OSError):
        clean()


def _until_the_end(held: ExitStack) -> Callable[[], None]:
    release = held.pop_all().close
    atexit.register(release)
    return release
