"""Every constant and option, in one table: what is taken, and what is refused by name."""

import argparse
import types
from pathlib import Path
from typing import Any

import pytest

from cancernet import config, recipe, settings
from cancernet.cli import InputError

NAN, INFINITY = float("nan"), float("inf")
WHOLE = [None, "1", 1.5, NAN, True, [1], -1]

# Constants, values that are taken, values that are refused.
TABLE: list[tuple[tuple[str, ...], list[Any], list[Any]]] = [
    (
        ("ORIG_INPUT_DATASET", "BASE_PATH", "TRAIN_PATH", "SAMPLE_PATH", "OUTPUT_PATH"),
        [],
        [5, None, "", "a\0b", ["a"], Path("a")],
    ),
    (("TRAIN_SPLIT", "VAL_SPLIT"), [0.5, 1e-9], [0, 1, -0.1, 1.5, NAN, "0.8", None]),
    (("SPLIT_BY",), ["image", "patient", "published"], ["slide", "", 1, ["image"]]),
    (
        ("LAYOUT",),
        ["patient/slide/class/file", "class/patient_file", "patient/patient/class/file"],
        ["patient", "patient/file", "class/class/patient/file", "<patient>/class/file", "", None],
    ),
    (("LAYOUT",), [], ["Patient/class/file", "patient/class", "class/patient"]),
    (("SEED",), [0, 2**32 - 1], [*WHOLE, 2**32]),
    (("MIN_SIDE", "MAX_PIXELS"), [1, 10**6], [*WHOLE, 0]),
    (("IMAGE_WIDTH", "IMAGE_HEIGHT"), [8, 1024], [*WHOLE, 0, 7, 1025]),
    (("IMAGE_DEPTH",), [3], [1, 4, "3", None]),
    (("CLASSES",), [2], [3, None]),
    (("RECIPE",), ["tuned", "published"], ["Published", "", None, ["tuned"], 1]),
    (("PRECISION",), ["auto", "float32", "mixed"], ["half", None]),
    (("DETERMINISTIC", "HORIZONTAL_FLIP", "VERTICAL_FLIP"), [True, False], [None, "yes", 2, NAN]),
    (("THRESHOLD_MEASURE",), ["accuracy", "f1", "mcc"], ["roc_auc", None]),
    (("RESAMPLES",), [100, 100_000], [*WHOLE, 0, 99, 100_001]),
    (("EPOCHS", "BATCH_SIZE"), [1, 10**9 - 1], [*WHOLE, 0, 10**9]),
    (("LEARNING_RATE",), [1e-9, 5], ["1e-2", 0, -0.01, NAN, INFINITY, 10**400]),
    (("ROTATION_RANGE", "SHEAR_RANGE"), [0, -360, 360], [None, "1", NAN, 361]),
    (("ZOOM_RANGE", "WIDTH_SHIFT_RANGE", "HEIGHT_SHIFT_RANGE"), [0, 0.99], [None, 1, -0.1, NAN]),
]
CASES = [
    (name, value, taken)
    for names, good, bad in TABLE
    for name in names
    for values, taken in ((good, True), (bad, False))
    for value in values
]
SCRIPTS = settings.SCRIPTS | {"train": (*settings.SCRIPTS["train"], *settings.PUBLISHED)}


def read(script: str, changes: dict[str, Any] | None = None, **options: Any) -> settings.Settings:
    changed = types.ModuleType("config")
    vars(changed).update(vars(config) | (changes or {}))
    return settings.read(changed, argparse.Namespace(**options), script=script)


def test_the_configuration_as_it_comes_is_taken_and_every_constant_has_a_rule() -> None:
    in_table = {name for names, *_ in TABLE for name in names} | {"VAL_PATH", "TEST_PATH"}
    assert set(settings.RULES) == {name for name in vars(config) if name.isupper()} == in_table
    assert read("build").split_folders["testing"] == "testing"
    assert read("train").recipe == recipe.published(vars(config))
    assert read("predict").output_path == config.OUTPUT_PATH


@pytest.mark.parametrize(("name", "value", "taken"), CASES, ids=str)
def test_a_constant_is_taken_or_refused_by_name(name: str, value: Any, taken: bool) -> None:
    for script, rules in SCRIPTS.items():
        if taken or name not in rules:
            assert vars(read(script, {name: value}))
            continue
        with pytest.raises(InputError, match=rf"^{name} is .*: expected .*config\.py") as refused:
            read(script, {name: value})
        assert repr(value)[:20] in str(refused.value)


def test_a_bad_constant_of_the_published_recipe_does_not_hinder_the_tuned_one() -> None:
    assert read("train", {"EPOCHS": 0, "LEARNING_RATE": "x"}, recipe="tuned").recipe == recipe.TUNED


def test_options_take_the_place_of_constants() -> None:
    found = read("train", dataset="d", output="o", recipe="tuned", epochs=3, batch_size=None)
    assert (found.dataset, found.output, found.recipe.epochs) == (Path("d"), Path("o"), 3)
    assert found.recipe.batch_size == recipe.TUNED.batch_size
    assert found.constants["EPOCHS"] == 3
    assert found.constants["BASE_PATH"] == "d"
    assert read("build", {"SEED": -1}, seed=7).seed == 7


@pytest.mark.parametrize(
    "changes",
    [{"TEST_PATH": "elsewhere/x"}, {"VAL_PATH": "datasets/idc/../x"},
     {"TRAIN_PATH": "datasets/idc"}, {"VAL_PATH": "datasets/idc/training/x"},
     {"VAL_PATH": "datasets/idc/training"}],
    ids=str,
)  # fmt: skip
def test_folders_of_splits_lie_apart_and_below_the_data_set(changes: dict[str, str]) -> None:
    with pytest.raises(InputError, match="expected one of its own below datasets/idc"):
        read("build", changes)


@pytest.mark.parametrize("text", ["", "x", "1.5", "-1", "4294967296", "9" * 5000])
def test_text_of_options_is_parsed_or_refused(text: str) -> None:
    assert settings.RULES["SEED"].read("040") == 40
    assert settings.RULES["SPLIT_BY"].read("image") == "image"
    with pytest.raises(argparse.ArgumentTypeError, match=r"'.*' is not a whole number from 0"):
        settings.RULES["SEED"].read(text)
