"""What the scripts share towards the shell: exit codes, messages and work behind a progress bar.

Standard library only (tqdm is imported when a bar is made), so that `--help` answers at once.
"""

import argparse
import math
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
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
    """Runs a script's main function and exits with the code that its outcome has.

    0 done; 2 for input that cannot be used, or a file system that refuses, with one message on
    stderr and no traceback; 130 after Ctrl-C.
    """
    for stream in (sys.stdout, sys.stderr):
        # File names are data: one that the terminal cannot show must not end the run.
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    try:
        main()
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(BAD_INPUT)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Nothing more to flush.
        print("error: the output's reader went away, so the run stopped.", file=sys.stderr)
        sys.exit(BAD_INPUT)
    except OSError as error:
        print(
            f"error: the file system refused: {error}. "
            "Check the path, its permissions and the free space on its disk.",
            file=sys.stderr,
        )
        sys.exit(BAD_INPUT)
    except KeyboardInterrupt:
        print("Stopped.", file=sys.stderr)
        sys.exit(INTERRUPTED)
    sys.exit(DONE)


@contextmanager
def first_ctrl_c() -> Iterator[threading.Event]:
    """Has the first Ctrl-C set an event instead of raising; a second one stops at once.

    Only in the main thread, which alone is told of signals: elsewhere nothing changes.
    """
    pressed = threading.Event()

    def note(_signal: int, _frame: object) -> None:
        pressed.set()
        signal.signal(signal.SIGINT, signal.default_int_handler)

    if threading.current_thread() is not threading.main_thread():
        yield pressed
        return
    before = signal.signal(signal.SIGINT, note)
    try:
        yield pressed
    finally:
        signal.signal(signal.SIGINT, before)


def prepare_tensorflow(*, quiet: bool = False) -> None:
    """Sets what TensorFlow and Keras read from the environment when they are imported.

    Args:
        quiet: Leave even errors to the exceptions that they become.
    """
    os.environ["KERAS_BACKEND"] = "tensorflow"  # The pipeline feeds tf.data to `fit`.
    # Errors alone, not what CPU it is.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3" if quiet else "2")
    # TensorFlow takes the oneDNN kernels by itself only on CPUs with units for neural networks. On
    # those without (AVX2 alone) training is two to three times as fast with them, too.
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")


def configured_path(name: str, value: object) -> Path:
    """Gives a path of the configuration.

    Raises:
        InputError: It is no text, or empty.
    """
    if not isinstance(value, str) or not value or "\0" in value:
        raise InputError(
            f"{name} is {value!r}: expected a path, as text. Change it in cancernet/config.py."
        )
    return Path(value)


def positive_integer(text: str) -> int:
    """Parses a whole number from 1 to 10**9 - 1, for argparse.

    Raises:
        argparse.ArgumentTypeError: `text` is anything else.
    """
    return _whole_number(text, 1, 10**9 - 1)


def seed(text: str) -> int:
    """Parses a seed that every random generator here takes: 0 to 2**32 - 1, for argparse.

    Raises:
        argparse.ArgumentTypeError: `text` is anything else.
    """
    return _whole_number(text, 0, 2**32 - 1)


def positive_number(text: str) -> float:
    """Parses a number above 0, for argparse.

    Raises:
        argparse.ArgumentTypeError: `text` is anything else.
    """
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not 0 < number < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0")
    return number


def _whole_number(text: str, least: int, most: int) -> int:
    digits = text.isascii() and text.isdigit() and len(text) <= len(str(most))
    if not (digits and least <= int(text) <= most):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from {least} to {most}")
    return int(text)


def map_files(
    function: Callable[[Item], Result], items: Sequence[Item], *, what: str
) -> Iterator[Result]:
    """Calls `function` on every item in threads, behind a progress bar on stderr.

    Args:
        function: Work on one file that waits for the disk or leaves Python's lock (hashing,
            decoding), since threads gain nothing otherwise.
        items: One item a file.
        what: The bar's label. The bar is silent when stderr is no terminal.

    Yields:
        The results in the order of the items.
    """
    from tqdm import tqdm

    def work(start: int) -> list[Result]:
        return [function(item) for item in items[start : start + FILES_PER_TASK]]

    threads = ThreadPoolExecutor(max_workers=os.cpu_count())
    try:
        with tqdm(total=len(items), desc=what, unit=" files", disable=None, leave=False) as bar:
            for results in threads.map(work, range(0, len(items), FILES_PER_TASK)):
                bar.update(len(results))
                yield from results
    finally:
        threads.shutdown(cancel_futures=True)  # After Ctrl-C nothing that waits is begun.
