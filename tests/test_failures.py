"""Errors of TensorFlow in words: the real ones, provoked."""

from pathlib import Path

import pytest
import tensorflow as tf
from conftest import WritePatch

from cancernet.cli import InputError
from cancernet.data.failures import explained
from cancernet.data.pipeline import Reading, scoring_batches


@pytest.mark.parametrize("damage", ["removed", "cut"])
def test_the_patch_that_cannot_be_read_is_named(
    tmp_path: Path, write_patch: WritePatch, damage: str
) -> None:
    files = [write_patch(tmp_path / f"patch {number}.png") for number in range(80)]
    if damage == "removed":
        files[70].unlink()
    else:
        files[70].write_bytes(files[70].read_bytes()[:1000])
    with (
        pytest.raises(InputError, match=r"patch 70\.png cannot be read \(.+\).*Build"),
        explained(files, batch_size=4),
    ):
        list(scoring_batches(files, Reading((48, 48), 4)))


def fail(error: BaseException) -> None:
    raise error


LOST = tf.errors.UnavailableError(None, None, "Collective ops is aborted")


@pytest.mark.parametrize(
    ("work", "lost", "error", "message"),
    [
        (lambda: tf.zeros(2) + tf.zeros(3), None, tf.errors.InvalidArgumentError, "Incompatible"),
        (lambda: fail(LOST), lambda _: InputError("worker 1 is gone"), InputError, "worker 1"),
        (lambda: fail(LOST), lambda _: None, tf.errors.UnavailableError, "aborted"),
        (  # 40 terabytes.
            *(lambda: tf.zeros((10**6, 10**7)), None, InputError),
            r"at 512 patches.*BATCH_SIZE.*other programs",
        ),
        (lambda: fail(MemoryError()), None, InputError, "BATCH_SIZE"),
    ],
)
def test_errors_of_memory_and_workers_are_explained_and_no_others(work, lost, error, message):
    with pytest.raises(error, match=message), explained([], batch_size=512, lost=lost):
        work()
