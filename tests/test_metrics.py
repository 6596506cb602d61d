"""Metrics against counts done by hand, scikit-learn and Keras."""

import math

import keras
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from sklearn import metrics as sklearn_metrics

from cancernet.evaluation import metrics
from cancernet.evaluation.metrics import METRICS, Confusion, Weights

# 2 of 4 benign patches and 5 of 6 malignant ones are predicted right, 1 of them at exactly 0.5.
LABELS = np.array([0, 0, 0, 0, 1, 1, 1, 1, 1, 1])
PROBABILITIES = np.array([0.1, 0.2, 0.7, 0.8, 0.4, 0.5, 0.6, 0.7, 0.9, 1.0], dtype=np.float32)

WITHOUT_MALIGNANT = ("sensitivity", "balanced_accuracy", "mcc")
WITHOUT_BENIGN = ("specificity", "balanced_accuracy", "mcc")


@st.composite
def labels_and_probabilities(draw):
    pairs = st.tuples(st.integers(0, 1), st.floats(0, 1, width=32))
    labels, probabilities = zip(*draw(st.lists(pairs, min_size=1, max_size=60)), strict=True)
    return np.array(labels), np.array(probabilities, dtype=np.float32)


def of_scikit_learn(labels, probabilities, *, threshold, weights=None):
    """All metrics by scikit-learn, NaN where it says that one is not defined."""
    predicted = (probabilities >= threshold).astype(int)
    given_ = {"sample_weight": weights, "zero_division": np.nan}
    expected = {
        "accuracy": sklearn_metrics.accuracy_score(labels, predicted, sample_weight=weights),
        "f1": sklearn_metrics.f1_score(labels, predicted, **given_),
        "brier": np.average((probabilities.astype(float) - labels) ** 2, weights=weights),
    }
    for label, names in ((1, ("sensitivity", "ppv")), (0, ("specificity", "npv"))):
        for name, function in zip(names, ("recall_score", "precision_score"), strict=True):
            score = getattr(sklearn_metrics, function)
            expected[name] = score(labels, predicted, pos_label=label, **given_)
    drawn = np.ones(len(labels), bool) if weights is None else weights > 0
    if len(set(labels[drawn])) == 2:
        for name, function, scores in (
            ("balanced_accuracy", sklearn_metrics.balanced_accuracy_score, predicted),
            ("roc_auc", sklearn_metrics.roc_auc_score, probabilities),
            ("average_precision", sklearn_metrics.average_precision_score, probabilities),
        ):
            expected[name] = function(labels, scores, sample_weight=weights)
        if len(set(predicted[drawn])) == 2:
            mcc = sklearn_metrics.matthews_corrcoef
            expected["mcc"] = mcc(labels, predicted, sample_weight=weights)
    return expected


def ours(labels, probabilities, *, threshold, weights=None):
    counts = metrics.confusion(labels, probabilities, threshold=threshold, weights=weights)
    roc_auc, average_precision = metrics.areas(labels, probabilities, weights)
    return {name: getattr(counts, name) for name in METRICS} | {
        "roc_auc": roc_auc,
        "average_precision": average_precision,
        "brier": metrics.brier(labels, probabilities, weights),
    }


def test_class_1_is_positive_and_sensitivity_is_of_the_malignant():
    assert metrics.confusion(LABELS, PROBABILITIES, threshold=0.5) == Confusion(2, 2, 1, 5)
    found = Confusion(tn=90, fp=10, fn=6, tp=4)
    assert found.sensitivity == 0.4  # 4 of 10 malignant patches.
    assert found.specificity == 0.9  # 90 of 100 benign patches.
    assert (found.ppv, found.npv, found.accuracy, found.f1) == (4 / 14, 90 / 96, 94 / 110, 8 / 24)
    assert found.mcc == pytest.approx((4 * 90 - 10 * 6) / math.sqrt(14 * 10 * 100 * 96))
    # As many patches as the real data set has do not overflow.
    for large in (tuple(10**5 * n for n in (90, 10, 6, 4)), 1e5 * np.array([[90], [10], [6], [4]])):
        assert Confusion(*large).mcc == pytest.approx(found.mcc)


@settings(deadline=None, max_examples=60)
@given(labels_and_probabilities(), st.sampled_from([0.25, 0.5, 0.75]), st.integers(0, 2**32))
@example((LABELS, PROBABILITIES), 0.5, 0)
def test_metrics_equal_those_of_scikit_learn_with_and_without_weights(patches, threshold, seed):
    labels, probabilities = patches
    found = ours(labels, probabilities, threshold=threshold)
    for name, value in of_scikit_learn(labels, probabilities, threshold=threshold).items():
        metric = math.nan if found[name] is None else found[name]
        assert metric == pytest.approx(value, nan_ok=True), name

    rows = np.random.default_rng(seed).integers(0, 4, (3, len(labels))).astype(float)
    rows[:, 0] = 1  # No resample is empty.
    weights = Weights(np.arange(len(labels)), rows)
    found = ours(labels, probabilities, threshold=threshold, weights=weights)
    for number, row in enumerate(rows):
        expected = of_scikit_learn(labels, probabilities, threshold=threshold, weights=row)
        for name, value in expected.items():
            assert found[name][number] == pytest.approx(value, nan_ok=True), name


@pytest.mark.parametrize(
    ("counts", "undefined"),
    [
        ((3, 1, 0, 0), WITHOUT_MALIGNANT),
        ((0, 0, 1, 3), WITHOUT_BENIGN),
        ((3, 0, 2, 0), ("ppv", "mcc")),
        ((0, 3, 0, 2), ("npv", "mcc")),
        ((3, 0, 0, 0), ("ppv", "f1", *WITHOUT_MALIGNANT)),
        ((0, 0, 0, 0), METRICS),
    ],
    ids=str,
)
def test_metrics_that_are_not_defined_are_none_or_in_arrays_nan_and_no_others(counts, undefined):
    one, many = Confusion(*counts), Confusion(*np.array([counts], dtype=float).T)
    assert {name for name in METRICS if getattr(one, name) is None} == set(undefined)
    for name in METRICS:
        value = getattr(one, name)
        expected = math.nan if value is None else value
        assert getattr(many, name) == pytest.approx([expected], nan_ok=True), name


@pytest.mark.parametrize(
    ("labels", "scores"),
    [([1, 1], [0.2, 0.9]), ([0, 0], [0.2, 0.9]), ([0, 1], [0.2, math.nan]), ([], [])],
    ids=["malignant alone", "benign alone", "not a number", "nothing"],
)
def test_areas_are_none_where_nothing_can_be_ranked(labels, scores):
    assert metrics.areas(np.array(labels), np.array(scores)) == (None, None)


@settings(deadline=None)
@given(labels_and_probabilities())
@example((np.array([1]), np.array([0], dtype=np.float32)))
@example((np.array([0]), np.array([1], dtype=np.float32)))
@example((np.array([1, 0]), np.array([1e-6, 1 - 1e-6], dtype=np.float32)))
def test_loss_is_that_of_keras(patches):
    labels, probabilities = patches
    one_hot = np.eye(2, dtype=np.float32)[labels]
    two_way = np.stack([1 - probabilities, probabilities], axis=1)
    expected = float(keras.losses.CategoricalCrossentropy()(one_hot, two_way))
    assert metrics.cross_entropy(labels, probabilities) == pytest.approx(
        expected, rel=1e-5, abs=1e-6
    )


def test_brier_and_calibration_error_by_hand():
    labels, probabilities = np.array([0, 1, 1, 0]), np.array([0.01, 0.02, 1.0, 0.5])
    squares = 0.01**2 + 0.98**2 + 0 + 0.5**2
    assert metrics.brier(labels, probabilities) == pytest.approx(squares / 4)
    # The first two share a bin: its mean probability is 0.015, its share of malignant 0.5.
    error = (2 * (0.5 - 0.015) + 0 + 0.5) / 4
    assert metrics.expected_calibration_error(labels, probabilities) == pytest.approx(error)
    # Fifteen bins: two patches make up for each other below 1/15, not on both sides of it.
    for low, high, expected in ((0.02, 0.066, 0.457), (0.02, 0.068, 0.476)):
        found = metrics.expected_calibration_error(labels[:2], np.array([low, high]))
        assert found == pytest.approx(expected)


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
    owners, labels, scores = zip(*rows, strict=True)
    found = metrics.per_patient(np.array(labels), np.array(scores), owners, threshold=0.5)
    keys = ("patient", "patches", "prevalence", "sensitivity", "specificity", "roc_auc")
    assert [tuple(row[key] for key in keys) for row in found] == [
        ("benign", 2, 0, None, 0, None),
        ("half", 4, 0.5, 0.5, 0.5, 0.5),
        ("also half", 2, 1, 0.5, None, None),
        ("malignant", 4, 1, 0.75, None, None),
        ("right", 2, 0.5, 1, 1, 1),
    ]
