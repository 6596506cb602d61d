"""Every file below the original directory is used, or left out for a reason."""

import os
import shutil
from pathlib import Path

import pytest
from conftest import WritePatch

from cancernet.cli import InputError
from cancernet.data import originals as module
from cancernet.data.patch import LAYOUT, Patch

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


def test_a_file_that_vanishes_is_excluded_in_any_order(
    originals: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    patches, _ = examine(originals)
    listed = [*module.paths.list_files(str(originals)), f"{originals / '20001' / '0'}/gone.png"]
    monkeypatch.setattr(module.paths, "list_files", lambda _: sorted(listed, reverse=True))
    assert examine(originals) == (patches, {"20001/0/gone.png": "unreadable file"})


def test_second_copy_is_excluded_where_the_first_stands_and_used_elsewhere(
    originals: Path,
) -> None:
    shutil.copytree(originals / "20001", originals / "IDC_regular_ps50_idx5" / "20001")
    (originals / FIRST).unlink()
    patches, excluded = examine(originals)
    assert list(excluded.values()) == ["second copy of the data set"] * 5
    again = [patch.source for patch in patches if "IDC" in patch.source]
    assert again == [f"IDC_regular_ps50_idx5/{FIRST}"]


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


WAYS = ["--download", "--sample", "--original DIR", "--layout patient/slide/class/file"]


@pytest.mark.parametrize(
    ("files", "words"),
    [
        (None, ["no directory"]),
        ([], ["Found 0 files", "original/anna/0/tile.png"]),
        (["archive.zip", "b.txt"], ["other than 0 or 1: 2", "Unpack archive.zip first"]),
        (["anna/0/a.png", "bert/0/b.png"], ["2 benign and 0 malignant"]),
        (["0/a.png", "1/b.png"], ["no patient: 2, e.g. '0/a.png'"]),
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
        path.touch()
    with pytest.raises(InputError) as refused:
        module.examine(original, LAYOUT, **LIMITS)
    for word in [*words, *WAYS]:
        assert word in str(refused.value).replace(os.sep, "/")
