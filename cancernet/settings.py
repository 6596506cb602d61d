"""Every constant of config.py and every option of the scripts, checked once, by one table."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path, PurePath
from types import ModuleType, SimpleNamespace
from typing import Any, NamedTuple

from cancernet import recipe
from cancernet.cli import InputError

CHANGE = "Change it in cancernet/config.py."


class Rule(NamedTuple):
    """What a value has to be.

    Attributes:
        expected: The same in words.
        holds: Whether a value of the configuration is that.
        parse: Makes a value of an option's text; ValueError where it is none.
    """

    expected: str
    holds: Callable[[Any], bool]
    parse: Callable[[str], Any] = str


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _digits(text: str) -> int:
    if not (text.isascii() and text.isdigit()):
        raise ValueError(text)
    return int(text)


def whole(least: int, most: int) -> Rule:
    """A whole number from `least` to `most`."""

    def holds(value: Any) -> bool:
        return _is_number(value) and isinstance(value, int) and least <= value <= most

    return Rule(f"a whole number from {least} to {most}", holds, _digits)


def number(least: float, most: float, expected: str) -> Rule:
    """A number from `least` to `most`."""
    return Rule(expected, lambda value: _is_number(value) and least <= value <= most, float)


def above_0(below: float, expected: str) -> Rule:
    """A number above 0 and below another one."""
    return Rule(expected, lambda value: _is_number(value) and 0 < value < below, float)


def choice(*values: str) -> Rule:
    """One of some words."""
    known = f"one of {', '.join(values)}"
    return Rule(known, lambda value: isinstance(value, str) and value in values)


PATH = Rule(
    "a path, as text",
    lambda value: isinstance(value, str) and value != "" and "\0" not in value,
)
FLAG = Rule("True or False", lambda value: isinstance(value, int) and value in (True, False))
SHARE = number(0, math.nextafter(1, 0), "a share, from 0 to below 1")
RATIO = above_0(1, "a number above 0 and below 1, so that no split is empty")
ANGLE = number(-360, 360, "an angle, -360 to 360 degrees")

# By script, then by constant. BATCH_SIZE stands twice, since predict.py has no recipe.
BATCH = whole(1, 10**9 - 1)
BUILD = {
    "ORIG_INPUT_DATASET": PATH,
    "BASE_PATH": PATH,
    "TRAIN_PATH": PATH,
    "VAL_PATH": PATH,
    "TEST_PATH": PATH,
    "SAMPLE_PATH": PATH,
    "SPLIT_BY": choice("image", "patient", "published"),
    "TRAIN_SPLIT": RATIO,
    "VAL_SPLIT": RATIO,
    "SEED": whole(0, 2**32 - 1),
    "MIN_SIDE": whole(1, 10**6),
    "MAX_PIXELS": whole(1, 10**12),
    "COPY_MODE": choice("copy", "hardlink", "symlink"),
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
    "DECODE_CACHE_MB": number(0, 1e9, "megabytes, 0 or more"),
    "THRESHOLD_MEASURE": choice("accuracy", "balanced_accuracy", "f1", "mcc"),
    "RESAMPLES": whole(100, 100_000),
}
PUBLISHED = {
    "EPOCHS": whole(1, 10**9 - 1),
    # Far above any that learns, far below what float32 overflows at.
    "LEARNING_RATE": above_0(1e6, "a number above 0, below 1,000,000"),
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
ABOVE_0 = above_0(math.inf, "a number above 0")

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
        try:
            value = rule.parse(text)
            if rule.holds(value):
                return value
        except (ValueError, OverflowError):
            pass
        raise argparse.ArgumentTypeError(f"{text!r} is not {rule.expected}")

    return parse


def adder(
    parser: argparse.ArgumentParser | argparse._ActionsContainer, config: ModuleType
) -> Callable[[str, str, str, str], None]:
    """Makes what adds an option in the place of a constant: option, constant, metavar, help."""

    def add(name: str, constant: str, metavar: str, text: str) -> None:
        default = "the recipe's" if constant in PUBLISHED else getattr(config, constant, None)
        parser.add_argument(
            name,
            type=option(constant),
            metavar=metavar,
            help=f"{text} (default: {default})".replace("%", "%%"),
        )

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
        own = {
            name: given[name.upper()] for name in ("epochs", "batch_size") if name.upper() in given
        }
        chosen = replace(chosen, **own)
        constants |= chosen.constants()
    if script == "build":
        settings.split_folders = _split_folders(config, constants)
    vars(settings).update((name.lower(), value) for name, value in constants.items())
    for name, constant in OPTIONS.items():
        if RULES[constant] is PATH and constant in constants:
            setattr(settings, name, Path(constants[constant]))
    if script == "train":
        settings.recipe, settings.constants = chosen, constants
    return settings


def _checked(config: ModuleType, rules: dict[str, Rule], given: dict[str, Any]) -> dict[str, Any]:
    """Gives the constants of some rules, each as given on the command line or as configured."""
    constants = {}
    for name, rule in rules.items():
        constants[name] = value = given.get(name, getattr(config, name, None))
        if not rule.holds(value):
            raise InputError(f"{name} is {value!r}: expected {rule.expected}. {CHANGE}")
    return constants


def _split_folders(config: ModuleType, constants: dict[str, Any]) -> dict[str, str]:
    """Gives each split's folder relative to the data set, with forward slashes.

    Raises:
        InputError: A path is not below BASE_PATH, or lies in another one.
    """
    base = _checked(config, {"BASE_PATH": PATH}, {})["BASE_PATH"]
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
