"""Figures against counts done by hand, scikit-learn and Keras."""

import math
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from sklearn import metrics

from cancernet.evaluation import evaluation
from cancernet.evaluation.evaluation import Confusion

# 2 of 4 benign patches and 5 of 6 malignant ones are called right, 1 of them at exactly 0.5.
LABELS = np.array([0, 0, 0, 0, 1, 1, 1, 1, 1, 1])
PROBABILITIES = np.array([0.1, 0.2, 0.7, 0.8, 0.4, 0.5, 0.6, 0.7, 0.9, 1.0], dtype=np.float32)
PATIENTS = ["9135"] * 3 + ["8863"] * 4 + ["8864"] * 3

UNDEFINED_WITHOUT_MALIGNANT = ("sensitivity", "balanced_accuracy", "mcc")
UNDEFINED_WITHOUT_BENIGN = ("specificity", "balanced_accuracy", "mcc")


@st.composite
def labels_and_probabilities(draw):
    pairs = st.tuples(st.integers(0, 1), st.floats(0, 1, width=32))
    labels, probabilities = zip(*draw(st.lists(pairs, min_size=1, max_size=60)), strict=True)
    return np.array(labels), np.array(probabilities, dtype=np.float32)


def test_confusion_counts_what_can_be_counted_by_hand():
    assert evaluation.confusion(LABELS, PROBABILITIES, threshold=0.5) == Confusion(2, 2, 1, 5)


def test_class_1_is_positive_and_sensitivity_is_of_the_malignant():
    found = Confusion(tn=90, fp=10, fn=6, tp=4)
    assert found.sensitivity == 0.4  # 4 of 10 malignant patches.
    assert found.specificity == 0.9  # 90 of 100 benign patches.
    assert found.ppv == 4 / 14
    assert found.npv == 90 / 96
    assert found.accuracy == 94 / 110
    assert found.balanced_accuracy == pytest.approx(0.65)
    assert found.f1 == 8 / 24
    assert found.mcc == pytest.approx((4 * 90 - 10 * 6) / math.sqrt(14 * 10 * 100 * 96))


@pytest.mark.parametrize("threshold", [0.0, 0.25, 0.5, 0.7, 1.0])
def test_threshold_itself_is_malignant(threshold):
    labels = np.array([0, 1, 0, 1])
    probabilities = np.array([threshold, threshold, 0, 0])
    found = evaluation.confusion(labels, probabilities, threshold=threshold)
    below = 0 if threshold == 0 else 1
    assert found == Confusion(tn=below, fp=2 - below, fn=below, tp=2 - below)


@settings(deadline=None, max_examples=50)
@given(labels_and_probabilities(), st.sampled_from([0.25, 0.5, 0.75]))
@example((LABELS, PROBABILITIES), 0.5)
def test_figures_equal_those_of_scikit_learn(patches, threshold):
    labels, probabilities = patches
    called = (probabilities >= threshold).astype(int)
    found = evaluation.confusion(labels, probabilities, threshold=threshold)
    expected = {
        "accuracy": metrics.accuracy_score(labels, called),
        "sensitivity": metrics.recall_score(labels, called, zero_division=np.nan),
        "specificity": metrics.recall_score(labels, called, pos_label=0, zero_division=np.nan),
        "ppv": metrics.precision_score(labels, called, zero_division=np.nan),
        "npv": metrics.precision_score(labels, called, pos_label=0, zero_division=np.nan),
        "f1": metrics.f1_score(labels, called, zero_division=np.nan),
    }
    for name, value in expected.items():
        figure = getattr(found, name)
        assert (math.nan if figure is None else figure) == pytest.approx(value, nan_ok=True), name

    if len(set(labels)) == 2:
        assert found.balanced_accuracy == pytest.approx(
            metrics.balanced_accuracy_score(labels, called)
        )
        area = metrics.roc_auc_score(labels, probabilities)
        assert evaluation.roc_auc(labels, probabilities) == pytest.approx(area)
        precision = metrics.average_precision_score(labels, probabilities)
        assert evaluation.average_precision(labels, probabilities) == pytest.approx(precision)
    if found.mcc is not None:
        assert found.mcc == pytest.approx(metrics.matthews_corrcoef(labels, called))


def test_counts_as_large_as_the_real_data_set_do_not_overflow():
    found = Confusion(tn=190_000, fp=8_738, fn=8_786, tp=70_000)
    margins = 78_738 * 78_786 * 198_738 * 198_786
    expected = (70_000 * 190_000 - 8_738 * 8_786) / math.sqrt(margins)
    assert found.mcc == pytest.approx(expected)


@pytest.mark.parametrize(
    ("counts", "undefined"),
    [
        (Confusion(tn=3, fp=1, fn=0, tp=0), UNDEFINED_WITHOUT_MALIGNANT),
        (Confusion(tn=0, fp=0, fn=1, tp=3), UNDEFINED_WITHOUT_BENIGN),
        (Confusion(tn=3, fp=0, fn=2, tp=0), ("ppv", "mcc")),
        (Confusion(tn=0, fp=3, fn=0, tp=2), ("npv", "mcc")),
        (Confusion(tn=3, fp=0, fn=0, tp=0), ("ppv", "f1", *UNDEFINED_WITHOUT_MALIGNANT)),
        (Confusion(tn=0, fp=0, fn=0, tp=0), evaluation.FIGURES),
    ],
    ids=str,
)
def test_figures_that_are_not_defined_are_none_and_no_others(counts, undefined):
    found = {name for name in evaluation.FIGURES if getattr(counts, name) is None}
    assert found == set(undefined)


@pytest.mark.parametrize("figure", [evaluation.roc_auc, evaluation.average_precision])
@pytest.mark.parametrize(
    ("labels", "probabilities"),
    [([1, 1], [0.2, 0.9]), ([0, 0], [0.2, 0.9]), ([0, 1], [0.2, math.nan]), ([], [])],
    ids=["malignant alone", "benign alone", "not a number", "nothing"],
)
def test_areas_are_none_where_nothing_can_be_ranked(figure, labels, probabilities):
    assert figure(np.array(labels), np.array(probabilities, dtype=np.float32)) is None


def test_roc_auc_is_the_share_of_pairs_in_the_right_order():
    labels = np.array([0, 0, 1, 1])
    assert evaluation.roc_auc(labels, np.array([0.1, 0.4, 0.35, 0.8])) == 0.75
    assert evaluation.roc_auc(labels, np.array([0.9, 0.8, 0.2, 0.1])) == 0
    assert evaluation.roc_auc(labels, np.array([0.5, 0.5, 0.5, 0.5])) == 0.5


@settings(deadline=None)
@given(labels_and_probabilities())
@example((np.array([1]), np.array([0], dtype=np.float32)))
@example((np.array([0]), np.array([1], dtype=np.float32)))
@example((np.array([1, 0]), np.array([1, 0], dtype=np.float32)))
@example((np.array([1, 0]), np.array([1e-6, 1 - 1e-6], dtype=np.float32)))
def test_loss_is_that_of_keras(patches):
    labels, probabilities = patches
    one_hot = np.eye(2, dtype=np.float32)[labels]
    two_way = np.stack([1 - probabilities, probabilities], axis=1)
    expected = float(keras.losses.CategoricalCrossentropy()(one_hot, two_way))
    found = evaluation.cross_entropy(labels, probabilities)
    assert found == pytest.approx(expected, rel=1e-5, abs=1e-6)


# --- The threshold -------------------------------------------------------------------------------


def best_by_trying(labels, probabilities, measure):
    """The highest measure of all cuts, one after the other."""
    cuts = [*np.unique(probabilities)]
    values = [
        getattr(evaluation.confusion(labels, probabilities, threshold=cut), measure) for cut in cuts
    ]
    return max(value for value in values if value is not None)


@settings(deadline=None, max_examples=100)
@given(labels_and_probabilities(), st.sampled_from(evaluation.MEASURES))
@example((np.array([0, 1]), np.array([0, 2**-149], dtype=np.float32)), "accuracy")
@example((np.array([0, 1]), np.array([1 - 2**-23, 1 - 2**-24], dtype=np.float32)), "mcc")
@example((np.array([0, 1]), np.array([1 - 2**-24, 1], dtype=np.float32)), "f1")
def test_no_cut_is_better_than_the_threshold(patches, measure):
    labels, probabilities = patches
    threshold = evaluation.choose_threshold(labels, probabilities, measure=measure)
    if len(set(labels)) < 2 or len(set(probabilities)) < 2:
        assert threshold is None
        return
    assert threshold is not None
    assert 0 <= threshold <= 1
    assert float(np.float32(threshold)) == threshold  # As exact in float32 as in JSON.
    found = getattr(evaluation.confusion(labels, probabilities, threshold=threshold), measure)
    assert found == pytest.approx(best_by_trying(labels, probabilities, measure))


def test_threshold_lies_halfway_and_of_equals_nearest_to_a_half():
    def choose(labels, probabilities):
        return evaluation.choose_threshold(
            np.array(labels), np.array(probabilities, dtype=np.float32), measure="balanced_accuracy"
        )

    assert choose([0, 0, 1, 1], [0.125, 0.25, 0.75, 0.875]) == 0.5
    assert choose([0, 0, 1, 1], [0.0, 0.25, 0.3125, 0.5]) == 0.28125
    # A cut at 0.1875 and one at 0.625 are right for three in four of either class.
    labels, probabilities = [0, 1, 0, 1], [0.125, 0.25, 0.5, 0.75]
    assert choose(labels, probabilities) == 0.625
    assert choose([1, 0], [0.25, 0.5]) == 0.125  # Upside down: nothing is better than all.


def test_counts_may_be_arrays_and_undefined_figures_are_then_no_numbers():
    counts = [(90, 10, 6, 4), (3, 1, 0, 0), (0, 0, 0, 0), (0, 2, 0, 3)]
    arrays = Confusion(*np.array(counts, dtype=float).T)
    for name in evaluation.FIGURES:
        expected = [getattr(Confusion(*each), name) for each in counts]
        expected = [math.nan if value is None else value for value in expected]
        assert getattr(arrays, name) == pytest.approx(expected, nan_ok=True), name


def test_patients_stand_worst_first():
    patients = {
        # Half of either class right; all benign wrong; everything right; one malignant one wrong.
        "half": [(0, 0.9), (0, 0.1), (1, 0.9), (1, 0.1)],
        "benign": [(0, 0.9), (0, 0.8)],
        "right": [(0, 0.1), (1, 0.6)],
        "malignant": [(1, 0.9), (1, 0.9), (1, 0.9), (1, 0.2)],
        "also half": [(1, 0.1), (1, 0.7)],
    }
    rows = [(name, *patch) for name, each in patients.items() for patch in each]
    owners, labels, probabilities = zip(*rows, strict=True)
    found = evaluation.per_patient(
        np.array(labels), np.array(probabilities, np.float32), owners, threshold=0.5
    )
    names = ["benign", "half", "also half", "malignant", "right"]
    assert [row["patient"] for row in found] == names
    assert found[0] == {
        "patient": "benign",
        "patches": 2,
        "prevalence": 0,
        "sensitivity": None,
        "specificity": 0,
        "roc_auc": None,
    }
    assert (found[4]["sensitivity"], found[4]["specificity"], found[4]["roc_auc"]) == (1, 1, 1)
    assert found[3]["sensitivity"] == 0.75


def test_figures_need_no_tensorflow():
    program = "import sys, cancernet.evaluation; print('tensorflow' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "False"
