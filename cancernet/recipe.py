"""The published and the tuned recipe: all that decides how the one network is trained.

Loads without TensorFlow.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import keras

# tf.keras' default when the recipe was published; Keras 3 has the same, but may change it.
INITIAL_ACCUMULATOR = 0.1


@dataclass(frozen=True)
class Augmentation:
    """How far the training patches are changed at random. 0 or False leaves a part out."""

    rotation: float  # Largest angle either way, in degrees.
    zoom: float  # Each axis is scaled by its own factor from 1 - zoom to 1 + zoom.
    width_shift: float  # Largest shift either way, as a share of the width.
    height_shift: float
    shear: float  # Largest angle either way, in degrees.
    horizontal_flip: bool  # Mirror every second patch left to right.
    vertical_flip: bool  # Mirror every second patch top to bottom.
    # Swap rows and columns of every second patch: with both flips these are the eight symmetries of
    # the square.
    transpose: bool = False


@dataclass(frozen=True)
class Recipe:
    """How the network is trained: always by Adagrad, whose learning rate decays at each step."""

    name: str
    epochs: int  # Passes over the training split. They are part of the decay, too.
    batch_size: int  # Patches per step.
    learning_rate: float  # The first one.
    augmentation: Augmentation
    class_weights: bool = True  # Whether each class weighs the largest one's count over its own.
    dropout: float = 1.0  # Factor of the published dropout rates.
    # Before scoring, mean and variance of batch normalization are computed anew, without dropout,
    # from so many training patches; 0: the moving ones stay.
    reestimation: int = 0
    # What is scored and kept is the mean of the weights at the ends of the epochs: each new one
    # counts for one in so many, or for its part of all epochs while these are fewer. 1: no mean.
    averaging: int = 1

    def learning_rates(self) -> keras.optimizers.schedules.LearningRateSchedule:
        """Makes the schedule: a function from the step, counted from 0, to the learning rate.

        `Adagrad(lr, decay=lr / epochs)` of old Keras divided the learning rate at step t by
        1 + t * decay; Keras 3 ignores `decay`, so the schedule is spelled out here.
        """
        from keras.optimizers.schedules import InverseTimeDecay

        return InverseTimeDecay(
            initial_learning_rate=self.learning_rate,
            decay_steps=1,
            decay_rate=self.learning_rate / self.epochs,
        )

    def optimizer(self, *, mixed_precision: bool = False) -> keras.optimizers.Optimizer:
        """Makes the optimizer; in mixed precision it scales the loss, else gradients vanish."""
        from keras.optimizers import Adagrad, LossScaleOptimizer

        adagrad = Adagrad(self.learning_rates(), initial_accumulator_value=INITIAL_ACCUMULATOR)
        return LossScaleOptimizer(adagrad) if mixed_precision else adagrad

    def class_weight(self, labels: Iterable[int]) -> dict[int, float] | None:
        """Weighs each class by the largest class's count over its own, as published.

        A dict, since Keras takes an array for something else; None for weights of 1.
        """
        if not self.class_weights:
            return None
        counts = Counter(int(label) for label in labels)
        largest = max(counts.values())
        return {label: largest / counts[label] for label in sorted(counts)}

    def constants(self) -> dict[str, Any]:
        """Lists all values, under the names that the configuration has for them."""
        names = {field: name for name, field in (VALUES | RANGES).items()} | {"name": "RECIPE"}
        values = vars(self) | vars(self.augmentation)
        del values["augmentation"]
        return {names.get(field, field.upper()): value for field, value in values.items()}


# What the published recipe takes from the configuration, by the constant's name.
VALUES = {"EPOCHS": "epochs", "BATCH_SIZE": "batch_size", "LEARNING_RATE": "learning_rate"}
RANGES = {
    "ROTATION_RANGE": "rotation",
    "ZOOM_RANGE": "zoom",
    "WIDTH_SHIFT_RANGE": "width_shift",
    "HEIGHT_SHIFT_RANGE": "height_shift",
    "SHEAR_RANGE": "shear",
    "HORIZONTAL_FLIP": "horizontal_flip",
    "VERTICAL_FLIP": "vertical_flip",
}


def published(constants: Mapping[str, Any]) -> Recipe:
    """Makes the published recipe of the configuration's constants, which `settings` checks."""
    return Recipe(
        name="published",
        augmentation=Augmentation(**{field: constants[name] for name, field in RANGES.items()}),
        **{field: constants[name] for name, field in VALUES.items()},
    )


# What cross-validation found better than the published recipe: see docs/experiments.md.
TUNED = Recipe(
    name="tuned",
    epochs=20,  # As compared.
    batch_size=32,
    learning_rate=1e-2,
    augmentation=Augmentation(
        rotation=20,
        zoom=0.05,
        width_shift=0.1,
        height_shift=0.1,
        shear=0.05,
        horizontal_flip=True,
        vertical_flip=True,
        transpose=True,  # Tissue has no up or down, left or right; ranks better once unweighted.
    ),
    class_weights=False,  # They make all probabilities too high, and rank worse.
    # It holds the small network back, and keeps it from learning patients by heart no better than
    # the many patches do.
    dropout=0.0,
    # Dropout makes what batch normalization sees in training wider than what it gets in scoring:
    # most of the error in the probabilities, and a worse ranking. So many patches give steady
    # values in a second.
    reestimation=1024,
    # One epoch's weights rank patients never seen by chance better or worse than the next one's.
    averaging=8,
)

RECIPES = ("published", "tuned")
