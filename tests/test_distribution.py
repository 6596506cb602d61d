"""Training on two devices, which two logical CPUs stand in for, and on two workers on loopback."""

import json
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import keras
import kill_training
import numpy as np
import pytest
import tensorflow as tf
from conftest import PROJECT, make_split, recipe_of
from pretended import copy_data, start_all

from cancernet.data import pipeline
from cancernet.data.dataset import Split
from cancernet.recipe import Augmentation
from cancernet.training import distribution, fused

# In batches of 4. The last of 13 patches is joined to the batch before: shares of 3 and 2.
COUNTS = {"plain": 12, "full": 13}
SIDE = 8
LABELS = [int(number % 3 == 0) for number in range(max(COUNTS.values()))]
RECIPE = recipe_of(
    **{"epochs": 2, "batch_size": 4, "learning_rate": 0.1},
    augmentation=Augmentation(0, 0, 0, 0, 0, False, False),
)
READING = pipeline.Reading(image_size=(SIDE, SIDE), batch_size=4, replicas=2)
GPU = tf.config.PhysicalDevice("/physical_device:GPU:0", "GPU")


@pytest.mark.parametrize(
    ("capabilities", "mixed"),
    [([(7, 0)], True), ([(8, 9), (6, 1)], False), ([(6, 1)], False), ([], False)],
)
def test_mixed_precision_where_every_gpu_has_the_units(monkeypatch, capabilities, mixed):
    details = iter(capabilities)
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: [GPU] * len(capabilities))
    of_gpu = {"get_device_details": lambda gpu: {"compute_capability": next(details)}}
    monkeypatch.setattr(tf.config, "experimental", SimpleNamespace(**of_gpu))
    assert distribution.mixed_precision("auto") is mixed
    assert distribution.mixed_precision("mixed")
    assert not distribution.mixed_precision("float32")


def make_model(kind: str) -> keras.Sequential:
    """If plain, one that shares of a batch cannot be told from in the whole of it."""
    normal = [keras.layers.BatchNormalization(), keras.layers.Dropout(0.25)]
    keras.utils.set_random_seed(1)
    layers = [
        keras.Input((SIDE, SIDE, 3)),
        keras.layers.SeparableConv2D(4, 3, activation="relu"),
        *([] if kind == "plain" else normal),
        keras.layers.Flatten(),
        keras.layers.Dense(2),
        keras.layers.Activation("softmax"),
    ]
    model = fused.fuse(keras.Sequential(layers))
    model.compile(RECIPE.optimizer(), "categorical_crossentropy", metrics=["accuracy"])
    return model


def split_of(folder: Path, kind: str) -> Split:
    count = COUNTS[kind]
    return make_split(sorted(folder.glob("*.png"))[:count], LABELS[:count])


def fit(
    model: keras.Model, split: Split, *callbacks: Any, worker: int = 0, workers: int = 1
) -> tf.data.Dataset:
    """Trains as train_model.py does; gives what to score."""
    reading = replace(READING, worker=worker, workers=workers)
    model.fit(
        pipeline.training_batches(split, RECIPE, reading, seed=1),
        **{"epochs": 2, "initial_epoch": 0, "shuffle": False, "verbose": 0},
        steps_per_epoch=pipeline.steps_per_epoch(len(split), READING),
        class_weight=RECIPE.class_weight(split.labels),
        callbacks=callbacks,
    )
    return pipeline.scoring_batches(split.files, reading)


# What each process runs.
PROGRAM = f"""
import json, os, sys
from pathlib import Path
sys.path.insert(0, {str(Path(__file__).parent)!r})
from cancernet import cli
from cancernet.training.run import Run
from cancernet.training.workers import find
cli.prepare_tensorflow()
import numpy as np, tensorflow as tf
from cancernet.data import pipeline
from cancernet.training import callbacks, distribution
from test_distribution import COUNTS, READING, RECIPE, fit, make_model, split_of

folder, workers = Path(sys.argv[1]), find(os.environ)
if workers.count > 1:
    strategy = distribution.strategy(workers, Run(None, epochs=2))
else:
    tf.config.set_logical_device_configuration(
        tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 2
    )
    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
found = {{}}
for kind in COUNTS:
    split, run = split_of(folder, kind), Run(None, epochs=2)
    scoring = pipeline.scoring_batches(split.files, READING)
    sample = None if kind == "plain" else np.concatenate(list(scoring))
    with strategy.scope():
        model = make_model(kind)
    distribution.begin(model, run, workers, RECIPE, patches=len(split))
    validate = callbacks.Validate(run, RECIPE, scoring, split.labels, sample)
    scoring = fit(model, split, callbacks.StopOnCtrlC(run), validate,
                  worker=workers.rank, workers=workers.count)
    copies = [strategy.experimental_local_results(variable.value)
              for variable in model.weights + model.optimizer.variables]
    assert all(np.array_equal(first, copy) for first, *others in copies for copy in others)
    for row in run.rows:
        del row["seconds"]
    found[kind] = {{
        "weights": [weights.tolist() for weights in model.get_weights()],
        "optimizer": [first.numpy().tolist() for first, *_ in copies[len(model.weights):]],
        "rows": run.rows,
        "probabilities": distribution.predict(model, scoring).tolist(),
        "iterations": int(model.optimizer.iterations.numpy()),
    }}
print(json.dumps(found))
"""


def outcomes(processes: list[subprocess.Popen[str]]) -> list[tuple[int, str, str]]:
    """Exit codes, stdout and stderr."""
    return [
        (process.returncode, out, err)
        for process in processes
        for out, err in [process.communicate(timeout=200)]
    ]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder, generator = tmp_path_factory.mktemp("patches"), np.random.default_rng(1)
    for number, label in enumerate(LABELS):
        pixels = generator.integers(0, 150, (SIDE, SIDE, 3)) + 100 * label
        keras.utils.save_img(folder / f"{number:02}.png", pixels, scale=False)
    return folder


@pytest.mark.parametrize("processes", [1, 2], ids=["two devices", "two workers"])
def test_two_take_the_steps_of_one_and_stay_the_same(folder: Path, processes: int) -> None:
    ends = outcomes(start_all(*[("-c", PROGRAM, folder)] * processes, folders=[folder] * processes))
    assert [code for code, *_ in ends] == [0] * processes, ends
    found, *others = (json.loads(out.splitlines()[-1]) for _, out, _ in ends)
    assert others == [found] * (processes - 1)
    for kind in COUNTS:
        assert found[kind]["iterations"] == 6
        assert len(found[kind]["rows"]) == 2
        alone, split = make_model(kind), split_of(folder, kind)
        scoring = fit(alone, split)
        if kind == "plain":
            for ours, its in zip(found[kind]["weights"], alone.get_weights(), strict=True):
                np.testing.assert_allclose(ours, its, rtol=1e-4, atol=1e-6)
            losses = [row["loss"] for row in found[kind]["rows"]]
            np.testing.assert_allclose(losses, alone.history.history["loss"], rtol=1e-4)
        alone.set_weights([np.array(weights) for weights in found[kind]["weights"]])
        expected = distribution.predict(alone, scoring)
        np.testing.assert_allclose(found[kind]["probabilities"], expected, atol=1e-5)


# --- train_model.py ------------------------------------------------------------------------------


def command(output: str, *options: str) -> list[str]:
    numbers = ["--epochs", "3", "--batch-size", str(kill_training.BATCH_SIZE)]
    return [str(PROJECT / "train_model.py"), *numbers, "--output", output, *options]


def wait_for_epoch(chief: subprocess.Popen[str]) -> None:
    assert chief.stdout is not None
    assert any(line.startswith("epoch ") for line in chief.stdout), chief.communicate()


@pytest.mark.skipif(sys.platform == "win32", reason="Ctrl-C cannot be sent to one process there")
def test_killed_and_interrupted_training_ends_as_if_it_had_not_been(tmp_path: Path) -> None:
    kill_training.build(tmp_path)
    folders = copy_data(tmp_path, 2)
    unbroken = start_all(command("unbroken"), command("unbroken"), folders=folders)
    assert [(code, err) for code, _, err in outcomes(unbroken)] == [(0, "")] * 2

    killed = start_all(command("broken"), command("broken"), folders=folders)
    wait_for_epoch(killed[0])
    killed[1].kill()
    (code, _, err), _ = outcomes(killed)
    assert code == 2
    assert "worker 1 (127.0.0.1:" in err
    assert "--resume" in err
    assert len(err.splitlines()) == 1, err

    again = command("broken", "--resume")
    interrupted = start_all(again, again, folders=folders)
    wait_for_epoch(interrupted[0])
    interrupted[1].send_signal(signal.SIGINT)
    assert [(code, err) for code, _, err in outcomes(interrupted)] == [(0, ""), (0, "")]
    metrics = json.loads((folders[0] / "broken/metrics.json").read_text())
    assert any(note.startswith("stopped after") for note in metrics["notes"])

    resumed = outcomes(start_all(again, again, folders=folders))
    assert [code for code, _, _ in resumed] == [0, 0]
    assert "Going on after epoch" in resumed[0][1]
    assert kill_training.differences(folders[0] / "unbroken", folders[0] / "broken") == []
    # The other worker wrote nothing, and left no lock.
    assert sorted(path.name for path in folders[1].iterdir()) == ["datasets"]
    assert [path.name for path in (folders[1] / "datasets").iterdir() if path.is_dir()] == ["idc"]
