"""Every constant of config.py and every option of the scripts, checked once, by one table."""

from __future__ import annotations

import argparse
import math
import re
from collections.abc import Callable
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


def number(expected: str, holds: Callable[[Any], bool]) -> Rule:
    """A number of which something holds."""
    return Rule(expected, lambda value: type(value) in (int, float) and holds(value), float)


def whole(least: int, most: int) -> Rule:
    """A whole number from `least` to `most`."""

    def parse(text: str) -> int:
        if not (text.isascii() and text.isdigit()):
            raise ValueError(text)
        return int(text)

    expected = f"a whole number from {least} to {most}"
    return Rule(expected, lambda value: type(value) is int and least <= value <= most, parse)


def choice(*values: str) -> Rule:
    """One of some words."""
    return Rule(f"one of {', '.join(values)}", lambda value: value in values)


PATH = Rule(
    "a path, as text", lambda value: type(value) is str and value != "" and "\0" not in value
)
LAYOUT_PART = "[a-z0-9]+(?:[-_ .][a-z0-9]+)*"


def _is_layout(value: Any) -> bool:
    if not isinstance(value, str) or not re.fullmatch(f"{LAYOUT_PART}(?:/{LAYOUT_PART})+", value):
        return False
    words = re.split("[-_ ./]", value)
    has_file = value.split("/")[-1] not in ("patient", "class")
    return "patient" in words and words.count("class") == 1 and has_file


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

# By script, then by constant. BATCH_SIZE stands twice, since predict.py has no recipe.
BATCH = whole(1, 10**9 - 1)
BUILD = {
    "ORIG_INPUT_DATASET": PATH,
    "BASE_PATH": PATH,
    "TRAIN_PATH": PATH,
    "VAL_PATH": PATH,
    "TEST_PATH": PATH,
    "SAMPLE_PATH": PATH,
    "LAYOUT": LAYOUT,
    "SPLIT_BY": choice("image", "patient", "published"),
    "TRAIN_SPLIT": RATIO,
    "VAL_SPLIT": RATIO,
    "SEED": whole(0, 2**32 - 1),
    "MIN_SIDE": whole(1, 10**6),
    "MAX_PIXELS": whole(1, 10**12),
}
# What Keras' three poolings leave nothing of, and what would need half a billion weights.
SIDE = whole(8, 1024)
TRAIN = {
    "BASE_PATH": PATH,
    "OUTPUT_PATH": PATH,
    "SEED": BUILD["SEED"],
    "IMAGE_WIDTH": SIDE,
    "IMAGE_HEIGHT": SIDE,
    "IMAGE_DEPTH": Rule("3 (patches are read as red, green and blue)", lambda value: value == 3),
    "CLASSES": Rule("2 (benign and malignant)", lambda value: value == 2),
    "RECIPE": choice(*recipe.RECIPES),
    "PRECISION": choice("auto", "float32", "mixed"),
    "DETERMINISTIC": FLAG,
    "THRESHOLD_MEASURE": choice("accuracy", "balanced_accuracy", "f1", "mcc"),
    "RESAMPLES": whole(100, 100_000),
}
PUBLISHED = {
    "EPOCHS": whole(1, 10**9 - 1),
    # Far above any that learns, far below what float32 overflows at.
    "LEARNING_RATE": number("a number above 0, below 1,000,000", lambda value: 0 < value < 1e6),
    "BATCH_SIZE": BATCH,
    "ROTATION_RANGE": ANGLE,
    "ZOOM_RANGE": SHARE,
    "WIDTH_SHIFT_RANGE": SHARE,
    "HEIGHT_SHIFT_RANGE": SHARE,
    "SHEAR_RANGE": ANGLE,
    "HORIZONTAL_FLIP": FLAG,
    "VERTICAL_FLIP": FLAG,
}
PREDICT = {
    "OUTPUT_PATH": PATH,
    "BATCH_SIZE": BATCH,
    "MIN_SIDE": BUILD["MIN_SIDE"],
    "MAX_PIXELS": BUILD["MAX_PIXELS"],
}
SCRIPTS = {"build": BUILD, "train": TRAIN, "predict": PREDICT}
RULES = BUILD | TRAIN | PUBLISHED | PREDICT

# Options that take the place of a value of either recipe.
RECIPES_OWN = ("epochs", "batch_size")

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


def option(constant: str, rule: Rule | None = None) -> Callable[[str], Any]:
    """Makes what argparse checks an option's text by: the rule of its constant."""
    rule = rule or RULES[constant]

    def parse(text: str) -> Any:
        with suppress(ValueError, OverflowError):
            if rule.holds(value := rule.parse(text)):
                return value
        raise argparse.ArgumentTypeError(f"{text!r} is not {rule.expected}")

    return parse


def adder(
    parser: argparse.ArgumentParser | argparse._ActionsContainer, config: ModuleType
) -> Callable[[str, str, str, str], None]:
    """Makes what adds an option in the place of a constant: option, constant, metavar, help."""

    def add(name: str, constant: str, metavar: str, text: str) -> None:
        default = "the recipe's" if constant in PUBLISHED else getattr(config, constant, None)
        text = f"{text} (default: {default})".replace("%", "%%")
        parser.add_argument(name, type=option(constant), metavar=metavar, help=text)

    return add


def read(config: ModuleType, arguments: argparse.Namespace, *, script: str) -> Settings:
    """Checks all that a script uses of the configuration, and puts its options in place of it.

    Args:
        config: The configuration.
        arguments: What argparse made of the command line; None where an option is not given.
        script: "build", "train" or "predict".

    Raises:
        InputError: Naming a constant, what it is, and what is expected.
    """
    given = {OPTIONS.get(name, name.upper()): value for name, value in vars(arguments).items()}
    given = {name: value for name, value in given.items() if value is not None}
    constants = _checked(config, SCRIPTS[script], given)
    settings = Settings(**vars(arguments))
    if script == "train":
        chosen = recipe.TUNED
        if constants["RECIPE"] == "published":
            chosen = recipe.published(_checked(config, PUBLISHED, given))
        own = {name: given[name.upper()] for name in RECIPES_OWN if name.upper() in given}
        chosen = replace(chosen, **own)
        constants |= chosen.constants()
    vars(settings).update((name.lower(), value) for name, value in constants.items())
    for name, constant in OPTIONS.items():
        if RULES[constant] is PATH and constant in constants:
            setattr(settings, name, Path(constants[constant]))
    if script == "train":
        settings.recipe, settings.constants = chosen, constants
    if script == "build":
        base = _checked(config, {"BASE_PATH": PATH}, {})["BASE_PATH"]
        settings.split_folders = _split_folders(constants, base)
    return settings


def _checked(config: ModuleType, rules: dict[str, Rule], given: dict[str, Any]) -> dict[str, Any]:
    """Gives the constants of some rules, each as given on the command line or as configured."""
    constants = {}
    for name, rule in rules.items():
        constants[name] = value = given.get(name, getattr(config, name, None))
        if not rule.holds(value):
            raise InputError(f"{name} is {value!r}: expected {rule.expected}. {CHANGE}")
    return constants


def _split_folders(constants: dict[str, Any], base: str) -> dict[str, str]:
    """Gives each split's folder relative to the configured BASE_PATH, with forward slashes.

    Raises:
        InputError: A path is not below it, or lies in another one.
    """
    paths = [PurePath(constants[name]) for name in ("TRAIN_PATH", "VAL_PATH", "TEST_PATH")]
    folders = {}
    for split, path in zip(("training", "validation", "testing"), paths, strict=True):
        below = path.is_relative_to(base) and path != PurePath(base) and ".." not in path.parts
        overlapping = [
            other for other in paths if path.is_relative_to(other) or other.is_relative_to(path)
        ]
        if not below or len(overlapping) > 1:  # Each path is relative to itself.
            raise InputError(
                f"The {split} split's directory is {path}: expected one of its own below {base}. "
                "Change TRAIN_PATH, VAL_PATH and TEST_PATH in cancernet/config.py."
            )
        folders[split] = path.relative_to(base).as_posix()
    return folders
