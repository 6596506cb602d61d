"""Splits that cover all, that a seed alone decides, near the fractions, by whole patients."""

import random
from collections.abc import Mapping
from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cancernet.cli import InputError
from cancernet.data import splitting
from cancernet.data.patch import Patch
from cancernet.data.splitting import SPLITS

FRACTIONS = splitting.split_fractions(0.8, 0.1)
PUBLISHED = splitting.read_published()

counts_of_patients = st.dictionaries(
    st.text("abcdefgh", min_size=1, max_size=4),
    st.tuples(st.integers(1, 200), st.integers(1, 100)),
    min_size=3,
    max_size=40,
)
seeds = st.integers(0, 2**32 - 1)
split_patients = partial(splitting.split_patients, fractions=FRACTIONS)
split_images = partial(splitting.split_images, train_split=0.8, val_split=0.1)


def totals(counts: Mapping[str, tuple[int, int]], split_of: Mapping[str, str]) -> np.ndarray:
    """Benign and malignant patches of each split, shape (splits, 2)."""
    sums = np.zeros((len(SPLITS), 2), int)
    for patient, split in split_of.items():
        sums[SPLITS.index(split)] += counts[patient]
    return sums


@given(st.sets(st.text(), min_size=1), seeds, st.randoms())
def test_image_split_covers_all_once_whatever_the_order(
    sources: set[str], seed: int, shuffler: random.Random
) -> None:
    listed = sorted(sources)
    split_of = split_images(listed, seed=seed)
    assert split_of.keys() == sources
    shuffler.shuffle(listed)
    assert split_images(listed, seed=seed) == split_of


@pytest.mark.parametrize("count", [1, 7, 10, 277_524])
def test_image_split_cuts_where_the_published_script_cuts(count: int) -> None:
    split_of = split_images([f"{number:06}" for number in range(count)], seed=42)
    kept, validation = int(count * 0.8), int(int(count * 0.8) * 0.1)
    sizes = [list(split_of.values()).count(split) for split in SPLITS]
    assert sizes == [kept - validation, validation, count - kept]


def distance(counts: Mapping[str, tuple[int, int]], split_of: Mapping[str, str]) -> float:
    found = totals(counts, split_of)
    expected = np.outer(list(FRACTIONS.values()), found.sum(axis=0))
    return float(((found - expected) ** 2 / expected).sum())


@settings(max_examples=15, deadline=None)
@given(counts_of_patients, seeds)
def test_patient_split_covers_every_patient_fills_every_split_and_is_nearest(
    counts: dict[str, tuple[int, int]], seed: int
) -> None:
    split_of = split_patients(counts, seed=seed)
    assert split_of.keys() == counts.keys()
    assert set(split_of.values()) == set(SPLITS)
    assert split_patients(dict(reversed(counts.items())), seed=seed) == split_of
    for patient in counts:
        for split in SPLITS:
            moved = {**split_of, patient: split}
            if set(moved.values()) == set(SPLITS):
                assert distance(counts, moved) >= distance(counts, split_of) - 1e-9


def test_patient_split_of_the_whole_download_is_near_the_fractions_and_stratified() -> None:
    counts = {name: (facts.benign, facts.malignant) for name, facts in PUBLISHED.items()}
    counts = {name: of_class for name, of_class in counts.items() if of_class != (0, 0)}
    assert len(counts) == 279
    splits = [split_patients(counts, seed=seed) for seed in (1, 42)]
    assert splits[0] != splits[1]
    # The same seed gives the split that it always gave.
    in_validation = sorted(name for name in counts if splits[1][name] == "validation")
    assert in_validation[:4] == ["10300", "12822", "12824", "12873"]
    for split_of in splits:
        sums = totals(counts, split_of)
        shares, malignant = sums.sum(axis=1) / 277_524, sums[:, 1] / sums.sum(axis=1)
        assert shares == pytest.approx(list(FRACTIONS.values()), abs=0.001)
        assert malignant == pytest.approx(np.full(3, 78_786 / 277_524), abs=0.002)


def test_a_class_that_few_patients_have_still_reaches_every_split() -> None:
    counts = {f"benign {number}": (50, 0) for number in range(20)}
    counts |= {f"mixed {number}": (20, 30) for number in range(3)}
    assert totals(counts, split_patients(counts, seed=3))[:, 1].tolist() == [30, 30, 30]


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        ({"a": (1, 1), "b": (1, 1)}, r"2 patients with benign .*\(a, b\).* 3.*--split image"),
        (dict.fromkeys("abc", (1, 0)) | {"d": (1, 1)}, r"1 patients with malignant patches \(d\)"),
    ],
)
def test_too_few_patients_are_refused_with_what_is_needed(counts, message: str) -> None:
    with pytest.raises(InputError, match=message):
        split_patients(counts, seed=1)


def test_published_table_holds_the_published_totals() -> None:
    assert sum(facts.benign for facts in PUBLISHED.values()) == 198_738
    assert sum(facts.malignant for facts in PUBLISHED.values()) == 78_786
    splits = [facts.split for facts in PUBLISHED.values()]
    assert [splits.count(split) for split in SPLITS] == [84, 29, 49]


def assign(patients: Mapping[str, tuple[int, int]], method: str) -> dict[str, set[str]]:
    """The splits of each patient's patches."""
    patches = [
        Patch(patient, label, None, None, f"{patient}/{label}/{number}")
        for patient, of_labels in patients.items()
        for label, count in enumerate(of_labels)
        for number in range(min(count, 5))
    ]
    split_of = splitting.assign_splits(
        patches, method=method, train_split=0.8, val_split=0.1, seed=1
    )
    assert split_of.keys() == {patch.source for patch in patches}
    return {name: {split_of[p.source] for p in patches if p.patient == name} for name in patients}


@settings(max_examples=10, deadline=None)
@given(counts_of_patients)
def test_no_patient_is_in_two_splits(counts: dict[str, tuple[int, int]]) -> None:
    assert all(len(splits) == 1 for splits in assign(counts, "patient").values())


def test_patients_of_no_published_list_go_to_training() -> None:
    expected = {"8864": "testing", "8865": "training", "8867": "validation", "8863": "training"}
    expected["anna"] = "training"
    found = assign(dict.fromkeys(expected, (2, 3)), "published")
    assert found == {patient: {split} for patient, split in expected.items()}
