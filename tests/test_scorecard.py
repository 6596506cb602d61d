"""One split's figures: their names, their intervals, and what is said where one is not defined."""

import json
import re
import warnings

import numpy as np
import pytest
from sklearn import metrics

from cancernet.cli import InputError
from cancernet.evaluation import calibration, evaluation, scorecard
from cancernet.evaluation.calibration import Recalibration
from cancernet.evaluation.scorecard import Fitted

HALF = Fitted(0.5, None)
AT = {"threshold", "confusion_matrix", *evaluation.FIGURES}


def patches(*, patients=12, each=30, seed=0):
    generator = np.random.default_rng(seed)
    owners = [f"90{number:02}" for number in range(patients) for _ in range(each)]
    labels = (generator.random(len(owners)) < 0.4).astype(int)
    logits = 2 * labels + generator.normal(0, 1.5, len(owners))
    return labels, (1 / (1 + np.exp(-logits))).astype(np.float32), owners


def score(labels, probabilities, owners, fitted=HALF, **settings):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figures, notes = scorecard.score(
            np.asarray(labels),
            np.asarray(probabilities, dtype=np.float32),
            owners,
            fitted=fitted,
            **({"resamples": 200, "seed": 0} | settings),
        )
    json.dumps(figures, allow_nan=False)
    return figures, notes


def test_names_are_those_of_metrics_json():
    labels, probabilities, owners = patches()
    figures, notes = score(labels, probabilities, owners, Fitted(0.625, Recalibration(0.5, -1.0)))
    assert figures.keys() == {
        *("patients", "patches", "prevalence", "at_0.5", "at_validation_threshold", "roc_auc"),
        *("average_precision", "brier", "calibration", "ci95", "per_patient"),
    }
    assert (figures["patients"], figures["patches"]) == (12, 360)
    for name, threshold in (("at_0.5", 0.5), ("at_validation_threshold", 0.625)):
        assert figures[name].keys() == AT
        assert figures[name]["threshold"] == threshold
        counts = evaluation.confusion(labels, probabilities, threshold=threshold)
        assert figures[name]["confusion_matrix"]["tp"] == counts.tp
        assert figures[name]["mcc"] == counts.mcc
        assert figures["ci95"][name].keys() == set(evaluation.FIGURES)
    assert figures["roc_auc"] == pytest.approx(metrics.roc_auc_score(labels, probabilities))
    assert figures["brier"] == figures["calibration"]["raw"]["brier"]
    calibrated = calibration.recalibrate(probabilities, Recalibration(0.5, -1.0))
    assert figures["calibration"]["recalibrated"]["brier"] == calibration.brier(labels, calibrated)
    for kind in ("raw", "recalibrated"):
        assert figures["calibration"][kind].keys() == {"brier", "ece", "slope", "intercept"}
        assert figures["ci95"]["calibration"][kind].keys() == {"brier", "ece"}
        low, high = figures["ci95"]["calibration"][kind]["brier"]
        assert low < figures["calibration"][kind]["brier"] < high
    raw, recalibrated = figures["ci95"]["calibration"].values()
    assert raw != recalibrated
    assert figures["per_patient"] == evaluation.per_patient(
        labels, probabilities, owners, threshold=0.625
    )
    assert len(notes) == 1
    assert "few patches (360)" in notes[0]
    assert "calibration error" in notes[0]


def ends(figures):
    """Each interval with its figure."""
    intervals = figures["ci95"]
    for at in ("at_0.5", "at_validation_threshold"):
        for name in evaluation.FIGURES:
            yield figures[at][name], intervals[at][name]
    for name in ("roc_auc", "average_precision", "brier"):
        yield figures[name], intervals[name]


def test_intervals_hold_their_figures_and_grow_with_fewer_patients():
    many, few = patches(patients=100), patches(patients=10)
    widths = []
    for labels, probabilities, owners in (many, few):
        figures, _ = score(labels, probabilities, owners, Fitted(0.7, None))
        for value, (low, high) in ends(figures):
            assert low <= value <= high
        widths.append(np.mean([high - low for _, (low, high) in ends(figures)]))
    assert widths[1] > 2 * widths[0]


def test_the_seed_fixes_the_intervals():
    assert score(*patches(), seed=1) == score(*patches(), seed=1)
    assert score(*patches(), seed=1)[0]["ci95"] != score(*patches(), seed=2)[0]["ci95"]


def test_fewer_than_ten_patients_have_no_intervals_and_a_note():
    figures, notes = score(*patches(patients=9))
    assert figures["ci95"] is None
    assert any("10 patients, found 9" in note for note in notes)
    assert score(*patches(patients=10))[0]["ci95"] is not None


def test_patients_of_one_class_are_noted():
    labels, probabilities, owners = patches()
    labels[:30] = 0
    _, notes = score(labels, probabilities, owners)
    assert any("patches of one class alone, as 1 of 12 have" in note for note in notes)


@pytest.mark.parametrize(
    ("labels", "probabilities", "undefined", "defined"),
    [
        (
            [0, 0, 0],
            [0.1, 0.2, 0.9],
            ("sensitivity", "balanced_accuracy", "mcc", "roc_auc", "average_precision", "slope"),
            {"specificity": 2 / 3},
        ),
        (
            [1, 1, 1],
            [0.1, 0.2, 0.9],
            ("specificity", "balanced_accuracy", "mcc", "roc_auc", "average_precision", "slope"),
            {"sensitivity": 1 / 3},
        ),
        ([0, 1, 1], [0.3, 0.3, 0.3], ("ppv", "mcc", "slope", "intercept"), {"sensitivity": 0}),
    ],
    ids=["benign alone", "malignant alone", "constant score"],
)
def test_what_is_not_defined_is_null_with_a_note(labels, probabilities, undefined, defined):
    figures, notes = score(labels, probabilities, ["9135"] * 3)
    flat = figures | figures["at_0.5"] | figures["calibration"]["raw"]
    for name in undefined:
        assert flat[name] is None, name
        assert any(name in note for note in notes), name
    for name, value in defined.items():
        assert flat[name] == value
        assert not any(f"{name}," in note or f"{name}:" in note for note in notes)


def test_resamples_without_a_figure_are_left_out_with_a_note():
    # One patient alone has malignant patches: about every third resample is without.
    labels = [1] * 5 + [0] * 55
    probabilities = np.linspace(1, 0, 60)
    owners = [f"{number // 5}" for number in range(60)]
    figures, notes = score(labels, probabilities, owners)
    assert figures["ci95"]["roc_auc"] == [1, 1]
    assert figures["ci95"]["at_0.5"]["sensitivity"] == [1, 1]
    (note,) = [note for note in notes if note.startswith("ci95")]
    for name in ("roc_auc", "sensitivity at 0.5", "sensitivity at validation threshold"):
        share = re.search(rf" {name} \((\d+)%\)", note)
        assert share is not None, name
        assert 25 <= int(share[1]) <= 45  # (11 / 12) ** 12 is 35 %.
    assert "specificity" not in note
    assert " accuracy" not in note


def test_threshold_and_line_are_fitted_on_validation():
    labels, probabilities, _ = patches()
    fitted, notes = scorecard.fit(list(labels), probabilities, measure="f1")
    assert notes == []
    threshold = evaluation.choose_threshold(labels, probabilities, measure="f1")
    assert threshold is not None
    assert fitted == Fitted(threshold, calibration.fit_recalibration(labels, probabilities))
    assert fitted.recalibration is not None


@pytest.mark.parametrize(
    ("labels", "probabilities", "threshold", "words"),
    [
        ([0, 1], [0.3, 0.3], 0.5, ("stays 0.5", "not recalibrated: no line")),
        ([0, 0], [0.3, 0.4], 0.5, ("stays 0.5", "not recalibrated: no line")),
        ([0, 1, 0, 1], [0.4, 0.3, 0.8, 0.7], None, ("the slope, -",)),
    ],
    ids=["constant", "one class", "upside down"],
)
def test_what_cannot_be_fitted_is_said(labels, probabilities, threshold, words):
    arguments = labels, np.array(probabilities, dtype=np.float32)
    fitted, notes = scorecard.fit(*arguments, measure="balanced_accuracy")
    assert fitted.recalibration is None
    assert threshold in (None, fitted.threshold)
    assert len(notes) == len(words)
    for note, word in zip(notes, words, strict=True):
        assert word in note


@pytest.mark.parametrize(
    ("measure", "resamples", "word"),
    [
        ("sensitivity", 2000, "THRESHOLD_MEASURE is 'sensitivity': expected accuracy or"),
        ("f1", 1, "RESAMPLES is 1:"),
        ("f1", 2000.0, "RESAMPLES is 2000.0:"),
    ],
)
def test_settings_that_cannot_be_used_are_refused(measure, resamples, word):
    scorecard.check_settings(measure="f1", resamples=2000)
    with pytest.raises(InputError, match=word):
        scorecard.check_settings(measure=measure, resamples=resamples)
