"""The metrics of splits and baselines: names, intervals, and what is said in words."""

import json
import re
from pathlib import Path
from typing import Any

import made_up
import numpy as np
import pytest
from sklearn import metrics as sklearn_metrics

from cancernet.data.dataset import Split
from cancernet.evaluation import metrics, scorecard
from cancernet.evaluation.calibration import Decision, Recalibration, recalibrate
from cancernet.evaluation.context import Grid, foci
from cancernet.evaluation.metrics import METRICS

HALF = Decision(0.5, None)
CONFIG: dict[str, Any] = {"THRESHOLD_MEASURE": "f1", "RESAMPLES": 100, "SEED": 0}


def patches(*, patients=12, each=30, seed=0):
    generator = np.random.default_rng(seed)
    owners = [f"90{number:02}" for number in range(patients) for _ in range(each)]
    labels = (generator.random(len(owners)) < 0.4).astype(int)
    logits = 2 * labels + generator.normal(0, 1.5, len(owners))
    return labels, (1 / (1 + np.exp(-logits))).astype(np.float32), owners


def score(labels, probabilities, owners, decision=HALF):
    rows = [
        made_up.make_row(owner, number, label=int(label))
        for number, (owner, label) in enumerate(zip(owners, labels, strict=True))
    ]
    split = Split("testing", Path(), rows)
    scores = np.asarray(probabilities, dtype=np.float32)
    found = scorecard.score(split, scores, decision, CONFIG)
    json.dumps(found.metrics, allow_nan=False)
    return found.metrics, found.notes


def test_names_are_those_of_metrics_json():
    labels, probabilities, owners = patches()
    labels[:30] = 0
    decision = Decision(0.625, Recalibration(0.5, -1.0))
    found, notes = score(labels, probabilities, owners, decision)
    assert (found["patients"], found["patches"]) == (12, 360)
    for name, threshold in (("at_0.5", 0.5), ("at_validation_threshold", 0.625)):
        counts = metrics.confusion(labels, probabilities, threshold=threshold)
        expected = {"threshold": threshold, "confusion_matrix": vars(counts)}
        assert found[name] == expected | {metric: getattr(counts, metric) for metric in METRICS}
    assert found["roc_auc"] == pytest.approx(sklearn_metrics.roc_auc_score(labels, probabilities))
    calibrated = recalibrate(probabilities, decision.recalibration)
    for kind, values in (("raw", probabilities), ("recalibrated", calibrated)):
        assert found["calibration"][kind].keys() == {"brier", "ece", "slope", "intercept"}
        assert found["calibration"][kind]["brier"] == metrics.brier(labels, values)
        low, high = found["ci95"]["calibration"][kind]["brier"]
        assert low < found["calibration"][kind]["brier"] < high
    assert found["brier"] == found["calibration"]["raw"]["brier"]
    assert found["per_patient"] == metrics.per_patient(
        labels, probabilities, owners, threshold=0.625
    )
    assert ["few patches (360)" in notes[0], "as 1 of 12 have" in notes[1]] == [True, True]
    assert len(notes) == 2


def test_intervals_hold_their_metrics_and_grow_with_fewer_patients():
    widths = []
    for patients in (100, 10):
        found, _ = score(*patches(patients=patients))
        flat, ends = (one | one["at_0.5"] for one in (found, found["ci95"]))
        names = (*METRICS, "roc_auc", "average_precision")
        assert all(ends[name][0] <= flat[name] <= ends[name][1] for name in names)
        widths.append(np.mean([np.ptp(ends[name]) for name in names]))
    assert widths[1] > 2 * widths[0]
    found, notes = score(*patches(patients=9))
    assert found["ci95"] is None
    assert any("10 patients, found 9" in note for note in notes)


NO_AREA = ("balanced_accuracy", "mcc", "roc_auc", "average_precision", "slope")


@pytest.mark.parametrize(
    ("labels", "probabilities", "undefined", "defined"),
    [
        ([0, 0, 0], [0.1, 0.2, 0.9], ("sensitivity", *NO_AREA), {"specificity": 2 / 3}),
        ([1, 1, 1], [0.1, 0.2, 0.9], ("specificity", *NO_AREA), {"sensitivity": 1 / 3}),
        ([0, 1, 1], [0.3, 0.3, 0.3], ("ppv", "mcc", "slope", "intercept"), {"sensitivity": 0}),
    ],
    ids=["benign alone", "malignant alone", "constant score"],
)
def test_what_is_not_defined_is_null_with_a_note(labels, probabilities, undefined, defined):
    found, notes = score(labels, probabilities, ["9135"] * 3)
    flat = found | found["at_0.5"] | found["calibration"]["raw"]
    for name in undefined:
        assert flat[name] is None, name
        assert any(name in note for note in notes), name
    for name, value in defined.items():
        assert flat[name] == value
        assert not any(f"{name}," in note or f"{name}:" in note for note in notes)


def test_resamples_without_a_metric_are_left_out_with_a_note():
    # One patient alone has malignant patches: about every third resample is without.
    owners = [f"{number // 5}" for number in range(60)]
    found, notes = score([1] * 5 + [0] * 55, np.linspace(1, 0, 60), owners)
    assert found["ci95"]["roc_auc"] == found["ci95"]["at_0.5"]["sensitivity"] == [1, 1]
    (note,) = [note for note in notes if note.startswith("ci95")]
    for name in ("roc_auc", "sensitivity at 0.5", "sensitivity at validation threshold"):
        share = re.search(rf" {name} \((\d+)%\)", note)
        assert share is not None, name
        assert 25 <= int(share[1]) <= 45  # (11 / 12) ** 12 is 35 %.
    assert not re.search("specificity| accuracy", note)


def evaluated(*, network, own, name="colour"):
    """A network's and a baseline's metrics on made-up patches; quality makes scores better."""
    sizes = {str(number): 50 for number in range(12)}
    splits = {name: made_up.make_rows(sizes, split=name) for name in ("validation", "testing")}

    def scores(quality, seed):
        return {
            split: made_up.make_probabilities(rows, seed=seed, quality=quality)
            for split, rows in splits.items()
        }

    baseline = {name: None if own is None else scores(own, 1 if own == network else 2)}
    data = made_up.make_data([*splits["validation"], *splits["testing"]])
    return scorecard.evaluate(data, scores(network, 1), HALF, baseline, CONFIG)


@pytest.mark.parametrize(
    ("network", "own", "name", "words"),
    [
        (0.2, 2, "colour", "THE NETWORK DOES NOT BEAT A BASELINE: logistic regression on mean"),
        (1.1, 1.2, "colour", "may be no better"),
        (3, 0.5, "colour", None),
        (3, 1, "patient_identity", "gives away"),
    ],
)
def test_verdict_in_words(network, own, name, words):
    found, notes = evaluated(network=network, own=own, name=name)
    baseline = found["baselines"][name]
    assert baseline["split"] == "testing"
    difference = baseline["network_lead"]
    assert difference["roc_auc"] == found["testing"]["roc_auc"] - baseline["roc_auc"]
    assert difference["ci95"][0] < difference["roc_auc"] < difference["ci95"][1]
    verdicts = [note for note in notes if re.search(r"^testing: .*reaches", note)]
    assert len(verdicts) == (words is not None)
    for verdict in verdicts:
        assert str(words) in verdict
        assert f"reaches ROC AUC {baseline['roc_auc']:.3f}" in verdict


def test_a_baseline_that_is_the_network_or_none():
    found, _ = evaluated(network=2, own=2)  # The same resamples of both.
    assert found["baselines"]["colour"]["network_lead"] == {"roc_auc": 0, "ci95": [0, 0]}
    found, notes = evaluated(network=2, own=None, name="patient_identity")
    assert found["baselines"] == {"patient_identity": None}
    assert notes[-1].startswith("baseline patient_identity: no patient judged is in training")


def test_in_context_stands_beside_the_same_patches_alone():
    rows = made_up.make_rows({"1": 60, "2": 40, "anna": 9}, without_place=("anna",))
    validation = made_up.make_rows({"bob": 20}, without_place=("bob",), split="validation")
    data = made_up.make_data([*rows, *validation])
    scores = {
        split.name: made_up.make_probabilities(split.rows)
        for split in (data.testing, data.validation)
    }
    found, notes = scorecard.evaluate(data, scores, made_up.DECISION, {"colour": scores}, CONFIG)
    json.dumps(found, allow_nan=False)
    testing = found["testing"]
    there = np.array([row.x is not None for row in data.testing.rows])
    part = Split("testing", Path(), [row for row in data.testing.rows if row.x is not None])
    raw = scores["testing"][there]
    assert testing["alone"] == scorecard.score(part, raw, made_up.DECISION, CONFIG).metrics
    context = made_up.CONTEXT.apply(Grid.of_split(part), raw)
    own = Decision(made_up.CONTEXT.threshold, None)
    assert testing["in_context"] == scorecard.score(part, context, own, CONFIG).metrics
    assert testing["in_context"]["patches"] == 100
    assert testing["foci"] == foci(
        Grid.of_split(part),
        part.labels,
        raw >= made_up.DECISION.threshold,
        context >= own.threshold,
    )
    assert sum(row["patches"] for row in testing["foci"]) == part.labels.sum()
    added = {"alone", "in_context", "foci"}
    assert testing.keys() - testing["alone"].keys() == added
    assert not added & found["baselines"]["colour"].keys()
    assert [found["validation"][name] for name in added] == [None] * 3
    assert [note.split("(")[0] for note in notes if "in_context" in note] == [
        "testing: alone, in_context: chance alone makes the expected calibration error too high "
        "with few patches ",
        "testing: alone, in_context: no intervals ",
        "testing: in_context: ppv, mcc at 0.5: not defined with 66 true and 34 false negatives, 0 "
        "true and 0 false positives",
        "validation: alone, in_context, foci: no patch has a neighbour on its slide",
    ]


def test_a_baseline_has_its_threshold_from_validation_and_repeats_no_note():
    rows = [made_up.make_rows({split: 6}, split=split) for split in ("validation", "testing")]
    data = made_up.make_data([*rows[0], *rows[1]])
    own = {
        "validation": np.where(data.validation.labels, 0.75, 0.5).astype(np.float32),
        "testing": np.where(data.testing.labels, 0.25, 0.125).astype(np.float32),
    }
    found, notes = scorecard.evaluate(data, own, HALF, {"colour": own}, CONFIG)
    colour = found["baselines"]["colour"]
    assert colour["at_validation_threshold"]["threshold"] == 0.625
    assert found["testing"]["at_validation_threshold"]["threshold"] == 0.5  # The network's.
    assert colour["network_lead"]["ci95"] is None
    assert [note.split(":")[0] for note in notes if "ci95" in note] == ["testing", "validation"]
