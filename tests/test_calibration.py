"""Threshold and recalibration, against cuts tried one by one and SciPy."""

import math

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize
from scipy.special import expit, logit
from test_metrics import labels_and_probabilities

from cancernet.evaluation import metrics
from cancernet.evaluation.calibration import (
    Recalibration,
    choose_threshold,
    cox_line,
    fit_decision,
    fit_line,
    recalibrate,
)
from cancernet.evaluation.metrics import MEASURES


def drawn(slope, intercept, *, patches):
    """Labels that are malignant with the probability that the line makes of the one given."""
    generator = np.random.default_rng(0)
    probabilities = generator.uniform(0.02, 0.98, patches).astype(np.float32)
    truth = expit(slope * logit(probabilities) + intercept)
    return (generator.random(patches) < truth).astype(int), probabilities


@settings(deadline=None, max_examples=100)
@given(labels_and_probabilities(), st.sampled_from(MEASURES))
@example((np.array([0, 1]), np.array([0, 2**-149], dtype=np.float32)), "accuracy")
@example((np.array([0, 1]), np.array([1 - 2**-23, 1 - 2**-24], dtype=np.float32)), "mcc")
@example((np.array([0, 1]), np.array([1 - 2**-24, 1], dtype=np.float32)), "f1")
def test_no_cut_is_better_than_the_threshold(patches, measure):
    labels, probabilities = patches
    threshold = choose_threshold(labels, probabilities, measure=measure)
    assert (threshold is None) is (len(set(labels)) < 2 or len(set(probabilities)) < 2)
    if threshold is None:
        return
    assert 0 <= threshold <= 1
    assert float(np.float32(threshold)) == threshold  # As exact in float32 as in JSON.

    def reached(cut):
        return metrics.confusion(labels, probabilities, threshold=cut).rates()[measure]

    best = max(value for cut in probabilities if (value := reached(cut)) is not None)
    assert reached(threshold) == pytest.approx(best)


@pytest.mark.parametrize(
    ("labels", "probabilities", "expected"),
    [
        ([0, 0, 1, 1], [0.125, 0.25, 0.75, 0.875], 0.5),
        ([0, 0, 1, 1], [0.0, 0.25, 0.3125, 0.5], 0.28125),
        # A cut at 0.1875 and one at 0.625 are right for three in four of either class.
        ([0, 1, 0, 1], [0.125, 0.25, 0.5, 0.75], 0.625),
        ([1, 0], [0.25, 0.5], 0.125),  # Upside down: nothing is better than all.
    ],
)
def test_threshold_lies_halfway_and_of_equals_nearest_to_a_half(labels, probabilities, expected):
    arguments = np.array(labels), np.array(probabilities, dtype=np.float32)
    assert choose_threshold(*arguments, measure="balanced_accuracy") == expected


def test_fit_is_the_maximum_of_the_likelihood_without_a_penalty():
    labels, probabilities = drawn(0.6, -1.5, patches=500)
    logits = logit(probabilities.astype(float))

    def loss(line):
        return np.logaddexp(0, np.where(labels == 1, -1, 1) * (line[0] * logits + line[1])).sum()

    decision, notes = fit_decision(labels, probabilities, measure="f1")
    found = decision.recalibration
    assert (found, notes) == (fit_line(labels, probabilities), [])
    expected = minimize(loss, [0, 0], tol=1e-12).x
    assert list(vars(found).values()) == pytest.approx(list(expected), abs=1e-4)
    assert decision.threshold == choose_threshold(labels, probabilities, measure="f1")
    # It makes the mean probability the prevalence, and nothing is left to fit.
    calibrated = recalibrate(probabilities, found)
    assert calibrated.mean() == pytest.approx(labels.mean(), abs=1e-5)
    left = vars(cox_line(labels, calibrated))
    assert left == pytest.approx({"slope": 1, "intercept": 0}, abs=1e-4)


STAYS, NO_LINE = "the threshold stays 0.5", "not recalibrated: no line"


@pytest.mark.parametrize(
    ("labels", "probabilities", "words"),
    [
        ([1, 1, 1], [0.2, 0.3, 0.9], [STAYS, NO_LINE]),
        ([0, 0, 0], [0.2, 0.3, 0.9], [STAYS, NO_LINE]),
        ([0, 0, 1, 1], [0.1, 0.2, 0.3, 0.9], [NO_LINE]),  # Parted.
        ([1, 1, 0, 0], [0.1, 0.2, 0.3, 0.9], [NO_LINE]),
        ([0, 0, 1, 1], [0.1, 0.3, 0.3, 0.9], [NO_LINE]),
        ([0, 1, 0, 1], [0.4, 0.4, 0.4, 0.4], [STAYS, NO_LINE]),
        ([0, 1, 0, 1], [0.4, math.nan, 0.5, 0.4], [STAYS, NO_LINE]),
        ([0, 1, 0, 1], [0.4, 0.3, 0.8, 0.7], ["the slope, -"]),  # Upside down.
    ],
)
def test_what_cannot_be_fitted_is_said(labels, probabilities, words):
    patches = np.array(labels, int), np.array(probabilities, np.float32)
    assert (fit_line(*patches) is None) is (NO_LINE in words)
    decision, notes = fit_decision(*patches, measure="balanced_accuracy")
    assert decision.recalibration is None
    assert decision.threshold == 0.5 or STAYS not in words
    assert [word in note for word, note in zip(words, notes, strict=True)] == [True] * len(words)


def test_a_slope_is_reported_where_its_standard_error_is_at_most_one():
    labels, probabilities = drawn(1, 0, patches=80)
    reported = []
    for size in range(10, 80):
        line = fit_line(labels[:size], probabilities[:size])
        assert line is not None
        design = np.stack([logit(probabilities[:size].astype(float)), np.ones(size)])
        fitted = expit(line.slope * design[0] + line.intercept)
        covariance = np.linalg.inv(design * fitted * (1 - fitted) @ design.T)
        reported.append(cox_line(labels[:size], probabilities[:size]) is not None)
        assert reported[-1] == (covariance[0, 0] <= 1)
    assert set(reported) == {True, False}


def test_recalibration_is_the_formula_that_cancernet_json_promises():
    probabilities = np.linspace(0, 1, 50, dtype=np.float32)
    calibrated = recalibrate(probabilities, Recalibration(2.0, -0.5))
    expected = expit(2 * logit(np.clip(probabilities.astype(float), 1e-7, 1 - 1e-7)) - 0.5)
    assert calibrated == pytest.approx(expected, rel=1e-6)
    assert calibrated.dtype == np.float32
    assert (np.diff(recalibrate(probabilities, Recalibration(100, 50))) >= 0).all()
    assert (recalibrate(probabilities, None) == probabilities).all()
