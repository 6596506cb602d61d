"""Both recipes: where their values come from, and what they make of them."""

import dataclasses

import keras
import pytest
from conftest import recipe_of
from hypothesis import given, settings
from hypothesis import strategies as st

from cancernet import config, recipe


def test_the_published_recipe_is_made_of_the_configuration() -> None:
    constants = vars(config) | {"EPOCHS": 7, "ROTATION_RANGE": 3.5, "VERTICAL_FLIP": False}
    made = recipe.published(constants)
    assert (made.epochs, made.augmentation.rotation) == (7, 3.5)
    assert not made.augmentation.vertical_flip
    # What the published scripts do not have stays off.
    assert (made.class_weights, made.dropout) == (True, 1.0)
    assert (made.reestimation, made.averaging) == (0, 1)
    assert not made.augmentation.transpose


def test_a_report_lists_every_value_under_the_name_in_the_configuration() -> None:
    listed = recipe_of(dropout=0.3).constants()
    for name in (*recipe.VALUES, *recipe.RANGES, "RECIPE"):
        assert listed[name] == getattr(config, name)
    assert listed["DROPOUT"] == 0.3
    values = len(dataclasses.fields(recipe.Recipe)) + len(dataclasses.fields(recipe.Augmentation))
    assert len(listed) == values - 1  # The augmentation is listed by its own values.


def test_optimizer_is_adagrad_as_tf_keras_had_it() -> None:
    optimizer = recipe_of().optimizer()
    assert type(optimizer) is keras.optimizers.Adagrad
    assert (optimizer.initial_accumulator_value, optimizer.epsilon) == (0.1, 1e-7)
    mixed = recipe_of().optimizer(mixed_precision=True)
    assert type(mixed) is keras.optimizers.LossScaleOptimizer


@settings(deadline=None)
@given(st.lists(st.integers(0, 1), min_size=1))
def test_class_weights_make_the_classes_count_the_same(labels: list[int]) -> None:
    assert recipe.TUNED.class_weight(labels) is None
    weights = recipe_of().class_weight(labels)
    assert type(weights) is dict
    assert weights.keys() == set(labels)
    assert min(weights.values()) == 1
    sums = [weight * labels.count(label) for label, weight in weights.items()]
    assert sums == pytest.approx([max(sums)] * len(sums))
