"""The published recipe on tiny made-up patches: what is trained, logged, kept, and stopped."""

import os
import re
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import recipe_of
from numpy.typing import NDArray

from cancernet.cli import InputError
from cancernet.evaluation import metrics
from cancernet.training import callbacks
from cancernet.training.run import STATE, Run

SIDE, BATCH_SIZE, EPOCHS, LEARNING_RATE = 8, 4, 3, 0.01
COLUMNS = ["epoch", "loss", "accuracy", "val_loss", "val_accuracy", "val_roc_auc"]
COLUMNS += ["learning_rate", "seconds"]

# In neither is the last batch full; in validation the malignant ones are last, as in a listing.
LABELS = np.array([0, 0, 1, 0, 0, 1, 0, 0, 1, 0])
TARGETS = np.eye(2, dtype=np.float32)[LABELS]
VALIDATION_LABELS = np.array([0, 0, 0, 0, 1, 1, 1])
STEPS = 3


def draw(labels: NDArray[np.int64], *, seed: int) -> NDArray[np.float32]:
    """Dark patches are malignant."""
    generator = np.random.default_rng(seed)
    dark = generator.integers(0, 156, (len(labels), SIDE, SIDE, 3))
    return ((dark + 100 * (1 - labels[:, None, None, None])) / 255).astype(np.float32)


IMAGES, VALIDATION_IMAGES = draw(LABELS, seed=7), draw(VALIDATION_LABELS, seed=8)


@pytest.fixture(autouse=True)
def _same_first_weights_in_every_run() -> None:
    keras.utils.set_random_seed(42)


def tiny_network(*more_layers: keras.Layer) -> keras.Sequential:
    layers = [keras.layers.Flatten(), *more_layers, keras.layers.Dense(2)]
    return keras.Sequential(
        [keras.Input((SIDE, SIDE, 3)), *layers, keras.layers.Activation("softmax")]
    )


Action = Callable[[keras.Model], Any]


def fit(
    output: Path | None = None,
    *,
    model: keras.Model | None = None,
    before_scoring: Callable[[keras.Model, int], Any] = lambda model, epoch: None,
    after_step: tuple[int, Action] = (0, lambda model: None),  # Counted from 1, over all epochs.
    reestimation: NDArray[np.float32] | None = None,
    **changes: Any,
) -> tuple[Run, keras.Model]:
    recipe = recipe_of(**{"epochs": EPOCHS, "batch_size": BATCH_SIZE} | changes)
    trained = model or tiny_network()
    trained.compile(recipe.optimizer(), "categorical_crossentropy", metrics=["accuracy"])

    def end_step(batch: int, logs: Any) -> None:
        if int(trained.optimizer.iterations) == after_step[0]:
            after_step[1](trained)

    own = keras.callbacks.LambdaCallback(
        on_train_batch_end=end_step,
        on_epoch_end=lambda epoch, logs: before_scoring(trained, epoch),
    )
    run = Run(output, epochs=recipe.epochs)
    validation = tf.data.Dataset.from_tensor_slices(VALIDATION_IMAGES).batch(BATCH_SIZE)
    validate = callbacks.Validate(run, recipe, validation, VALIDATION_LABELS, reestimation)
    trained.fit(
        IMAGES,
        TARGETS,
        batch_size=recipe.batch_size,
        epochs=recipe.epochs,
        class_weight=recipe.class_weight(LABELS),
        shuffle=False,
        verbose=0,
        callbacks=[own, callbacks.Progress(), callbacks.StopOnCtrlC(run), validate],
    )
    return run, trained


def saved(output: Path) -> list[dict[str, float]]:
    """The rows in the checkpoint, if there is one."""
    run = Run(output, epochs=EPOCHS)
    if (output / STATE).exists():
        run.take(output / STATE)
    return run.rows


# --- What is logged ------------------------------------------------------------------------------


def test_a_long_epoch_says_how_far_it_is_where_there_is_no_bar(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(callbacks, "MINUTE", 0)
    fit(epochs=1)
    expected = [f"Epoch 1: step {step} of {STEPS}" for step in range(1, STEPS + 1)]
    assert capsys.readouterr().err.splitlines() == expected


def test_the_log_is_that_of_keras_and_grows_on_disk(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    evaluated, on_disk = [], []

    def evaluate(model: keras.Model, _epoch: int) -> None:
        targets = np.eye(2)[VALIDATION_LABELS]
        evaluated.append(model.evaluate(VALIDATION_IMAGES, targets, batch_size=3, verbose=0))
        on_disk.append(len(saved(tmp_path)))

    run, model = fit(tmp_path, before_scoring=evaluate)
    assert [list(row) for row in run.rows] == [COLUMNS] * EPOCHS
    assert [row["epoch"] for row in run.rows] == [1, 2, 3]
    assert on_disk == [0, 1, 2]
    for row, kept in zip(run.rows, saved(tmp_path), strict=True):
        assert kept | {"seconds": row["seconds"]} == row
    logged = [[row["val_loss"], row["val_accuracy"]] for row in run.rows]
    np.testing.assert_allclose(logged, evaluated, atol=1e-5)
    assert int(model.optimizer.iterations) == EPOCHS * STEPS
    expected = [LEARNING_RATE / (1 + step * LEARNING_RATE / EPOCHS) for step in (2, 5, 8)]
    assert [row["learning_rate"] for row in run.rows] == pytest.approx(expected, rel=1e-6)
    said = capsys.readouterr()
    assert said.err == ""
    assert [line[:9] for line in said.out.splitlines()] == ["epoch   1", "epoch   2", "epoch   3"]
    assert run.ended() == []


def test_class_weights_weigh_one_hot_labels() -> None:
    model = tiny_network()
    # As one batch, so that the epoch's loss is that of the first weights.
    probabilities = model.predict(IMAGES, verbose=0)
    losses = -np.log(probabilities[np.arange(10), LABELS])
    weights = np.where(LABELS == 1, 7 / 3, 1)
    run, _ = fit(model=model, epochs=1, batch_size=10)
    assert run.rows[0]["loss"] == pytest.approx(np.mean(weights * losses), rel=1e-5)
    assert np.mean(weights * losses) != pytest.approx(np.mean(losses), rel=0.1)


def test_loss_is_the_published_binary_crossentropy_of_the_softmax() -> None:
    model = tiny_network()
    model.compile(recipe_of().optimizer(), "categorical_crossentropy", metrics=["accuracy"])
    probabilities = model.predict(IMAGES, verbose=0)
    # The mean over both columns. Keras' own function with that name looks behind a softmax that is
    # the last layer, and takes the sigmoid of each of the numbers that it finds there.
    of_targets = np.where(TARGETS == 1, probabilities, 1 - probabilities)
    loss, accuracy = model.evaluate(IMAGES, TARGETS, verbose=0)
    assert loss == pytest.approx(-np.log(of_targets).mean(), rel=1e-5)
    assert accuracy == pytest.approx(np.mean(of_targets[:, 0] > 0.5))


def test_steps_are_those_of_adagrad_with_the_decayed_learning_rate() -> None:
    rate = 0.2  # So that a step without decay would differ clearly.
    model = tiny_network()
    model.compile(recipe_of(learning_rate=rate, epochs=1).optimizer(), "categorical_crossentropy")
    squares: list[Any] = [0.1] * len(model.trainable_variables)
    for step in range(3):
        with tf.GradientTape() as tape:
            of_true_class = tf.reduce_sum(model(IMAGES) * TARGETS, axis=1)
            loss = -tf.reduce_mean(tf.math.log(of_true_class))
        gradients = tape.gradient(loss, [v.value for v in model.trainable_variables])
        squares = [s + g.numpy() ** 2 for s, g in zip(squares, gradients, strict=True)]
        expected = [
            weights - rate / (1 + step * rate) * g.numpy() / np.sqrt(s + 1e-7)
            for weights, g, s in zip(model.get_weights(), gradients, squares, strict=True)
        ]
        model.train_on_batch(IMAGES, TARGETS)
        for found, wanted in zip(model.get_weights(), expected, strict=True):
            np.testing.assert_allclose(found, wanted, rtol=1e-3, atol=1e-5)


# --- What is kept --------------------------------------------------------------------------------


def ranking(slope: float) -> list[NDArray[Any]]:
    """Weights with which the darker patch is the likelier malignant; the reverse below 0."""
    kernel = np.zeros((SIDE * SIDE * 3, 2))
    kernel[:, 1] = -slope / 20
    return [kernel, np.array([0.0, 4.5 * slope])]


@pytest.mark.parametrize(
    ("slopes", "kept"),
    [((-1, 1, -1), 2), ((-1, -2, 1), 3), ((-1, 1, 1.5), 2), ((-1, -2, -3), 1)],
    ids=["the middle", "the last", "first of two good ones", "none is good"],
)
def test_the_best_epoch_is_kept(slopes: tuple[float, ...], kept: int) -> None:
    run, _ = fit(before_scoring=lambda model, epoch: model.set_weights(ranking(slopes[epoch])))
    assert [row["val_roc_auc"] for row in run.rows] == [float(slope > 0) for slope in slopes]
    for found, expected in zip(run.best_weights, ranking(slopes[kept - 1]), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_reestimated_statistics_are_scored_and_kept_and_training_goes_on_with_its_own() -> None:
    ends = []
    for reestimation in (None, IMAGES):
        keras.utils.set_random_seed(42)
        model = tiny_network(keras.layers.BatchNormalization(), keras.layers.Dropout(0.5))
        run, _ = fit(model=model, reestimation=reestimation)
        ends.append(model.get_weights())
    for plain, own in zip(*ends, strict=True):
        np.testing.assert_array_equal(own, plain)
    model.set_weights(run.best_weights)
    pixels = IMAGES.reshape(len(IMAGES), -1)
    np.testing.assert_allclose(model.layers[1].moving_mean, pixels.mean(axis=0), rtol=1e-5)
    np.testing.assert_allclose(model.layers[1].moving_variance, pixels.var(axis=0), rtol=1e-4)
    best = max(run.rows, key=lambda row: row["val_roc_auc"])
    probabilities = model.predict(VALIDATION_IMAGES, verbose=0)[:, 1]
    expected = metrics.cross_entropy(VALIDATION_LABELS, probabilities)
    assert best["val_loss"] == pytest.approx(expected, rel=1e-5)


def test_means_of_the_weights_are_scored_and_kept_and_training_goes_on_with_its_own() -> None:
    weights: list[list[np.ndarray]] = []  # Of the first layer, at the ends of the epochs.
    for averaging in (1, 2):
        keras.utils.set_random_seed(42)
        weights.append([])
        run, model = fit(
            before_scoring=lambda model, _: weights[-1].append(model.get_weights()[0]),
            averaging=averaging,
        )
    np.testing.assert_array_equal(weights[0], weights[1])
    first, second, third = weights[0]
    means = [first, (first + second) / 2, (first + second) / 4 + third / 2]
    np.testing.assert_allclose(run.mean[0], means[-1], rtol=1e-5)
    best = max(run.rows, key=lambda row: row["val_roc_auc"])
    np.testing.assert_allclose(run.best_weights[0], means[int(best["epoch"]) - 1], rtol=1e-5)
    model.set_weights(run.mean)
    probabilities = model.predict(VALIDATION_IMAGES, verbose=0)[:, 1]
    expected = metrics.cross_entropy(VALIDATION_LABELS, probabilities)
    assert run.rows[-1]["val_loss"] == pytest.approx(expected, rel=1e-5)


# --- What ends early -----------------------------------------------------------------------------


def spoil(model: keras.Model) -> None:
    """Makes every weight NaN, as a learning rate far too high does."""
    model.set_weights([np.full_like(weights, np.nan) for weights in model.get_weights()])


def press(_model: keras.Model) -> None:
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(0.05)


def press_twice(model: keras.Model) -> None:
    press(model)
    press(model)


posix = pytest.mark.skipif(sys.platform == "win32", reason="no signal to oneself there")


@pytest.mark.parametrize(
    ("step", "action", "steps", "words"),
    [
        (4, spoil, 5, "WENT WRONG and stopped after 1 of 3 epochs: the loss became nan at step 2"),
        (6, spoil, 6, "WENT WRONG and stopped after 1 of 3 epochs: epoch 2 has no ROC AUC"),
        pytest.param(5, press, 5, "stopped after 1 of 3 epochs", marks=posix),
    ],
    ids=["NaN within an epoch", "NaN by its last step", "Ctrl-C"],
)
def test_the_finished_epochs_are_kept_and_the_running_one_is_dropped(
    tmp_path: Path, step: int, action: Action, steps: int, words: str
) -> None:
    """Of three steps an epoch."""
    handler = signal.getsignal(signal.SIGINT)
    finished: list[list[NDArray[Any]]] = []
    run, model = fit(
        tmp_path,
        before_scoring=lambda model, epoch: finished.append(model.get_weights()),
        after_step=(step, action),
    )
    (note,) = run.ended()
    assert words in note
    assert ("LEARNING_RATE" in note) == (action is spoil)
    assert int(model.optimizer.iterations) == steps
    assert len(saved(tmp_path)) == len(run.rows) == 1
    for found, expected in zip(run.best_weights, finished[0], strict=True):
        np.testing.assert_array_equal(found, expected)
    assert signal.getsignal(signal.SIGINT) is handler


@pytest.mark.parametrize(
    ("step", "action", "error"),
    [
        (1, spoil, InputError),
        (3, spoil, InputError),
        pytest.param(2, press, KeyboardInterrupt, marks=posix),
        pytest.param(5, press_twice, KeyboardInterrupt, marks=posix),
    ],
    ids=["NaN", "NaN by the last step", "Ctrl-C", "a second Ctrl-C, whatever is finished"],
)
def test_what_ends_the_run_with_no_report(
    step: int, action: Action, error: type[BaseException]
) -> None:
    handler = signal.getsignal(signal.SIGINT)
    try:
        with pytest.raises(error) as raised:
            fit(after_step=(step, action))[0].ended()
    finally:
        signal.signal(signal.SIGINT, handler)
    if action is spoil:
        assert re.search("before an epoch was finished.*LEARNING_RATE", str(raised.value))
