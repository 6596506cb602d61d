import csv
import json
import shutil
from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cancernet.cli import InputError
from cancernet.data import building, dataset, splitting
from cancernet.data import originals as rooms
from cancernet.data.originals import Exclusion, Patch

FOLDERS = {split: split for split in splitting.SPLITS}


def patch(source: str, *, sha256: str | None = None) -> Patch:
    *_, patient, label, _ = source.split("/")
    return Patch(source, patient, int(label), None, None, 10, sha256 or source, 50, 50)


def build(original: Path, target: Path, *, seed: int = 42, copy_mode: str = "copy") -> None:
    patches, exclusions = rooms.examine(original, min_side=25, max_pixels=10**8)
    split_of = splitting.assign_splits(
        patches, method="patient", train_split=0.6, val_split=0.4, seed=seed
    )
    with building.new_set(target):
        rows, gone = building.stage(
            original, target, building.plan(patches, split_of, FOLDERS), copy_mode=copy_mode
        )
        description = dataset.describe(
            rows, method="patient", seed=seed, fractions={}, sample=False
        )
        building.swap(target, rows, exclusions + gone, description)


def files_below(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


# --- Names in the data set ---------------------------------------------------------------------


def planned_files(split_of: Mapping[str, str]) -> dict[str, str]:
    rows = building.plan([patch(source) for source in split_of], split_of, FOLDERS)
    assert [row.file for row in rows] == sorted(row.file for row in rows)
    return {row.source: row.file for row in rows}


def test_names_stay_and_shared_ones_get_the_patient_in_front() -> None:
    assert planned_files(
        {"anna/0/1.png": "training", "bert/0/1.png": "testing", "bert/1/2.png": "testing"}
    ) == {
        "anna/0/1.png": "training/0/anna_1.png",
        "bert/0/1.png": "testing/0/bert_1.png",
        "bert/1/2.png": "testing/1/2.png",
    }


def test_one_patient_may_use_a_name_in_both_classes() -> None:
    assert set(
        planned_files({"anna/0/1.png": "training", "anna/1/1.png": "training"}).values()
    ) == {
        "training/0/anna_1.png",
        "training/1/anna_1.png",
    }


def test_names_that_windows_and_macos_take_for_one_are_kept_apart() -> None:
    files = planned_files({"anna/0/A.png": "training", "bert/0/a.png": "training"})
    assert set(files.values()) == {"training/0/anna_A.png", "training/0/bert_a.png"}


sources = st.builds(
    "{}{}/{}/{}".format,
    st.sampled_from(["", "deep/", "deeper/"]),
    st.sampled_from(["a", "b", "a_b"]),
    st.integers(0, 1),
    st.sampled_from(["c.png", "C.png", "b_c.png", "a_c.png", "a_b_c.png", "a_c_2.png"]),
)


@given(st.dictionaries(sources, st.sampled_from(splitting.SPLITS), min_size=1))
def test_no_two_files_meet_and_no_name_is_in_two_splits(split_of: dict[str, str]) -> None:
    rows = building.plan([patch(source) for source in split_of], split_of, FOLDERS)
    assert len({row.file.casefold() for row in rows}) == len(rows) == len(split_of)
    split_of_name: dict[str, str] = {}
    for row in rows:
        name = row.file.split("/")[-1].casefold()
        assert split_of_name.setdefault(name, row.split) == row.split


# --- Building ----------------------------------------------------------------------------------


def test_the_set_holds_what_the_manifest_says(originals: Path, tmp_path: Path) -> None:
    target = tmp_path / "idc"
    build(originals, target)
    splits, _ = dataset.open_dataset(target)
    rows = [row for rows in splits.values() for row in rows]
    assert len(rows) == 72
    assert files_below(target) == {row.file for row in rows} | {
        "manifest.csv",
        "excluded.csv",
        "build.json",
    }
    for row in rows:
        assert (target / row.file).read_bytes() == (originals / row.source).read_bytes()
        assert row.file == f"{row.split}/{row.label}/{Path(row.source).name}"


def test_another_seed_leaves_nothing_of_the_earlier_set(originals: Path, tmp_path: Path) -> None:
    target, fresh = tmp_path / "idc", tmp_path / "fresh"
    build(originals, target, seed=1)
    before = files_below(target)
    build(originals, target, seed=2)
    build(originals, fresh, seed=2)
    assert files_below(target) == files_below(fresh) != before
    assert (target / "manifest.csv").read_bytes() == (fresh / "manifest.csv").read_bytes()
    assert {path.name for path in tmp_path.iterdir()} == {"original", "idc", "fresh"}


@pytest.mark.parametrize("copy_mode", ["hardlink", "symlink"])
def test_links_stand_for_the_originals(originals: Path, tmp_path: Path, copy_mode: str) -> None:
    target = tmp_path / "idc"
    build(originals, target, copy_mode=copy_mode)
    row = dataset.open_dataset(target)[0]["training"][0]
    assert (target / row.file).samefile(originals / row.source)
    assert (target / row.file).is_symlink() == (copy_mode == "symlink")


def test_unknown_copy_mode_is_refused(originals: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="COPY_MODE is 'move'"):
        build(originals, tmp_path / "idc", copy_mode="move")


def test_a_failed_build_leaves_the_older_set_and_no_rubbish(
    originals: Path, tmp_path: Path
) -> None:
    target = tmp_path / "idc"
    build(originals, target)
    before = (target / "build.json").read_bytes(), files_below(target)
    with pytest.raises(KeyboardInterrupt), building.new_set(target):
        raise KeyboardInterrupt
    assert ((target / "build.json").read_bytes(), files_below(target)) == before
    assert {path.name for path in tmp_path.iterdir()} == {"original", "idc"}


def test_files_that_change_or_vanish_after_the_check_are_excluded(
    originals: Path, tmp_path: Path
) -> None:
    patches, _ = rooms.examine(originals, min_side=25, max_pixels=10**8)
    split_of = dict.fromkeys((patch.source for patch in patches), "training")
    rows = building.plan(patches, split_of, FOLDERS)
    (originals / rows[0].source).unlink()
    (originals / rows[1].source).write_bytes(b"other content")
    with building.new_set(tmp_path / "idc"):
        staged, gone = building.stage(originals, tmp_path / "idc", rows, copy_mode="copy")
    assert staged == rows[2:]
    assert gone == [
        Exclusion(rows[0].source, "vanished during the build", ""),
        Exclusion(rows[1].source, "changed during the build", ""),
    ]


def test_exclusions_are_listed_by_source(originals: Path, tmp_path: Path) -> None:
    (originals / "z, with comma.txt").touch()
    (originals / 'a "quoted".txt').touch()
    build(originals, tmp_path / "idc")
    with (tmp_path / "idc" / "excluded.csv").open(newline="") as file:
        rows = list(csv.reader(file))
    assert rows[0] == ["source", "reason", "detail"]
    assert [row[0] for row in rows[1:]] == ['a "quoted".txt', "z, with comma.txt"]


# --- What may be replaced ----------------------------------------------------------------------


def test_a_directory_that_is_no_data_set_is_never_replaced(tmp_path: Path) -> None:
    foreign = tmp_path / "photos"
    foreign.mkdir()
    building.check_replaceable(foreign, original=tmp_path / "original", sample=False)
    (foreign / "holiday.jpg").touch()
    with pytest.raises(InputError, match="no data set of ours"):
        building.check_replaceable(foreign, original=tmp_path / "original", sample=False)
    (foreign / "build.json").write_text(json.dumps({"name": "a build of something else"}))
    with pytest.raises(InputError, match="no data set of ours"):
        building.check_replaceable(foreign, original=tmp_path / "original", sample=False)


def test_the_sample_never_replaces_real_patches(originals: Path, tmp_path: Path) -> None:
    target = tmp_path / "idc"
    build(originals, target)
    building.check_replaceable(target, original=originals, sample=False)
    with pytest.raises(InputError, match=r"real patches.*--dataset"):
        building.check_replaceable(target, original=originals, sample=True)


@pytest.mark.parametrize("place", ["original", "original/idc", "."])
def test_data_set_and_originals_may_not_contain_each_other(
    originals: Path, tmp_path: Path, place: str
) -> None:
    with pytest.raises(InputError, match="one in the other"):
        building.check_replaceable(tmp_path / place, original=originals, sample=False)


@pytest.mark.parametrize(
    "paths",
    [
        ("elsewhere/training", "idc/validation", "idc/testing"),
        ("idc", "idc/validation", "idc/testing"),
        ("idc/../training", "idc/validation", "idc/testing"),
        ("idc/all", "idc/all", "idc/testing"),
        ("idc/all", "idc/all/validation", "idc/testing"),
    ],
)
def test_split_folders_are_separate_and_below_the_data_set(paths: tuple[str, str, str]) -> None:
    with pytest.raises(InputError, match="TRAIN_PATH"):
        building.split_folders("idc", paths)


def test_split_folders_may_have_other_names() -> None:
    assert building.split_folders("idc", ("idc/a", "idc/b/c", "idc/d")) == {
        "training": "a",
        "validation": "b/c",
        "testing": "d",
    }


def test_a_linked_data_set_is_replaced_where_the_link_leads(
    originals: Path, tmp_path: Path
) -> None:
    (tmp_path / "big disk").mkdir()
    (tmp_path / "idc").symlink_to(tmp_path / "big disk" / "idc")
    build(originals, tmp_path / "big disk" / "idc", seed=1)
    build(originals, tmp_path / "idc", seed=2)
    assert (tmp_path / "idc").is_symlink()
    assert dataset.open_dataset(tmp_path / "big disk" / "idc")[1]["seed"] == 2
    shutil.rmtree(tmp_path / "big disk")
