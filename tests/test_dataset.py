"""What a built data set tells, and that damage to it is named."""

import contextlib
import csv
import hashlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_building import build

from cancernet.cli import InputError
from cancernet.data.dataset import Dataset, Split
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
    assert not data.testing
    assert data.judged is data.validation
    assert data.sample
    assert Split("testing", tmp_path, []).labels.shape == (0,)


def test_a_half_done_replacement_is_finished_first(built: Path, originals: Path) -> None:
    new, old = swap_places(built)
    build(originals, built.with_name("other"), seed=2)
    built.with_name("other").rename(new)
    built.rename(old)
    assert Dataset.open(built, verify=True).build["seed"] == 2


# --- Damage: what train_model.py says of more of it stands in test_bad_input.py ------------------


def test_a_missing_data_set_is_refused_with_the_way_out(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"build_dataset\.py --sample"):
        Dataset.open(tmp_path / "idc")


@pytest.mark.parametrize("name", ["manifest.csv", "build.json", "excluded.csv"])
def test_missing_and_cut_lists_are_refused(built: Path, name: str) -> None:
    path = built / name
    path.write_text(path.read_text()[: path.stat().st_size // 2])
    with pytest.raises(InputError, match=f"{name}.* is damaged"):
        Dataset.open(built)
    path.unlink()
    with pytest.raises(InputError, match=f"no .*{name}"):
        Dataset.open(built)


def test_files_left_out_are_read_as_they_were_written(built: Path) -> None:
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
