"""Training on two devices, which two logical CPUs stand in for, and on two workers on loopback."""

import json
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
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

TESTS = Path(__file__).parent
EPOCHS, BATCH_SIZE = 3, 16  # Of the scripts.

# 3 batches of 4 and 1 patch more, which is joined to the last of them: shares of 2 and 2, 3 and 2.
COUNT, SIDE, BATCH = 13, 8, 4
LABELS = [int(number % 3 == 0) for number in range(COUNT)]
STILL = Augmentation(0, 0, 0, 0, 0, False, False)
RECIPE = recipe_of(epochs=2, batch_size=BATCH, learning_rate=0.1, augmentation=STILL)
READING = pipeline.Reading(image_size=(SIDE, SIDE), batch_size=BATCH, replicas=2)
GPU = tf.config.PhysicalDevice("/physical_device:GPU:0", "GPU")


@pytest.mark.parametrize(
    ("capabilities", "mixed"),
    [([(7, 0)], True), ([(8, 9), (6, 1)], False), ([(6, 1)], False), ([], False)],
)
def test_mixed_precision_where_every_gpu_has_the_units(monkeypatch, capabilities, mixed):
    details = iter(capabilities)
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: [GPU] * len(capabilities))
    monkeypatch.setattr(
        tf.config.experimental,
        "get_device_details",
        lambda gpu: {"compute_capability": next(details)},
    )
    assert distribution.mixed_precision("auto") is mixed
    assert distribution.mixed_precision("mixed")
    assert not distribution.mixed_precision("float32")


def draw(folder: Path) -> None:
    generator = np.random.default_rng(1)
    for number, label in enumerate(LABELS):
        pixels = generator.integers(0, 150, (SIDE, SIDE, 3)) + 100 * label
        pixels[0, 0] = number  # Which patch it is.
        keras.utils.save_img(folder / f"{number:02}.png", pixels, scale=False)


def make_network(*, plain: bool = False) -> keras.Sequential:
    """If plain, one that shares of a batch cannot be told from in the whole of it."""
    normal = [keras.layers.BatchNormalization(), keras.layers.Dropout(0.25)]
    keras.utils.set_random_seed(1)
    return keras.Sequential(
        [
            keras.Input((SIDE, SIDE, 3)),
            keras.layers.SeparableConv2D(4, 3, activation="relu"),
            *([] if plain else normal),
            keras.layers.Flatten(),
            keras.layers.Dense(2),
            keras.layers.Activation("softmax"),
        ]
    )


def split_of(folder: Path) -> Split:
    return make_split(sorted(folder.glob("*.png")), LABELS)


def batches(folder: Path, **changes: Any) -> tf.data.Dataset:
    return pipeline.training_batches(split_of(folder), RECIPE, replace(READING, **changes), seed=1)


# What each process of both kinds runs: two epochs through the very pieces of train_model.py.
PROGRAM = """
import hashlib, json, os, sys
from dataclasses import replace
from pathlib import Path
sys.path.insert(0, {tests!r})
from cancernet import cli
from cancernet.training.run import Run
from cancernet.training.workers import find
cli.prepare_tensorflow()
import keras, numpy as np, tensorflow as tf
from cancernet.data import pipeline
from cancernet.training import callbacks, distribution, fused
from test_distribution import COUNT, LABELS, READING, RECIPE, batches, make_network, split_of

folder, workers = Path(sys.argv[1]), find(os.environ)
shares = dict(worker=workers.rank, workers=workers.count)
found = {{}}
if workers.count > 1:
    strategy = distribution.strategy(workers, Run(None, epochs=2))
else:
    tf.config.set_logical_device_configuration(
        tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 2
    )
    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
for plain in (True, False):
    with strategy.scope():
        model = fused.fuse(make_network(plain=plain))
        model.compile(RECIPE.optimizer(), "categorical_crossentropy", metrics=["accuracy"])
    run, seen = Run(None, epochs=2), []
    distribution.begin(model, run, workers, RECIPE, patches=COUNT)
    def counted():
        for images, targets in batches(folder, **shares):
            seen.append([round(float(pixel) * 255) for pixel in images.numpy()[:, 0, 0, 0]])
            yield images, targets
    scoring = pipeline.scoring_batches(split_of(folder).files, replace(READING, **shares))
    validate = callbacks.Validate(run, RECIPE, scoring, np.array(LABELS),
                                  None if plain else np.concatenate(list(scoring)))
    model.fit(counted() if workers.count > 1 else batches(folder), epochs=2, initial_epoch=0,
              steps_per_epoch=3, class_weight=RECIPE.class_weight(LABELS), shuffle=False, verbose=0,
              callbacks=[callbacks.StopOnCtrlC(run), validate])
    floats = [v.value for v in model.variables + model.optimizer.variables
              if np.asarray(v.numpy()).dtype == np.float32]
    copies = [[np.asarray(copy) for copy in strategy.experimental_local_results(v)] for v in floats]
    found["plain" if plain else "full"] = {{
        "seen": seen,
        "drift": max(float(np.abs(copy - first).max()) for first, *rest in copies for copy in rest)
                 if workers.count == 1 else 0.0,
        "hash": hashlib.sha256(b"".join(first.tobytes() for first, *_ in copies)).hexdigest(),
        "weights": [weights.tolist() for weights in model.get_weights()],
        "seeds": [v.numpy().tolist() for v in model.variables if "seed" in v.name],
        "rows": [{{name: value for name, value in row.items() if name != "seconds"}}
                 for row in run.rows],
        "probabilities": distribution.predict(model, scoring).tolist(),
        "iterations": int(model.optimizer.iterations.numpy()),
    }}
print(json.dumps(found))
"""
COMMAND = ("-c", PROGRAM.format(tests=str(TESTS)))


def outcomes(processes: list[subprocess.Popen[str]]) -> list[tuple[int, str, str]]:
    """Exit codes, stdout and stderr."""
    return [
        (process.returncode, out, err)
        for process in processes
        for out, err in [process.communicate(timeout=200)]
    ]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("patches")
    draw(folder)
    return folder


@pytest.fixture(scope="module")
def pair(folder: Path) -> list[dict[str, Any]]:
    command = (*COMMAND, folder)
    ends = outcomes(start_all(command, command, folders=[folder] * 2))
    for code, _, err in ends:
        assert code == 0, err
    return [json.loads(out.splitlines()[-1]) for _, out, _ in ends]


@pytest.fixture(scope="module")
def mirrored(folder: Path) -> dict[str, Any]:
    command = [sys.executable, *COMMAND, str(folder)]
    done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


def test_two_devices_take_the_steps_of_one_and_stay_the_same(folder, mirrored):
    for kind in ("plain", "full"):
        assert mirrored[kind]["drift"] == 0
        assert mirrored[kind]["iterations"] == 6
        assert len(mirrored[kind]["rows"]) == 2
    alone = make_network()
    alone.set_weights([np.array(weights) for weights in mirrored["full"]["weights"]])
    scoring = pipeline.scoring_batches(split_of(folder).files, READING)
    found = mirrored["full"]["probabilities"]
    np.testing.assert_allclose(found, distribution.predict(alone, scoring), atol=1e-5)


@pytest.mark.parametrize("kind", ["plain", "full"])
def test_every_patch_is_seen_once_an_epoch_and_workers_stay_equal(pair, kind):
    first, second = (found[kind] for found in pair)
    assert [len(share) for share in first["seen"]] == [2, 2, 3] * 2
    assert [len(share) for share in second["seen"]] == [2, 2, 2] * 2
    for epoch in (slice(0, 3), slice(3, 6)):
        seen = [n for found in (first, second) for share in found["seen"][epoch] for n in share]
        assert sorted(seen) == list(range(COUNT))
    for name in ("hash", "rows", "probabilities"):
        assert first[name] == second[name]
    assert first["iterations"] == 6
    assert len(first["rows"]) == 2
    assert first["seeds"] != second["seeds"] or kind == "plain"


def test_the_steps_of_two_workers_are_those_of_one(folder, pair):
    model = fused.fuse(make_network(plain=True))
    model.compile(RECIPE.optimizer(), "categorical_crossentropy", metrics=["accuracy"])
    how = {"class_weight": RECIPE.class_weight(LABELS), "shuffle": False, "verbose": 0}
    model.fit(batches(folder), epochs=2, steps_per_epoch=3, **how)
    for ours, its in zip(pair[0]["plain"]["weights"], model.get_weights(), strict=True):
        np.testing.assert_allclose(ours, its, rtol=1e-4, atol=1e-6)
    expected = distribution.predict(
        model, pipeline.scoring_batches(split_of(folder).files, READING)
    )
    np.testing.assert_allclose(pair[0]["plain"]["probabilities"], expected, rtol=1e-4)


# --- train_model.py ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("workers")
    kill_training.build(folder)
    return copy_data(folder, 2)


def command(output: str, *options: str) -> list[str]:
    numbers = ["--epochs", str(EPOCHS), "--batch-size", str(BATCH_SIZE)]
    return [str(PROJECT / "train_model.py"), *numbers, "--output", output, *options]


def wait_for_epoch(chief: subprocess.Popen[str]) -> None:
    assert chief.stdout is not None
    assert any(line.startswith("epoch ") for line in chief.stdout), chief.communicate()


@pytest.fixture(scope="module")
def unbroken(folders: list[Path]) -> Path:
    ends = outcomes(start_all(command("unbroken"), command("unbroken"), folders=folders))
    assert [(code, err) for code, _, err in ends] == [(0, ""), (0, "")]
    return folders[0] / "unbroken"


@pytest.mark.skipif(sys.platform == "win32", reason="Ctrl-C cannot be sent to one process there")
def test_killed_and_interrupted_training_ends_as_if_it_had_not_been(folders, unbroken):
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
    assert kill_training.differences(unbroken, folders[0] / "broken") == []
    # The other worker wrote nothing, and left no lock.
    assert sorted(path.name for path in folders[1].iterdir()) == ["datasets"]
    assert [path.name for path in (folders[1] / "datasets").iterdir() if path.is_dir()] == ["idc"]


def test_a_worker_that_differs_is_refused_by_all(folders):
    other = [*command("refused"), "--batch-size", "8"]
    manifest = folders[1] / "datasets/idc/manifest.csv"
    text = manifest.read_text(encoding="utf-8")
    head, *lines = text.splitlines(keepends=True)
    manifest.write_text(head + "".join(lines[::-1]), encoding="utf-8")
    try:
        for code, _, err in outcomes(start_all(command("refused"), other, folders=folders)):
            assert code == 2, err
            assert "On worker 1 (127.0.0.1:" in err
            assert "BATCH_SIZE is 8, the chief's is 16; manifest.csv is" in err
            assert len(err.splitlines()) == 1, err
    finally:
        manifest.write_text(text, encoding="utf-8")
