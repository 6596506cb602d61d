"""Training by a recipe: settings checked, class weights, compile, fit."""

import math
import threading
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from cancernet.cli import InputError, first_ctrl_c
from cancernet.data.pipeline import steps_per_epoch
from cancernet.recipes import CHANGE, Recipe
from cancernet.training import steps
from cancernet.training.epochs import (
    DivergedError,
    EpochLog,
    ProgressBar,
    StopAtCtrlC,
    StopAtNoNumber,
)
from cancernet.training.team import Team

# tf.keras' default when the recipe was published; Keras 3 has the same, but may change it.
INITIAL_ACCUMULATOR = 0.1

# Three poolings halve a side each; nothing is left of fewer pixels.
SMALLEST_SIDE = 8
# Its first dense layer would have half a billion weights.
LARGEST_SIDE = 1024
LARGEST_RATE = 1e6  # Far above any that learns, far below what float32 overflows at.


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


def compile_network(
    model: keras.Model, recipe: Recipe, *, steps: int, mixed_precision: bool = False
) -> None:
    """Compiles as the recipe says.

    The published loss is the binary cross-entropy of both columns of a two-way softmax. With
    one-hot labels each column's is -log(probability of the true class), and so is the categorical
    cross-entropy. Keras 3 gets that one right; its "binary_crossentropy" looks behind a softmax for
    the logits and takes the sigmoid of each, which is another loss with other gradients.

    Args:
        model: The network.
        recipe: How it is trained.
        steps: How many an epoch has.
        mixed_precision: Whether the network computes in float16: its gradients would vanish there
            where the loss were not scaled up.
    """
    optimizer = _optimizer(recipe, steps=steps)
    if mixed_precision:
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
    loss = keras.losses.CategoricalCrossentropy(label_smoothing=recipe.label_smoothing)
    model.compile(loss=loss, optimizer=optimizer, metrics=["accuracy"])


def _optimizer(recipe: Recipe, *, steps: int) -> keras.optimizers.Optimizer:
    """Makes the optimizer and the course of its learning rate.

    `Adagrad(lr, decay=lr / epochs)` of old Keras divided the learning rate at step t by
    1 + t * decay; Keras 3 ignores `decay`, so the schedule is spelled out here.
    """
    averaging = {"use_ema": recipe.weight_average > 0, "ema_momentum": recipe.weight_average}
    if recipe.optimizer == "adagrad":
        schedule = keras.optimizers.schedules.InverseTimeDecay(
            initial_learning_rate=recipe.learning_rate,
            decay_steps=1,
            decay_rate=recipe.learning_rate / recipe.epochs,
        )
        return keras.optimizers.Adagrad(
            learning_rate=schedule, initial_accumulator_value=INITIAL_ACCUMULATOR, **averaging
        )
    rising = round(recipe.warm_up * recipe.epochs * steps)
    schedule = keras.optimizers.schedules.CosineDecay(
        initial_learning_rate=0.0 if rising else recipe.learning_rate,
        decay_steps=max(1, recipe.epochs * steps - rising),
        warmup_target=recipe.learning_rate if rising else None,
        warmup_steps=rising,
    )
    decay = recipe.weight_decay
    if recipe.optimizer == "adamw":
        return keras.optimizers.AdamW(learning_rate=schedule, weight_decay=decay, **averaging)
    return keras.optimizers.SGD(
        learning_rate=schedule, weight_decay=decay, momentum=0.9, nesterov=True, **averaging
    )


def fit(
    model: keras.Model,
    batches: tf.data.Dataset,
    *,
    labels: Sequence[int],
    recipe: Recipe,
    log: EpochLog,
    team: Team | None = None,
) -> list[str]:
    """Trains from where the log ends to the last epoch, or to Ctrl-C once an epoch is finished.

    Args:
        model: Compiled; under a strategy of several devices, each takes its share of every batch.
        batches: Images and one-hot labels of the epochs to train, one after the other.
        labels: 0 or 1, of all training patches.
        recipe: How many epochs, how many patches a step, and whether classes are weighed.
        log: What is done at the end of each epoch.
        team: The machines that train together, if there are several.

    Returns:
        Notes on what stopped it, if not the last epoch, and on a batch larger than the split.

    Raises:
        InputError: The loss was no number before the first epoch was finished.
        KeyboardInterrupt: Ctrl-C before the first epoch was finished; or a second one, where
            there are several machines.
    """
    epochs, batch_size = recipe.epochs, recipe.batch_size
    if len(log.rows) >= epochs:
        return []
    notes = []
    if batch_size > len(labels):
        notes.append(
            f"BATCH_SIZE is {batch_size}, more than the {len(labels)} training patches: an epoch "
            "is one step"
        )
    devices = model.distribute_strategy.num_replicas_in_sync
    if devices > 1 and not team:
        # Otherwise `fit` makes the metrics with the first batch, and fails on uneven shares of it.
        height, width, depth = model.input_shape[1:]
        model.test_on_batch(np.zeros((1, height, width, depth)), np.array([[1, 0]]))
    agreed = threading.Event()
    try:
        with first_ctrl_c() as pressed:
            stop = agreed if team else pressed
            on_each: dict[str, Any] = {
                "initial_epoch": len(log.rows),
                "epochs": epochs,
                "class_weight": class_weights(labels) if recipe.balance == "weights" else None,
                "callbacks": [ProgressBar(), StopAtCtrlC(stop), StopAtNoNumber(), log],
            }
            count = steps_per_epoch(len(labels), batch_size=batch_size, devices=devices)
            if team:
                patches = steps.Patches(len(labels), batch_size=batch_size, steps=count)
                steps.fit(model, batches, team, patches, pressed=pressed, agreed=agreed, **on_each)
            else:  # The batches come shuffled: Keras would warn that it cannot.
                model.fit(batches, steps_per_epoch=count, shuffle=False, verbose=0, **on_each)
    except KeyboardInterrupt:
        if not log.rows or (team and not agreed.is_set()):
            raise  # In the latter case the others would wait for this machine.
        log.interrupted = True
        notes.append(f"stopped after {len(log.rows)} of {epochs} epochs")
    except DivergedError as error:
        if not log.rows:
            raise InputError(
                f"Training went wrong before an epoch was finished: {error}. Lower LEARNING_RATE "
                "in cancernet/config.py; if that is no cure, check the data set."
            ) from error
        notes.append(
            f"TRAINING WENT WRONG and stopped after {len(log.rows)} of {epochs} epochs: {error}. "
            "All is of the best epoch before; lower LEARNING_RATE for a whole run"
        )
    return notes
