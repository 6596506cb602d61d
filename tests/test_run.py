"""Checkpoints: all that training goes on from, kept whole, and refused where it does not fit."""

import hashlib
import json
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from conftest import recipe_of

from cancernet import files
from cancernet.cancernet import CancerNet
from cancernet.cli import InputError
from cancernet.evaluation.calibration import Decision, Recalibration
from cancernet.training import fused
from cancernet.training.run import Run

INPUTS = {"EPOCHS": 3, "SEED": 42, "manifest.csv": "abc"}
RNG = np.random.default_rng(5)
IMAGES = RNG.random((12, 8, 8, 3), dtype=np.float32)
TARGETS = np.eye(2, dtype=np.float32)[np.arange(12) % 2]


def make_model() -> keras.Model:
    keras.utils.set_random_seed(1)
    model = fused.fuse(
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
    model.compile(recipe_of(learning_rate=0.1, epochs=3).optimizer(), "categorical_crossentropy")
    return model


def train_a_step(model: keras.Model) -> Any:
    return model.train_on_batch(IMAGES, TARGETS)


def row(epoch: int) -> dict[str, float]:
    return {"epoch": epoch, "loss": 0.1 + 0.2 / epoch, "val_roc_auc": 0.7, "seconds": 1.5}


def save(output: Path, model: keras.Model, *epochs: int, rows: bool = True) -> None:
    run = Run(output, epochs=20, inputs=INPUTS)
    for epoch in range(1, max(epochs) + 1):
        run.rows.append(row(epoch))
        run.best_weights = model.get_weights()
        if epoch in epochs:
            run.save(model)
            if rows:
                run.write_history()


@pytest.fixture(autouse=True)
def _unlocked(monkeypatch: pytest.MonkeyPatch) -> None:
    """A run holds its lock until the process ends; here one process opens several."""
    monkeypatch.setattr(files, "lock_for_writing", lambda output, option: None)


def resume(output: Path, **changes: Any) -> Run:
    return Run.open(output, epochs=3, inputs=INPUTS | changes, resume=True)


def test_a_restored_model_trains_on_as_the_one_never_stopped(tmp_path: Path) -> None:
    model = make_model()
    train_a_step(model)
    save(tmp_path, model, 1)
    expected = [train_a_step(model) for _ in range(3)]
    again = make_model()
    for _ in range(2):  # It must not matter where it has been.
        train_a_step(again)
    run = resume(tmp_path)
    run.restore(again)
    assert run.rows == [row(1)]
    # The masks of dropout included: without its generator's state the losses differ.
    assert [train_a_step(again) for _ in range(3)] == expected
    for found, wanted in zip(again.get_weights(), model.get_weights(), strict=True):
        assert found.tobytes() == wanted.tobytes()


def test_the_last_two_are_kept(tmp_path: Path) -> None:
    model = make_model()
    train_a_step(model)
    save(tmp_path, model, 1, 2, 9, 10, 11)
    names = sorted(path.name for path in (tmp_path / "checkpoint").iterdir())
    assert names == ["epoch-000010.npz", "epoch-000011.npz", "history.csv"]


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty"])
def test_a_torn_checkpoint_is_passed_over_for_the_one_before(tmp_path: Path, damage: str) -> None:
    model = make_model()
    train_a_step(model)
    save(tmp_path, model, 1, 2)
    last = tmp_path / "checkpoint" / "epoch-000002.npz"
    data = bytearray(last.read_bytes())
    if damage == "flipped":
        data[len(data) // 2] ^= 1
    last.write_bytes({"cut": bytes(data[:-9]), "flipped": bytes(data), "empty": b""}[damage])
    assert resume(tmp_path).rows == [row(1)]
    last.with_name("epoch-000001.npz").write_bytes(b"x")
    assert resume(tmp_path).rows == []


def test_a_checkpoint_counts_once_its_row_is_whole(tmp_path: Path) -> None:
    model = make_model()
    train_a_step(model)
    save(tmp_path, model, 1)
    save(tmp_path, model, 2, rows=False)  # Killed before the seconds of the epoch were known.
    assert resume(tmp_path).rows == [row(1)]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"EPOCHS": 4}, "EPOCHS was 3, is 4. The number of epochs is part of the learning rate"),
        ({"SEED": 7}, "SEED was 42, is 7. Set it back"),
        ({"keras": "9.9"}, "keras was None, is '9.9'"),
    ],
    ids=str,
)
def test_other_inputs_are_refused_by_name(
    tmp_path: Path, change: dict[str, Any], words: str
) -> None:
    model = make_model()
    train_a_step(model)
    save(tmp_path, model, 1)
    with pytest.raises(InputError, match=words):
        resume(tmp_path, **change)


def test_an_unfinished_run_is_not_overwritten(tmp_path: Path) -> None:
    model = make_model()
    train_a_step(model)
    save(tmp_path, model, 1)
    with pytest.raises(InputError, match=r"unfinished run.*--resume.*--output.*delete"):
        Run.open(tmp_path, epochs=3, inputs=INPUTS, resume=False)


def test_a_stop_in_the_first_epoch_leaves_nothing_to_go_on_with(tmp_path: Path) -> None:
    (tmp_path / "checkpoint").mkdir()
    (tmp_path / "checkpoint/epoch-000009.npz").write_bytes(b"another run's")
    assert Run.open(tmp_path, epochs=3, inputs=INPUTS, resume=False).rows == []
    model = make_model()
    train_a_step(model)
    save(tmp_path, model, 1)
    assert resume(tmp_path).rows == [row(1)]


@pytest.mark.parametrize("epochs", [1, 2])
def test_a_run_that_ends_replaces_the_older_one_and_is_known_again(
    tmp_path: Path, epochs: int
) -> None:
    """Of two epochs; after one it can still be gone on with."""
    network = CancerNet.build(width=24, height=16, depth=3, classes=2)
    (tmp_path / "history.csv").write_text("an older run's")
    (tmp_path / "metrics.json").write_text("an older run's")
    run = Run(tmp_path, epochs=2, inputs=INPUTS)
    run.rows, run.best_weights = [row(1), row(2)][:epochs], network.get_weights()

    def write_report(folder: Path) -> None:
        assert {path.name for path in folder.iterdir()} == {
            *("history.csv", "cancernet.keras", "cancernet.json")
        }
        assert (tmp_path / "history.csv").read_text() == "an older run's"
        (folder / "metrics.json").write_text("new")

    decision = Decision(0.25, Recalibration(1.5, -0.5))
    run.finish(network, decision, recipe="tuned", sample=True, write_report=write_report)
    metadata = json.loads((tmp_path / "cancernet.json").read_text())
    assert metadata.pop("trained_with", None) == (INPUTS if epochs == 2 else None)
    assert metadata == {
        "sha256": hashlib.sha256((tmp_path / "cancernet.keras").read_bytes()).hexdigest(),
        **{"height": 16, "width": 24, "channels": 3, "threshold": 0.25},
        "recalibration": {"slope": 1.5, "intercept": -0.5},
        **{"recipe": "tuned", "sample": True},
    }
    assert (tmp_path / "metrics.json").read_text() == "new"
    assert (tmp_path / "checkpoint").exists() == (epochs == 1)
    if epochs == 2:
        again = resume(tmp_path)
        assert (again.rows, again.epochs) == ([row(1), row(2)], 2)
        again.load_best(other := CancerNet.build(24, 16, 3, 2))
        assert other.get_weights()[0].tobytes() == network.get_weights()[0].tobytes()
        with pytest.raises(InputError, match="SEED"):
            resume(tmp_path, SEED=1)
