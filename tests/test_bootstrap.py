"""The bootstrap against resamples laid out, exact intervals and simulated patients."""

import numpy as np
import pytest
from scipy.stats import binomtest
from sklearn import metrics

from cancernet.evaluation import bootstrap, calibration, evaluation


def clustered(generator, *, patients, patches):
    """Labels and probabilities of patients of whom some are harder than others."""
    owner = np.repeat(np.arange(patients), patches)
    hardness = generator.normal(0, 1.5, patients)[owner]
    labels = (generator.random(len(owner)) < 0.4).astype(int)
    logits = 1.5 * labels - 0.5 + hardness + generator.normal(0, 1, len(owner))
    # Rounded, so that many patches share a probability.
    return labels, np.round(1 / (1 + np.exp(-logits)), 2).astype(np.float32), owner


def test_figures_are_those_of_the_resamples_laid_out():
    labels, probabilities, owner = clustered(np.random.default_rng(1), patients=12, patches=9)
    drawn = bootstrap.draw([f"p{number:02}" for number in owner], resamples=20, seed=5)
    assert (drawn.times.sum(axis=1) == 12).all()
    counts = bootstrap.confusion(labels, probabilities, drawn, threshold=0.5)
    roc_auc, average_precision = bootstrap.areas(labels, probabilities, drawn)
    brier = bootstrap.mean((probabilities.astype(float) - labels) ** 2, drawn)
    ece = bootstrap.expected_calibration_error(labels, probabilities, drawn)
    for number, times in enumerate(drawn.times):
        laid_out = np.concatenate(
            [np.tile(np.flatnonzero(owner == p), int(n)) for p, n in enumerate(times) if n]
        )
        y, scores = labels[laid_out], probabilities[laid_out]
        expected = evaluation.confusion(y, scores, threshold=0.5)
        for name in evaluation.FIGURES:
            assert getattr(counts, name)[number] == pytest.approx(getattr(expected, name)), name
        assert roc_auc[number] == pytest.approx(metrics.roc_auc_score(y, scores))
        assert average_precision[number] == pytest.approx(
            metrics.average_precision_score(y, scores)
        )
        assert brier[number] == pytest.approx(metrics.brier_score_loss(y, scores))
        assert ece[number] == pytest.approx(calibration.expected_calibration_error(y, scores))


def test_areas_equal_those_of_scikit_learn_with_weights():
    labels, probabilities, owner = clustered(np.random.default_rng(2), patients=30, patches=40)
    drawn = bootstrap.draw([str(number + 100) for number in owner], resamples=10, seed=0)
    roc_auc, average_precision = bootstrap.areas(labels, probabilities, drawn)
    for number, times in enumerate(drawn.times):
        arguments = labels, probabilities
        weights = {"sample_weight": times[owner]}
        assert roc_auc[number] == pytest.approx(metrics.roc_auc_score(*arguments, **weights))
        assert average_precision[number] == pytest.approx(
            metrics.average_precision_score(*arguments, **weights)
        )


def test_same_seed_same_resamples_whatever_the_order_of_the_patches():
    labels, probabilities, owner = clustered(np.random.default_rng(3), patients=12, patches=9)
    patients = np.array([f"p{number}" for number in owner])
    order = np.random.default_rng(0).permutation(len(owner))

    def areas(places, seed):
        drawn = bootstrap.draw(list(patients[places]), resamples=50, seed=seed)
        return bootstrap.areas(labels[places], probabilities[places], drawn)[0]

    assert areas(order, 1) == pytest.approx(areas(np.arange(len(owner)), 1))
    assert areas(order, 1) != pytest.approx(areas(order, 2))


def test_a_class_missing_from_a_resample_is_no_number():
    patients = ["a", "a", "b", "b"]
    drawn = bootstrap.draw(patients, resamples=50, seed=0)
    labels, probabilities = np.array([0, 0, 1, 1]), np.array([0.1, 0.2, 0.3, 0.4])
    one_patient = (drawn.times == 0).any(axis=1)
    assert 0 < one_patient.sum() < 50
    for values in bootstrap.areas(labels, probabilities, drawn):
        assert (np.isnan(values) == one_patient).all()
        assert bootstrap.interval(values) == [1, 1]
    assert bootstrap.interval(np.full(5, np.nan)) is None


@pytest.mark.parametrize(("right", "patches"), [(150, 200), (180, 200), (60, 120)])
def test_one_patch_a_patient_agrees_with_the_exact_interval(right, patches):
    labels = np.ones(patches, dtype=int)
    probabilities = np.where(np.arange(patches) < right, 0.9, 0.1)
    drawn = bootstrap.draw([str(n) for n in range(patches)], resamples=2000, seed=0)
    found = bootstrap.interval(
        bootstrap.confusion(labels, probabilities, drawn, threshold=0.5).sensitivity
    )
    exact = binomtest(right, patches).proportion_ci(method="exact")  # Clopper & Pearson.
    assert found == pytest.approx([exact.low, exact.high], abs=0.015)


def test_intervals_hold_the_truth_where_those_over_patches_do_not():
    """Of 200 data sets of 40 patients, in how many does the interval hold the true sensitivity?"""
    generator = np.random.default_rng(11)
    patients, patches, simulations = 40, 25, 200
    truth = 0.7
    hits = {"patients": 0, "patches": 0}
    for simulation in range(simulations):
        own = generator.beta(1.4, 0.6, patients)  # Each patient's sensitivity; 0.7 on average.
        right = generator.random((patients, patches)) < own[:, np.newaxis]
        probabilities = right.ravel().astype(float)
        labels = np.ones(len(probabilities), dtype=int)
        of_patients = np.repeat(np.arange(patients), patches)
        for kind, owner in (("patients", of_patients), ("patches", np.arange(len(labels)))):
            drawn = bootstrap.draw(list(map(str, owner)), resamples=200, seed=simulation)
            values = bootstrap.confusion(labels, probabilities, drawn, threshold=0.5).sensitivity
            low, high = bootstrap.interval(values) or (np.nan, np.nan)
            hits[kind] += low <= truth <= high
    assert hits["patients"] / simulations > 0.88
    assert hits["patches"] / simulations < 0.6
