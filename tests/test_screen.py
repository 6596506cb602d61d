"""The lines that train_model.py ends with."""

import re

from test_report import PROBABILITIES, SPLITS, metrics_of, row, without_testing

from cancernet.evaluation import screen


def lines(splits=SPLITS, probabilities=PROBABILITIES, **settings):
    metrics = metrics_of(splits, probabilities, **settings)
    return "\n".join(screen.lines(metrics, splits, probabilities))


def test_screen_names_the_positive_class_and_both_axes():
    validation, testing = lines().split("Testing: ")
    assert "Class 1, malignant, is positive." in validation
    assert "2 patients, 7 patches, 42.9% malignant" in validation
    assert re.search(r"called benign +called malignant", testing)
    assert re.search(r"truly benign +1 +1\n", testing)
    assert re.search(r"truly malignant +1 +2\n", testing)


def test_screen_does_not_swap_sensitivity_and_specificity():
    validation, testing = lines().split("Testing: ")
    assert re.search(r"\naccuracy +0\.5714 ", validation)
    assert re.search(r"\nsensitivity +0\.3333 ", validation)
    assert re.search(r"\nspecificity +0\.7500 ", validation)
    assert re.search(r"\nsensitivity +0\.6667 ", testing)
    # And in scikit-learn's table: precision, recall, F1, patches.
    assert re.search(r"0 benign +0\.500 +0\.500 +0\.500 +2\n", testing)
    assert re.search(r"1 malignant +0\.667 +0\.667 +0\.667 +3\n", testing)


def test_screen_shows_both_thresholds_in_columns():
    validation, testing = lines().split("Testing: ")
    for shown in (validation, testing):
        assert re.search(r"at 0\.5 +at 0\.\d+, from validation\n", shown)
        assert re.search(r"\n +raw +recalibrated\n", shown)
        rows = re.findall(r"^(?: +at|accuracy|MCC|Brier| +raw).*$", shown, re.MULTILINE)
        assert len(rows) >= 5
        for row_shown in rows:
            assert row_shown[18] == row_shown[45] == " "
            assert row_shown[19] != " "
            assert row_shown[46] != " "
    assert max(len(line) for line in lines().split("Note: ")[0].splitlines()) <= 100


def test_what_the_published_scripts_would_print_stands_once_as_a_footnote():
    footnotes = re.findall(r'"sensitivity" ([\d.]+) and "specificity" ([\d.]+)', lines())
    assert footnotes == [("0.5000", "0.6667")]  # Testing's specificity and sensitivity.


def test_intervals_stand_behind_their_figures():
    many = {
        split: [
            row(split, number, number // 15 % 2, patient=f"{number % 15}") for number in range(60)
        ]
        for split in ("training", "validation", "testing")
    }
    probabilities = {
        split: PROBABILITIES["validation"][[number % 7 for number in range(60)]]
        for split in ("validation", "testing")
    }
    shown = lines(many, probabilities)
    interval = r"0\.\d{4} \(0\.\d{3} to 0\.\d{3}\)"
    assert re.search(rf"\nsensitivity +{interval} +{interval}\n", shown)
    assert re.search(rf"\nROC AUC +{interval}\n", shown)
    assert re.search(rf"\nBrier score +{interval} +{interval}\n", shown)
    assert "Without a network" not in shown


def test_baselines_stand_beside_the_network():
    rival = {split: 1 - values for split, values in PROBABILITIES.items()}
    shown = lines(baselines={"colour": rival, "patient_identity": None})
    assert re.search(r"\nWithout a network: ROC AUC of colours alone 0\.\d{4}\.\n", shown)
    assert "Note: baseline patient_identity: no patient" in shown


def test_screen_shows_notes_and_what_is_not_defined():
    splits = SPLITS | {"testing": SPLITS["testing"][:2]}
    probabilities = PROBABILITIES | {"testing": PROBABILITIES["testing"][:2]}
    shown = lines(splits, probabilities, notes=["stopped after 1 of 2 epochs"])
    assert re.search(r"\nsensitivity +not defined", shown)
    assert re.search(r"\nROC AUC +not defined", shown)
    assert "\nNote: stopped after 1 of 2 epochs.\n" in shown
    assert "\nNote: testing: sensitivity, " in shown


def test_screen_leaves_out_a_testing_split_that_is_empty():
    shown = lines(*without_testing())
    assert shown.count("Validation: ") == 1
    assert "1 malignant" in shown
    assert "Testing: " not in shown
    assert re.search("Note: testing: .*empty", shown)
