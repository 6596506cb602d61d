"""Both recipes: where their values come from, and what is refused."""

import dataclasses

import pytest
from conftest import recipe_of
from hypothesis import given
from hypothesis import strategies as st

from cancernet import config, recipes
from cancernet.cli import InputError


def test_the_published_recipe_is_made_of_the_configuration():
    constants = vars(config) | {"EPOCHS": 7, "ROTATION_RANGE": 3.5, "VERTICAL_FLIP": False}
    recipe = recipes.choose("published", constants)
    assert (recipe.epochs, recipe.augmentation.rotation) == (7, 3.5)
    assert not recipe.augmentation.vertical_flip
    # What the published scripts do not have stays off.
    assert (recipe.optimizer, recipe.balance) == ("adagrad", "weights")
    others = (recipe.label_smoothing, recipe.weight_average, recipe.weight_decay, recipe.settling)
    assert (*others, recipe.augmentation.stain, recipe.augmentation.transpose) == (0,) * 6


def test_the_tuned_recipe_has_values_of_its_own():
    changed = vars(config) | {"EPOCHS": 7, "LEARNING_RATE": 0.5, "ROTATION_RANGE": 3.5}
    assert recipes.choose("tuned", changed) == recipes.choose("tuned", vars(config))


@pytest.mark.parametrize("name", ["Published", "", None, ["tuned"], 1])
def test_an_unknown_recipe_is_refused(name):
    with pytest.raises(InputError, match=r"expected published or tuned.*--recipe.*RECIPE"):
        recipes.choose(name, vars(config))


@pytest.mark.parametrize("constant", [*recipes.SETTINGS, *recipes.RANGES])
@pytest.mark.parametrize("value", [None, "1", float("nan")])
def test_a_constant_that_is_no_number_is_refused_by_name(constant, value):
    with pytest.raises(InputError, match=rf"^{constant} is .*config\.py"):
        recipes.published(vars(config) | {constant: value})


def test_a_report_lists_every_value_under_the_name_in_the_configuration():
    listed = recipes.constants(recipe_of(weight_average=0.9))
    for name in (*recipes.SETTINGS, *recipes.RANGES, "RECIPE"):
        assert listed[name] == getattr(config, name)
    assert listed["WEIGHT_AVERAGE"] == 0.9
    values = len(dataclasses.fields(recipes.Recipe)) + len(dataclasses.fields(recipes.Augmentation))
    assert len(listed) == values - 1  # The augmentation is listed by its own values.


@given(st.lists(st.tuples(st.integers(0, 1), st.sampled_from("abc")), min_size=1))
def test_shares_of_every_class_or_patient_are_alike(patches):
    labels, patients = zip(*patches, strict=True)
    for balance, groups in (("classes", labels), ("patients", patients)):
        shares = recipes.shares(recipe_of(balance=balance), labels, patients)
        assert shares is not None
        for group in set(groups):
            of_group = [share for share, own in zip(shares, groups, strict=True) if own == group]
            assert sum(of_group) == pytest.approx(1)


@pytest.mark.parametrize("balance", ["none", "weights"])
def test_without_drawing_every_patch_comes_once(balance):
    assert recipes.shares(recipe_of(balance=balance), [0, 1], ["a", "b"]) is None
