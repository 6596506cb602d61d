"""Every file below the original directory is used, or left out for a reason."""

import os
import shutil
import sys
from pathlib import Path

import pytest
from conftest import WritePatch

from cancernet.cli import InputError
from cancernet.data import originals as module
from cancernet.data.originals import Exclusion, Patch

LIMITS = {"min_side": 25, "max_pixels": 100_000_000}
FIRST = "20001/0/20001_idx5_x1_y51_class0.png"


def examine(folder: Path) -> tuple[list[Patch], dict[str, str]]:
    """The files used, and the reason of each other one; together they are all that is there."""
    patches, exclusions = module.examine(folder, **LIMITS)
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


@pytest.mark.skipif(sys.platform == "win32", reason="links need a right on Windows")
def test_links_are_followed_inside_the_directory_alone(
    originals: Path, tmp_path: Path, write_patch: WritePatch
) -> None:
    outside = write_patch(tmp_path / "outside" / "0" / "a.png")
    inside = write_patch(tmp_path / "original" / "stock" / "0" / "b.png")
    folder = originals / "20001" / "0"
    for name, target in {
        "out.png": outside,
        "nowhere.png": tmp_path / "nothing",
        "loop.png": folder / "loop.png",
        "zz_inside.png": inside,
    }.items():
        (folder / name).symlink_to(target)
    (originals / "linked").symlink_to(outside.parent)
    os.mkfifo(folder / "pipe.png")
    patches, excluded = examine(originals)
    assert excluded == {
        "20001/0/out.png": "link out of the directory",
        "20001/0/nowhere.png": "dangling link",
        "20001/0/loop.png": "unreadable file",
        "20001/0/pipe.png": "not a regular file",
        "linked": "linked folder",
        "stock/0/b.png": "same content",
    }
    assert "20001/0/zz_inside.png" in {patch.source for patch in patches}


@pytest.mark.skipif(sys.platform == "win32" or os.geteuid() == 0, reason="root may read all")
def test_closed_files_and_folders_are_excluded(originals: Path) -> None:
    (originals / FIRST).chmod(0)
    (originals / "20002").chmod(0)
    try:
        _, exclusions = module.examine(originals, **LIMITS)
    finally:
        (originals / "20002").chmod(0o755)
    reasons = {exclusion.source: exclusion.reason for exclusion in exclusions}
    assert reasons == {FIRST: "unreadable file", "20002": "unreadable folder"}


@pytest.mark.skipif(sys.platform != "linux", reason="such names exist on Linux alone")
def test_a_name_that_is_no_text_is_excluded(originals: Path) -> None:
    (originals / FIRST).rename(originals / "20001" / "0" / "caf\udce9.png")
    assert examine(originals)[1] == {"20001/0/caf\udce9.png": "name is not valid UTF-8"}


@pytest.mark.parametrize("content", [[], ["a.txt", "b.txt"]])
def test_nothing_to_use_is_refused_with_the_way_out(tmp_path: Path, content: list[str]) -> None:
    for name in content:
        (tmp_path / name).write_text("no image")
    with pytest.raises(InputError, match=rf"Found {len(content)} files .*--download.*--sample"):
        module.examine(tmp_path, **LIMITS)
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="is a file"):
        module.examine(tmp_path / "file", **LIMITS)


def test_real_patches_are_used_but_for_slivers(real_patches: Path, tmp_path: Path) -> None:
    patients = ["9123", "9124", "10279"]
    for patient in patients:
        shutil.copytree(real_patches / patient, tmp_path / patient)
    patches, exclusions = module.examine(tmp_path, **LIMITS)
    assert {patch.patient for patch in patches} == set(patients)
    sliver = "10279/0/10279_idx5_x2501_y2501_class0.png"
    assert Exclusion(sliver, "side under 25 pixels", "50 x 8") in exclusions
    assert {exclusion.reason for exclusion in exclusions} == {"side under 25 pixels"}
