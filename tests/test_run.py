"""Checkpoints: all that training goes on from, and what is refused; and how a run ends."""

import hashlib
import json
import shutil
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
from cancernet.training.run import CTRL_C, Run

INPUTS = {"EPOCHS": 3, "SEED": 42, "manifest.csv": "abc"}
RNG = np.random.default_rng(5)
IMAGES = RNG.random((12, 8, 8, 3), dtype=np.float32)
TARGETS = np.eye(2, dtype=np.float32)[np.arange(12) % 2]


def make_model() -> keras.Model:
    keras.utils.set_random_seed(1)
    layers = [
        keras.Input((8, 8, 3)),
        keras.layers.Conv2D(2, 3),
        keras.layers.BatchNormalization(),
        keras.layers.Flatten(),
        keras.layers.Dropout(0.5),
        keras.layers.Dense(2),
        keras.layers.Activation("softmax"),
    ]
    model = fused.fuse(keras.Sequential(layers))
    model.compile(recipe_of(learning_rate=0.1, epochs=3).optimizer(), "categorical_crossentropy")
    return model


ROW = {"epoch": 1, "loss": 0.1 + 0.2, "val_roc_auc": 0.7}


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
    model.train_on_batch(IMAGES, TARGETS)
    run = Run(tmp_path, epochs=3, inputs=INPUTS)
    run.best_weights = model.get_weights()
    run.mean = [2 * weights for weights in run.best_weights]
    run.save(model, dict(ROW), began=0)
    return model


def test_a_restored_model_trains_on_as_the_one_never_stopped(tmp_path, trained) -> None:
    best = trained.get_weights()
    expected = [trained.train_on_batch(IMAGES, TARGETS) for _ in range(3)]
    run = reopen(tmp_path)
    assert [row | {"seconds": 0} for row in run.rows] == [ROW | {"seconds": 0}]
    assert run.best_weights[0].tobytes() == best[0].tobytes()
    assert run.mean[0].tobytes() == (2 * best[0]).tobytes()
    again = make_model()
    for _ in range(2):  # It must not matter where it has been.
        again.train_on_batch(IMAGES, TARGETS)
    run.restore(again)
    # The masks of dropout included: without its generator's state the losses differ.
    assert [again.train_on_batch(IMAGES, TARGETS) for _ in range(3)] == expected
    for found, wanted in zip(again.get_weights(), trained.get_weights(), strict=True):
        assert found.tobytes() == wanted.tobytes()


@pytest.mark.usefixtures("trained")
def test_only_what_fits_is_gone_on_with(tmp_path: Path) -> None:
    for change, words in (
        ({"EPOCHS": 4}, "EPOCHS was 3, is 4. The number of epochs is part of the learning rate"),
        ({"SEED": 7}, "SEED was 42, is 7. Set it back"),
        ({"keras": "9.9"}, "keras was None, is '9.9'"),
    ):
        with pytest.raises(InputError, match=words):
            reopen(tmp_path, **change)
    with pytest.raises(InputError, match=r"unfinished run.*--resume.*--output.*delete"):
        reopen(tmp_path, resume=False)
    saved = tmp_path / "checkpoint/state.npz"
    data = bytearray(saved.read_bytes())
    data[len(data) // 2] ^= 1
    saved.write_bytes(data)
    with pytest.raises(InputError, match=r"state.npz is damaged .*Delete it"):
        reopen(tmp_path)


@pytest.mark.parametrize("stopped", ["", CTRL_C, "the loss became nan"])
def test_a_run_that_ends_replaces_the_older_one(tmp_path: Path, stopped: str) -> None:
    """After Ctrl-C it can still be gone on with."""
    network = CancerNet.build(width=24, height=16, depth=3, classes=2)
    (tmp_path / "history.csv").write_text("an older run's")
    (tmp_path / "metrics.json").write_text("an older run's")
    run = Run(tmp_path, epochs=2, inputs=INPUTS)
    run.rows, run.stopped = [ROW], stopped
    run.open(plot=tmp_path / "copy.png")
    (tmp_path / "checkpoint").mkdir()
    (tmp_path / "checkpoint/state.npz").touch()
    with run.finish(network, Decision(0.25, Recalibration(1.5, -0.5)), "tuned", True) as folder:
        names = {path.name for path in folder.iterdir()}
        assert names == {"history.csv", "cancernet.keras", "cancernet.json"}
        assert (tmp_path / "history.csv").read_text() == "an older run's"
        for name in ("metrics.json", "plot.png"):
            (folder / name).write_text("new")
    metadata = json.loads((tmp_path / "cancernet.json").read_text())
    assert metadata.pop("trained_with", None) == (None if stopped == CTRL_C else INPUTS)
    assert metadata == {
        "sha256": hashlib.sha256((tmp_path / "cancernet.keras").read_bytes()).hexdigest(),
        **{"height": 16, "width": 24, "channels": 3, "threshold": 0.25},
        "recalibration": {"slope": 1.5, "intercept": -0.5},
        "context": None,
        **{"recipe": "tuned", "sample": True},
    }
    assert (tmp_path / "metrics.json").read_text() == "new"
    assert (tmp_path / "copy.png").read_text() == "new"
    assert (tmp_path / "checkpoint").exists() == (stopped == CTRL_C)
    if stopped != CTRL_C:  # It is reported anew.
        again = reopen(tmp_path)
        assert (again.rows, again.epochs) == ([ROW], 1)
        again.restore(network)
        assert again.best_weights[0].tobytes() == network.get_weights()[0].tobytes()
        shutil.rmtree(tmp_path / "checkpoint")
        (tmp_path / "cancernet.json").write_text("{")
        with pytest.raises(InputError, match=r"cancernet.json is damaged"):
            reopen(tmp_path)
