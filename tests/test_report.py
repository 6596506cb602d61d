"""The files and the lines that a run leaves for its readers."""

import json
import re
from importlib.metadata import version

import made_up
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from made_up import DECISION, HISTORY, make_data, make_metrics, make_row, scores_of

from cancernet.evaluation import page, report
from cancernet.evaluation.calibration import Decision
from cancernet.evaluation.context import Scores
from cancernet.evaluation.metrics import shortest

# Validation: 3 of 4 benign and 1 of 3 malignant patches are predicted right. Testing: 1 of 2 each
# way round, and one malignant patch more.
VALIDATION = [
    make_row(f"90{n % 2}", n, label=int(n > 3), split="validation", placed=False) for n in range(7)
]
TESTING = [make_row(f"91{n % 2}", n, label=int(n > 1)) for n in range(5)]
DATA = make_data([*VALIDATION, *TESTING])
PROBABILITIES = {
    "validation": np.array([0.1, 0.2, 0.3, 0.9, 0.1, 0.2, 0.8], dtype=np.float32),
    "testing": np.array([0.25, 0.75, 0.4, 0.5, 1.0], dtype=np.float32),
}
WITHOUT_TESTING = make_data(VALIDATION), {"validation": PROBABILITIES["validation"]}
OPPOSITE = {split: 1 - values for split, values in PROBABILITIES.items()}


def text_of(data=DATA, probabilities=PROBABILITIES, decision=DECISION, **settings):
    metrics = make_metrics(data, probabilities, decision=decision, **settings)
    return report.as_text(metrics, data, scores_of(data, probabilities, decision))


def test_metrics_say_which_split_is_which_and_hand_on_what_they_are_given():
    data = make_data([*VALIDATION, *TESTING], sample=True)
    decision = Decision(0.75, DECISION.recalibration)
    notes = ["stopped after 1 of 2 epochs"]
    metrics = make_metrics(data, PROBABILITIES, decision=decision, notes=notes)
    validation, testing = metrics["validation"], metrics["testing"]
    assert validation["at_0.5"]["confusion_matrix"] == {"tn": 3, "fp": 1, "fn": 2, "tp": 1}
    assert testing["at_0.5"]["confusion_matrix"] == {"tn": 1, "fp": 1, "fn": 1, "tp": 2}
    # What was fitted on validation is used on testing as well.
    found = testing["at_validation_threshold"]
    assert found["threshold"] == 0.75
    assert found["confusion_matrix"] == {"tn": 1, "fp": 1, "fn": 2, "tp": 1}
    raw, recalibrated = testing["calibration"].values()
    assert raw["brier"] != recalibrated["brier"]
    about = {"positive_class": "1", "sample": True, "split": data.build, "config": made_up.CONFIG}
    assert metrics.items() >= (about | {"seconds": {"training": 12.5}}).items()
    assert metrics["notes"][:1] == notes
    assert metrics["versions"]["keras"] == version("keras")


def test_an_empty_testing_split_is_null_with_a_note():
    metrics = make_metrics(*WITHOUT_TESTING, baselines={"colour": OPPOSITE})
    assert metrics["testing"] is None
    assert metrics["validation"]["patches"] == 7
    assert [note for note in metrics["notes"] if note.startswith("testing")] == [
        "testing: not scored, this split of the data set is empty"
    ]
    assert metrics["baselines"]["colour"]["split"] == "validation"
    shown = text_of(*WITHOUT_TESTING)
    assert shown.count("Validation: ") == 1
    assert re.search(r"truly benign +3 +1\ntruly malignant +2 +1\n", shown)
    # None of these has a place.
    assert not re.search("Testing: |in context", shown.split("Note: ")[0])


@pytest.mark.parametrize(
    ("testing", "words"),
    [
        # Once, since at the validation threshold the outcome is the same.
        ([0.9] * 5, ["at 0.5: all 5 patches are predicted malignant"]),
        ([0.1] * 5, ["at 0.5: all 5 patches are predicted benign"]),
        # None reaches 0.61.
        ([0.1] + [0.6] * 4, ["at validation threshold: all 5 patches are predicted benign"]),
        (PROBABILITIES["testing"], []),
    ],
)
def test_a_network_that_predicts_one_class_only_is_named(testing, words):
    notes = make_metrics(DATA, PROBABILITIES | {"testing": np.array(testing, np.float32)})["notes"]
    expected = [f"testing: THE NETWORK PREDICTS ONE CLASS ONLY {note}" for note in words]
    assert [note for note in notes if "ONE CLASS" in note] == expected


@pytest.mark.parametrize(("data", "probabilities"), [(DATA, PROBABILITIES), WITHOUT_TESTING])
def test_a_run_leaves_all_files_whole(tmp_path, data, probabilities):
    metrics = make_metrics(data, probabilities)
    report.write(tmp_path, data, scores_of(data, probabilities), metrics, HISTORY)
    names = {"metrics.json", "predictions.csv", "report.html"}
    names |= {f"{picture}.png" for picture in page.PICTURES}
    assert {path.name for path in tmp_path.iterdir()} == names
    text = (tmp_path / "metrics.json").read_text(encoding="utf-8")
    assert json.loads(text) == metrics
    assert str(3 / 7) in text  # The prevalence of validation: nothing is rounded.
    lines = (tmp_path / "predictions.csv").read_text(encoding="utf-8").splitlines()
    assert len(lines) == 1 + len(data.testing)


def test_predictions_stand_in_the_order_of_the_manifest(tmp_path):
    data = make_data([*TESTING, make_row("anna", 5, label=0, placed=False)])
    raw = np.append(PROBABILITIES["testing"], np.float32(0.1))
    around = np.array([0.5, 0.1, 1e-9, 1 / 3, 1, np.nan], np.float32)
    scores = {"testing": Scores(raw, raw / np.float32(2), around)}
    report.write(tmp_path, data, scores, make_metrics(data, {"testing": raw}), HISTORY)
    assert (tmp_path / "predictions.csv").read_bytes().decode().splitlines() == [
        "file,patient,x,y,label,probability,calibrated,in_context",
        "testing/0/910_idx5_x1_y1_class0.png,910,1,1,0,0.25,0.125,0.5",
        "testing/0/911_idx5_x51_y1_class0.png,911,51,1,0,0.75,0.375,0.1",
        "testing/1/910_idx5_x101_y1_class1.png,910,101,1,1,0.4,0.2,1e-09",
        "testing/1/911_idx5_x151_y1_class1.png,911,151,1,1,0.5,0.25,0.33333334",
        "testing/1/910_idx5_x201_y1_class1.png,910,201,1,1,1.0,0.5,1.0",
        "testing/0/anna_5.png,anna,,,0,0.1,0.05,",
    ]


@settings(deadline=None)
@given(st.floats(0, 1, width=32))
@example(1 / 3)
@example(1 - 2**-24)
@example(2**-149)
def test_probabilities_are_the_shortest_text_of_the_same_float32(probability):
    text = shortest(probability)
    assert np.float32(text) == np.float32(probability)
    digits = len(text.split("e")[0].replace(".", "").strip("0"))
    shorter = [np.float32(f"{probability:.{kept}e}") for kept in range(digits - 1)]
    assert np.float32(probability) not in shorter


def test_text_names_the_axes_and_does_not_swap_sensitivity_and_specificity():
    text = text_of()
    validation, testing = text.split("Testing: ")
    assert "2 patients, 7 patches, 42.9% malignant. Class 1, malignant, is positive." in validation
    for shown, pattern in (
        (validation, r"sensitivity +0\.3333 "),
        (validation, r"specificity +0\.7500 "),
        (testing, r"at 0\.5 +predicted benign +predicted malignant\n"),
        (testing, r"sensitivity +0\.6667 "),
        (testing, r"truly benign +1 +1\n"),
        (testing, r"truly malignant +1 +2\n"),
        # And in scikit-learn's table: precision, recall, F1, patches.
        (testing, r" +0 benign +0\.500 +0\.500 +0\.500 +2\n"),
        (testing, r" +1 malignant +0\.667 +0\.667 +0\.667 +3\n"),
    ):
        assert re.search(rf"\n{pattern}", shown), pattern
    assert max(map(len, text.split("Note: ")[0].splitlines())) <= 100


def test_intervals_baselines_and_context_stand_behind_their_metrics():
    sizes = {f"{number}": 4 for number in range(15)}
    splits = {name: made_up.make_rows(sizes, split=name) for name in ("validation", "testing")}
    data = make_data([row for rows in splits.values() for row in rows])
    scores = {name: made_up.make_probabilities(rows) for name, rows in splits.items()}
    plain = text_of(data, scores, decision=Decision(0.5, None))
    assert not re.search("Without a network|in context", plain)
    shown = text_of(data, scores, baselines={"colour": scores}, notes=["stopped"])
    interval = r"0\.\d{4} \(0\.\d{3} to \d\.\d{3}\)"
    for pattern in (
        rf"sensitivity +{interval} +{interval}",
        rf"brier +{interval} +{interval}",
        rf"roc_auc +{interval}",
        "Note: stopped.",
        rf"Without a network, colours alone: roc_auc {interval}",
        r"Note: baseline patient_identity: no patient.*",
        r"Alone and in context: the 60 patches with neighbours on their slide\.",
        r" +alone, at 0\.61 +in context, at 0\.375",
        rf"roc_auc +{interval} +{interval}",
    ):
        assert re.search(rf"(?m)^{pattern}$", shown), pattern
