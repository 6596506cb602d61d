"""The files and the lines that a run leaves for its readers."""

import csv
import json
import math
import platform
import re
from importlib.metadata import version

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from cancernet import report
from cancernet.dataset import Row

BUILD = {
    "method": "patient",
    "seed": 42,
    "fractions": {"training": 0.72, "validation": 0.08, "testing": 0.2},
    "splits": {},
    "overlap": {"patients": 0, "files": 0, "contents": 0},
    "sample": False,
}
HEADER = "file,patient,x,y,label,probability,calibrated"


def row(split, number, label, x=None):
    name = f"{split}/{label}/patch{number}.png"
    return Row(
        split=split,
        label=label,
        patient=f"90{number % 2}",
        x=x,
        y=x,
        source=name,
        file=name,
        bytes=1,
        sha256="",
    )


# Validation: 3 of 4 benign and 1 of 3 malignant patches are called right. Testing: 1 of 2 each way
# round, and one malignant patch more.
SPLITS = {
    "training": [],
    "validation": [row("validation", number, int(number > 3)) for number in range(7)],
    "testing": [row("testing", number, int(number > 1), x=number * 50) for number in range(5)],
}
PROBABILITIES = {
    "validation": np.array([0.1, 0.2, 0.3, 0.9, 0.1, 0.2, 0.8], dtype=np.float32),
    "testing": np.array([0.25, 0.75, 0.4, 0.5, 1.0], dtype=np.float32),
}


def metrics_of(splits=SPLITS, probabilities=PROBABILITIES, *, sample=False, notes=()):
    return report.make_metrics(
        splits,
        probabilities,
        build=BUILD | {"sample": sample},
        config={"EPOCHS": 2},
        seconds={"training": 1.5, "scoring": 0.1},
        notes=notes,
    )


def without_testing():
    splits = SPLITS | {"testing": []}
    return splits, {"validation": PROBABILITIES["validation"]}


# --- metrics.json --------------------------------------------------------------------------------


def test_metrics_have_the_promised_keys_and_no_others():
    metrics = metrics_of()
    assert list(metrics) == [
        "positive_class",
        "sample",
        "testing",
        "validation",
        "split",
        "config",
        "versions",
        "seconds",
        "notes",
    ]
    for split in ("testing", "validation"):
        assert metrics[split].keys() == {
            "patients",
            "patches",
            "prevalence",
            "at_0.5",
            "roc_auc",
            "average_precision",
        }
        assert metrics[split]["at_0.5"].keys() == {
            "threshold",
            "confusion_matrix",
            "accuracy",
            "sensitivity",
            "specificity",
            "ppv",
            "npv",
            "balanced_accuracy",
            "f1",
            "mcc",
        }


def test_metrics_say_which_split_is_which():
    metrics = metrics_of()
    validation, testing = metrics["validation"]["at_0.5"], metrics["testing"]["at_0.5"]
    assert validation["confusion_matrix"] == {"tn": 3, "fp": 1, "fn": 2, "tp": 1}
    assert testing["confusion_matrix"] == {"tn": 1, "fp": 1, "fn": 1, "tp": 2}
    assert metrics["positive_class"] == "1"
    assert (validation["sensitivity"], validation["specificity"]) == (1 / 3, 3 / 4)
    assert (testing["sensitivity"], testing["specificity"]) == (2 / 3, 1 / 2)
    assert metrics["validation"]["patients"] == 2


@pytest.mark.parametrize("sample", [True, False])
def test_metrics_hand_on_what_they_are_given(sample):
    metrics = metrics_of(sample=sample, notes=["stopped after 1 of 2 epochs"])
    assert metrics["sample"] is sample
    assert metrics["split"] == BUILD | {"sample": sample}
    assert metrics["config"] == {"EPOCHS": 2}
    assert metrics["seconds"] == {"training": 1.5, "scoring": 0.1}
    assert metrics["notes"] == ["stopped after 1 of 2 epochs"]


def test_versions_are_those_installed():
    versions = report.versions()
    assert versions["python"] == platform.python_version()
    assert versions["tensorflow"] == version("tensorflow")
    assert versions["keras"] == version("keras")


def test_an_empty_testing_split_is_null_with_a_note():
    metrics = metrics_of(*without_testing())
    assert metrics["testing"] is None
    assert metrics["validation"]["patches"] == 7
    (note,) = metrics["notes"]
    assert re.search(r"testing.*empty", note)


def test_a_figure_that_is_not_defined_is_noted_with_its_split():
    splits = SPLITS | {"testing": SPLITS["testing"][:2]}
    metrics = metrics_of(splits, PROBABILITIES | {"testing": PROBABILITIES["testing"][:2]})
    assert metrics["testing"]["at_0.5"]["sensitivity"] is None
    (note,) = metrics["notes"]
    assert note.startswith("testing: sensitivity, ")


def test_metrics_on_disk_are_whole_and_unrounded(tmp_path):
    metrics = metrics_of()
    report.write_metrics(tmp_path, metrics)
    text = (tmp_path / "metrics.json").read_text(encoding="utf-8")
    assert json.loads(text) == metrics
    assert json.loads(text)["validation"]["prevalence"] == 3 / 7
    assert str(3 / 7) in text
    assert [path.name for path in tmp_path.iterdir()] == ["metrics.json"]


def test_metrics_that_are_no_json_leave_the_older_ones(tmp_path):
    report.write_metrics(tmp_path, metrics_of())
    before = (tmp_path / "metrics.json").read_bytes()
    with pytest.raises(ValueError, match="JSON"):
        report.write_metrics(tmp_path, {"testing": math.nan})
    assert (tmp_path / "metrics.json").read_bytes() == before
    assert len(list(tmp_path.iterdir())) == 1


# --- predictions.csv -----------------------------------------------------------------------------


def test_predictions_stand_in_the_order_of_the_manifest(tmp_path):
    rows = [*SPLITS["testing"], row("testing", 5, 0)]
    probabilities = np.append(PROBABILITIES["testing"], np.float32(0.1))
    report.write_predictions(tmp_path, rows, probabilities)
    assert (tmp_path / "predictions.csv").read_bytes().decode() == "\n".join(
        [
            HEADER,
            "testing/0/patch0.png,900,0,0,0,0.25,0.25",
            "testing/0/patch1.png,901,50,50,0,0.75,0.75",
            "testing/1/patch2.png,900,100,100,1,0.4,0.4",
            "testing/1/patch3.png,901,150,150,1,0.5,0.5",
            "testing/1/patch4.png,900,200,200,1,1.0,1.0",
            "testing/0/patch5.png,901,,,0,0.1,0.1",
            "",
        ]
    )


def test_predictions_of_no_patch_are_the_header_alone(tmp_path):
    report.write_predictions(tmp_path, [], [])
    assert (tmp_path / "predictions.csv").read_text(encoding="utf-8") == f"{HEADER}\n"


def test_predictions_need_one_probability_a_patch(tmp_path):
    with pytest.raises(ValueError, match="shorter"):
        report.write_predictions(tmp_path, SPLITS["testing"], PROBABILITIES["testing"][:-1])
    assert list(tmp_path.iterdir()) == []


@settings(deadline=None)
@given(st.lists(st.floats(0, 1, width=32), max_size=20))
@example([0.1, 1 / 3, 1e-7, 1 - 2**-24, 2**-149])
def test_probabilities_are_the_shortest_text_of_the_same_float32(tmp_path_factory, probabilities):
    run = tmp_path_factory.mktemp("run")
    expected = np.array(probabilities, dtype=np.float32)
    rows = [row("testing", number, 0) for number in range(len(expected))]
    report.write_predictions(run, rows, expected)
    with (run / "predictions.csv").open(newline="", encoding="utf-8") as file:
        written = list(csv.DictReader(file))
    for line, probability in zip(written, expected, strict=True):
        text = line["probability"]
        assert np.float32(text) == probability
        assert line["calibrated"] == text
        digits = len(text.split("e")[0].replace(".", "").strip("0"))
        shorter = [np.float32(f"{float(probability):.{kept}e}") for kept in range(digits - 1)]
        assert probability not in shorter


# --- Lines on the screen -------------------------------------------------------------------------


def screen(*arguments, **settings):
    splits, probabilities = arguments or (SPLITS, PROBABILITIES)
    metrics = metrics_of(splits, probabilities, **settings)
    return "\n".join(report.lines(metrics, splits, probabilities))


def test_screen_names_the_positive_class_and_both_axes():
    validation, testing = screen().split("Testing: ")
    assert "Class 1, malignant, is positive." in validation
    assert "2 patients, 7 patches, 42.9% malignant" in validation
    assert re.search(r"called benign +called malignant", validation)
    assert re.search(r"truly benign +3 +1\n", validation)
    assert re.search(r"truly malignant +2 +1\n", validation)
    assert re.search(r"truly benign +1 +1\n", testing)
    assert re.search(r"truly malignant +1 +2\n", testing)


def test_screen_does_not_swap_sensitivity_and_specificity():
    validation, testing = screen().split("Testing: ")
    assert re.search(r"accuracy +0\.5714\n", validation)
    assert re.search(r"sensitivity +0\.3333\n", validation)
    assert re.search(r"specificity +0\.7500\n", validation)
    assert re.search(r"sensitivity +0\.6667\n", testing)
    # And in scikit-learn's table: precision, recall, F1, patches.
    assert re.search(r"0 benign +0\.600 +0\.750 +0\.667 +4\n", validation)
    assert re.search(r"1 malignant +0\.500 +0\.333 +0\.400 +3\n", validation)


def test_screen_shows_notes_and_what_is_not_defined():
    splits = SPLITS | {"testing": SPLITS["testing"][:2]}
    shown = screen(
        splits,
        PROBABILITIES | {"testing": PROBABILITIES["testing"][:2]},
        notes=["stopped after 1 of 2 epochs"],
    )
    assert re.search(r"sensitivity +not defined", shown)
    assert re.search(r"ROC AUC +not defined", shown)
    assert "\nNote: stopped after 1 of 2 epochs.\n" in shown
    assert "\nNote: testing: sensitivity, " in shown


def test_screen_leaves_out_a_testing_split_that_is_empty():
    shown = screen(*without_testing())
    assert "Validation: " in shown
    assert "Testing: " not in shown
    assert re.search("Note: testing: .*empty", shown)
