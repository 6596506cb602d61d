"""The published recipe on tiny made-up patches: what is trained, logged, kept, and stopped."""

import csv
import math
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import recipe_of
from numpy.typing import NDArray

from cancernet.cli import InputError
from cancernet.evaluation import metrics
from cancernet.training import callbacks
from cancernet.training.run import Run

SIDE, BATCH_SIZE, EPOCHS, LEARNING_RATE = 8, 4, 3, 0.01
COLUMNS = ["epoch", "loss", "accuracy", "val_loss", "val_accuracy", "val_roc_auc"]
COLUMNS += ["learning_rate", "seconds"]
RNG = np.random.default_rng(7)


class Patches(NamedTuple):
    images: NDArray[np.float32]
    labels: NDArray[np.int64]

    @property
    def targets(self) -> NDArray[np.float32]:
        return np.eye(2, dtype=np.float32)[self.labels]


def draw(labels: list[int]) -> Patches:
    """Dark patches are malignant."""
    images = [RNG.integers(0, 156, (SIDE, SIDE, 3)) + (0 if label else 100) for label in labels]
    return Patches((np.array(images) / 255).astype(np.float32), np.array(labels))


# In neither is the last batch full; in validation the malignant ones are last, as in a listing.
TRAINING = draw([0, 0, 1, 0, 0, 1, 0, 0, 1, 0])
VALIDATION = draw([0, 0, 0, 0, 1, 1, 1])
STEPS = 3


@pytest.fixture(autouse=True)
def _same_first_weights_in_every_run() -> None:
    keras.utils.set_random_seed(42)


def tiny_network(*more_layers: keras.Layer) -> keras.Sequential:
    layers = [keras.layers.Flatten(), *more_layers, keras.layers.Dense(2)]
    return keras.Sequential(
        [keras.Input((SIDE, SIDE, 3)), *layers, keras.layers.Activation("softmax")]
    )


class Recorder(keras.callbacks.Callback):
    """Does something before an epoch is scored, and notes what training has after it."""

    def __init__(self, prepare: Any = lambda model, epoch: None) -> None:
        super().__init__()
        self.prepare = prepare
        self.weights: list[list[np.ndarray]] = []
        self.evaluated: list[list[float]] = []

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self.prepare(self.model, epoch)
        self.weights.append(self.model.get_weights())
        scored = self.model.evaluate(VALIDATION.images, VALIDATION.targets, batch_size=3, verbose=0)
        self.evaluated.append(scored)


class AfterStep(keras.callbacks.Callback):
    """Does something after a step, counted from the first."""

    def __init__(self, step: int, action: Any) -> None:
        super().__init__()
        self.step, self.action = step, action

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        if int(self.model.optimizer.iterations) == self.step:
            self.action(self.model)


def fit(
    output: Path | None = None,
    *more: keras.callbacks.Callback,
    model: keras.Model | None = None,
    reestimation: NDArray[np.float32] | None = None,
    **changes: Any,
) -> tuple[Run, keras.Model]:
    recipe = recipe_of(**{"epochs": EPOCHS, "batch_size": BATCH_SIZE} | changes)
    model = model or tiny_network()
    model.compile(recipe.optimizer(), "categorical_crossentropy", metrics=["accuracy"])
    run = Run(output, epochs=recipe.epochs)
    batches = tf.data.Dataset.from_tensor_slices((TRAINING.images, TRAINING.targets))
    validation = tf.data.Dataset.from_tensor_slices(VALIDATION.images).batch(BATCH_SIZE)
    validate = callbacks.Validate(
        run,
        recipe,
        validation,
        VALIDATION.labels,
        reestimation,
    )
    model.fit(
        batches.batch(recipe.batch_size).repeat(),
        epochs=recipe.epochs,
        steps_per_epoch=-(-len(TRAINING.labels) // recipe.batch_size),
        class_weight=recipe.class_weight(TRAINING.labels),
        shuffle=False,
        verbose=0,
        callbacks=[
            *more,
            callbacks.Progress(),
            callbacks.StopOnCtrlC(run),
            callbacks.StopOnNaN(run),
            validate,
        ],
    )
    return run, model


def read_history(output: Path) -> list[dict[str, str]]:
    if not (output / "checkpoint").exists():
        return []
    with (output / "checkpoint/history.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


# --- What is logged ------------------------------------------------------------------------------


def test_the_log_is_that_of_keras_and_grows_on_disk(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recorder, on_disk = Recorder(), []
    look = keras.callbacks.LambdaCallback(
        on_epoch_begin=lambda epoch, logs: on_disk.append(len(read_history(tmp_path)))
    )
    run, model = fit(tmp_path, recorder, look)
    assert [list(row) for row in run.rows] == [COLUMNS] * EPOCHS
    assert [row["epoch"] for row in run.rows] == [1, 2, 3]
    assert on_disk == [0, 1, 2]
    read = [{name: float(text) for name, text in row.items()} for row in read_history(tmp_path)]
    assert read == run.rows
    logged = [[row["val_loss"], row["val_accuracy"]] for row in run.rows]
    np.testing.assert_allclose(logged, recorder.evaluated, atol=1e-5)
    assert int(model.optimizer.iterations) == EPOCHS * STEPS
    expected = [LEARNING_RATE / (1 + step * LEARNING_RATE / EPOCHS) for step in (2, 5, 8)]
    assert [row["learning_rate"] for row in run.rows] == pytest.approx(expected, rel=1e-6)
    said = capsys.readouterr()
    assert said.err == ""
    assert [line[:18] for line in said.out.splitlines()] == [
        f"epoch   {epoch}/3  loss " for epoch in (1, 2, 3)
    ]
    assert run.ended() == []


def test_class_weights_weigh_one_hot_labels() -> None:
    model = tiny_network()
    # As one batch, so that the epoch's loss is that of the first weights.
    probabilities = model.predict(TRAINING.images, verbose=0)
    losses = -np.log(probabilities[np.arange(10), TRAINING.labels])
    weights = np.where(TRAINING.labels == 1, 7 / 3, 1)
    run, _ = fit(model=model, epochs=1, batch_size=10)
    assert run.rows[0]["loss"] == pytest.approx(np.mean(weights * losses), rel=1e-5)
    assert np.mean(weights * losses) != pytest.approx(np.mean(losses), rel=0.1)


def test_loss_is_the_published_binary_crossentropy_of_the_softmax() -> None:
    model = tiny_network()
    model.compile(recipe_of().optimizer(), "categorical_crossentropy", metrics=["accuracy"])
    probabilities = model.predict(TRAINING.images, verbose=0)
    # The mean over both columns. Keras' own function with that name looks behind a softmax that is
    # the last layer, and takes the sigmoid of each of the numbers that it finds there.
    of_targets = np.where(TRAINING.targets == 1, probabilities, 1 - probabilities)
    loss, accuracy = model.evaluate(TRAINING.images, TRAINING.targets, verbose=0)
    assert loss == pytest.approx(-np.log(of_targets).mean(), rel=1e-5)
    assert accuracy == pytest.approx(np.mean(of_targets[:, 0] > 0.5))


def test_steps_are_those_of_adagrad_with_the_decayed_learning_rate() -> None:
    images, targets = TRAINING.images, TRAINING.targets
    rate = 0.2  # So that a step without decay would differ clearly.
    model = tiny_network()
    model.compile(recipe_of(learning_rate=rate, epochs=1).optimizer(), "categorical_crossentropy")
    squares: list[Any] = [0.1] * len(model.trainable_variables)
    for step in range(3):
        with tf.GradientTape() as tape:
            of_true_class = tf.reduce_sum(model(images) * targets, axis=1)
            loss = -tf.reduce_mean(tf.math.log(of_true_class))
        gradients = tape.gradient(loss, [v.value for v in model.trainable_variables])
        squares = [s + g.numpy() ** 2 for s, g in zip(squares, gradients, strict=True)]
        expected = [
            weights - rate / (1 + step * rate) * g.numpy() / np.sqrt(s + 1e-7)
            for weights, g, s in zip(model.get_weights(), gradients, squares, strict=True)
        ]
        model.train_on_batch(images, targets)
        for found, wanted in zip(model.get_weights(), expected, strict=True):
            np.testing.assert_allclose(found, wanted, rtol=1e-3, atol=1e-5)


# --- What is kept --------------------------------------------------------------------------------


def ranking(slope: float) -> list[NDArray[Any]]:
    """Weights with which the darker patch is the likelier malignant; the reverse below 0."""
    kernel = np.zeros((SIDE * SIDE * 3, 2))
    kernel[:, 1] = -slope * 5
    return [kernel, np.array([0.0, 450.0 * slope])]


@pytest.mark.parametrize(
    ("slopes", "kept"),
    [((-1, 1, -1), 2), ((-1, -2, 1), 3), ((-1, 1, 1.5), 2), ((-1, -2, -3), 1)],
    ids=["the middle", "the last", "first of two good ones", "none is good"],
)
def test_the_best_epoch_is_kept(slopes: tuple[float, ...], kept: int) -> None:
    def plant(model: keras.Model, epoch: int) -> None:
        model.set_weights([weights / 100 for weights in ranking(slopes[epoch])])

    run, _ = fit(None, Recorder(plant))
    areas = [1.0 if slope > 0 else 0.0 for slope in slopes]
    assert [row["val_roc_auc"] for row in run.rows] == areas
    for found, expected in zip(run.best_weights, ranking(slopes[kept - 1]), strict=True):
        np.testing.assert_allclose(found, expected / 100, rtol=1e-6)


def test_reestimated_statistics_are_scored_and_kept_and_training_goes_on_with_its_own() -> None:
    runs, recorders = {}, {}
    for name, reestimation in (("moving", None), ("re-estimated", TRAINING.images)):
        keras.utils.set_random_seed(42)
        model = tiny_network(keras.layers.BatchNormalization(), keras.layers.Dropout(0.5))
        recorders[name] = Recorder()
        runs[name] = fit(None, recorders[name], model=model, reestimation=reestimation)
    for weights in zip(*(recorder.weights for recorder in recorders.values()), strict=True):
        for own, plain in zip(*weights, strict=True):
            np.testing.assert_array_equal(own, plain)
    run, model = runs["re-estimated"]
    model.set_weights(run.best_weights)
    pixels = TRAINING.images.reshape(len(TRAINING.images), -1)
    np.testing.assert_allclose(model.layers[1].moving_mean, pixels.mean(axis=0), rtol=1e-5)
    np.testing.assert_allclose(model.layers[1].moving_variance, pixels.var(axis=0), rtol=1e-4)
    best = max(run.rows, key=lambda row: row["val_roc_auc"])
    probabilities = model.predict(VALIDATION.images, verbose=0)[:, 1]
    expected = metrics.cross_entropy(VALIDATION.labels, probabilities)
    assert best["val_loss"] == pytest.approx(expected, rel=1e-5)


# --- What ends early -----------------------------------------------------------------------------


def spoil(model: keras.Model) -> None:
    """Makes every weight NaN, as a learning rate far too high does."""
    model.set_weights([np.full_like(weights, np.nan) for weights in model.get_weights()])


def test_a_loss_that_is_nan_stops_at_once_and_keeps_the_finished_epochs(tmp_path: Path) -> None:
    recorder = Recorder()
    run, model = fit(tmp_path, recorder, AfterStep(4, spoil))
    (note,) = run.ended()
    assert note.startswith("TRAINING WENT WRONG and stopped after 1 of 3 epochs: the loss became")
    assert "at step 2 of epoch 2" in note
    assert "LEARNING_RATE" in note
    assert int(model.optimizer.iterations) == 5  # Not to the epoch's end.
    assert len(read_history(tmp_path)) == len(run.rows) == 1
    for found, expected in zip(run.best_weights, recorder.weights[0], strict=True):
        np.testing.assert_array_equal(found, expected)


def test_weights_spoiled_by_the_last_step_of_an_epoch_are_not_kept(tmp_path: Path) -> None:
    run, _ = fit(tmp_path, AfterStep(6, spoil))
    assert "epoch 2 has no ROC AUC" in run.ended()[0]
    assert len(run.rows) == len(read_history(tmp_path)) == 1


@pytest.mark.parametrize("step", [1, 3])
def test_training_that_diverges_in_its_first_epoch_says_what_to_change(step: int) -> None:
    run, _ = fit(None, AfterStep(step, spoil))
    with pytest.raises(InputError, match=r"before an epoch was finished.*LEARNING_RATE"):
        run.ended()


@pytest.mark.parametrize("loss", [math.nan, math.inf])
def test_infinite_and_undefined_losses_stop(loss: float) -> None:
    run = Run(None, epochs=9)
    stop = callbacks.StopOnNaN(run)
    stop.set_model(keras.Sequential())
    stop.on_train_batch_end(0, {"loss": 1e30})
    assert run.stopped == ""
    stop.on_train_batch_end(7, {"loss": loss})
    assert run.stopped == f"the loss became {loss} at step 8 of epoch 1"


def press(_model: keras.Model) -> None:
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(0.05)


def press_twice(model: keras.Model) -> None:
    press(model)
    press(model)


pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="no signal to oneself there")


def test_ctrl_c_keeps_the_finished_epochs_and_drops_the_running_one(tmp_path: Path) -> None:
    handler = signal.getsignal(signal.SIGINT)
    run, model = fit(tmp_path, AfterStep(5, press))  # The second of the second epoch's three.
    assert run.ended() == ["stopped after 1 of 3 epochs"]
    assert len(run.rows) == len(read_history(tmp_path)) == 1
    assert int(model.optimizer.iterations) == 5
    assert signal.getsignal(signal.SIGINT) is handler


def test_ctrl_c_before_an_epoch_is_finished_stops_the_run() -> None:
    run, _ = fit(None, AfterStep(2, press))
    with pytest.raises(KeyboardInterrupt):
        run.ended()


def test_a_second_ctrl_c_stops_at_once_even_after_a_finished_epoch() -> None:
    handler = signal.getsignal(signal.SIGINT)
    try:
        with pytest.raises(KeyboardInterrupt):
            fit(None, AfterStep(5, press_twice))
    finally:
        signal.signal(signal.SIGINT, handler)
