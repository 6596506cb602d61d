"""The bootstrap against resamples laid out, exact intervals and simulated patients."""

import time

import numpy as np
import pytest

from cancernet.evaluation import metrics
from cancernet.evaluation.metrics import METRICS


def clustered(generator, *, patients, patches):
    """Labels and probabilities of patients of whom some are harder than others."""
    owner = np.repeat(np.arange(patients), patches)
    hardness = generator.normal(0, 1.5, patients)[owner]
    labels = (generator.random(len(owner)) < 0.4).astype(int)
    logits = 1.5 * labels - 0.5 + hardness + generator.normal(0, 1, len(owner))
    # Rounded, so that many patches share a probability.
    return labels, np.round(1 / (1 + np.exp(-logits)), 2).astype(np.float32), owner


def test_metrics_are_those_of_the_resamples_laid_out():
    labels, probabilities, owner = clustered(np.random.default_rng(1), patients=12, patches=9)
    drawn = metrics.draw([f"p{number:02}" for number in owner], resamples=20, seed=5)
    assert (drawn.times.sum(axis=1) == 12).all()
    counts = metrics.confusion(labels, probabilities, threshold=0.5, weights=drawn)
    for number, times in enumerate(drawn.times):
        laid_out = np.repeat(np.arange(len(owner)), times.astype(int)[owner])
        patches = labels[laid_out], probabilities[laid_out]
        expected = metrics.confusion(*patches, threshold=0.5)
        for name in METRICS:
            assert getattr(counts, name)[number] == pytest.approx(getattr(expected, name)), name
        for function in (metrics.areas, metrics.brier, metrics.expected_calibration_error):
            found = np.asarray(function(labels, probabilities, drawn))[..., number]
            assert found == pytest.approx(function(*patches), rel=1e-6), function


def test_same_seed_same_resamples_whatever_the_order_of_the_patches():
    patients = np.array([f"p{number % 12}" for number in range(60)])
    order = np.random.default_rng(0).permutation(60)
    drawn = metrics.draw(list(patients), resamples=50, seed=1)
    again = metrics.draw(list(patients[order]), resamples=50, seed=1)
    assert (again.times == drawn.times).all()
    assert (again.owner == drawn.owner[order]).all()
    assert (metrics.draw(list(patients), resamples=50, seed=2).times != drawn.times).any()


def test_a_class_missing_from_a_resample_is_nan_and_left_out():
    drawn = metrics.draw(["a", "a", "b", "b"], resamples=50, seed=0)
    labels, probabilities = np.array([0, 0, 1, 1]), np.array([0.1, 0.2, 0.3, 0.4])
    one_patient = (drawn.times == 0).any(axis=1)
    assert 0 < one_patient.sum() < 50
    for values in metrics.areas(labels, probabilities, drawn):
        assert (np.isnan(values) == one_patient).all()
        assert metrics.interval(values) == [1, 1]
    assert metrics.interval(np.full(5, np.nan)) is None


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
    metrics.areas(labels, probabilities, drawn)
    metrics.confusion(labels, probabilities, threshold=0.5, weights=drawn)
    metrics.expected_calibration_error(labels, probabilities, drawn)
    assert time.process_time() - began < 2  # 0.2 seconds; 2,000 resamples take ten times as long.
