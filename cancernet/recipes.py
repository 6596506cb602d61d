"""The published and the tuned recipe: all that decides how the one network is trained.

Pure Python: loads without TensorFlow.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cancernet.cli import InputError

CHANGE = "Change it in cancernet/config.py."


@dataclass(frozen=True)
class Augmentation:
    """How far the training patches are changed at random. 0 or False leaves a part out.

    Attributes:
        rotation: Largest angle either way, in degrees.
        zoom: Each axis is scaled by its own factor from 1 - zoom to 1 + zoom.
        width_shift: Largest shift either way, as a share of the width, from 0 to below 1.
        height_shift: Largest shift either way, as a share of the height, from 0 to below 1.
        shear: Largest angle either way, in degrees.
        horizontal_flip: Mirror every second patch left to right.
        vertical_flip: Mirror every second patch top to bottom.
        transpose: Swap rows and columns of every second patch: with both flips these are the eight
            symmetries of the square.
        stain: Each stain's optical density is scaled by a factor from 1 - stain to 1 + stain.
    """

    rotation: float
    zoom: float
    width_shift: float
    height_shift: float
    shear: float
    horizontal_flip: bool
    vertical_flip: bool
    transpose: bool = False
    stain: float = 0.0

    def __post_init__(self) -> None:
        """Checks the shares.

        Raises:
            InputError: A share is below 0 or not below 1, an angle no number, a flip no bool.
        """
        for name in ("rotation", "shear"):
            angle = getattr(self, name)
            if not (isinstance(angle, int | float) and -360 <= angle <= 360):
                raise InputError(
                    f"The augmentation's {name} is {angle!r}; it is an angle, -360 to 360 degrees. "
                    "Change its range in the configuration."
                )
        for name in ("horizontal_flip", "vertical_flip"):
            flip = getattr(self, name)
            if flip not in (True, False):
                raise InputError(
                    f"The augmentation's {name} is {flip!r}; it is True or False. "
                    "Change it in the configuration."
                )
        for name in ("zoom", "width_shift", "height_shift", "stain"):
            share = getattr(self, name)
            if not (isinstance(share, int | float) and 0 <= share < 1):
                raise InputError(
                    f"The augmentation's {name} is {share!r}; it is a share, from 0 to below 1. "
                    "Change its range in the configuration."
                )


@dataclass(frozen=True)
class Recipe:
    """How the network is trained.

    Attributes:
        name: What goes into the reports.
        epochs: Passes over the training split. They are part of the learning rate's course, too.
        batch_size: Patches a step.
        optimizer: "adagrad", with the published decay of the learning rate at each step; or "adamw"
            or "sgd" (Nesterov momentum 0.9), with warm-up and then half a cosine down to 0.
        learning_rate: The first one of adagrad, the highest one of the others.
        augmentation: How the patches are changed at random.
        warm_up: Share of all steps in which the learning rate of the others rises from 0.
        weight_decay: What adamw and sgd take from every weight at each step, as a share of it and
            of the learning rate.
        weight_average: Weights are scored and saved as their moving average over the steps, of
            this momentum; 0: as they are.
        label_smoothing: Share of each label that goes to both classes alike.
        balance: "weights": each class weighs the largest one's count over its own. "classes" or
            "patients": patches are drawn anew each epoch, with replacement, so that classes, or
            patients, come up alike. "none": every patch once, with weight 1.
        dropout: Factor of the published dropout rates.
        momentum: Of the moving mean and variance of batch normalization.
        settling: Before scoring, mean and variance are computed anew, without dropout, from so many
            of the training patches; 0: the moving ones stay.
    """

    name: str
    epochs: int
    batch_size: int
    optimizer: str
    learning_rate: float
    augmentation: Augmentation
    warm_up: float = 0.0
    weight_decay: float = 0.0
    weight_average: float = 0.0
    label_smoothing: float = 0.0
    balance: str = "weights"
    dropout: float = 1.0
    momentum: float = 0.99
    settling: int = 0


# What the published recipe takes from the configuration, by the constant's name.
SETTINGS = {"EPOCHS": "epochs", "BATCH_SIZE": "batch_size", "LEARNING_RATE": "learning_rate"}
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
    """Makes the published recipe of the configuration's constants, by name.

    Raises:
        InputError: A constant is no number, or out of its range.
    """
    for name in (*SETTINGS, *RANGES):
        value = constants[name]
        if not isinstance(value, int | float) or value != value:
            raise InputError(f"{name} is {value!r}: expected a number. {CHANGE}")
    return Recipe(
        name="published",
        optimizer="adagrad",
        augmentation=Augmentation(**{field: constants[name] for name, field in RANGES.items()}),
        **{field: constants[name] for name, field in SETTINGS.items()},
    )


# What benchmarks/recipes.py found better than the published recipe: its table stands in the README.
TUNED = Recipe(
    name="tuned",
    epochs=20,  # As compared.
    batch_size=32,
    # Adagrad with the published decay: AdamW with a cosine ranked no better, averaged or not.
    optimizer="adagrad",
    learning_rate=1e-2,
    balance="none",  # Class weights make all probabilities too high, and rank worse.
    augmentation=Augmentation(
        rotation=20,
        zoom=0.05,
        width_shift=0.1,
        height_shift=0.1,
        shear=0.05,
        horizontal_flip=True,
        vertical_flip=True,
        transpose=True,  # Tissue has no up or down, left or right; ranks better once unweighted.
        stain=0.0,  # Neither a tenth nor a quarter is a sure gain; darkness carries signal.
    ),
    # All of it holds the small network back more than it keeps it from learning patients by heart.
    dropout=0.5,
    # Dropout makes what batch normalization sees in training wider than what it gets in scoring:
    # most of the error in the probabilities, and a worse ranking. So many patches give steady
    # figures in a second.
    settling=1024,
)


def choose(name: object, constants: Mapping[str, Any]) -> Recipe:
    """Gives the recipe of a name.

    Args:
        name: "published" or "tuned".
        constants: The configuration's, by name.

    Raises:
        InputError: There is no such recipe, or the published one has a value that is out of range.
    """
    known = {"published": published(constants), "tuned": TUNED}
    if not isinstance(name, str) or name not in known:
        raise InputError(
            f"The recipe is {name!r}: expected {' or '.join(known)}. Change --recipe, or RECIPE in "
            "cancernet/config.py."
        )
    return known[name]


def constants(recipe: Recipe) -> dict[str, Any]:
    """Lists all values of a recipe, under the names that the configuration has for them."""
    names = {field: name for name, field in (SETTINGS | RANGES).items()} | {"name": "RECIPE"}
    values = vars(recipe) | vars(recipe.augmentation)
    del values["augmentation"]
    return {names.get(field, field.upper()): value for field, value in values.items()}


def shares(recipe: Recipe, labels: Sequence[int], patients: Sequence[str]) -> list[float] | None:
    """Says how often each patch is to be drawn, in proportion; None for each once an epoch.

    Args:
        recipe: Its `balance` says what comes up alike.
        labels: One a patch.
        patients: One a patch.
    """
    groups = {"classes": labels, "patients": patients}.get(recipe.balance)
    if groups is None:
        return None
    counts = Counter(groups)
    return [1 / counts[group] for group in groups]
