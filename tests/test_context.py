"""Probabilities in context: neighbours counted one by one, and foci drawn by hand."""

import json
import math
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import made_up
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_up import CONTEXT
from scipy.special import expit, logit

from cancernet.data.dataset import Split
from cancernet.evaluation import context, metrics
from cancernet.evaluation.context import Grid, Scores

AROUND: dict[str, Any] = {"width": CONTEXT.width, "reach": CONTEXT.reach}


def grid_of(places):
    """The grid of patches given as slide, column and row; column and row may be unknown."""
    row = made_up.make_row("", 0, label=0)
    rows = [
        replace(row, patient=slide, x=x and 50 * x + 7, y=y and 50 * y) for slide, x, y in places
    ]
    return Grid.of_split(Split("testing", Path(), rows))


@st.composite
def slides(draw):
    """Patches of two slides, with holes, in any order, some without a place; and probabilities."""
    place = st.tuples(st.sampled_from("ab"), st.integers(-3, 3), st.integers(0, 4))
    placed = draw(st.lists(place, min_size=1, max_size=30, unique=True))
    places = draw(st.permutations([*placed, ("a", None, 0), ("b", None, None)]))
    size = len(places)
    values = draw(st.lists(st.floats(0, 1, width=32), min_size=size, max_size=size))
    return places, np.array(values, np.float32)


@settings(deadline=None)
@given(slides())
def test_the_mean_is_over_those_of_the_same_slide_that_are_there(patches):
    places, probabilities = patches
    logits = logit(np.clip(probabilities.astype(float), 1e-7, 1 - 1e-7))
    expected = []
    for slide, x, y in places:
        weights = [
            0
            if None in (x, y, *other) or slide != name or max(abs(dx), abs(dy)) > AROUND["reach"]
            else math.exp(-(dx**2 + dy**2) / (2 * AROUND["width"] ** 2))
            for name, *other in places
            for dx, dy in [((other[0] or 0) - (x or 0), (other[1] or 0) - (y or 0))]
        ]
        lonely = sum(weight > 0 for weight in weights) < 2
        expected.append(math.nan if lonely else expit(np.dot(weights, logits) / sum(weights)))
    found = context.average(grid_of(places), probabilities, **AROUND)
    assert found == pytest.approx(expected, nan_ok=True, abs=1e-9)
    in_context = expit(CONTEXT.slope * logit(np.clip(found, 1e-7, 1 - 1e-7)) + CONTEXT.intercept)
    found = CONTEXT.apply(grid_of(places), probabilities)
    assert found == pytest.approx(in_context, nan_ok=True, rel=1e-5)


def test_places_that_are_unknown_or_too_far_are_none():
    grid = grid_of([("a", x, 0) for x in (0, 1, -1, None, 2**21, 10**30)] + [("a", 2, None)])
    assert (grid.slides >= 0).tolist() == [True] * 3 + [False] * 4
    assert grid.cells[:3].tolist() == [[0, 0], [1, 0], [-1, 0]]
    assert len(context.average(grid_of([]), np.empty(0), **AROUND)) == 0


def validation(*, patches=400, **places):
    """A slide, 20 patches wide, whose left half is malignant."""
    made = [made_up.make_row("1", n, label=int(n % 20 < 10), **places) for n in range(patches)]
    return Split("validation", Path(), made)


def test_the_fit_makes_probabilities_that_are_calibrated_and_rank_better():
    split = validation()
    probabilities = made_up.make_probabilities(split.rows, quality=1)
    decision, notes = context.decide(split, probabilities, measure="balanced_accuracy")
    fitted = decision.context
    assert fitted is not None
    assert (notes, fitted.patches, fitted.patients) == ([], 400, 1)
    json.dumps(asdict(fitted), allow_nan=False)
    scores = Scores.of(split, probabilities, decision)
    areas = [metrics.roc_auc(split.labels, values) for values in vars(scores).values()]
    assert areas[2] > areas[0] + 0.1
    best, *others = [
        metrics.confusion(split.labels, scores.in_context, threshold=cut).rates()
        for cut in (fitted.threshold, *np.linspace(0.01, 0.99, 99))
    ]
    assert best["balanced_accuracy"] >= max(each["balanced_accuracy"] for each in others)
    # Labels take no part once it is fitted.
    turned = replace(split, rows=[replace(row, label=1 - row.label) for row in split.rows])
    again = Scores.of(turned, probabilities, decision)
    assert np.array_equal(again.in_context, scores.in_context)
    without = Scores.of(split, probabilities, replace(decision, context=None))
    assert np.isnan(without.in_context).all()


@pytest.mark.parametrize(
    ("looks", "quality", "spread", "note"),
    [
        ({"patches": 80}, 1, 1, "found 40 benign and 40 malignant"),
        ({"placed": False}, 1, 1, "found 0 benign and 0 malignant"),
        ({}, -2, 1, "they hardly tell the classes"),  # Upside down.
        ({}, 1, 0.01, "they hardly tell the classes"),  # All the same.
    ],
)
def test_what_cannot_be_fitted_is_said(looks, quality, spread, note):
    split = validation(**looks)
    probabilities = made_up.make_probabilities(split.rows, quality=quality)
    probabilities = 0.5 + spread * (probabilities - 0.5)
    decision, notes = context.decide(split, probabilities, measure="f1")
    assert decision.context is None
    assert note in notes[-1]


FOCI = """
    M.BB..
    .BBBM.
    BB.BBM
    mMBBBB
    ....BM
"""


def test_foci_are_groups_of_malignant_patches_whose_corners_touch():
    """M is malignant and found alone, m is not; B benign; in context only the pair's M is found."""
    marks = {
        (column, row): mark
        for row, line in enumerate(FOCI.split())
        for column, mark in enumerate(line)
        if mark != "."
    }
    places = [("a", *place) for place in marks] + [("b", 0, 1), ("a", None, None)]
    drawn = np.array([*marks.values(), "M", "M"])  # Another slide's, and one without a place.
    grid, labels, alone = grid_of(places), (drawn != "B").astype(int), drawn == "M"
    pair = np.array([place[1:] in ((0, 3), (1, 3)) for place in places])
    rows = context.foci(grid, labels, alone, alone & pair)
    assert [tuple(row.values()) for row in rows] == [
        ("1", 3, 3, 1.0, 0.0),
        ("2-4", 2, 4, 0.75, 0.25),
        ("5-16", 0, 0, None, None),
        ("more", 0, 0, None, None),
    ]
    # A snake of 17 patches is one group, and one of 16 another size's.
    for length, size in ((16, "5-16"), (17, "more")):
        every = np.ones(length, bool)
        snake = grid_of([("a", n, n % 2) for n in range(length)])
        found = context.foci(snake, every.astype(int), every, ~every)
        assert [row["patches_per_group"] for row in found if row["groups"] == 1] == [size]
