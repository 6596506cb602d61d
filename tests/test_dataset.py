import contextlib
import csv
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_building import build, files_below

from cancernet.cli import InputError
from cancernet.data import dataset
from cancernet.data.dataset import Row
from cancernet.data.originals import Exclusion


def row(split: str, label: int, patient: str, name: str, sha256: str) -> Row:
    return Row(split, label, patient, 1, 1, name, f"{split}/{label}/{name}", 10, sha256)


def good_rows() -> list[Row]:
    return [
        row(split, label, f"patient of {split}", f"{split}{label}.png", f"{split}{label}")
        for split in ("training", "validation", "testing")
        for label in (0, 1)
    ]


def describe(rows: list[Row], method: str = "patient") -> dict[str, object]:
    return dataset.describe(rows, method=method, seed=1, fractions={}, sample=False)


# --- The proof of no overlap -------------------------------------------------------------------


def test_splits_that_share_nothing_pass() -> None:
    assert describe(good_rows())["overlap"] == {"patients": 0, "files": 0, "contents": 0}


@pytest.mark.parametrize(
    ("extra", "kind"),
    [
        (row("testing", 0, "patient of training", "new.png", "new"), "patients"),
        (row("testing", 0, "patient of testing", "TRAINING0.png", "new"), "files"),
        (row("testing", 0, "patient of testing", "new.png", "training0"), "contents"),
    ],
)
def test_any_overlap_is_refused(extra: Row, kind: str) -> None:
    with pytest.raises(InputError, match=f"1 {kind} stand in two splits"):
        describe([*good_rows(), extra])
    if kind != "patients":
        with pytest.raises(InputError, match=f"1 {kind} stand in two splits"):
            describe([*good_rows(), extra], method="image")


def test_the_image_split_counts_the_patients_it_shares() -> None:
    extra = row("testing", 0, "patient of training", "new.png", "new")
    assert describe([*good_rows(), extra], method="image")["overlap"] == {
        "patients": 1,
        "files": 0,
        "contents": 0,
    }


@pytest.mark.parametrize("method", ["patient", "image", "published"])
def test_a_split_without_a_class_is_refused(method: str) -> None:
    rows = [each for each in good_rows() if (each.split, each.label) != ("validation", 1)]
    with pytest.raises(InputError, match="validation split has no malignant patch"):
        describe(rows, method=method)


def test_only_the_published_split_may_be_empty() -> None:
    rows = [each for each in good_rows() if each.split != "testing"]
    assert describe(rows, method="published")["splits"]["testing"]["patches"] == 0  # type: ignore[index]
    with pytest.raises(InputError, match="testing split has no benign patch"):
        describe(rows)


# --- A stop in the swap ------------------------------------------------------------------------


@pytest.fixture
def built(originals: Path, tmp_path: Path) -> Path:
    build(originals, tmp_path / "idc")
    return tmp_path / "idc"


def test_a_swap_stopped_between_its_renames_is_finished(built: Path, originals: Path) -> None:
    new, old = dataset.beside(built)
    build(originals, built.with_name("other"), seed=2)
    built.with_name("other").rename(new)
    expected = files_below(new)
    built.rename(old)
    assert dataset.open_dataset(built)[1]["seed"] == 2
    assert files_below(built) == expected
    assert not new.exists()
    assert not old.exists()


def test_a_swap_without_a_whole_new_set_is_undone(built: Path) -> None:
    new, old = dataset.beside(built)
    expected = files_below(built)
    new.mkdir()
    built.rename(old)
    dataset.open_dataset(built)
    assert files_below(built) == expected
    assert not old.exists()


def test_what_a_finished_swap_left_of_the_old_set_is_removed(built: Path) -> None:
    _, old = dataset.beside(built)
    old.mkdir()
    (old / "manifest.csv").touch()
    dataset.open_dataset(built)
    assert not old.exists()


def test_a_set_that_is_still_being_built_is_left_alone(built: Path) -> None:
    new, _ = dataset.beside(built)
    new.mkdir()
    dataset.open_dataset(built)
    assert new.exists()


# --- Damage ------------------------------------------------------------------------------------


def test_a_missing_data_set_is_refused_with_the_way_out(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"build_dataset\.py --sample"):
        dataset.open_dataset(tmp_path / "idc")


@pytest.mark.parametrize("name", ["manifest.csv", "build.json"])
def test_missing_and_cut_lists_are_refused(built: Path, name: str) -> None:
    path = built / name
    text = path.read_text()
    path.write_text(text[: len(text) // 2])
    with pytest.raises(InputError):
        dataset.open_dataset(built)
    path.unlink()
    with pytest.raises(InputError, match=f"no .*{name}"):
        dataset.open_dataset(built)


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("split", "holdout"),
        ("label", "2"),
        ("x", "left"),
        ("bytes", "many"),
        ("file", "../../secret.png"),
        ("file", "/etc/passwd"),
    ],
)
def test_an_edited_manifest_is_refused(built: Path, column: str, value: str) -> None:
    path = built / "manifest.csv"
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    rows[3][column] = value
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    with pytest.raises(InputError, match="damaged"):
        dataset.open_dataset(built)


def test_files_left_out_are_read_as_they_were_written(built: Path) -> None:
    path = built / "excluded.csv"
    with path.open("a", newline="") as file:
        csv.writer(file).writerow(("a, <b>.png", "too small", "3 x 4"))
    assert dataset.read_exclusions(built)[-1] == Exclusion("a, <b>.png", "too small", "3 x 4")
    with path.open("a") as file:
        file.write("one field\n")
    with pytest.raises(InputError, match="damaged"):
        dataset.read_exclusions(built)
    path.unlink()
    with pytest.raises(InputError, match=r"excluded\.csv"):
        dataset.read_exclusions(built)


def test_a_row_moved_to_another_split_is_noticed(built: Path) -> None:
    path = built / "manifest.csv"
    path.write_text(path.read_text().replace("\ntesting,", "\ntraining,", 1))
    with pytest.raises(InputError, match="do not count the same"):
        dataset.open_dataset(built)


def test_a_missing_or_changed_patch_is_named(built: Path) -> None:
    splits, _ = dataset.open_dataset(built)
    path = built / splits["testing"][0].file
    path.write_bytes(b"")
    with pytest.raises(InputError, match=path.name):
        dataset.open_dataset(built)
    path.unlink()
    with pytest.raises(InputError, match=path.name):
        dataset.open_dataset(built)


@settings(
    max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.data())
def test_any_manifest_is_read_or_refused(built: Path, data: st.DataObject) -> None:
    path = built / "manifest.csv"
    original = path.read_bytes()
    try:
        start = data.draw(st.integers(0, len(original)))
        path.write_bytes(
            original[:start] + data.draw(st.binary(max_size=20)) + original[start + 5 :]
        )
        with contextlib.suppress(InputError):
            dataset.open_dataset(built)
    finally:
        path.write_bytes(original)
