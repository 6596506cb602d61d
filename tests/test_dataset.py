"""What a built data set tells, and that damage to it is named."""

import contextlib
import csv
import hashlib
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_building import build

from cancernet.cli import InputError
from cancernet.data.dataset import Dataset, Row
from cancernet.data.originals import Exclusion
from cancernet.files import swap_places


@pytest.fixture
def built(originals: Path, tmp_path: Path) -> Path:
    build(originals, tmp_path / "idc")
    return tmp_path / "idc"


def test_a_data_set_tells_files_labels_and_patients(built: Path) -> None:
    data = Dataset.open(built, verify=True)
    assert list(data.splits) == ["training", "validation", "testing"]
    for split in data.splits.values():
        assert split
        for file, label, patient in zip(split.files, split.labels, split.patients, strict=True):
            assert file.is_file()
            assert file.parent == built / split.name / str(label)
            assert file.name.startswith(patient)
    assert data.training.labels.dtype == np.int64
    assert not data.sample
    assert data.judged is data.testing
    assert data.digest == hashlib.sha256((built / "manifest.csv").read_bytes()).hexdigest()


def test_where_testing_is_empty_validation_is_judged(tmp_path: Path) -> None:
    data = Dataset.of(tmp_path, [], {"sample": True}, [])
    assert data.judged is data.validation
    assert data.sample
    assert data.testing.labels.shape == (0,)


def test_a_half_done_replacement_is_finished_first(built: Path, originals: Path) -> None:
    new, old = swap_places(built)
    build(originals, built.with_name("other"), seed=2)
    built.with_name("other").rename(new)
    built.rename(old)
    assert Dataset.open(built, verify=True).build["seed"] == 2


# --- Damage --------------------------------------------------------------------------------------


def test_a_missing_data_set_is_refused_with_the_way_out(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"build_dataset\.py --sample"):
        Dataset.open(tmp_path / "idc")


def edit(change: Callable[[list[list[str]]], None]) -> Callable[[Path], object]:
    """Changes the rows of manifest.csv, the header being row 0."""

    def edited(folder: Path) -> None:
        path = folder / "manifest.csv"
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.reader(file))
        change(rows)
        with path.open("w", newline="", encoding="utf-8") as file:
            csv.writer(file, lineterminator="\n").writerows(rows)

    return edited


def put(column: str, value: str) -> Callable[[Path], object]:
    names = [field.name for field in fields(Row)]
    return edit(lambda rows: rows[3].__setitem__(names.index(column), value))


def swap_labels(rows: list[list[str]]) -> None:
    """Swaps the labels of two rows of a split: no count tells."""
    one = next(row for row in rows[1:] if row[:2] == ["training", "0"])
    other = next(row for row in rows[1:] if row[:2] == ["training", "1"])
    one[1], other[1] = "1", "0"


def cut_manifest(folder: Path, share: float) -> None:
    data = (folder / "manifest.csv").read_bytes()
    (folder / "manifest.csv").write_bytes(data[: int(len(data) * share)])


def first_patch(folder: Path) -> Path:
    return min((folder / "training").rglob("*.png"))


def overwrite(folder: Path) -> None:
    """Other content of the same size."""
    path = first_patch(folder)
    path.write_bytes(bytes(path.stat().st_size))


DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "label": (put("label", "7"), "damaged"),
    "label swapped": (edit(swap_labels), "damaged"),
    "split": (put("split", "holdout"), "damaged"),
    "patient": (put("patient", "20099"), "do not count"),
    "no number": (put("bytes", "many"), "damaged"),
    "size": (put("bytes", "7"), "changed"),
    "climbs out": (put("file", "../../x/1/a.png"), "climbs out"),
    "absolute": (put("file", "/etc/0/passwd"), "climbs out"),
    "same file twice": (edit(lambda rows: rows.append(rows[-1])), "same file"),
    "row removed": (edit(lambda rows: rows.__delitem__(3)), "do not count"),
    "header": (edit(lambda rows: rows[0].reverse()), "columns"),
    "cut in a row": (lambda folder: cut_manifest(folder, 0.5), "damaged"),
    "empty": (lambda folder: cut_manifest(folder, 0), "damaged"),
    "removed": (lambda folder: (folder / "manifest.csv").unlink(), "no "),
    "binary": (lambda folder: (folder / "manifest.csv").write_bytes(b"\xff\0"), "damaged"),
    "build.json": (lambda folder: (folder / "build.json").write_text("[" * 10**5), "damaged"),
    "build.json of others": (lambda folder: (folder / "build.json").write_text("{}"), "expected"),
    "patch removed": (lambda folder: first_patch(folder).unlink(), "missing"),
    "patch cut": (lambda folder: first_patch(folder).write_bytes(b""), "found 0 bytes"),
    "patch added": (lambda folder: (folder / "training/0/new.png").write_bytes(b"x"), "added"),
    "patch moved": (lambda folder: first_patch(folder).rename(folder / "a.png"), "missing"),
    "patch overwritten": (overwrite, "hash"),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_a_changed_data_set_is_refused(built: Path, name: str) -> None:
    damage, message = DAMAGES[name]
    patch = "new.png" if name == "patch added" else first_patch(built).name
    damage(built)
    with pytest.raises(InputError, match=message) as refused:
        Dataset.open(built, verify=True)
    assert "uild" in str(refused.value)  # What to do.
    assert patch in str(refused.value) or not name.startswith("patch ")


def test_files_of_file_managers_are_no_change_and_exclusions_read_as_written(built: Path) -> None:
    for name in (".DS_Store", "Thumbs.db", "training/desktop.ini"):
        (built / name).write_bytes(b"x")
    with (built / "excluded.csv").open("a", newline="") as file:
        csv.writer(file).writerow(("a, <b>.png", "too small", "3 x 4"))
    assert Dataset.open(built).exclusions == [Exclusion("a, <b>.png", "too small", "3 x 4")]


@settings(
    max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.data())
def test_any_manifest_is_read_or_refused(built: Path, data: st.DataObject) -> None:
    path = built / "manifest.csv"
    original = path.read_bytes()
    try:
        start = data.draw(st.integers(0, len(original)))
        values = st.one_of(st.binary(max_size=20), st.sampled_from([b"../", b",", b"9" * 5000]))
        path.write_bytes(original[:start] + data.draw(values) + original[start + 5 :])
        with contextlib.suppress(InputError):
            Dataset.open(built)
    finally:
        path.write_bytes(original)
