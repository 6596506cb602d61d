"""Errors of TensorFlow in words: the real ones, provoked."""

from pathlib import Path

import pytest
import tensorflow as tf
from conftest import WritePatch

from cancernet import failures
from cancernet.cli import InputError
from cancernet.data.pipeline import scoring_batches


def read_all(files: list[Path]) -> None:
    with failures.explained(files, batch_size=4):
        for _ in scoring_batches(files, image_size=(48, 48), batch_size=4):
            pass


@pytest.fixture
def files(tmp_path: Path, write_patch: WritePatch) -> list[Path]:
    return [write_patch(tmp_path / f"patch {number}.png") for number in range(100)]


def test_patches_that_can_be_read_pass(files: list[Path]) -> None:
    read_all(files)


@pytest.mark.parametrize("damage", ["removed", "cut", "text", "folder"])
def test_the_patch_that_cannot_be_read_is_named(files: list[Path], damage: str) -> None:
    content = files[70].read_bytes()
    files[70].unlink()
    if damage == "folder":
        files[70].mkdir()
    elif damage != "removed":
        files[70].write_bytes(content[:1000] if damage == "cut" else b"text")
    with pytest.raises(InputError, match=r"patch 70\.png cannot be read \(.+\).*Build"):
        read_all(files)


def test_an_error_of_another_kind_stays_what_it_is(files: list[Path]) -> None:
    with (
        pytest.raises(tf.errors.InvalidArgumentError, match="Incompatible"),
        failures.explained(files, batch_size=4),
    ):
        tf.zeros(2) + tf.zeros(3)


def test_a_batch_too_large_for_the_memory_names_the_constant_to_lower() -> None:
    with (
        pytest.raises(InputError, match=r"at 512 patches.*BATCH_SIZE.*DECODE_CACHE_MB"),
        failures.explained([], batch_size=512),
    ):
        tf.zeros((10**6, 10**7))  # 40 terabytes.
    with pytest.raises(InputError, match="BATCH_SIZE"), failures.explained([], batch_size=512):
        raise MemoryError
