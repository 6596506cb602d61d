"""What goes wrong while patches are read and computed with, in words: the file, or the constant."""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import tensorflow as tf

from cancernet.cli import InputError, map_files
from cancernet.data.pipeline import read_patch


@contextmanager
def explained(
    files: Sequence[str | Path],
    *,
    batch_size: int,
    lost: Callable[[tf.errors.OpError], InputError | None] | None = None,
) -> Iterator[None]:
    """Turns TensorFlow's errors on files, memory and workers into messages for the user.

    Since TensorFlow does not name the file that it cannot decode, all `files` are tried after a
    failure, and only then. `lost` says which worker is gone, where an error comes of that.
    """
    try:
        yield
    except (tf.errors.ResourceExhaustedError, MemoryError) as error:
        raise InputError(
            f"The memory does not suffice at {batch_size} patches per step ({_first_line(error)}). "
            "Lower BATCH_SIZE in cancernet/config.py, or close other programs."
        ) from error
    except tf.errors.OpError as error:
        if lost and (of_worker := lost(error)):
            raise of_worker from error
        problems = map_files(_problem, files, what="Looking for the cause")
        for file, problem in zip(files, problems, strict=True):
            if problem:
                raise InputError(
                    f"{file} cannot be read ({problem}): it was damaged or removed since the data "
                    "set was built. Build the data set again."
                ) from error
        raise


def _first_line(error: BaseException) -> str:
    return str(getattr(error, "message", error)).strip().split("\n", maxsplit=1)[0]


def _problem(file: str | Path) -> str | None:
    try:
        read_patch(tf.constant(os.fsencode(file)), height=1, width=1)
    except tf.errors.OpError as error:
        return _first_line(error)
    return None
