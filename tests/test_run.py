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


ROW = {"epoch": 1, "loss": 0.1 + 0.2, "val_roc_auc": 0.7}


def save(output: Path, model: keras.Model, epochs: int) -> None:
    run = Run(output, epochs=20, inputs=INPUTS)
    for epoch in range(1, epochs + 1):
        run.best_weights = model.get_weights()
        run.save(model, dict(ROW, epoch=epoch), began=0)


@pytest.fixture(autouse=True)
def _unlocked(monkeypatch: pytest.MonkeyPatch) -> None:
    """A run holds its lock until the process ends; here one process opens several."""
    monkeypatch.setattr(files, "lock_for_writing", lambda output, option: None)


def reopen(output: Path, *, resume: bool = True, **changes: Any) -> Run:
    run = Run(output, epochs=3, inputs=INPUTS | changes)
    run.open(resume=resume)
    return run


@pytest.fixture
def trained(tmp_path: Path) -> keras.Model:
    """Of a run with a finished epoch in the directory."""
    model = make_model()
    train_a_step(model)
    save(tmp_path, model, 1)
    return model


def test_a_restored_model_trains_on_as_the_one_never_stopped(tmp_path: Path) -> None:
    model = make_model()
    train_a_step(model)
    save(tmp_path, model, 1)
    expected = [train_a_step(model) for _ in range(3)]
    run = reopen(tmp_path)
    assert [row | {"seconds": 0} for row in run.rows] == [ROW | {"seconds": 0}]
    worker = Run(None, epochs=20)
    worker.unpack(run.pack())
    for each in (run, worker):
        again = make_model()
        for _ in range(2):  # It must not matter where it has been.
            train_a_step(again)
        each.restore(again)
        # The masks of dropout included: without its generator's state the losses differ.
        assert [train_a_step(again) for _ in range(3)] == expected
        for found, wanted in zip(again.get_weights(), model.get_weights(), strict=True):
            assert found.tobytes() == wanted.tobytes()


def test_the_last_two_are_kept_and_an_older_runs_go(tmp_path: Path, trained: keras.Model) -> None:
    (tmp_path / "checkpoint/epoch-000099.npz").write_bytes(b"another run's")
    save(tmp_path, trained, 11)
    names = sorted(path.name for path in (tmp_path / "checkpoint").iterdir())
    assert names == ["epoch-000010.npz", "epoch-000011.npz", "history.csv"]


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty"])
def test_a_torn_checkpoint_is_passed_over_for_the_one_before(
    tmp_path: Path, trained: keras.Model, damage: str
) -> None:
    save(tmp_path, trained, 2)
    last = tmp_path / "checkpoint" / "epoch-000002.npz"
    data = bytearray(last.read_bytes())
    if damage == "flipped":
        data[len(data) // 2] ^= 1
    last.write_bytes({"cut": bytes(data[:-9]), "flipped": bytes(data), "empty": b""}[damage])
    assert reopen(tmp_path).epoch == 1
    last.with_name("epoch-000001.npz").write_bytes(b"x")
    assert reopen(tmp_path).rows == []


def test_a_checkpoint_counts_once_its_row_is_there(tmp_path: Path, trained: keras.Model) -> None:
    before = (tmp_path / "checkpoint/history.csv").read_bytes()
    save(tmp_path, trained, 2)
    (tmp_path / "checkpoint/history.csv").write_bytes(before)  # As killed between the two.
    assert reopen(tmp_path).epoch == 1


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"EPOCHS": 4}, "EPOCHS was 3, is 4. The number of epochs is part of the learning rate"),
        ({"SEED": 7}, "SEED was 42, is 7. Set it back"),
        ({"keras": "9.9"}, "keras was None, is '9.9'"),
    ],
    ids=str,
)
@pytest.mark.usefixtures("trained")
def test_other_inputs_are_refused_by_name(
    tmp_path: Path, change: dict[str, Any], words: str
) -> None:
    with pytest.raises(InputError, match=words):
        reopen(tmp_path, **change)


@pytest.mark.usefixtures("trained")
def test_an_unfinished_run_is_not_overwritten(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"unfinished run.*--resume.*--output.*delete"):
        reopen(tmp_path, resume=False)


@pytest.mark.parametrize("epochs", [1, 2])
def test_a_run_that_ends_replaces_the_older_one_and_is_known_again(
    tmp_path: Path, epochs: int
) -> None:
    """Of two epochs; after one it can still be gone on with."""
    network = CancerNet.build(width=24, height=16, depth=3, classes=2)
    (tmp_path / "history.csv").write_text("an older run's")
    (tmp_path / "metrics.json").write_text("an older run's")
    run = Run(tmp_path, epochs=2, inputs=INPUTS)
    run.rows = [dict(ROW, epoch=epoch + 1) for epoch in range(epochs)]
    run.best_weights = network.get_weights()
    run.open(plot=tmp_path / "copy.png")
    with run.finish(network, Decision(0.25, Recalibration(1.5, -0.5)), "tuned", True) as folder:
        names = {path.name for path in folder.iterdir()}
        assert names == {"history.csv", "cancernet.keras", "cancernet.json"}
        assert (tmp_path / "history.csv").read_text() == "an older run's"
        for name in ("metrics.json", "plot.png"):
            (folder / name).write_text("new")
    metadata = json.loads((tmp_path / "cancernet.json").read_text())
    assert metadata.pop("trained_with", None) == (INPUTS if epochs == 2 else None)
    assert metadata == {
        "sha256": hashlib.sha256((tmp_path / "cancernet.keras").read_bytes()).hexdigest(),
        **{"height": 16, "width": 24, "channels": 3, "threshold": 0.25},
        "recalibration": {"slope": 1.5, "intercept": -0.5},
        "context": None,
        **{"recipe": "tuned", "sample": True},
    }
    assert (tmp_path / "metrics.json").read_text() == "new"
    assert (tmp_path / "copy.png").read_text() == "new"
    assert (tmp_path / "checkpoint").exists() == (epochs == 1)
    if epochs == 2:
        again = reopen(tmp_path)
        assert (again.epoch, again.epochs) == (2, 2)
        again.load_best(other := CancerNet.build(24, 16, 3, 2))
        assert other.get_weights()[0].tobytes() == network.get_weights()[0].tobytes()
        with pytest.raises(InputError, match="SEED"):
            reopen(tmp_path, SEED=1)
