"""Metrics against counts done by hand, scikit-learn and Keras; the bootstrap against simulation."""

import math
import time

import keras
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from sklearn import metrics as of

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
    areas = ("balanced_accuracy", "mcc", "roc_auc", "average_precision")
    expected = dict.fromkeys(areas, math.nan) | {
        "accuracy": of.accuracy_score(labels, predicted),
        "f1": of.f1_score(labels, predicted, zero_division=np.nan),
        "brier": np.mean((probabilities.astype(float) - labels) ** 2),
    }
    for label, recall, precision in ((1, "sensitivity", "ppv"), (0, "specificity", "npv")):
        settings = {"pos_label": label, "zero_division": np.nan}
        expected[recall] = of.recall_score(labels, predicted, **settings)
        expected[precision] = of.precision_score(labels, predicted, **settings)
    if len(set(labels)) == 2:
        expected["balanced_accuracy"] = of.balanced_accuracy_score(labels, predicted)
        expected["roc_auc"] = of.roc_auc_score(labels, probabilities)
        expected["average_precision"] = of.average_precision_score(labels, probabilities)
        if len(set(predicted)) == 2:
            expected["mcc"] = of.matthews_corrcoef(labels, predicted)
    return expected


def ours(labels, probabilities, *, threshold, weights=None):
    counts = metrics.confusion(labels, probabilities, threshold=threshold, weights=weights)
    roc_auc, average_precision = metrics.areas(labels, probabilities, weights)
    return counts.rates() | {
        "roc_auc": roc_auc,
        "average_precision": average_precision,
        "brier": metrics.brier(labels, probabilities, weights),
        "ece": metrics.expected_calibration_error(labels, probabilities, weights),
    }


def test_class_1_is_positive_and_sensitivity_is_of_the_malignant():
    assert metrics.confusion(LABELS, PROBABILITIES, threshold=0.5) == Confusion(2, 2, 1, 5)
    found = Confusion(tn=90, fp=10, fn=6, tp=4).rates()
    assert (found["sensitivity"], found["specificity"]) == (4 / 10, 90 / 100)
    # As many patches as the real data set has do not overflow.
    for large in (tuple(10**5 * n for n in (90, 10, 6, 4)), 1e5 * np.array([[90], [10], [6], [4]])):
        assert Confusion(*large).rates()["mcc"] == pytest.approx(found["mcc"])


@settings(deadline=None, max_examples=60)
@given(labels_and_probabilities(), st.sampled_from([0.25, 0.5, 0.75]))
@example((LABELS, PROBABILITIES), 0.5)
@example((np.array([0]), np.array([0.2], dtype=np.float32)), 0.5)
@example((np.array([1, 0]), np.array([0.7, 0.7], dtype=np.float32)), 0.75)
def test_metrics_equal_those_of_scikit_learn(patches, threshold):
    found = ours(*patches, threshold=threshold)
    assert tuple(found)[: len(METRICS)] == METRICS
    for name, value in of_scikit_learn(*patches, threshold=threshold).items():
        metric = math.nan if found[name] is None else found[name]
        assert metric == pytest.approx(value, nan_ok=True), name


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
    found = metrics.cross_entropy(labels, probabilities)
    assert found == pytest.approx(expected, rel=1e-5, abs=1e-6)


def test_there_are_no_areas_of_what_is_not_finite_or_nothing():
    for labels, scores in (([0, 1], [0.2, math.nan]), ([], [])):
        assert metrics.areas(np.array(labels), np.array(scores)) == (None, None)


def test_calibration_error_by_hand():
    labels, probabilities = np.array([0, 1, 1, 0]), np.array([0.01, 0.02, 1.0, 0.5])
    # The first two share a bin: its mean probability is 0.015, its share of malignant 0.5.
    error = (2 * (0.5 - 0.015) + 0 + 0.5) / 4
    assert metrics.expected_calibration_error(labels, probabilities) == pytest.approx(error)
    # Fifteen bins: two patches make up for each other below 1/15, not on both sides of it.
    for low, high, expected in ((0.02, 0.066, 0.457), (0.02, 0.068, 0.476)):
        found = metrics.expected_calibration_error(labels[:2], np.array([low, high]))
        assert found == pytest.approx(expected)


def test_patients_stand_worst_first():
    rows = [
        *(("half", 0, 0.9), ("half", 0, 0.1), ("half", 1, 0.9), ("half", 1, 0.1)),
        *(("benign", 0, 0.9), ("benign", 0, 0.8), ("right", 0, 0.1), ("right", 1, 0.6)),
        *(("late", 1, 0.9), ("late", 1, 0.9), ("late", 1, 0.9), ("late", 1, 0.2)),
        *(("also half", 1, 0.1), ("also half", 1, 0.7)),
    ]
    owners, labels, scores = zip(*rows, strict=True)
    found = metrics.per_patient(np.array(labels), np.array(scores), owners, threshold=0.5)
    assert " ".join(found[0]) == "patient patches prevalence sensitivity specificity roc_auc"
    assert [tuple(row.values()) for row in found] == [
        ("benign", 2, 0, None, 0, None),
        ("half", 4, 0.5, 0.5, 0.5, 0.5),
        ("also half", 2, 1, 0.5, None, None),
        ("late", 4, 1, 0.75, None, None),
        ("right", 2, 0.5, 1, 1, 1),
    ]


def clustered(seed, *, patients, patches):
    """Labels and probabilities of patients of whom some are harder than others."""
    generator = np.random.default_rng(seed)
    owner = np.repeat(np.arange(patients), patches)
    hardness = generator.normal(0, 1.5, patients)[owner]
    labels = (generator.random(len(owner)) < 0.4).astype(int)
    logits = 1.5 * labels - 0.5 + hardness + generator.normal(0, 1, len(owner))
    # Rounded, so that many patches share a probability.
    return labels, np.round(1 / (1 + np.exp(-logits)), 2).astype(np.float32), owner


@pytest.mark.parametrize(("patients", "patches"), [(12, 9), (3, 2), (2, 1), (1, 4)])
def test_metrics_are_those_of_the_resamples_laid_out(patients, patches):
    labels, probabilities, owner = clustered(1, patients=patients, patches=patches)
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
    patients = [f"p{number % 12}" for number in range(60)]
    drawn, again = (metrics.draw(own, resamples=50, seed=1) for own in (patients, patients[::-1]))
    assert (again.times == drawn.times).all()
    assert (again.owner == drawn.owner[::-1]).all()
    assert (metrics.draw(patients, resamples=50, seed=2).times != drawn.times).any()


def test_resamples_of_a_whole_testing_split_take_seconds():
    labels, probabilities, owner = clustered(4, patients=55, patches=1000)
    drawn = metrics.draw(list(map(str, owner)), resamples=200, seed=0)
    began = time.process_time()
    ours(labels, probabilities, threshold=0.5, weights=drawn)
    assert time.process_time() - began < 2  # 0.2 seconds; 2,000 resamples take ten times as long.
