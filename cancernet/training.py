"""The published recipe: class weights, compile, fit; the best epoch kept, each epoch logged."""

import csv
import hashlib
import json
import math
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from tqdm import tqdm

from cancernet import evaluation
from cancernet.console import InputError
from cancernet.files import replacing
from cancernet.pipeline import steps_per_epoch

# tf.keras' default when the recipe was published; Keras 3 has the same, but may change it.
INITIAL_ACCUMULATOR = 0.1

# Three poolings halve a side each; nothing is left of fewer pixels.
SMALLEST_SIDE = 8
# Its first dense layer would have half a billion weights.
LARGEST_SIDE = 1024
LARGEST_RATE = 1e6  # Far above any that learns, far below what float32 overflows at.

CHANGE = "Change it in cancernet/config.py."

MODEL_FILE, HISTORY_FILE = "cancernet.keras", "history.csv"


def check_settings(
    *,
    width: int,
    height: int,
    depth: int,
    classes: int,
    learning_rate: float,
    seed: int,
    decode_cache_mb: float,
) -> None:
    """Refuses settings that the network or the reader of patches cannot serve.

    Raises:
        InputError: Naming the constant to change.
    """
    sizes = {"IMAGE_WIDTH": width, "IMAGE_HEIGHT": height, "IMAGE_DEPTH": depth, "CLASSES": classes}
    for name, value in (sizes | {"SEED": seed}).items():
        if not isinstance(value, int):
            raise InputError(f"{name} is {value!r}: expected a whole number. {CHANGE}")
    problem = None
    if not SMALLEST_SIDE <= min(width, height) <= max(width, height) <= LARGEST_SIDE:
        problem = (
            f"IMAGE_WIDTH and IMAGE_HEIGHT are {width} and {height}, "
            f"{SMALLEST_SIDE} to {LARGEST_SIDE} pixels each"
        )
    elif depth != 3:
        problem = f"IMAGE_DEPTH is {depth}, 3 (patches are read as red, green and blue)"
    elif classes != 2:
        problem = f"CLASSES is {classes}, 2 (benign and malignant)"
    elif not isinstance(learning_rate, int | float) or not 0 < learning_rate <= LARGEST_RATE:
        problem = f"LEARNING_RATE is {learning_rate}, a number above 0, at most {LARGEST_RATE:,.0f}"
    elif not isinstance(decode_cache_mb, int | float) or not 0 <= decode_cache_mb < math.inf:
        problem = f"DECODE_CACHE_MB is {decode_cache_mb}, megabytes, 0 or more"
    elif not 0 <= seed < 2**32:
        problem = f"SEED is {seed}, a whole number from 0 to 2**32 - 1"
    if problem:
        found, expected = problem.split(", ", maxsplit=1)
        raise InputError(f"{found}: expected {expected}. {CHANGE}")


def class_weights(labels: Iterable[int]) -> dict[int, float]:
    """Weighs each class by the largest class's count over its own, as published.

    A dict, since Keras takes an array for something else; it applies to one-hot labels as well.
    """
    counts = Counter(labels)
    largest = max(counts.values())
    return {label: largest / counts[label] for label in sorted(counts)}


def compile_published(
    model: keras.Model, *, learning_rate: float, epochs: int, mixed_precision: bool = False
) -> None:
    """Compiles as published: Adagrad with a decay at each step, binary cross-entropy.

    `Adagrad(lr, decay=lr / epochs)` of old Keras divided the learning rate at step t by
    1 + t * decay; Keras 3 ignores `decay`, so the schedule is spelled out here.

    The published loss is the binary cross-entropy of both columns of a two-way softmax. With
    one-hot labels each column's is -log(probability of the true class), and so is the categorical
    cross-entropy. Keras 3 gets that one right; its "binary_crossentropy" looks behind a softmax for
    the logits and takes the sigmoid of each, which is another loss with other gradients.

    Args:
        model: The network.
        learning_rate: Of the first step.
        epochs: How many there will be, for the decay.
        mixed_precision: Whether the network computes in float16: its gradients would vanish there
            where the loss were not scaled up.
    """
    schedule = keras.optimizers.schedules.InverseTimeDecay(
        initial_learning_rate=learning_rate, decay_steps=1, decay_rate=learning_rate / epochs
    )
    optimizer = keras.optimizers.Adagrad(
        learning_rate=schedule, initial_accumulator_value=INITIAL_ACCUMULATOR
    )
    if mixed_precision:
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
    model.compile(loss="categorical_crossentropy", optimizer=optimizer, metrics=["accuracy"])


class DivergedError(Exception):
    """Training that ran into numbers that are none; the text says where."""


def predict(model: keras.Model, batches: tf.data.Dataset) -> np.ndarray:
    """Computes the probability of class 1, float32 in [0, 1], shape (patches,), in their order."""
    return model.predict(batches, verbose=0)[:, 1]


def save_network(model: keras.Model, path: Path, *, sample: bool) -> None:
    """Saves a network, and beside it as JSON what belongs to it, with its hash.

    Args:
        model: Made of stock Keras layers only, so that it loads without this package.
        path: File ending in ".keras".
        sample: Whether it was trained on synthetic patches.
    """
    with replacing(path) as beside:
        model.save(beside)
        sha256 = hashlib.sha256(beside.read_bytes()).hexdigest()
    card = {
        "sha256": sha256,
        "image_size": list(model.input_shape[1:]),
        "threshold": 0.5,
        "recalibration": None,
        "recipe": "published",
        "sample": sample,
    }
    with replacing(path.with_suffix(".json")) as beside:
        beside.write_text(json.dumps(card, indent=2) + "\n", encoding="utf-8")


class EpochLog(keras.callbacks.Callback):
    """Scores every finished epoch on validation, logs it and keeps the network of the best one.

    The best epoch is the one with the highest validation ROC AUC. It measures the ranking alone,
    which is what training improves from patient to patient; loss and accuracy also move with the
    class weights and with each slide's stain, which a threshold and a recalibration can mend later.

    Attributes:
        rows: One a finished epoch, with the columns of history.csv.
    """

    def __init__(
        self,
        validation: tf.data.Dataset,
        labels: Sequence[int],
        *,
        run: Path,
        sample: bool,
        network: keras.Model | None = None,
    ) -> None:
        """Takes what to score, and where to write.

        Args:
            validation: Batches of images, as `pipeline.scoring_batches` makes them.
            labels: Their labels, both classes among them.
            run: Directory for history.csv, cancernet.keras and cancernet.json.
            sample: Whether the patches are synthetic, which cancernet.json then says.
            network: What to save, with the weights of the trained one; by default that one itself.
        """
        super().__init__()
        self.rows: list[dict[str, float]] = []
        self._validation = validation
        self._labels = np.asarray(labels)
        self._run = run
        self._sample = sample
        self._network = network
        self._best = -np.inf
        self._began = 0.0

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Starts the clock."""
        self._began = time.perf_counter()

    def on_epoch_end(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:
        """Scores, saves and logs."""
        assert logs is not None
        probabilities = predict(self.model, self._validation)
        auc = evaluation.roc_auc(self._labels, probabilities)
        accuracy = evaluation.confusion(self._labels, probabilities, threshold=0.5).accuracy
        if auc is None or accuracy is None:
            raise DivergedError(
                f"epoch {epoch + 1} has no ROC AUC on validation, since a class is missing or the "
                "probabilities are no numbers"
            )
        if auc > self._best:
            network = self._network or self.model
            network.set_weights(self.model.get_weights())
            save_network(network, self._run / MODEL_FILE, sample=self._sample)
            self._best = auc
        optimizer = getattr(self.model.optimizer, "inner_optimizer", self.model.optimizer)
        row = {
            "epoch": epoch + 1,
            "loss": logs["loss"],
            "accuracy": logs["accuracy"],
            "val_loss": evaluation.cross_entropy(self._labels, probabilities),
            "val_accuracy": accuracy,
            "val_roc_auc": auc,
            "learning_rate": float(optimizer._learning_rate(optimizer.iterations - 1)),
            "seconds": time.perf_counter() - self._began,
        }
        self.rows.append(row)
        with replacing(self._run / HISTORY_FILE) as beside:
            _write_history(beside, self.rows)
        print(
            f"epoch {epoch + 1:>3}/{self.params['epochs']}  loss {row['loss']:.4f}  "
            f"val_loss {row['val_loss']:.4f}  val_accuracy {row['val_accuracy']:.4f}  "
            f"val_roc_auc {auc:.4f}  {row['seconds']:.0f} s",
            flush=True,
        )


def _write_history(path: Path, rows: Sequence[Mapping[str, float]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


class StopAtNoNumber(keras.callbacks.Callback):
    """Stops training within the epoch at a loss that is infinite or no number.

    Nothing better comes after it: the weights are no numbers either, or will be. (Keras' own
    TerminateOnNaN would end the epoch as if it were finished, and it would be scored and logged.)
    """

    _epoch = 0

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Remembers which epoch it is."""
        self._epoch = epoch

    def on_train_batch_end(self, batch: int, logs: Mapping[str, float] | None = None) -> None:
        """Looks at the mean loss of the epoch so far, which one such step spoils."""
        loss = (logs or {}).get("loss", 0.0)
        if not math.isfinite(loss):
            raise DivergedError(
                f"the loss became {loss} at step {batch + 1} of epoch {self._epoch + 1}"
            )


class ProgressBar(keras.callbacks.Callback):
    """A progress bar over the steps of an epoch, on stderr, silent when that is no terminal."""

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Shows an empty bar."""
        self._bar = tqdm(
            total=self.params["steps"], desc=f"Epoch {epoch + 1}", disable=None, leave=False
        )

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Moves the bar by a step."""
        self._bar.update()

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Takes the bar away."""
        self._bar.close()


def fit(
    model: keras.Model,
    batches: tf.data.Dataset,
    *,
    labels: Sequence[int],
    epochs: int,
    batch_size: int,
    log: EpochLog,
) -> list[str]:
    """Trains until the last epoch, or until Ctrl-C once an epoch is finished.

    Args:
        model: Compiled; under a strategy of several devices, each takes its share of every batch.
        batches: Images and one-hot labels of all epochs, one after the other.
        labels: 0 or 1, of all training patches.
        epochs: Passes over the training patches.
        batch_size: Patches a step.
        log: What is done at the end of each epoch.

    Returns:
        A note where Ctrl-C or a loss that is no number stopped it, else nothing.

    Raises:
        InputError: The loss was no number before the first epoch was finished.
        KeyboardInterrupt: Ctrl-C before the first epoch was finished.
    """
    devices = model.distribute_strategy.num_replicas_in_sync
    if devices > 1:
        # Otherwise `fit` makes the metrics with the first batch, and fails on uneven shares of it.
        height, width, depth = model.input_shape[1:]
        model.test_on_batch(np.zeros((1, height, width, depth)), np.array([[1, 0]]))
    try:
        model.fit(
            batches,
            epochs=epochs,
            steps_per_epoch=steps_per_epoch(len(labels), batch_size=batch_size, devices=devices),
            class_weight=class_weights(labels),
            shuffle=False,  # The batches come shuffled; Keras would warn that it cannot.
            callbacks=[ProgressBar(), StopAtNoNumber(), log],
            verbose=0,
        )
    except KeyboardInterrupt:
        if not log.rows:
            raise
        return [f"stopped after {len(log.rows)} of {epochs} epochs"]
    except DivergedError as error:
        if not log.rows:
            raise InputError(
                f"Training went wrong before an epoch was finished: {error}. Lower LEARNING_RATE "
                "in cancernet/config.py; if that is no cure, check the data set."
            ) from error
        return [
            f"TRAINING WENT WRONG and stopped after {len(log.rows)} of {epochs} epochs: {error}. "
            "All is of the best epoch before; lower LEARNING_RATE for a whole run"
        ]
    return []
