"""Every constant of config.py and every option of the scripts, checked once, by one table."""

from __future__ import annotations

import argparse
import math
import re
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path, PurePath
from types import ModuleType, SimpleNamespace
from typing import Any, NamedTuple

from cancernet import recipe
from cancernet.cli import InputError

CHANGE = "Change it in cancernet/config.py."


class Rule(NamedTuple):
    """What a value has to be: in words, as a check, and how it is made of an option's text."""

    expected: str
    holds: Callable[[Any], bool]
    parse: Callable[[str], Any] = str  # ValueError where the text is none.

    def read(self, text: str) -> Any:
        """Makes a value of an option's text, for argparse."""
        with suppress(ValueError, OverflowError):
            if self.holds(value := self.parse(text)):
                return value
        raise argparse.ArgumentTypeError(f"{text!r} is not {self.expected}")


def number(expected: str, holds: Callable[[Any], bool]) -> Rule:
    """A number of which something holds."""
    return Rule(expected, lambda value: type(value) in (int, float) and holds(value), float)


def whole(least: int, most: int) -> Rule:
    """A whole number from `least` to `most`."""
    expected = f"a whole number from {least} to {most}"
    return Rule(expected, lambda value: type(value) is int and least <= value <= most, int)


def choice(*values: str) -> Rule:
    """One of some words."""
    return Rule(f"one of {', '.join(values)}", lambda value: value in values)


def _is_layout(value: Any) -> bool:
    part = "[a-z0-9]+(?:[-_ .][a-z0-9]+)*"
    if type(value) is not str or not re.fullmatch(f"{part}(?:/{part})+", value):
        return False
    words = re.split("[-_ ./]", value)
    has_file = not value.endswith(("/patient", "/class"))
    return "patient" in words and words.count("class") == 1 and has_file


PATH = Rule(
    "a path, as text", lambda value: type(value) is str and value != "" and "\0" not in value
)
LAYOUT = Rule(
    "words in small letters, patient and class among them, as in patient/slide/class/file",
    _is_layout,
)
FLAG = Rule("True or False", lambda value: type(value) in (bool, int) and value in (0, 1))
SHARE = number("a share, from 0 to below 1", lambda value: 0 <= value < 1)
RATIO = number(
    "a number above 0 and below 1, so that no split is empty", lambda value: 0 < value < 1
)
ANGLE = number("an angle, -360 to 360 degrees", lambda value: -360 <= value <= 360)
ABOVE_0 = number("a number above 0", lambda value: 0 < value < math.inf)
# From what Keras' three poolings leave something of, to what needs half a billion weights.
SIDE = whole(8, 1024)

PATHS = ("ORIG_INPUT_DATASET", "BASE_PATH", "TRAIN_PATH", "VAL_PATH", "TEST_PATH", "SAMPLE_PATH")
RULES = {
    **dict.fromkeys((*PATHS, "OUTPUT_PATH"), PATH),
    "LAYOUT": LAYOUT,
    "SPLIT_BY": choice("image", "patient", "published"),
    **dict.fromkeys(("TRAIN_SPLIT", "VAL_SPLIT"), RATIO),
    "SEED": whole(0, 2**32 - 1),
    "MIN_SIDE": whole(1, 10**6),
    "MAX_PIXELS": whole(1, 10**12),
    **dict.fromkeys(("IMAGE_WIDTH", "IMAGE_HEIGHT"), SIDE),
    "IMAGE_DEPTH": Rule("3 (patches are read as red, green and blue)", lambda value: value == 3),
    "CLASSES": Rule("2 (benign and malignant)", lambda value: value == 2),
    "RECIPE": choice(*recipe.RECIPES),
    **dict.fromkeys(("EPOCHS", "BATCH_SIZE"), whole(1, 10**9 - 1)),
    # Far above any that learns, far below what float32 overflows at.
    "LEARNING_RATE": number("a number above 0, below 1,000,000", lambda value: 0 < value < 1e6),
    "PRECISION": choice("auto", "float32", "mixed"),
    "DETERMINISTIC": FLAG,
    **dict.fromkeys(("ROTATION_RANGE", "SHEAR_RANGE"), ANGLE),
    **dict.fromkeys(("ZOOM_RANGE", "WIDTH_SHIFT_RANGE", "HEIGHT_SHIFT_RANGE"), SHARE),
    **dict.fromkeys(("HORIZONTAL_FLIP", "VERTICAL_FLIP"), FLAG),
    "THRESHOLD_MEASURE": choice("accuracy", "balanced_accuracy", "f1", "mcc"),
    "RESAMPLES": whole(100, 100_000),
}
# What each script uses; training by the published recipe uses PUBLISHED, too.
SCRIPTS = {
    "build": (
        *(*PATHS, "LAYOUT", "SPLIT_BY", "TRAIN_SPLIT", "VAL_SPLIT"),
        *("SEED", "MIN_SIDE", "MAX_PIXELS"),
    ),
    "train": (
        *("BASE_PATH", "OUTPUT_PATH", "SEED", "IMAGE_WIDTH", "IMAGE_HEIGHT", "IMAGE_DEPTH"),
        *("CLASSES", "RECIPE", "PRECISION", "DETERMINISTIC", "THRESHOLD_MEASURE", "RESAMPLES"),
    ),
    "predict": ("OUTPUT_PATH", "BATCH_SIZE", "MIN_SIDE", "MAX_PIXELS"),
}
PUBLISHED = (*recipe.VALUES, *recipe.RANGES)

# Options that have another name than their constant.
OPTIONS = {
    "original": "ORIG_INPUT_DATASET",
    "dataset": "BASE_PATH",
    "output": "OUTPUT_PATH",
    "split": "SPLIT_BY",
}


class Settings(SimpleNamespace):
    """The checked constants by their names in small letters, and the options by theirs.

    An option takes the place of its constant. Paths are `Path`; `recipe` is a `Recipe` where
    train_model.py reads it; `constants` maps what the script depends on, by the constants' names.
    """


def adder(
    parser: argparse.ArgumentParser | argparse._ActionsContainer, config: ModuleType
) -> Callable[[str, str, str, str], None]:
    """Makes what adds an option in the place of a constant: option, constant, metavar, help."""

    def add(name: str, constant: str, metavar: str, text: str) -> None:
        default = "the recipe's" if constant in PUBLISHED else getattr(config, constant, None)
        text = f"{text} (default: {default})".replace("%", "%%")
        parser.add_argument(name, type=RULES[constant].read, metavar=metavar, help=text)

    return add


def read(config: ModuleType, arguments: argparse.Namespace, *, script: str) -> Settings:
    """Checks all that a script uses of the configuration, and puts its options in place of it.

    `script` is "build", "train" or "predict"; an argument is None where an option is not given.

    Raises:
        InputError: Naming a constant, what it is, and what is expected.
    """
    options = {name: value for name, value in vars(arguments).items() if value is not None}
    given = {OPTIONS.get(name, name.upper()): value for name, value in options.items()}
    constants = _checked(config, SCRIPTS[script], given)
    more: dict[str, Any] = {
        name: Path(constants[constant])
        for name, constant in OPTIONS.items()
        if RULES[constant] is PATH and constant in constants
    }
    if script == "train":
        chosen = recipe.TUNED
        if constants["RECIPE"] == "published":
            chosen = recipe.published(_checked(config, PUBLISHED, given))
        # These options take the place of a value of either recipe.
        own = {name: options[name] for name in ("epochs", "batch_size") if name in options}
        more["recipe"] = replace(chosen, **own)
        more["constants"] = constants = constants | more["recipe"].constants()
    if script == "build":
        base = _checked(config, ["BASE_PATH"], {})["BASE_PATH"]
        more["split_folders"] = _split_folders(constants, base)
    by_name = {name.lower(): value for name, value in constants.items()}
    return Settings(**vars(arguments) | by_name | more)


def _checked(config: ModuleType, names: Iterable[str], given: dict[str, Any]) -> dict[str, Any]:
    """Gives some constants, each as given on the command line or as configured."""
    constants = {}
    for name in names:
        constants[name] = value = given.get(name, getattr(config, name, None))
        if not RULES[name].holds(value):
            raise InputError(f"{name} is {value!r}: expected {RULES[name].expected}. {CHANGE}")
    return constants


def _split_folders(constants: dict[str, Any], base: str) -> dict[str, str]:
    """Gives each split's folder relative to the configured BASE_PATH, with forward slashes."""
    paths = [PurePath(constants[name]) for name in ("TRAIN_PATH", "VAL_PATH", "TEST_PATH")]
    folders = {}
    for split, path in zip(("training", "validation", "testing"), paths, strict=True):
        below = path.is_relative_to(base) and path != PurePath(base) and ".." not in path.parts
        around = [path.is_relative_to(other) or other.is_relative_to(path) for other in paths]
        if not below or sum(around) > 1:  # Each path is relative to itself.
            raise InputError(
                f"The {split} split's directory is {path}: expected one of its own below {base}. "
                "Change TRAIN_PATH, VAL_PATH and TEST_PATH in cancernet/config.py."
            )
        folders[split] = path.relative_to(base).as_posix()
    return folders
