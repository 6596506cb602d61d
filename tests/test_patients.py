"""Who the patients are: plain layouts are taken, others refused with the way out."""

import unicodedata
from collections.abc import Sequence

import pytest

from cancernet.cli import InputError
from cancernet.data import patients
from cancernet.data.patch import Layout, Patch, parse_source

DEFAULT = "patient/class/file"
ALL = ["anna", "bert", "cleo"]
ZOE = unicodedata.normalize("NFC", "Zoë"), unicodedata.normalize("NFD", "Zoë")


def patches_of(folders: Sequence[str], layout: str) -> list[Patch]:
    """Two patches in each folder, benign and malignant; "%" stands for the class."""
    patches = []
    for number, (folder, label) in enumerate((f, c) for f in folders for c in "01"):
        source = folder.replace("%", label) if "%" in folder else f"{folder}/{label}/{number}.png"
        patches.append(parse_source(source, Layout(layout)))
    return patches


def settled(folders: Sequence[str], layout: str = DEFAULT, method: str = "patient") -> set[str]:
    patches = patients.settle(patches_of(folders, layout), Layout(layout), method=method)
    return {patch.patient for patch in patches}


@pytest.mark.parametrize(
    ("folders", "layout", "expected"),
    [
        (ALL, DEFAULT, ALL),
        ([f"my/images/{name}" for name in ALL], DEFAULT, ALL),
        (["train/anna", "train/bert"], DEFAULT, ["anna", "bert"]),
        (["test 1", "test 2"], DEFAULT, ["test 1", "test 2"]),
        (["slide_1", "slide_2", "H-slide 3"], DEFAULT, ["slide_1", "slide_2", "H-slide 3"]),
        # A name of the download tells the patient wherever it stands.
        (["train/%/8863_idx5_x1_y1_class%.png", "test/%/8864_idx5_x1_y1_class%.png"], DEFAULT,
         ["8863", "8864"]),
        (["anna/s1", "anna/s2", "bert/s1"], "patient/slide/class/file", ["anna", "bert"]),
        (["anna", "anna/s2", "bert"], "patient/slide/class/file", ["anna", "bert"]),
        (["A/001", "B/001"], "patient/patient/class/file", ["A_001", "B_001"]),
        (["A/001", "B/001"], "site/patient/class/file", ["001"]),
        (["train/anna", "test/bert"], "split/patient/class/file", ["anna", "bert"]),
        (["anna_slide1", "anna_slide2", "bert_slide1"], "patient_slide/class/file",
         ["anna", "bert"]),
        (["TCGA-A1-A0SB-01Z-00-DX1", "TCGA-A2-A0SC-01Z-00-DX1"],
         "patient-patient-patient-slide/class/file", ["TCGA_A1_A0SB", "TCGA_A2_A0SC"]),
        (["train/%/anna_1.png", "test/%/anna_2.png"], "split/class/patient_file", ["anna"]),
        (["%/anna_b_1.png", "%/bert_1.png"], "class/patient_file", ["anna", "bert"]),
        (["%/anna/1.png"], "class/patient/file", ["anna"]),
        (["anna/%/s1/a.png", "bert/%/a.png"], "patient/class/folder/file", ["anna", "bert"]),
        (["anna/a_b_%.png"], "patient/file_class.png", ["anna"]),
        (["A/anna", "A/bert/s1"], "site/patient/slide/class/file", ["anna", "bert"]),
        (["A-two\nlines"], "site-patient/class/file", ["two\nlines"]),
    ],
    ids=str,
)  # fmt: skip
def test_patients_are_told_apart(folders, layout, expected) -> None:
    assert settled(folders, layout) == set(expected)


@pytest.mark.parametrize(
    ("folders", "layout", "words"),
    [
        (["anna/s1", "anna/s2", "bert/s3"], DEFAULT, ["side by side", "'anna/s2/", "'bert/s3/"]),
        (["anna", "bert/s2"], DEFAULT, ["'anna/1/1.png'", "'bert/s2/1/3.png'"]),
        (["A/anna/s", "B/bert/s"], "patient/slide/class/file", ["side by side"]),
        (["train", "valid", "test"], DEFAULT, ["names of splits", "'test', 'train', 'valid'"]),
        (["Training_Set", "VAL", "Holdout"], DEFAULT, ["names of splits"]),
        (["fold 1", "fold 2"], DEFAULT, ["names of splits", "--split image"]),
        (["data_train", "Test (1)", "x-val"], DEFAULT, ["'Test (1)', 'data_train', 'x-val'"]),
        (["%/train/anna_1.png", "%/test/anna_2.png"], "class/patient/file", ["names of splits"]),
        (["anna_slide1", "Anna_slide2", "bert_slide1"], DEFAULT, ["'Anna_slide2', 'anna_slide1'"]),
        (["anna_left", "anna_right", "bert"], DEFAULT, ["slides of one patient"]),
        (["TCGA-A1-A0SB-01Z-00-DX1", "TCGA-A1-A0SB-01Z-00-DX2", "TCGA-A2-A0SC-01Z-00-DX1"],
         DEFAULT, ["slides of one patient"]),
    ],
    ids=str,
)  # fmt: skip
def test_what_leaves_the_patient_open_is_refused_with_the_way_out(
    folders: list[str], layout: str, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(InputError) as refused:
        settled(folders, layout)
    for word in [*words, "--layout patient/slide/class/file, ", "--split image"]:
        assert word in str(refused.value)
    # The image split does not depend on it.
    assert settled(folders, layout, method="image")
    assert capsys.readouterr().out == f"Note: {refused.value}\n"


def test_spellings_of_one_patient_are_merged_and_said(capsys: pytest.CaptureFixture[str]) -> None:
    folders = ["Anna", "anna", *ZOE, "p\u20131\u200b", "P_01", "p10", "p1a", "की", "का"]
    assert settled(folders) == {"Anna", ZOE[1], "P_01", "p10", "p1a", "की", "का"}
    said = capsys.readouterr().out
    assert said.startswith("3 patients are spelt in several ways, taken for one: 'Anna' and 'anna'")
    assert said.count("\n") == 1


def test_it_is_said_by_what_patients_are_told_apart() -> None:
    patches = patches_of(["8863/%/8863_idx5_x1_y1_class%.png", "anna"], DEFAULT)
    names, folders = "by the file names, e.g. '8863'", "by the folder two levels up, e.g. 'anna'"
    assert patients.described(patches, DEFAULT) == f"patients {names} and {folders}"
