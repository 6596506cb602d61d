"""What a built data set tells, and that damage to it is named."""

import csv
import shutil
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path

import pytest
from test_building import build

from cancernet.cli import InputError
from cancernet.data.dataset import Dataset, Row
from cancernet.data.originals import Exclusion


@pytest.fixture
def built(originals: Path, tmp_path: Path) -> Path:
    build(originals, tmp_path / "idc")
    return tmp_path / "idc"


def test_a_data_set_tells_files_labels_and_patients(built: Path) -> None:
    data = Dataset.open(built, verify=True)
    assert list(data.splits) == ["training", "validation", "testing"]
    for split in data.splits.values():
        for file, label, patient in zip(split.files, split.labels, split.patients, strict=True):
            assert file.parent == built / split.name / str(label)
            assert file.name.startswith(patient)
    assert data.judged is data.testing
    empty = Dataset.of(built, [], {"sample": True}, [])
    assert empty.judged is empty.validation


def edit(change: Callable[[list[list[str]]], object]) -> Callable[[Path], object]:
    """Changes the rows of manifest.csv, the header being row 0."""

    def edited(folder: Path) -> None:
        path = folder / "manifest.csv"
        rows = list(csv.reader(path.read_text().splitlines()))
        change(rows)
        path.write_text("".join(",".join(row) + "\n" for row in rows))

    return edited


def put(column: str, value: str) -> Callable[[Path], object]:
    names = [field.name for field in fields(Row)]
    return edit(lambda rows: rows[3].__setitem__(names.index(column), value))


def swap_labels(rows: list[list[str]]) -> None:
    """Swaps the labels of two rows of a split: no count tells."""
    one = next(row for row in rows[1:] if row[:2] == ["training", "0"])
    other = next(row for row in rows[1:] if row[:2] == ["training", "1"])
    one[1], other[1] = "1", "0"


def write(name: str, content: bytes) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_bytes(content)


def first_patch(folder: Path) -> Path:
    return min((folder / "training").rglob("*.png"))


def overwrite(folder: Path) -> None:
    first_patch(folder).write_bytes(bytes(first_patch(folder).stat().st_size))


DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "all removed": (shutil.rmtree, r"build_dataset\.py --sample"),
    "label": (put("label", "7"), "damaged"),
    "label swapped": (edit(swap_labels), "damaged"),
    "split": (put("split", "holdout"), "do not count"),
    "patient": (put("patient", "20099"), "do not count"),
    "size": (put("bytes", "7"), "changed"),
    "same file twice": (edit(lambda rows: rows.append(rows[-1])), "do not count"),
    "header": (edit(lambda rows: rows[0].reverse()), "columns"),
    "a field less": (edit(lambda rows: rows[3].pop()), "damaged"),
    "empty": (write("manifest.csv", b""), "damaged"),
    "removed": (lambda folder: (folder / "manifest.csv").unlink(), "damaged.*No such file"),
    "binary": (write("manifest.csv", b"\xff\0"), "damaged"),
    "build.json": (write("build.json", b"[" * 10**5), "damaged"),
    "build.json of others": (write("build.json", b"{}"), "expected"),
    "patch removed": (lambda folder: first_patch(folder).unlink(), "missing"),
    "patch cut": (lambda folder: first_patch(folder).write_bytes(b""), "found 0 bytes"),
    "patch added": (write("training/0/new.png", b"x"), "added"),
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
    with (built / "excluded.csv").open("a") as file:
        file.write('"a, <b>.png",too small,3 x 4\n')
    assert Dataset.open(built).exclusions == [Exclusion("a, <b>.png", "too small", "3 x 4")]
