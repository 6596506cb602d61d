"""Checkpoints: all that training goes on from, kept whole, and refused where it does not fit."""

import json

import keras
import numpy as np
import pytest
from conftest import recipe_of

from cancernet.cli import InputError
from cancernet.training import fused, training
from cancernet.training.checkpoint import Checkpoints, Progress

INPUTS = {"EPOCHS": 3, "SEED": 42, "manifest.csv": "abc"}
RNG = np.random.default_rng(5)
IMAGES = RNG.random((12, 8, 8, 3), dtype=np.float32)
TARGETS = np.eye(2, dtype=np.float32)[np.arange(12) % 2]


def network():
    keras.utils.set_random_seed(1)
    model = fused.twin(
        keras.Sequential(
            [
                keras.Input((8, 8, 3)),
                keras.layers.Conv2D(2, 3),
                keras.layers.BatchNormalization(),
                keras.layers.Flatten(),
                keras.layers.Dropout(0.5),
                keras.layers.Dense(2),
                keras.layers.Activation("softmax"),
            ]
        )
    )
    training.compile_network(model, recipe_of(learning_rate=0.1, epochs=3), steps=1)
    return model


def train_a_step(model):
    return model.train_on_batch(IMAGES, TARGETS)


def rows(count):
    return [
        {"epoch": epoch, "loss": 0.1 + 0.2 / epoch, "val_roc_auc": 0.7, "seconds": 1.5}
        for epoch in range(1, count + 1)
    ]


def save(folder, model, epochs, *, inputs=INPUTS):
    Checkpoints(folder, inputs).save(model, Progress(rows(epochs), model.get_weights()))


def test_a_restored_network_trains_on_as_the_one_never_stopped(tmp_path):
    model = network()
    train_a_step(model)
    save(tmp_path, model, 1)
    expected = [train_a_step(model) for _ in range(3)]
    again = network()
    for _ in range(2):  # It must not matter where it has been.
        train_a_step(again)
    progress = Checkpoints(tmp_path, INPUTS).restore(again)
    assert progress is not None
    assert progress.rows == rows(1)
    # The masks of dropout included: without its generator's state the losses differ.
    assert [train_a_step(again) for _ in range(3)] == expected
    for found, wanted in zip(again.get_weights(), model.get_weights(), strict=True):
        assert found.tobytes() == wanted.tobytes()


def test_the_last_two_are_kept(tmp_path):
    model = network()
    train_a_step(model)
    for epoch in (1, 2, 9, 10, 11):
        save(tmp_path, model, epoch)
    names = sorted(path.name for path in (tmp_path / "checkpoint").iterdir())
    assert names == ["epoch-000010.npz", "epoch-000011.npz"]


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty"])
def test_a_torn_checkpoint_is_passed_over_for_the_one_before(tmp_path, damage):
    model = network()
    train_a_step(model)
    save(tmp_path, model, 1)
    save(tmp_path, model, 2)
    last = tmp_path / "checkpoint" / "epoch-000002.npz"
    data = bytearray(last.read_bytes())
    if damage == "flipped":
        data[len(data) // 2] ^= 1
    last.write_bytes({"cut": data[:-9], "flipped": data, "empty": b""}[damage])
    progress = Checkpoints(tmp_path, INPUTS).restore(network())
    assert progress is not None
    assert progress.rows == rows(1)
    last.with_name("epoch-000001.npz").write_bytes(b"x")
    assert Checkpoints(tmp_path, INPUTS).restore(network()) is None


def test_a_run_without_checkpoints_begins_at_the_first_epoch(tmp_path):
    assert Checkpoints(tmp_path, INPUTS).restore(network()) is None


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"EPOCHS": 4}, "EPOCHS was 3, is 4. The number of epochs is part of the learning rate"),
        ({"SEED": 7}, "SEED was 42, is 7. Set it back"),
        ({"keras": "9.9"}, "keras was None, is '9.9'"),
    ],
    ids=str,
)
def test_other_inputs_are_refused_by_name(tmp_path, change, words):
    model = network()
    train_a_step(model)
    save(tmp_path, model, 1)
    with pytest.raises(InputError, match=words):
        Checkpoints(tmp_path, INPUTS | change).restore(network())


def test_a_finished_run_is_known_by_its_card(tmp_path):
    (tmp_path / "history.csv").write_text("epoch,loss\n1,0.30000000000000004\n2,0.25\n")
    card = tmp_path / "cancernet.json"
    card.write_text(json.dumps({"threshold": 0.5}))
    assert Checkpoints(tmp_path, INPUTS).restore(network()) is None
    card.write_text(json.dumps({"threshold": 0.5, "trained_with": INPUTS}))
    progress = Checkpoints(tmp_path, INPUTS).restore(network())
    assert progress == Progress([{"epoch": 1, "loss": 0.1 + 0.2}, {"epoch": 2, "loss": 0.25}], None)
    with pytest.raises(InputError, match="SEED"):
        Checkpoints(tmp_path, INPUTS | {"SEED": 1}).restore(network())
