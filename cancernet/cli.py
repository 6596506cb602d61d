"""What the scripts share towards the shell: exit codes, messages and work behind a progress bar.

Standard library only (tqdm is imported when a bar is made), so that `--help` answers at once.
"""

import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from multiprocessing.pool import ThreadPool
from pathlib import Path
from typing import TypeVar

DONE, PARTLY_DONE, BAD_INPUT, INTERRUPTED = 0, 1, 2, 130

SAMPLE_NOTICE = (
    "SYNTHETIC SAMPLE: drawn by a program, no tissue. Its figures say nothing of cancer."
)

# Files a task of a worker thread: single files would spend more time in the queue than at work.
FILES_PER_TASK = 64

Item = TypeVar("Item")
Result = TypeVar("Result")


class InputError(ValueError):
    """Input that cannot be used: what was found, what was expected and what to do, in one text."""


def run(main: Callable[[], None]) -> None:
    """Runs a script's main function; exits with the outcome's code and one message on stderr."""
    for stream in (sys.stdout, sys.stderr):
        # File names are data: one that the terminal cannot show must not end the run.
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    code, message = BAD_INPUT, ""
    try:
        main()
        code = DONE
    except InputError as error:
        message = f"error: {error}"
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Nothing more to flush.
        message = "error: the output's reader went away, so the run stopped."
    except OSError as error:
        advice = "Check the path, its permissions and the free space on its disk."
        message = f"error: the file system refused: {error}. {advice}"
    except KeyboardInterrupt:
        code, message = INTERRUPTED, "Stopped."
    if message:
        print(message, file=sys.stderr)
    sys.exit(code)


def prepare_tensorflow() -> None:
    """Sets what TensorFlow and Keras read when they are imported, and imports both.

    What they write to stderr, on processors and CUDA that is not there, is thrown away, unless the
    user has set TF_CPP_MIN_LOG_LEVEL; what goes wrong becomes an exception anyway.
    """
    os.environ["KERAS_BACKEND"] = "tensorflow"  # The pipeline feeds tf.data to `fit`.
    # TensorFlow takes the oneDNN kernels by itself only on CPUs with units for neural networks. On
    # those without (AVX2 alone) training is two to three times as fast with them, too.
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
    quiet = "TF_CPP_MIN_LOG_LEVEL" not in os.environ
    with _silent_stderr() if quiet else nullcontext():
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
        import keras
        import tensorflow as tf

        tf.config.list_physical_devices("GPU")
    if quiet:
        tf.get_logger().setLevel("ERROR")
    # Whatever the user's keras.json says; on CPUs TensorFlow has no other order of the axes.
    keras.config.set_floatx("float32")
    keras.config.set_epsilon(1e-7)
    keras.config.set_image_data_format("channels_last")


@contextmanager
def _silent_stderr() -> Iterator[None]:
    """Throws away what is written to the file descriptor of stderr, be it by C++ code."""
    sys.stderr.flush()
    kept = os.dup(2)
    try:
        with Path(os.devnull).open("w") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def map_files(
    function: Callable[[Item], Result], items: Sequence[Item], *, what: str
) -> Iterator[Result]:
    """Calls `function` on every item in threads, behind a bar on stderr; results come in order."""
    from tqdm import tqdm

    threads = ThreadPool()
    try:
        results = threads.imap(function, items, chunksize=FILES_PER_TASK)
        with tqdm(total=len(items), desc=what, unit=" files", disable=None, leave=False) as bar:
            for result in results:
                bar.update()
                yield result
    finally:
        threads.terminate()  # After Ctrl-C nothing that waits is begun,
        threads.join()  # and what was begun is done when the caller clears up.


def stopwatch() -> Callable[[], float]:
    """Starts a stopwatch: a function that gives the seconds since its last call."""
    last = time.perf_counter()

    def lap() -> float:
        nonlocal last
        began, last = last, time.perf_counter()
        return last - began

    return lap
