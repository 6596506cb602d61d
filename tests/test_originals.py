"""Every file below the original directory is used, or left out for a reason."""

import os
import shutil
from pathlib import Path

import pytest
from conftest import WritePatch

from cancernet.cli import InputError
from cancernet.data import originals as module
from cancernet.data.originals import Exclusion, Patch
from cancernet.data.patch import LAYOUT, Layout

LIMITS = {"min_side": 25, "max_pixels": 100_000_000}
FIRST = "20001/0/20001_idx5_x1_y51_class0.png"


def examine(folder: Path) -> tuple[list[Patch], dict[str, str]]:
    """The files used, and the reason of each other one; together they are all that is there."""
    patches, exclusions = module.examine(folder, LAYOUT, **LIMITS)
    used = [patch.source for patch in patches]
    assert used == sorted(used)
    reasons = {exclusion.source: exclusion.reason for exclusion in exclusions}
    listed = {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}
    assert listed <= {*used, *reasons}
    return patches, reasons


def test_a_file_that_is_no_patch_or_vanishes_is_excluded_in_any_order(
    originals: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (originals / "notes.txt").write_text("not a patch")
    (originals / "20001" / "0" / "empty.png").touch()
    patches, excluded = examine(originals)
    assert len(patches) == 72
    assert excluded == {
        "20001/0/empty.png": "empty file",
        "notes.txt": "class folder other than 0 or 1",
    }
    listed = [*module.paths.list_files(str(originals)), f"{originals / '20001' / '0'}/gone.png"]
    monkeypatch.setattr(module.paths, "list_files", lambda _: sorted(listed, reverse=True))
    gone = {"20001/0/gone.png": "vanished during the build"}
    assert examine(originals) == (patches, excluded | gone)


def test_second_copy_is_excluded_where_the_first_stands_and_used_elsewhere(
    originals: Path, write_patch: WritePatch
) -> None:
    again = originals / "IDC_regular_ps50_idx5"
    shutil.copytree(originals / "20001", again / "20001")
    write_patch(again / "20099" / "1" / "20099_idx5_x1_y1_class1.png")
    patches, excluded = examine(originals)
    assert list(excluded.values()) == ["second copy of the data set"] * 6
    assert [patch.source for patch in patches if "IDC" in patch.source] == [
        "IDC_regular_ps50_idx5/20099/1/20099_idx5_x1_y1_class1.png"
    ]


def test_same_content_is_kept_once_or_with_different_labels_not_at_all(originals: Path) -> None:
    shutil.copy(originals / FIRST, originals / "20002/0/again.png")
    other = FIRST.replace("20001", "20003")
    shutil.copy(originals / other, originals / "20003/1/malignant.png")
    patches, excluded = examine(originals)
    assert excluded == {
        "20002/0/again.png": "same content",
        other: "same content, different labels",
        "20003/1/malignant.png": "same content, different labels",
    }
    assert len({patch.sha256 for patch in patches}) == len(patches) == 71


WAYS = ["--download", "--sample", "--original DIR"]


@pytest.mark.parametrize(
    ("files", "words"),
    [
        (None, ["no directory", *WAYS]),
        ([], ["Found 0 files", "original/anna/0/tile.png", *WAYS]),
        (["a.txt", "b.txt"], ["Found 2 files", "'a.txt', ...", *WAYS]),
        (["archive.zip"], ["Unpack archive.zip first"]),
        ([".DS_Store", "a/8863.tar.GZ"], ["Unpack a/8863.tar.GZ first"]),
        (["anna/0/a.png", "bert/0/b.png"], ["2 benign and 0 malignant"]),
        (["a/1/1.png", "a/benign/2.png"], ["0 benign and 1 malignant", "1 ('a/benign/2.png')"]),
        (["0/a.png", "1/b.png"], ["no patient: 2", "--layout class/patient_file"]),
        (["0/anna/a.png"], ["--layout class/patient/file if it is 'anna'."]),
        (
            ["anna/0/s1/a.png"],
            ["patient/class/folder/file if it is 'anna', --layout folder/class/patient/file"],
        ),
    ],
    ids=str,
)
def test_without_both_classes_it_says_what_is_there_and_the_ways_on(
    tmp_path: Path, write_patch: WritePatch, files: list[str] | None, words: list[str]
) -> None:
    original = tmp_path / "original"
    if files is not None:
        original.mkdir()
    for name in files or ():
        path = write_patch(original / name) if name.endswith("png") else original / name
        path.parent.mkdir(exist_ok=True)
        path.touch()
    with pytest.raises(InputError) as refused:
        module.examine(original, LAYOUT, **LIMITS)
    for word in words:
        assert word in str(refused.value).replace(os.sep, "/")


def test_where_a_layout_does_not_fit_another_is_named(
    tmp_path: Path, write_patch: WritePatch
) -> None:
    write_patch(tmp_path / "0/anna_1.png")
    with pytest.raises(InputError, match="take --layout class/patient_file"):
        module.examine(tmp_path, Layout("class/patient/file"), **LIMITS)


def test_a_file_in_the_place_of_the_directory_is_refused(tmp_path: Path) -> None:
    (tmp_path / "archive.zip").touch()
    with pytest.raises(InputError, match=r"is a file.*Unpack"):
        module.examine(tmp_path / "archive.zip", LAYOUT, **LIMITS)


def test_real_patches_are_used_but_for_slivers(real_patches: Path, tmp_path: Path) -> None:
    patients = ["9123", "9124", "10279"]
    for patient in patients:
        shutil.copytree(real_patches / patient, tmp_path / patient)
    patches, exclusions = module.examine(tmp_path, LAYOUT, **LIMITS)
    assert {patch.patient for patch in patches} == set(patients)
    sliver = "10279/0/10279_idx5_x2501_y2501_class0.png"
    assert Exclusion(sliver, "side under 25 pixels", "50 x 8") in exclusions
    assert {exclusion.reason for exclusion in exclusions} == {"side under 25 pixels"}
