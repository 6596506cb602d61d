"""The metrics of splits and baselines: names, intervals, and what is said in words."""

import json
import re
from dataclasses import replace
from pathlib import Path

import made_up
import numpy as np
import pytest
from made_up import CONTEXT, DECISION, make_data, make_metrics, make_probabilities, make_rows

from cancernet.data.dataset import Split
from cancernet.evaluation import metrics, scorecard
from cancernet.evaluation.calibration import Decision, Recalibration
from cancernet.evaluation.context import Grid, Scores, foci
from cancernet.evaluation.metrics import METRICS

HALF = Decision(0.5, None)


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
    scores = Scores.of(split, np.asarray(probabilities, np.float32), decision)
    found = scorecard.score(split, scores, decision.threshold, made_up.CONFIG)
    json.dumps(found.metrics, allow_nan=False)
    return found.metrics, found.notes, scores


def test_names_are_those_of_metrics_json():
    labels, probabilities, owners = patches()
    labels[:30] = 0
    decision = Decision(0.625, Recalibration(0.5, -1.0))
    found, (first, second), scores = score(labels, probabilities, owners, decision)
    assert (found["patients"], found["patches"]) == (12, 360)
    for name, threshold in (("at_0.5", 0.5), ("at_validation_threshold", 0.625)):
        counts = metrics.confusion(labels, probabilities, threshold=threshold)
        expected = {"threshold": threshold, "confusion_matrix": vars(counts)}
        assert found[name] == expected | counts.rates()
    assert found["roc_auc"] == metrics.roc_auc(labels, probabilities)
    for kind, values in (("raw", scores.raw), ("recalibrated", scores.calibrated)):
        assert found["calibration"][kind].keys() == {"brier", "ece", "slope", "intercept"}
        assert found["calibration"][kind]["brier"] == metrics.brier(labels, values)
        brier, (low, high) = scorecard.pick(found, "calibration", kind, "brier")
        assert low < brier == found["calibration"][kind]["brier"] < high
        assert scorecard.pick(found, "calibration", kind, "slope")[1] is None
    assert found["brier"] == found["calibration"]["raw"]["brier"]
    rows = metrics.per_patient(labels, probabilities, owners, threshold=0.625)
    assert found["per_patient"] == rows
    assert "few patches (360)" in first
    assert "as 1 of 12 have" in second


def test_intervals_hold_their_metrics_and_take_ten_patients():
    found, *_ = score(*patches(patients=10))
    flat, ends = (one | one["at_0.5"] for one in (found, found["ci95"]))
    for name in (*METRICS, "roc_auc", "average_precision"):
        assert ends[name][0] <= flat[name] <= ends[name][1]
    found, notes, _ = score(*patches(patients=9))
    assert found["ci95"] is None
    assert any("10 patients, found 9" in note for note in notes)
    # One patient alone has malignant patches: about every third resample is without.
    owners = [f"{number // 5}" for number in range(60)]
    found, *_ = score([1] * 5 + [0] * 55, np.linspace(1, 0, 60), owners)
    assert found["ci95"]["roc_auc"] == found["ci95"]["at_0.5"]["sensitivity"] == [1, 1]


NO_AREA = ("balanced_accuracy", "mcc", "roc_auc", "average_precision", "slope")


@pytest.mark.parametrize(
    ("labels", "probabilities", "undefined", "defined"),
    [
        ([0, 0, 0], [0.1, 0.2, 0.9], ("sensitivity", *NO_AREA), {"specificity": 2 / 3}),
        ([1, 1, 1], [0.1, 0.2, 0.9], ("specificity", *NO_AREA), {"sensitivity": 1 / 3}),
        ([0, 1, 1], [0.3, 0.3, 0.3], ("ppv", "mcc", "slope", "intercept"), {"sensitivity": 0}),
    ],
)
def test_what_is_not_defined_is_null_with_a_note(labels, probabilities, undefined, defined):
    found, notes, _ = score(labels, probabilities, ["a", "a", "b"])
    flat = found | found["at_0.5"] | found["calibration"]["raw"]
    for name in undefined:
        assert flat[name] is None, name
        assert any(name in note for note in notes), name
    for name, value in defined.items():
        assert flat[name] == value
        assert not any(f"{name}," in note or f"{name}:" in note for note in notes)


def evaluated(*, network, own, name="colour"):
    """A network's and a baseline's metrics on made-up patches; quality makes scores better."""
    sizes = {str(number): 50 for number in range(12)}
    splits = {name: make_rows(sizes, split=name) for name in ("validation", "testing")}

    first, second = (
        {split: make_probabilities(rows, seed=seed, quality=good) for split, rows in splits.items()}
        for seed, good in ((1, network), (1 if own == network else 2, own))
    )
    data = make_data([*splits["validation"], *splits["testing"]])
    return make_metrics(data, first, decision=HALF, baselines={name: second})


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
    found = evaluated(network=network, own=own, name=name)
    baseline = found["baselines"][name]
    assert baseline["split"] == "testing"
    difference = baseline["network_lead"]
    assert difference["roc_auc"] == found["testing"]["roc_auc"] - baseline["roc_auc"]
    assert difference["ci95"][0] < difference["roc_auc"] < difference["ci95"][1]
    verdicts = [note for note in found["notes"] if re.search(r"^testing: .*reaches", note)]
    assert len(verdicts) == (words is not None)
    for verdict in verdicts:
        assert str(words) in verdict
        assert f"reaches ROC AUC {baseline['roc_auc']:.3f}" in verdict


def test_in_context_stands_beside_the_same_patches_alone():
    rows = make_rows({"1": 60, "2": 40, "anna": 9}, without_place=("anna",))
    validation = make_rows({"bob": 20}, without_place=("bob",), split="validation")
    data = make_data([*rows, *validation])
    scores = {name: make_probabilities(own.rows) for name, own in data.splits.items() if own}
    found = make_metrics(data, scores, baselines={"colour": scores})
    testing = found["testing"]
    there = np.array([row.x is not None for row in data.testing.rows])
    part = replace(data.testing, rows=[row for row in data.testing.rows if row.x is not None])
    alone = Scores.of(part, scores["testing"][there], DECISION)
    around = Scores(*[alone.in_context] * 3)
    cases = (("alone", alone, DECISION.threshold), ("in_context", around, CONTEXT.threshold))
    for name, one, threshold in cases:
        assert testing[name] == scorecard.score(part, one, threshold, made_up.CONFIG).metrics
    predicted = (one.raw >= threshold for _, one, threshold in cases)
    assert testing["foci"] == foci(Grid.of_split(part), part.labels, *predicted)
    assert sum(row["patches"] for row in testing["foci"]) == part.labels.sum()
    added = {"alone", "in_context", "foci"}
    assert testing.keys() - testing["alone"].keys() == added
    assert not added & found["baselines"]["colour"].keys()
    assert [found["validation"][name] for name in added] == [None] * 3
    assert [note.split("(")[0] for note in found["notes"] if "in_context" in note] == [
        "testing: alone, in_context: chance alone makes the expected calibration error too high "
        "with few patches ",
        "testing: alone, in_context: no intervals ",
        "testing: in_context: ppv, mcc at 0.5: not defined with 66 true and 34 false negatives, 0 "
        "true and 0 false positives",
        "validation: alone, in_context, foci: no patch has a neighbour on its slide",
    ]


def test_a_baseline_has_the_same_resamples_its_own_threshold_and_repeats_no_note():
    found = evaluated(network=2, own=2)
    assert found["baselines"]["colour"]["network_lead"] == {"roc_auc": 0, "ci95": [0, 0]}
    assert found["baselines"]["patient_identity"] is None
    assert found["notes"][-1].startswith("baseline patient_identity: no patient judged is in")
    splits = [make_rows({split: 6}, split=split) for split in ("validation", "testing")]
    data = make_data([*splits[0], *splits[1]])
    own = {
        "validation": np.where(data.validation.labels, 0.75, 0.5).astype(np.float32),
        "testing": np.where(data.testing.labels, 0.25, 0.125).astype(np.float32),
    }
    found = make_metrics(data, own, decision=HALF, baselines={"colour": own})
    colour = found["baselines"]["colour"]
    assert colour["at_validation_threshold"]["threshold"] == 0.625
    assert found["testing"]["at_validation_threshold"]["threshold"] == 0.5  # The network's.
    assert colour["network_lead"]["ci95"] is None
    notes = [note.split(":")[0] for note in found["notes"] if "ci95" in note]
    assert notes == ["testing", "validation"]
