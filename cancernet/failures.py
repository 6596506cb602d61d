"""What goes wrong while patches are read and computed with, in words: the file, or the constant."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import tensorflow as tf

from cancernet.cli import InputError, map_files
from cancernet.data.pipeline import read_patch
from cancernet.training.machines import Machines


@contextmanager
def explained(
    files: Sequence[str | Path], *, batch_size: int, machines: Machines | None = None
) -> Iterator[None]:
    """Turns TensorFlow's errors on files, memory and machines into messages for the user.

    Args:
        files: All patches that may be read meanwhile. Since TensorFlow does not name the one that
            it cannot decode, they are all tried after a failure, and only then.
        batch_size: Patches a step.
        machines: Those that train together, if there are several.

    Raises:
        InputError: Naming the patch that cannot be read, the constants to lower, or the machine
            that is gone.
    """
    try:
        yield
    except (tf.errors.ResourceExhaustedError, MemoryError) as error:
        raise InputError(
            f"The memory does not suffice at {batch_size} patches a step ({_first_line(error)}). "
            "Lower BATCH_SIZE in cancernet/config.py, and DECODE_CACHE_MB there if it is not 0; or "
            "close other programs."
        ) from error
    except tf.errors.OpError as error:
        if machines and _is_of_machines(error):
            raise machines.lost(error.message) from error
        if (found := _find_unreadable(files)) is None:
            raise
        raise InputError(
            f"{found[0]} cannot be read ({found[1]}): it was damaged or removed since the data "
            "set was built. Build the data set again."
        ) from error


def _is_of_machines(error: tf.errors.OpError) -> bool:
    """Whether an operation over all machines failed, as it does when one of them is gone."""
    gone = (tf.errors.UnavailableError, tf.errors.DeadlineExceededError)
    return isinstance(error, gone) or "Collective ops is aborted" in error.message


def _first_line(error: BaseException) -> str:
    return str(getattr(error, "message", error)).strip().split("\n", maxsplit=1)[0]


def _find_unreadable(files: Sequence[str | Path]) -> tuple[str | Path, str] | None:
    """Tries to read each file; gives the first that cannot be, and why."""

    def problem(file: str | Path) -> str | None:
        try:
            read_patch(tf.constant(os.fsencode(file)), height=1, width=1)
        except tf.errors.OpError as error:
            return _first_line(error)
        return None

    problems = map_files(problem, files, what="Looking for the cause")
    return next((found for found in zip(files, problems, strict=True) if found[1]), None)  # type: ignore[return-value]
