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

from cancernet.data.dataset import Row, count_splits
from cancernet.evaluation import report
from cancernet.evaluation.calibration import Recalibration, recalibrate
from cancernet.evaluation.scorecard import Fitted

BUILD = {
    "method": "patient",
    "seed": 42,
    "fractions": {"training": 0.72, "validation": 0.08, "testing": 0.2},
    "splits": {},
    "overlap": {"patients": 0, "files": 0, "contents": 0},
    "sample": False,
}
HEADER = "file,patient,x,y,label,probability,calibrated"


def row(split, number, label, x=None, patient=None):
    name = f"{split}/{label}/patch{number}.png"
    return Row(
        split=split,
        label=label,
        patient=patient or f"90{number % 2}",
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


FITTED = Fitted(0.75, Recalibration(0.5, -1.0))


def metrics_of(
    splits=SPLITS, probabilities=PROBABILITIES, *, baselines=None, sample=False, notes=()
):
    return report.make_metrics(
        splits,
        probabilities,
        fitted=FITTED,
        baselines=baselines or {},
        resampling={"resamples": 100, "seed": 0},
        build=BUILD | {"sample": sample},
        config={"THRESHOLD_MEASURE": "f1"},
        seconds={"training": 1.5, "scoring": 0.1},
        notes=notes,
    )


def without_testing():
    splits = SPLITS | {"testing": []}
    return splits, {"validation": PROBABILITIES["validation"]}


# --- metrics.json --------------------------------------------------------------------------------


def test_metrics_have_the_promised_keys_and_no_others():
    assert list(metrics_of()) == [
        "positive_class",
        "sample",
        "testing",
        "validation",
        "baselines",
        "split",
        "config",
        "versions",
        "seconds",
        "notes",
    ]


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
    assert metrics["config"] == {"THRESHOLD_MEASURE": "f1"}
    assert metrics["seconds"] == {"training": 1.5, "scoring": 0.1}
    assert metrics["notes"][0] == "stopped after 1 of 2 epochs"


def test_versions_are_those_installed():
    versions = report.versions()
    assert versions["python"] == platform.python_version()
    assert versions["tensorflow"] == version("tensorflow")
    assert versions["keras"] == version("keras")


def test_an_empty_testing_split_is_null_with_a_note():
    metrics = metrics_of(*without_testing())
    assert metrics["testing"] is None
    assert metrics["validation"]["patches"] == 7
    assert any(re.search(r"^testing.*empty", note) for note in metrics["notes"])
    assert not any(note.startswith("testing: chance") for note in metrics["notes"])


def test_a_figure_that_is_not_defined_is_noted_with_its_split():
    splits = SPLITS | {"testing": SPLITS["testing"][:2]}
    metrics = metrics_of(splits, PROBABILITIES | {"testing": PROBABILITIES["testing"][:2]})
    assert metrics["testing"]["at_0.5"]["sensitivity"] is None
    (note,) = [note for note in metrics["notes"] if "sensitivity" in note and "0.5" in note]
    assert note.startswith("testing: sensitivity, ")


@pytest.mark.parametrize(("probability", "called"), [(0.9, "malignant"), (0.1, "benign")])
def test_a_network_that_predicts_one_class_only_is_named(probability, called):
    assert not any("ONE CLASS" in note for note in metrics_of()["notes"])
    same = {split: np.full_like(values, probability) for split, values in PROBABILITIES.items()}
    same["validation"] = PROBABILITIES["validation"]
    notes = [note for note in metrics_of(probabilities=same)["notes"] if "ONE CLASS" in note]
    # Once, since at the validation threshold, 0.75, the outcome is the same.
    assert notes == [
        f"testing: THE NETWORK PREDICTS ONE CLASS ONLY at 0.5: it calls all 5 patches {called}"
    ]


def test_one_class_at_the_validation_threshold_alone_is_named_as_well():
    testing = np.array([0.1, 0.7, 0.2, 0.6, 0.7], dtype=np.float32)  # None reaches 0.75.
    narrow = PROBABILITIES | {"testing": testing}
    notes = [note for note in metrics_of(probabilities=narrow)["notes"] if "ONE CLASS" in note]
    assert notes == [
        "testing: THE NETWORK PREDICTS ONE CLASS ONLY at validation threshold: "
        "it calls all 5 patches benign"
    ]


def test_the_validation_threshold_and_line_are_used_on_testing_as_well():
    metrics = metrics_of()
    for split in ("validation", "testing"):
        assert metrics[split]["at_validation_threshold"]["threshold"] == 0.75
        raw, recalibrated = (metrics[split]["calibration"][k] for k in ("raw", "recalibrated"))
        assert raw["brier"] != recalibrated["brier"]
    found = metrics["testing"]["at_validation_threshold"]["confusion_matrix"]
    assert found == {"tn": 1, "fp": 1, "fn": 2, "tp": 1}


def test_baselines_are_judged_on_testing_or_else_on_validation():
    rival = {split: 1 - values for split, values in PROBABILITIES.items()}
    baselines = {"colour": rival, "patient_identity": None}
    metrics = metrics_of(baselines=baselines)
    assert metrics["baselines"]["patient_identity"] is None
    colour = metrics["baselines"]["colour"]
    assert colour["split"] == "testing"
    assert colour["roc_auc"] == pytest.approx(1 - metrics["testing"]["roc_auc"])
    assert any("patient_identity" in note for note in metrics["notes"])
    # The patients are as few for the baseline: that is said once.
    assert sum("ci95" in note for note in metrics["notes"]) == 2
    metrics = metrics_of(*without_testing(), baselines=baselines)
    assert metrics["baselines"]["colour"]["split"] == "validation"


def test_the_card_is_completed_and_keeps_the_rest(tmp_path):
    card = tmp_path / "cancernet.json"
    for fitted, line in ((FITTED, {"slope": 0.5, "intercept": -1.0}), (Fitted(0.5, None), None)):
        card.write_text('{"sha256": "00", "threshold": 0.5, "recalibration": null}')
        report.complete_card(card, fitted)
        assert json.loads(card.read_text()) == {
            "sha256": "00",
            "threshold": fitted.threshold,
            "recalibration": line,
        }
    assert len(list(tmp_path.iterdir())) == 1


def test_a_run_without_testing_leaves_all_files(tmp_path):
    (tmp_path / "cancernet.json").write_text("{}")
    splits, probabilities = without_testing()
    metrics = metrics_of(splits, probabilities)
    counts = count_splits(row for rows in splits.values() for row in rows)
    build = metrics["split"] | {"splits": counts}
    measures = ("loss", "val_loss", "accuracy", "val_accuracy", "val_roc_auc")
    report.write_run(
        tmp_path,
        metrics | {"split": build},
        splits=splits,
        probabilities=probabilities,
        fitted=FITTED,
        history=[{"epoch": 1.0} | dict.fromkeys(measures, 0.5)],
        exclusions=[],
        dataset=tmp_path,
        trained_with={"EPOCHS": 1},
    )
    pictures = ("plot", "confusion_matrix", "roc", "precision_recall", "calibration")
    names = {"cancernet.json", "metrics.json", "predictions.csv", "report.html"}
    names |= {f"{picture}.png" for picture in pictures}
    assert {path.name for path in tmp_path.iterdir()} == names
    assert json.loads((tmp_path / "cancernet.json").read_text())["trained_with"] == {"EPOCHS": 1}


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
    report.write_predictions(tmp_path, rows, probabilities, None)
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
    report.write_predictions(tmp_path, [], np.empty(0), None)
    assert (tmp_path / "predictions.csv").read_text(encoding="utf-8") == f"{HEADER}\n"


def test_predictions_need_one_probability_a_patch(tmp_path):
    with pytest.raises(ValueError, match="shorter"):
        report.write_predictions(tmp_path, SPLITS["testing"], PROBABILITIES["testing"][:-1], None)
    assert list(tmp_path.iterdir()) == []


@settings(deadline=None)
@given(
    st.lists(st.floats(0, 1, width=32), max_size=20),
    st.sampled_from([None, Recalibration(0.7, -1.3)]),
)
@example([0.1, 1 / 3, 1e-7, 1 - 2**-24, 2**-149], None)
def test_probabilities_are_the_shortest_text_of_the_same_float32(
    tmp_path_factory, probabilities, recalibration
):
    run = tmp_path_factory.mktemp("run")
    expected = np.array(probabilities, dtype=np.float32)
    rows = [row("testing", number, 0) for number in range(len(expected))]
    report.write_predictions(run, rows, expected, recalibration)
    calibrated = recalibrate(expected, recalibration)
    with (run / "predictions.csv").open(newline="", encoding="utf-8") as file:
        written = list(csv.DictReader(file))
    texts = [line[name] for name in ("probability", "calibrated") for line in written]
    for text, probability in zip(texts, [*expected, *calibrated], strict=True):
        assert np.float32(text) == probability
        digits = len(text.split("e")[0].replace(".", "").strip("0"))
        shorter = [np.float32(f"{float(probability):.{kept}e}") for kept in range(digits - 1)]
        assert probability not in shorter
