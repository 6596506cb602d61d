"""Metrics against counts done by hand, scikit-learn and Keras; the bootstrap against simulation."""

import math
import time

import keras
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from sklearn import metrics as sklearn_metrics

from cancernet.evaluation import metrics
from cancernet.evaluation.metrics import METRICS, Confusion

# 2 of 4 benign patches and 5 of 6 malignant ones are predicted right, 1 of them at exactly 0.5.
LABELS = np.array([0, 0, 0, 0, 1, 1, 1, 1, 1, 1])
PROBABILITIES = np.array([0.1, 0.2, 0.7, 0.8, 0.4, 0.5, 0.6, 0.7, 0.9, 1.0], dtype=np.float32)


@st.composite
def labels_and_probabilities(draw):
    pairs = st.tuples(st.integers(0, 1), st.floats(0, 1, width=32))
    labels, probabilities = zip(*draw(st.lists(pairs, min_size=1, max_size=60)), strict=True)
    return np.array(labels), np.array(probabilities, dtype=np.float32)


def of_scikit_learn(labels, probabilities, *, threshold):
    """All metrics by scikit-learn, NaN where it says that one is not defined."""
    predicted = (probabilities >= threshold).astype(int)
    expected = {
        "accuracy": sklearn_metrics.accuracy_score(labels, predicted),
        "f1": sklearn_metrics.f1_score(labels, predicted, zero_division=np.nan),
        "brier": np.mean((probabilities.astype(float) - labels) ** 2),
    }
    for label, names in ((1, ("sensitivity", "ppv")), (0, ("specificity", "npv"))):
        for name, function in zip(names, ("recall_score", "precision_score"), strict=True):
            score = getattr(sklearn_metrics, function)
            expected[name] = score(labels, predicted, pos_label=label, zero_division=np.nan)
    if len(set(labels)) == 2:
        expected["balanced_accuracy"] = sklearn_metrics.balanced_accuracy_score(labels, predicted)
        expected["roc_auc"] = sklearn_metrics.roc_auc_score(labels, probabilities)
        area = sklearn_metrics.average_precision_score(labels, probabilities)
        expected["average_precision"] = area
        if len(set(predicted)) == 2:
            expected["mcc"] = sklearn_metrics.matthews_corrcoef(labels, predicted)
    return expected


def ours(labels, probabilities, *, threshold, weights=None):
    counts = metrics.confusion(labels, probabilities, threshold=threshold, weights=weights)
    roc_auc, average_precision = metrics.areas(labels, probabilities, weights)
    return {name: getattr(counts, name) for name in METRICS} | {
        "roc_auc": roc_auc,
        "average_precision": average_precision,
        "brier": metrics.brier(labels, probabilities, weights),
        "ece": metrics.expected_calibration_error(labels, probabilities, weights),
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
@given(labels_and_probabilities(), st.sampled_from([0.25, 0.5, 0.75]))
@example((LABELS, PROBABILITIES), 0.5)
def test_metrics_equal_those_of_scikit_learn(patches, threshold):
    found = ours(*patches, threshold=threshold)
    for name, value in of_scikit_learn(*patches, threshold=threshold).items():
        metric = math.nan if found[name] is None else found[name]
        assert metric == pytest.approx(value, nan_ok=True), name


@pytest.mark.parametrize(
    ("counts", "undefined"),
    [
        ((3, 1, 0, 0), "sensitivity balanced_accuracy mcc"),
        ((0, 0, 1, 3), "specificity balanced_accuracy mcc"),
        ((3, 0, 2, 0), "ppv mcc"),
        ((0, 3, 0, 2), "npv mcc"),
        ((3, 0, 0, 0), "ppv f1 sensitivity balanced_accuracy mcc"),
        ((0, 0, 0, 0), " ".join(METRICS)),
    ],
)
def test_metrics_that_are_not_defined_are_none_or_in_arrays_nan_and_no_others(counts, undefined):
    one, many = Confusion(*counts), Confusion(*np.array([counts], dtype=float).T)
    assert {name for name in METRICS if getattr(one, name) is None} == set(undefined.split())
    for name in METRICS:
        value = getattr(one, name)
        expected = math.nan if value is None else value
        assert getattr(many, name) == pytest.approx([expected], nan_ok=True), name
    for labels, scores in (([1, 1], [0.2, 0.9]), ([0, 1], [0.2, math.nan]), ([], [])):
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


def clustered(generator, *, patients, patches):
    """Labels and probabilities of patients of whom some are harder than others."""
    owner = np.repeat(np.arange(patients), patches)
    hardness = generator.normal(0, 1.5, patients)[owner]
    labels = (generator.random(len(owner)) < 0.4).astype(int)
    logits = 1.5 * labels - 0.5 + hardness + generator.normal(0, 1, len(owner))
    # Rounded, so that many patches share a probability.
    return labels, np.round(1 / (1 + np.exp(-logits)), 2).astype(np.float32), owner


@pytest.mark.parametrize(("patients", "patches"), [(12, 9), (3, 2), (2, 1), (1, 4)])
def test_metrics_are_those_of_the_resamples_laid_out(patients, patches):
    labels, probabilities, owner = clustered(
        np.random.default_rng(1), patients=patients, patches=patches
    )
    drawn = metrics.draw([f"p{number:02}" for number in owner], resamples=20, seed=5)
    assert (drawn.times.sum(axis=1) == patients).all()
    found = ours(labels, probabilities, threshold=0.5, weights=drawn)
    for number, times in enumerate(drawn.times):
        laid_out = np.repeat(np.arange(len(owner)), times.astype(int)[owner])
        expected = ours(labels[laid_out], probabilities[laid_out], threshold=0.5)
        for name, value in expected.items():
            value = math.nan if value is None else value
            assert found[name][number] == pytest.approx(value, rel=1e-6, nan_ok=True), name


def test_same_seed_same_resamples_whatever_the_order_of_the_patches():
    patients = np.array([f"p{number % 12}" for number in range(60)])
    order = np.random.default_rng(0).permutation(60)
    drawn = metrics.draw(list(patients), resamples=50, seed=1)
    again = metrics.draw(list(patients[order]), resamples=50, seed=1)
    assert (again.times == drawn.times).all()
    assert (again.owner == drawn.owner[order]).all()
    assert (metrics.draw(list(patients), resamples=50, seed=2).times != drawn.times).any()


def test_intervals_hold_the_truth_where_those_over_patches_do_not():
    """Of 200 data sets of 40 patients, in how many does the interval hold the true sensitivity?"""
    generator = np.random.default_rng(11)
    patients, patches, simulations = 40, 25, 200
    labels = np.ones(patients * patches, dtype=int)
    hits = {1: 0, patches: 0}  # By the number of patches that are drawn together.
    for simulation in range(simulations):
        own = generator.beta(1.4, 0.6, patients)  # Each patient's sensitivity; 0.7 on average.
        right = (generator.random((patients, patches)) < own[:, np.newaxis]).ravel().astype(float)
        for together in hits:
            owners = [str(number // together) for number in range(len(labels))]
            drawn = metrics.draw(owners, resamples=200, seed=simulation)
            found = metrics.confusion(labels, right, threshold=0.5, weights=drawn).sensitivity
            low, high = metrics.interval(found) or (np.nan, np.nan)
            hits[together] += low <= 0.7 <= high
    assert hits[patches] / simulations > 0.88
    assert hits[1] / simulations < 0.6


def test_resamples_of_a_whole_testing_split_take_seconds():
    labels, probabilities, owner = clustered(np.random.default_rng(4), patients=55, patches=1000)
    drawn = metrics.draw(list(map(str, owner)), resamples=200, seed=0)
    began = time.process_time()
    ours(labels, probabilities, threshold=0.5, weights=drawn)
    assert time.process_time() - began < 2  # 0.2 seconds; 2,000 resamples take ten times as long.
