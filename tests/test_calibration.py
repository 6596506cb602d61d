"""Recalibration and the calibration figures, against counts by hand and SciPy."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize
from scipy.special import expit, logit

from cancernet.evaluation import calibration
from cancernet.evaluation.calibration import Recalibration


def drawn(slope, intercept, *, patches=200_000, seed=0):
    """Labels that are malignant with the probability that the line makes of the one given."""
    generator = np.random.default_rng(seed)
    probabilities = generator.uniform(0.02, 0.98, patches).astype(np.float32)
    truth = expit(slope * logit(probabilities) + intercept)
    return (generator.random(patches) < truth).astype(int), probabilities


@pytest.mark.parametrize(("slope", "intercept"), [(1, 0), (0.5, -1), (2, 0.7)])
def test_fit_finds_the_line_that_the_labels_were_drawn_from(slope, intercept):
    found = calibration.fit_recalibration(*drawn(slope, intercept))
    assert found is not None
    assert found.slope == pytest.approx(slope, rel=0.03)
    assert found.intercept == pytest.approx(intercept, abs=0.03)


def test_fit_is_the_maximum_of_the_likelihood_without_a_penalty():
    labels, probabilities = drawn(0.3, -2, patches=60)
    found = calibration.fit_line(labels, probabilities)
    logits = logit(probabilities.astype(float))

    def loss(line):
        return np.logaddexp(0, np.where(labels == 1, -1, 1) * (line[0] * logits + line[1])).sum()

    expected = minimize(loss, [0, 0], tol=1e-12).x
    assert found is not None
    assert [found.slope, found.intercept] == pytest.approx(list(expected), abs=1e-4)


def test_recalibrating_makes_the_mean_probability_the_prevalence():
    labels, probabilities = drawn(0.6, -1.5, patches=500)
    line = calibration.fit_recalibration(labels, probabilities)
    mended = calibration.recalibrate(probabilities, line)
    assert mended.mean() == pytest.approx(labels.mean(), abs=1e-5)
    again = calibration.fit_line(labels, mended)
    assert again is not None
    assert (again.slope, again.intercept) == pytest.approx((1, 0), abs=1e-4)
    assert calibration.brier(labels, mended) < calibration.brier(labels, probabilities)


@pytest.mark.parametrize(
    ("labels", "probabilities"),
    [
        ([1, 1, 1], [0.2, 0.3, 0.9]),
        ([0, 0, 0], [0.2, 0.3, 0.9]),
        ([0, 0, 1, 1], [0.1, 0.2, 0.3, 0.9]),
        ([1, 1, 0, 0], [0.1, 0.2, 0.3, 0.9]),
        ([0, 0, 1, 1], [0.1, 0.3, 0.3, 0.9]),
        ([0, 1, 0, 1], [0.4, 0.4, 0.4, 0.4]),
        ([0, 1, 0, 1], [0.4, math.nan, 0.5, 0.4]),
        ([], []),
    ],
    ids=["malignant", "benign", "parted", "parted upside down", "touching", "constant", "NaN", "0"],
)
def test_no_line_where_none_is_defined(labels, probabilities):
    arguments = np.array(labels, dtype=int), np.array(probabilities, dtype=np.float32)
    assert calibration.fit_line(*arguments) is None
    assert calibration.fit_recalibration(*arguments) is None


def test_a_line_that_falls_is_found_and_not_applied():
    labels, probabilities = drawn(-0.5, 0, patches=1000)
    line = calibration.fit_line(labels, probabilities)
    assert line is not None
    assert line.slope < 0
    assert calibration.fit_recalibration(labels, probabilities) is None


def test_without_a_recalibration_nothing_changes():
    probabilities = np.array([0, 0.1, 1], dtype=np.float32)
    assert (calibration.recalibrate(probabilities, None) == probabilities).all()


@settings(deadline=None)
@given(
    st.lists(st.floats(0, 1, width=32), min_size=1),
    st.floats(0.01, 100),
    st.floats(-50, 50),
)
def test_recalibrated_are_probabilities_in_the_same_order(given_, slope, intercept):
    probabilities = np.sort(np.array(given_, dtype=np.float32))
    mended = calibration.recalibrate(probabilities, Recalibration(slope, intercept))
    assert mended.dtype == np.float32
    assert ((mended >= 0) & (mended <= 1)).all()
    assert (np.diff(mended) >= 0).all()


def test_recalibration_is_the_formula_that_the_card_promises():
    mended = calibration.recalibrate(np.array([0.25]), Recalibration(2.0, -0.5))
    assert mended[0] == pytest.approx(1 / (1 + math.exp(-(2 * math.log(0.25 / 0.75) - 0.5))))
    ends = calibration.recalibrate(np.array([0.0, 1.0]), Recalibration(1.0, 0.0))
    assert ends == pytest.approx([1e-7, 1 - 1e-7], rel=1e-6)


def test_brier_and_calibration_error_by_hand():
    labels = np.array([0, 1, 1, 0])
    probabilities = np.array([0.01, 0.02, 1.0, 0.5], dtype=np.float32)
    squares = 0.01**2 + 0.98**2 + 0 + 0.5**2
    assert calibration.brier(labels, probabilities) == pytest.approx(squares / 4)
    # The first two share a bin: its mean probability is 0.015, its share of malignant 0.5.
    error = (2 * (0.5 - 0.015) + 0 + 0.5) / 4
    found = calibration.expected_calibration_error(labels, probabilities)
    assert found == pytest.approx(error, abs=1e-7)


def test_bins_are_fifteen_of_the_same_width():
    edges = np.arange(16) / 15
    inside = np.concatenate([edges[:-1] + 0.001, edges[1:] - 0.001])
    assert (calibration.bins(inside) == [*range(15), *range(15)]).all()
    assert list(calibration.bins(np.array([0.0, 1.0]))) == [0, 14]
