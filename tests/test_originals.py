import os
import shutil
import sys
from pathlib import Path

import pytest
from conftest import WritePatch
from test_building import build

from cancernet.cli import InputError
from cancernet.data import originals as rooms
from cancernet.data.originals import Exclusion, Patch

LIMITS = {"min_side": 25, "max_pixels": 100_000_000}


def examine(folder: Path) -> tuple[list[Patch], dict[str, str]]:
    patches, exclusions = rooms.examine(folder, **LIMITS)
    return patches, {exclusion.source: exclusion.reason for exclusion in exclusions}


def test_every_file_is_used_or_excluded(originals: Path) -> None:
    (originals / "notes.txt").write_text("not a patch")
    (originals / "20001" / "0" / "empty.png").touch()
    patches, excluded = examine(originals)
    assert len(patches) == 72
    assert excluded == {
        "20001/0/empty.png": "empty file",
        "notes.txt": "class folder other than 0 or 1",
    }
    listed = {p.relative_to(originals).as_posix() for p in originals.rglob("*") if p.is_file()}
    assert {patch.source for patch in patches} | excluded.keys() == listed


def test_patches_are_sorted_whatever_order_the_disk_lists(
    originals: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    patches, _ = examine(originals)
    listing = rooms.paths.list_files

    monkeypatch.setattr(rooms.paths, "list_files", lambda folder: reversed(list(listing(folder))))
    assert examine(originals)[0] == patches
    assert [patch.source for patch in patches] == sorted(patch.source for patch in patches)


def test_second_copy_is_excluded_where_the_first_stands_and_used_elsewhere(
    originals: Path, write_patch: WritePatch
) -> None:
    again = originals / "IDC_regular_ps50_idx5"
    shutil.copytree(originals / "20001", again / "20001")
    write_patch(again / "20099" / "1" / "20099_idx5_x1_y1_class1.png")
    patches, excluded = examine(originals)
    assert set(excluded.values()) == {"second copy of the data set"}
    assert len(excluded) == 6
    assert [patch.source for patch in patches if "IDC" in patch.source] == [
        "IDC_regular_ps50_idx5/20099/1/20099_idx5_x1_y1_class1.png"
    ]


def test_same_content_is_kept_once_or_with_different_labels_not_at_all(
    originals: Path,
) -> None:
    first = originals / "20001" / "0" / "20001_idx5_x1_y51_class0.png"
    shutil.copy(first, originals / "20002" / "0" / "again.png")
    contradicted = originals / "20003" / "0" / "20003_idx5_x1_y51_class0.png"
    shutil.copy(contradicted, originals / "20003" / "1" / "malignant.png")
    patches, excluded = examine(originals)
    assert excluded == {
        "20002/0/again.png": "same content",
        "20003/0/20003_idx5_x1_y51_class0.png": "same content, different labels",
        "20003/1/malignant.png": "same content, different labels",
    }
    assert len({patch.sha256 for patch in patches}) == len(patches) == 71


@pytest.mark.skipif(sys.platform == "win32", reason="links need a right on Windows")
def test_links_are_followed_inside_the_directory_alone(
    originals: Path, tmp_path: Path, write_patch: WritePatch
) -> None:
    outside = write_patch(tmp_path / "outside" / "0" / "a.png")
    folder = originals / "20001" / "0"
    (folder / "out.png").symlink_to(outside)
    (folder / "nowhere.png").symlink_to(tmp_path / "nothing")
    (folder / "loop.png").symlink_to(folder / "loop.png")
    (originals / "linked").symlink_to(outside.parent)
    os.mkfifo(folder / "pipe.png")
    inside = write_patch(tmp_path / "original" / "stock" / "0" / "b.png")
    (folder / "zz_inside.png").symlink_to(inside)
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


@pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() == 0, reason="everything is open to root"
)
def test_closed_files_and_folders_are_excluded(originals: Path) -> None:
    closed = originals / "20001" / "0" / "20001_idx5_x1_y51_class0.png"
    closed.chmod(0)
    (originals / "20002").chmod(0)
    try:
        _, excluded = examine(originals)
    finally:
        (originals / "20002").chmod(0o755)
    assert excluded["20001/0/20001_idx5_x1_y51_class0.png"] == "unreadable file"
    assert excluded["20002"] == "unreadable folder"


@pytest.mark.skipif(sys.platform != "linux", reason="such names exist on Linux alone")
def test_a_name_that_is_no_text_is_excluded(originals: Path) -> None:
    patch = originals / "20001" / "0" / "20001_idx5_x1_y51_class0.png"
    patch.rename(Path(os.fsdecode(os.fsencode(patch.parent) + b"/caf\xe9.png")))
    assert examine(originals)[1] == {"20001/0/caf\udce9.png": "name is not valid UTF-8"}


@pytest.mark.skipif(sys.platform != "linux", reason="such names exist on Linux alone")
def test_a_linked_folder_whose_name_is_no_text_is_listed(originals: Path, tmp_path: Path) -> None:
    (tmp_path / "target").mkdir()
    (originals / os.fsdecode(b"folder\xff")).symlink_to(tmp_path / "target")
    build(originals, tmp_path / "idc")
    text = (tmp_path / "idc" / "excluded.csv").read_text(encoding="utf-8")
    assert "folder\\udcff,linked folder" in text


@pytest.mark.parametrize("limit", ["min_side", "max_pixels"])
def test_a_limit_of_the_wrong_type_is_refused_by_name(originals: Path, limit: str) -> None:
    with pytest.raises(InputError, match=f"{limit.upper()} is '25'"):
        rooms.examine(originals, **LIMITS | {limit: "25"})  # type: ignore[arg-type]


def test_a_file_that_vanishes_is_excluded(originals: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    listing = rooms.paths.list_files
    gone = originals / "20001" / "0" / "gone.png"
    monkeypatch.setattr(rooms.paths, "list_files", lambda folder: [*listing(folder), str(gone)])
    assert examine(originals)[1] == {"20001/0/gone.png": "vanished during the build"}


@pytest.mark.parametrize("content", [[], ["a.txt", "b.txt"]])
def test_nothing_to_use_is_refused_with_the_way_out(tmp_path: Path, content: list[str]) -> None:
    for name in content:
        (tmp_path / name).write_text("no image")
    with pytest.raises(InputError, match=rf"Found {len(content)} files .*--download.*--sample"):
        rooms.examine(tmp_path, **LIMITS)


def test_real_patches_are_used_but_for_slivers(real_patches: Path, tmp_path: Path) -> None:
    patients = ["9123", "9124", "10279"]
    for patient in patients:
        shutil.copytree(real_patches / patient, tmp_path / patient)
    patches, exclusions = rooms.examine(tmp_path, **LIMITS)
    assert {patch.patient for patch in patches} == set(patients)
    assert (
        Exclusion("10279/0/10279_idx5_x2501_y2501_class0.png", "side under 25 pixels", "50 x 8")
        in exclusions
    )
    assert {exclusion.reason for exclusion in exclusions} == {"side under 25 pixels"}
