"""The published recipe on tiny made-up patches: what is trained, logged, kept and saved."""

import csv
import hashlib
import json
import math
import os
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import recipe_of
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from cancernet.cancernet import CancerNet
from cancernet.cli import InputError
from cancernet.data.pipeline import scoring_batches, steps_per_epoch, training_batches
from cancernet.evaluation import evaluation
from cancernet.training import epochs, fused, training

# Keras 3 hands its variables to NumPy in a way that NumPy 2 deprecates.


SIDE = 8
BATCH_SIZE = 4
EPOCHS = 3
LEARNING_RATE = 0.01
COLUMNS = [
    "epoch",
    "loss",
    "accuracy",
    "val_loss",
    "val_accuracy",
    "val_roc_auc",
    "learning_rate",
    "seconds",
]


@dataclass
class Patches:
    files: list[Path]
    labels: list[int]

    def images(self):
        batches = scoring_batches(self.files, image_size=(SIDE, SIDE), batch_size=BATCH_SIZE)
        return np.concatenate(list(batches.as_numpy_iterator()))

    def targets(self):
        return np.eye(2, dtype=np.float32)[self.labels]


@dataclass
class Split:
    training: Patches
    validation: Patches


@pytest.fixture(scope="module")
def split(tmp_path_factory):
    """Dark patches are malignant. In neither split is the last batch full."""
    folder = tmp_path_factory.mktemp("patches")
    random = np.random.default_rng(7)

    def draw(name, labels):
        files = [folder / f"{name}{number}.png" for number in range(len(labels))]
        for file, label in zip(files, labels, strict=True):
            pixels = random.integers(0, 156, (SIDE, SIDE, 3)) + (0 if label else 100)
            Image.fromarray(pixels.astype(np.uint8)).save(file)
        return Patches(files, labels)

    return Split(
        training=draw("training", [0, 0, 1, 0, 0, 1, 0, 0, 1, 0]),
        # The malignant ones are last, as in a sorted listing.
        validation=draw("validation", [0, 0, 0, 0, 1, 1, 1]),
    )


@pytest.fixture(autouse=True)
def _same_first_weights_in_every_run():
    keras.utils.set_random_seed(42)


def tiny_network(*more_layers):
    return keras.Sequential(
        [
            keras.Input((SIDE, SIDE, 3)),
            keras.layers.Flatten(),
            *more_layers,
            keras.layers.Dense(2),
            keras.layers.Activation("softmax"),
        ]
    )


class Recorder(epochs.EpochLog):
    """Notes at the end of each epoch what can be compared with the log."""

    def __init__(self, split, run, *, prepare=None, evaluate=False, settling=None):
        batches = scoring_batches(
            split.validation.files, image_size=(SIDE, SIDE), batch_size=BATCH_SIZE
        )
        labels = split.validation.labels
        super().__init__(batches, labels, run=run, sample=True, settling=settling)
        self.split, self.folder = split, run
        self.prepare = prepare or (lambda model, epoch: None)
        self.evaluate = evaluate
        self.iterations: list[int] = []
        self.weights: list[list[np.ndarray]] = []
        self.evaluated: list[list[float]] = []
        self.on_disk: list[list[dict[str, str]]] = []

    def on_epoch_end(self, epoch, logs=None):
        self.prepare(self.model, epoch)
        super().on_epoch_end(epoch, logs)
        self.iterations.append(int(self.model.optimizer.iterations))
        self.weights.append(self.model.get_weights())
        self.on_disk.append(read_history(self.folder))
        if self.evaluate:
            patches = self.split.validation
            self.evaluated.append(
                self.model.evaluate(patches.images(), patches.targets(), batch_size=3, verbose=0)
            )


@dataclass
class Fitted:
    folder: Path
    model: Any
    log: Recorder
    notes: list[str] = field(default_factory=list)


def read_history(folder):
    with (folder / "history.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def fit(split, folder, *, model=None, log=None, epochs=EPOCHS, batch_size=BATCH_SIZE, **changes):
    model = model or tiny_network()
    recipe = recipe_of(epochs=epochs, batch_size=batch_size, **changes)
    steps = steps_per_epoch(len(split.training.labels), batch_size=batch_size)
    training.compile_network(model, recipe, steps=steps)
    fitted = Fitted(folder, model, log or Recorder(split, folder))
    fitted.notes = training.fit(
        model,
        training_batches(
            split.training.files,
            split.training.labels,
            image_size=model.input_shape[1:3],
            batch_size=batch_size,
            augmentation=None,
            seed=42,
            epochs=epochs,
        ),
        labels=split.training.labels,
        recipe=recipe,
        log=fitted.log,
    )
    return fitted


@pytest.fixture(scope="module")
def fitted(split, tmp_path_factory):
    keras.utils.set_random_seed(42)
    folder = tmp_path_factory.mktemp("run")
    return fit(split, folder, log=Recorder(split, folder, evaluate=True))


# --- Class weights -------------------------------------------------------------------------------


def test_class_weights_are_the_largest_count_over_each_count():
    assert training.class_weights([0, 1, 0, 0, 0, 1]) == {0: 1.0, 1: 2.0}
    assert training.class_weights([1, 1, 1, 0]) == {0: 3.0, 1: 1.0}


@settings(deadline=None)
@given(st.lists(st.integers(0, 1), min_size=1))
def test_class_weights_make_the_classes_count_the_same(labels):
    weights = training.class_weights(labels)
    assert type(weights) is dict
    assert weights.keys() == set(labels)
    assert min(weights.values()) == 1
    sums = [weight * labels.count(label) for label, weight in weights.items()]
    assert sums == pytest.approx([max(sums)] * len(sums))


def test_fit_weighs_one_hot_labels(split, tmp_path):
    model = tiny_network()
    # As one batch, so that the epoch's loss is that of the first weights.
    probabilities = model.predict(split.training.images(), verbose=0)
    of_true_class = probabilities[np.arange(10), split.training.labels]
    losses = -np.log(of_true_class)
    weights = np.where(np.array(split.training.labels) == 1, 7 / 3, 1)
    fitted = fit(split, tmp_path, model=model, epochs=1, batch_size=10)
    assert fitted.log.rows[0]["loss"] == pytest.approx(np.mean(weights * losses), rel=1e-5)
    assert np.mean(weights * losses) != pytest.approx(np.mean(losses), rel=0.1)


# --- Compiling -----------------------------------------------------------------------------------


def compiled(*, learning_rate, epochs):
    model = tiny_network()
    training.compile_network(model, recipe_of(learning_rate=learning_rate, epochs=epochs), steps=1)
    return model


def test_optimizer_is_adagrad_as_tf_keras_had_it():
    optimizer = compiled(learning_rate=LEARNING_RATE, epochs=40).optimizer
    assert type(optimizer) is keras.optimizers.Adagrad
    assert optimizer.initial_accumulator_value == 0.1
    assert optimizer.epsilon == 1e-7


def rates(recipe, *, steps):
    model = tiny_network()
    training.compile_network(model, recipe, steps=steps)
    schedule = model.optimizer._learning_rate
    return [float(schedule(step)) for step in range(recipe.epochs * steps + 1)]


def test_the_other_optimizers_warm_up_and_end_at_a_rate_of_0():
    recipe = recipe_of(optimizer="sgd", epochs=5, learning_rate=0.4, warm_up=0.2)
    found = rates(recipe, steps=10)
    assert found[:11] == pytest.approx([0.04 * step for step in range(11)])
    cosine = [0.2 * (1 + math.cos(math.pi * step / 40)) for step in range(41)]
    assert found[10:] == pytest.approx(cosine, abs=1e-6)
    assert rates(recipe_of(optimizer="adamw", warm_up=0.0), steps=2)[0] == pytest.approx(0.01)


@pytest.mark.parametrize("optimizer", ["adagrad", "adamw", "sgd"])
def test_averaged_weights_are_scored_and_saved_and_training_goes_on_with_its_own(
    split, tmp_path, optimizer
):
    runs = {}
    for average in (0.0, 0.8):
        keras.utils.set_random_seed(42)
        folder = tmp_path / str(average)
        folder.mkdir()
        runs[average] = fit(
            split, folder, optimizer=optimizer, learning_rate=0.1, epochs=2, weight_average=average
        )
    for epoch in range(2):
        for plain, own in zip(*(run.log.weights[epoch] for run in runs.values()), strict=True):
            np.testing.assert_array_equal(own, plain)
    saved = keras.models.load_model(tmp_path / "0.8" / "cancernet.keras")
    best = int(np.argmax([row["val_roc_auc"] for row in runs[0.8].log.rows]))
    own = runs[0.8].log.weights[best][0]
    assert np.abs(saved.get_weights()[0] - own).max() > 1e-3
    probabilities = saved.predict(split.validation.images(), verbose=0)[:, 1]
    expected = evaluation.cross_entropy(np.array(split.validation.labels), probabilities)
    assert runs[0.8].log.rows[best]["val_loss"] == pytest.approx(expected, rel=1e-5)


def test_settled_statistics_are_scored_and_saved_and_training_goes_on_with_its_own(split, tmp_path):
    images = split.training.images()
    runs = {}
    for name, settling in (("moving", None), ("settled", images)):
        keras.utils.set_random_seed(42)
        folder = tmp_path / name
        folder.mkdir()
        model = tiny_network(keras.layers.BatchNormalization(), keras.layers.Dropout(0.5))
        runs[name] = fit(split, folder, model=model, log=Recorder(split, folder, settling=settling))
    for weights in zip(*(run.log.weights for run in runs.values()), strict=True):
        for own, plain in zip(*weights, strict=True):
            np.testing.assert_array_equal(own, plain)
    saved = keras.models.load_model(tmp_path / "settled" / "cancernet.keras")
    pixels = images.reshape(len(images), -1)
    normal = saved.layers[1]
    np.testing.assert_allclose(normal.moving_mean, pixels.mean(axis=0), rtol=1e-5)
    np.testing.assert_allclose(normal.moving_variance, pixels.var(axis=0), rtol=1e-4)
    best = max(runs["settled"].log.rows, key=lambda row: row["val_roc_auc"])
    probabilities = saved.predict(split.validation.images(), verbose=0)[:, 1]
    expected = evaluation.cross_entropy(np.array(split.validation.labels), probabilities)
    assert best["val_loss"] == pytest.approx(expected, rel=1e-5)


def test_loss_is_binary_crossentropy_of_the_softmax_probabilities():
    model = compiled(learning_rate=LEARNING_RATE, epochs=1)
    random = np.random.default_rng(0)
    images = random.random((9, SIDE, SIDE, 3), dtype=np.float32)
    targets = np.eye(2, dtype=np.float32)[random.integers(0, 2, 9)]
    probabilities = model.predict(images, verbose=0)
    # The mean over both columns. Keras' own function with that name looks behind a softmax that is
    # the last layer, and takes the sigmoid of each of the numbers that it finds there.
    of_targets = np.where(targets == 1, probabilities, 1 - probabilities)
    loss, accuracy = model.evaluate(images, targets, verbose=0)
    assert loss == pytest.approx(-np.log(of_targets).mean(), rel=1e-5)
    assert accuracy == pytest.approx(np.mean(of_targets[:, 0] > 0.5))


@pytest.mark.parametrize("epochs", [1, 40])
@pytest.mark.parametrize("step", [0, 1, 2, 999, 250_000])
def test_learning_rate_decays_at_each_step(step, epochs):
    schedule = compiled(learning_rate=LEARNING_RATE, epochs=epochs).optimizer._learning_rate
    expected = LEARNING_RATE / (1 + step * LEARNING_RATE / epochs)
    assert float(schedule(step)) == pytest.approx(expected, rel=1e-6)


def test_steps_are_those_of_adagrad_with_the_decayed_learning_rate(split):
    images, targets = split.training.images(), split.training.targets()
    learning_rate = 0.2  # So that a step without decay would differ clearly.
    model = compiled(learning_rate=learning_rate, epochs=1)
    squares: list[Any] = [0.1] * len(model.trainable_variables)
    for step in range(3):
        with tf.GradientTape() as tape:
            of_true_class = tf.reduce_sum(model(images) * targets, axis=1)
            loss = -tf.reduce_mean(tf.math.log(of_true_class))
        gradients = tape.gradient(loss, [v.value for v in model.trainable_variables])
        squares = [s + g.numpy() ** 2 for s, g in zip(squares, gradients, strict=True)]
        decayed = learning_rate / (1 + step * learning_rate / 1)
        expected = [
            weights - decayed * g.numpy() / np.sqrt(s + 1e-7)
            for weights, g, s in zip(model.get_weights(), gradients, squares, strict=True)
        ]
        model.train_on_batch(images, targets)
        for found, wanted in zip(model.get_weights(), expected, strict=True):
            np.testing.assert_allclose(found, wanted, rtol=1e-3, atol=1e-5)


# --- Settings ------------------------------------------------------------------------------------

SETTINGS: dict[str, Any] = {
    "width": 48,
    "height": 48,
    "depth": 3,
    "classes": 2,
    "learning_rate": 0.01,
    "seed": 42,
    "decode_cache_mb": 0,
}


@pytest.mark.parametrize(
    "change",
    [{}, {"width": 8, "height": 8}, {"seed": 0}, {"seed": 2**32 - 1}, {"learning_rate": 5.0}],
    ids=str,
)
def test_settings_that_can_be_used_are_accepted(change):
    training.check_settings(**SETTINGS | change)


@pytest.mark.parametrize(
    ("change", "constant"),
    [
        ({"width": 7}, "IMAGE_WIDTH"),
        ({"height": 0}, "IMAGE_HEIGHT"),
        ({"width": 1025}, "IMAGE_WIDTH"),
        ({"learning_rate": 10**400}, "LEARNING_RATE"),
        ({"depth": 1}, "IMAGE_DEPTH"),
        ({"classes": 3}, "CLASSES"),
        ({"learning_rate": 0}, "LEARNING_RATE"),
        ({"learning_rate": -0.01}, "LEARNING_RATE"),
        ({"learning_rate": math.inf}, "LEARNING_RATE"),
        ({"learning_rate": math.nan}, "LEARNING_RATE"),
        ({"seed": -1}, "SEED"),
        ({"seed": 1.5}, "SEED"),
        ({"width": "48"}, "IMAGE_WIDTH"),
        ({"learning_rate": "1e-2"}, "LEARNING_RATE"),
        ({"seed": 2**32}, "SEED"),
        ({"decode_cache_mb": "100"}, "DECODE_CACHE_MB"),
        ({"decode_cache_mb": -1}, "DECODE_CACHE_MB"),
    ],
    ids=str,
)
def test_settings_that_cannot_be_used_are_refused_by_name(change, constant):
    with pytest.raises(InputError, match=rf"\b{constant}\b.*expected.*config\.py") as refused:
        training.check_settings(**SETTINGS | change)
    assert str(*change.values()) in str(refused.value)


# --- The log of the epochs -----------------------------------------------------------------------


def test_history_has_its_columns_and_counts_epochs_from_1(fitted):
    assert [list(row) for row in fitted.log.rows] == [COLUMNS] * EPOCHS
    assert [row["epoch"] for row in fitted.log.rows] == [1, 2, 3]
    assert fitted.notes == []


def test_history_on_disk_grows_with_each_epoch(fitted):
    for finished, on_disk in enumerate(fitted.log.on_disk, start=1):
        assert [
            {name: float(value) for name, value in row.items()} for row in on_disk
        ] == fitted.log.rows[:finished]
    assert sorted(path.name for path in fitted.folder.iterdir()) == [
        "cancernet.json",
        "cancernet.keras",
        "history.csv",
    ]


def test_validation_loss_and_accuracy_are_those_of_evaluate(fitted):
    logged = [[row["val_loss"], row["val_accuracy"]] for row in fitted.log.rows]
    np.testing.assert_allclose(logged, fitted.log.evaluated, atol=1e-5)
    assert len({row["val_loss"] for row in fitted.log.rows}) == EPOCHS


def test_every_epoch_trains_all_its_batches(fitted):
    assert fitted.log.iterations == [3, 6, 9]  # 10 patches, 4 a step.


def test_learning_rate_in_the_history_is_that_of_the_last_step(fitted):
    expected = [LEARNING_RATE / (1 + step * LEARNING_RATE / EPOCHS) for step in (2, 5, 8)]
    assert [row["learning_rate"] for row in fitted.log.rows] == pytest.approx(expected, rel=1e-6)


def test_seconds_count_the_scoring_and_the_saving(split, tmp_path, monkeypatch):
    def slowly(function):
        def slow(*arguments, **settings):
            time.sleep(0.3)
            return function(*arguments, **settings)

        return slow

    monkeypatch.setattr(epochs, "predict", slowly(epochs.predict))
    monkeypatch.setattr(epochs, "save_network", slowly(epochs.save_network))
    (row,) = fit(split, tmp_path, epochs=1).log.rows
    assert row["seconds"] >= 0.6


def test_output_of_an_epoch_is_one_line_and_no_bar_without_a_terminal(split, tmp_path, capsys):
    fit(split, tmp_path, epochs=2)
    captured = capsys.readouterr()
    assert captured.err == ""
    first, second = captured.out.splitlines()
    assert first.startswith("epoch   1/2  loss ")
    assert second.startswith("epoch   2/2  loss ")
    assert "val_roc_auc" in first


def test_same_seed_gives_the_same_training(split, tmp_path_factory):
    def history():
        keras.utils.set_random_seed(42)
        model = tiny_network(keras.layers.Dropout(0.5))
        rows = fit(split, tmp_path_factory.mktemp("run"), model=model, epochs=2).log.rows
        return [[value for name, value in row.items() if name != "seconds"] for row in rows]

    np.testing.assert_allclose(history(), history(), rtol=1e-6)


# --- Training that goes wrong --------------------------------------------------------------------


class Spoiled(Recorder):
    """Makes every weight no number after a step, as a learning rate far too high does."""

    after_step: int

    def on_train_batch_end(self, batch, logs=None):
        if int(self.model.optimizer.iterations) == self.after_step:
            self.model.set_weights([np.full_like(w, np.nan) for w in self.model.get_weights()])


def spoiled(split, run, *, after_step):
    log = Spoiled(split, run)
    log.after_step = after_step
    return log


def test_a_loss_that_is_no_number_stops_at_once_and_keeps_the_finished_epochs(split, tmp_path):
    fitted = fit(split, tmp_path, log=spoiled(split, tmp_path, after_step=4))
    (note,) = fitted.notes
    assert note.startswith("TRAINING WENT WRONG and stopped after 1 of 3 epochs: ")
    assert "the loss became nan at step 2 of epoch 2" in note
    assert "LEARNING_RATE" in note
    assert int(fitted.model.optimizer.iterations) == 5  # Not to the epoch's end.
    assert len(read_history(tmp_path)) == 1
    saved = keras.models.load_model(tmp_path / "cancernet.keras")
    for found, expected in zip(saved.get_weights(), fitted.log.weights[0], strict=True):
        np.testing.assert_array_equal(found, expected)


def test_weights_spoiled_by_the_last_step_of_an_epoch_are_not_kept(split, tmp_path):
    fitted = fit(split, tmp_path, log=spoiled(split, tmp_path, after_step=6))
    assert "epoch 2 has no ROC AUC" in fitted.notes[0]
    assert len(fitted.log.rows) == len(read_history(tmp_path)) == 1


@pytest.mark.parametrize("after_step", [1, 3])
def test_training_that_diverges_in_its_first_epoch_says_what_to_change(split, tmp_path, after_step):
    with pytest.raises(InputError, match=r"before an epoch was finished.*LEARNING_RATE"):
        fit(split, tmp_path, log=spoiled(split, tmp_path, after_step=after_step))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("loss", [math.nan, math.inf])
def test_infinite_and_undefined_losses_stop(loss):
    stop = epochs.StopAtNoNumber()
    stop.on_epoch_begin(4)
    stop.on_train_batch_end(0, {"loss": 1e30})
    with pytest.raises(epochs.DivergedError, match=f"became {loss} at step 8 of epoch 5"):
        stop.on_train_batch_end(7, {"loss": loss})


# --- The network that is kept --------------------------------------------------------------------


def ranking(slope):
    """Weights with which the darker patch is the likelier malignant; the reverse below 0."""
    kernel = np.zeros((SIDE * SIDE * 3, 2))
    kernel[:, 1] = -slope / 50
    return [kernel, np.array([0.0, 1.7 * slope])]


@pytest.mark.parametrize(
    ("slopes", "kept"),
    [((-1, 1, -1), 2), ((-1, -2, 1), 3), ((-1, 1, 1.5), 2), ((-1, -2, -3), 1)],
    ids=["the middle", "the last", "first of two good ones", "none is good"],
)
def test_network_on_disk_is_of_the_best_epoch(split, tmp_path, slopes, kept):
    def plant(model, epoch):
        model.set_weights(ranking(slopes[epoch]))

    fitted = fit(split, tmp_path, log=Recorder(split, tmp_path, prepare=plant))
    areas = [1.0 if slope > 0 else 0.0 for slope in slopes]
    assert [row["val_roc_auc"] for row in fitted.log.rows] == areas

    saved = keras.models.load_model(tmp_path / "cancernet.keras")
    for found, expected in zip(saved.get_weights(), ranking(slopes[kept - 1]), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-6)
    card = json.loads((tmp_path / "cancernet.json").read_text(encoding="utf-8"))
    assert card["sha256"] == hashlib.sha256((tmp_path / "cancernet.keras").read_bytes()).hexdigest()


@pytest.mark.parametrize("sample", [True, False])
def test_card_beside_the_network_says_what_belongs_to_it(tmp_path, sample):
    model = CancerNet.build(width=24, height=16, depth=3, classes=2)
    epochs.save_network(model, tmp_path / "model.keras", recipe="tuned", sample=sample)
    assert json.loads((tmp_path / "model.json").read_text(encoding="utf-8")) == {
        "sha256": hashlib.sha256((tmp_path / "model.keras").read_bytes()).hexdigest(),
        "image_size": [16, 24, 3],
        "threshold": 0.5,
        "recalibration": None,
        "recipe": "tuned",
        "sample": sample,
    }


def test_predict_gives_the_malignant_class_of_every_patch_in_order(split):
    model = tiny_network()
    model.set_weights(ranking(1))
    patches = split.validation
    batches = scoring_batches(patches.files, image_size=(SIDE, SIDE), batch_size=BATCH_SIZE)
    found = fused.predict(model, batches)
    logits = 1.7 - patches.images().sum(axis=(1, 2, 3)) / 50
    assert found.shape == (7,)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, 1 / (1 + np.exp(-logits)), rtol=1e-5)
    assert evaluation.roc_auc(np.array(patches.labels), found) == 1


def test_network_loads_where_this_package_was_never_imported(split, tmp_path):
    model = CancerNet.build(SIDE, SIDE, 3, 2)
    training.compile_network(model, recipe_of(epochs=1), steps=1)
    epochs.save_network(model, tmp_path / "cancernet.keras", recipe="published", sample=True)
    np.save(tmp_path / "images.npy", split.validation.images())
    program = """
import sys
import keras
import numpy as np
model = keras.models.load_model("cancernet.keras")
np.save("probabilities.npy", model.predict(np.load("images.npy"), verbose=0)[:, 1])
assert "cancernet" not in sys.modules
print(type(model) is keras.Sequential, len(model.layers), type(model.optimizer).__name__)
"""
    done = subprocess.run(
        [sys.executable, "-I", "-c", program],
        cwd=tmp_path,
        env=os.environ | {"KERAS_BACKEND": "tensorflow", "TF_CPP_MIN_LOG_LEVEL": "2"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["True", str(len(model.layers)), "Adagrad"]
    expected = model.predict(split.validation.images(), verbose=0)[:, 1]
    found = np.load(tmp_path / "probabilities.npy")
    np.testing.assert_allclose(found, expected, rtol=1e-6)


# --- Ctrl-C --------------------------------------------------------------------------------------


class Interrupted(Recorder):
    """Presses Ctrl-C after a step."""

    after_step: int

    def on_train_batch_end(self, batch, logs=None):
        if int(self.model.optimizer.iterations) == self.after_step:
            raise KeyboardInterrupt


def test_ctrl_c_keeps_the_finished_epochs_and_drops_the_running_one(split, tmp_path):
    log = Interrupted(split, tmp_path)
    log.after_step = 5  # The second of the second epoch's three.
    fitted = fit(split, tmp_path, log=log)
    assert fitted.notes == ["stopped after 1 of 3 epochs"]
    assert [row["epoch"] for row in log.rows] == [1]
    assert len(read_history(tmp_path)) == 1
    saved = keras.models.load_model(tmp_path / "cancernet.keras")
    for found, expected in zip(saved.get_weights(), log.weights[0], strict=True):
        np.testing.assert_array_equal(found, expected)
    assert int(fitted.model.optimizer.iterations) == 5


def test_ctrl_c_before_an_epoch_is_finished_stops_at_once(split, tmp_path):
    log = Interrupted(split, tmp_path)
    log.after_step = 2
    with pytest.raises(KeyboardInterrupt):
        fit(split, tmp_path, log=log)
    assert list(tmp_path.iterdir()) == []
