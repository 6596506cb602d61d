import random
from collections.abc import Mapping
from types import SimpleNamespace

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from cancernet.cli import InputError
from cancernet.data import splitting
from cancernet.data.splitting import SPLITS

FRACTIONS = splitting.split_fractions(0.8, 0.1)
PUBLISHED = splitting.read_published()

counts_of_patients = st.dictionaries(
    st.text("abcdefgh", min_size=1, max_size=4),
    st.tuples(st.integers(1, 200), st.integers(1, 100)),
    min_size=3,
    max_size=40,
)


def totals(
    counts: Mapping[str, tuple[int, int]], split_of: Mapping[str, str]
) -> dict[str, list[int]]:
    sums = {split: [0, 0] for split in SPLITS}
    for patient, split in split_of.items():
        for label in (0, 1):
            sums[split][label] += counts[patient][label]
    return sums


def test_fractions_follow_the_two_published_ratios() -> None:
    assert FRACTIONS == {"training": 0.72, "validation": 0.08, "testing": 0.2}


@pytest.mark.parametrize("ratio", [0, 1, -0.1, 1.5, float("nan"), "0.8", None])
@pytest.mark.parametrize("place", [0, 1])
def test_ratios_that_leave_a_split_empty_are_refused(ratio: object, place: int) -> None:
    ratios: list[object] = [0.8, 0.1]
    ratios[place] = ratio
    with pytest.raises(InputError, match=("TRAIN_SPLIT", "VAL_SPLIT")[place]):
        splitting.split_fractions(*ratios)  # type: ignore[arg-type]


# --- image -----------------------------------------------------------------------------------


@given(st.sets(st.text(), min_size=1), st.integers(0, 2**32 - 1), st.randoms())
def test_image_split_covers_all_once_whatever_the_order(
    sources: set[str], seed: int, shuffler: random.Random
) -> None:
    listed = sorted(sources)
    split_of = splitting.split_images(listed, train_split=0.8, val_split=0.1, seed=seed)
    assert split_of.keys() == sources
    shuffler.shuffle(listed)
    again = splitting.split_images(listed, train_split=0.8, val_split=0.1, seed=seed)
    assert again == split_of


@pytest.mark.parametrize("count", [1, 7, 10, 277_524])
def test_image_split_cuts_where_the_published_script_cuts(count: int) -> None:
    sources = [f"{number:06}" for number in range(count)]
    split_of = splitting.split_images(sources, train_split=0.8, val_split=0.1, seed=42)
    kept = int(count * 0.8)
    validation = int(kept * 0.1)
    sizes = [list(split_of.values()).count(split) for split in SPLITS]
    assert sizes == [kept - validation, validation, count - kept]


# --- patient ---------------------------------------------------------------------------------


@settings(max_examples=15, deadline=None)
@given(counts_of_patients, st.integers(0, 2**32 - 1))
def test_patient_split_covers_every_patient_once_and_fills_every_split(
    counts: dict[str, tuple[int, int]], seed: int
) -> None:
    split_of = splitting.split_patients(counts, fractions=FRACTIONS, seed=seed)
    assert split_of.keys() == counts.keys()
    assert set(split_of.values()) == set(SPLITS)
    reordered = dict(reversed(counts.items()))
    assert splitting.split_patients(reordered, fractions=FRACTIONS, seed=seed) == split_of


@settings(max_examples=10, deadline=None)
@given(counts_of_patients)
def test_no_move_of_one_patient_brings_the_split_nearer(
    counts: dict[str, tuple[int, int]],
) -> None:
    split_of = splitting.split_patients(counts, fractions=FRACTIONS, seed=1)

    def distance(assignment: Mapping[str, str]) -> float:
        value = 0.0
        sums = totals(counts, assignment)
        for label in (0, 1):
            whole = sum(split[label] for split in sums.values())
            for split in SPLITS:
                expected = FRACTIONS[split] * whole
                value += (sums[split][label] - expected) ** 2 / expected
        return value

    found = distance(split_of)
    for patient in counts:
        for split in SPLITS:
            moved = {**split_of, patient: split}
            if set(moved.values()) == set(SPLITS):
                assert distance(moved) >= found - 1e-9


def test_patient_split_of_the_whole_download_is_near_the_fractions_and_stratified() -> None:
    counts = {
        patient: (facts.benign, facts.malignant)
        for patient, facts in PUBLISHED.items()
        if facts.benign is not None and facts.malignant is not None
    }
    seeds = [splitting.split_patients(counts, fractions=FRACTIONS, seed=seed) for seed in (1, 42)]
    assert seeds[0] != seeds[1]
    whole = sum(map(sum, counts.values()))
    for split_of in seeds:
        for split, (benign, malignant) in totals(counts, split_of).items():
            assert (benign + malignant) / whole == pytest.approx(FRACTIONS[split], abs=0.001)
            assert malignant / (benign + malignant) == pytest.approx(78_786 / 277_524, abs=0.002)


def test_a_class_that_few_patients_have_still_reaches_every_split() -> None:
    counts = {f"benign {number}": (50, 0) for number in range(20)}
    counts |= {f"mixed {number}": (20, 30) for number in range(3)}
    sums = totals(counts, splitting.split_patients(counts, fractions=FRACTIONS, seed=3))
    assert all(malignant == 30 for _, malignant in sums.values())


def test_fewer_patients_than_splits_are_refused() -> None:
    with pytest.raises(InputError, match="Found 2 patients"):
        splitting.split_patients({"a": (1, 1), "b": (1, 1)}, fractions=FRACTIONS, seed=1)


# --- published -------------------------------------------------------------------------------


def test_published_table_holds_the_published_totals() -> None:
    in_download = [facts for facts in PUBLISHED.values() if facts.benign is not None]
    assert len(in_download) == 279
    assert sum(facts.benign or 0 for facts in in_download) == 198_738
    assert sum(facts.malignant or 0 for facts in in_download) == 78_786
    splits = [facts.split for facts in PUBLISHED.values()]
    assert [splits.count(split) for split in SPLITS] == [84, 29, 49]


def test_published_split_gives_listed_patients_their_place_and_training_the_rest() -> None:
    split_of = splitting.split_as_published(["8864", "8865", "8867", "8863", "anna"])
    assert split_of == {
        "8864": "testing",
        "8865": "training",
        "8867": "validation",
        "8863": "training",
        "anna": "training",
    }


# --- all -------------------------------------------------------------------------------------


@settings(max_examples=10, deadline=None)
@given(counts_of_patients, st.sampled_from(["patient", "published"]))
def test_no_patient_is_in_two_splits(counts: dict[str, tuple[int, int]], method: str) -> None:
    patches = [
        SimpleNamespace(source=f"{patient}/{label}/{number}", patient=patient, label=label)
        for patient, of_labels in counts.items()
        for label, count in enumerate(of_labels)
        for number in range(min(count, 5))
    ]
    assume(patches)
    split_of = splitting.assign_splits(
        patches, method=method, train_split=0.8, val_split=0.1, seed=1
    )
    assert split_of.keys() == {patch.source for patch in patches}
    for patient in counts:
        assert len({split_of[p.source] for p in patches if p.patient == patient}) == 1


def test_unknown_method_is_refused() -> None:
    patch = SimpleNamespace(source="a", patient="a", label=0)
    with pytest.raises(InputError, match="SPLIT_BY is 'slide'"):
        splitting.assign_splits([patch], method="slide", train_split=0.8, val_split=0.1, seed=1)
