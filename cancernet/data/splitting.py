"""Which patch goes to training, validation and testing.

Everything is sorted before it is shuffled, so that the same seed gives the same split everywhere.
"""

import csv
import random
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from cancernet.cli import InputError
from cancernet.data.patch import SPLITS, Patch

PUBLISHED_TABLE = Path(__file__).parent / "published.csv"

# The search for a patient split: random beginnings, and the changes tried from each. With 279
# patients it ends after 0.2 s, at most 0.02 % of the patches from the fractions (12 seeds tried).
BEGINNINGS = 3
TRIES_PER_PATIENT = 200
MOST_TRIES = 10_000

# What a split without one of the classes adds to the distance: more than any chi-square can be.
MISSING_CLASS = 1e12

Counts = tuple[int, int]  # Benign and malignant patches of a patient.


@dataclass(frozen=True)
class PublishedPatient:
    """A row of the published table; no patches where the patient is not in the download."""

    benign: int
    malignant: int
    split: str | None  # In the split of Cruz-Roa et al. (2014); None for patients in no list.


def read_published() -> dict[str, PublishedPatient]:
    """Reads the published facts about each patient, by patient number.

    Patches of each class as in the public download; split of A. Cruz-Roa et al. (2014), Proc. SPIE
    9041, in the lists that A. Janowczyk and A. Madabhushi (2016), J. Pathol. Inform. 7:29, give.
    """
    with PUBLISHED_TABLE.open(newline="", encoding="utf-8") as table:
        return {
            row["patient"]: PublishedPatient(
                int(row["benign"] or 0), int(row["malignant"] or 0), row["published_split"] or None
            )
            for row in csv.DictReader(table)
        }


def split_fractions(train_split: float, val_split: float) -> dict[str, float]:
    """Turns the ratios TRAIN_SPLIT and VAL_SPLIT into shares of the whole."""
    shares = (train_split * (1 - val_split), train_split * val_split, 1 - train_split)
    return {split: round(share, 12) for split, share in zip(SPLITS, shares, strict=True)}


def assign_splits(
    patches: Sequence[Patch], *, method: str, train_split: float, val_split: float, seed: int
) -> dict[str, str]:
    """Gives every patch, by its source, a split; the order of the patches does not matter.

    `method` is "image", "patient" or "published" (patients in no published list go to training);
    `train_split` is the share of training and validation, `val_split` that of validation in it.
    """
    if method == "image":
        sources = [patch.source for patch in patches]
        return split_images(sources, train_split=train_split, val_split=val_split, seed=seed)
    if method == "patient":
        of_class = Counter((patch.patient, patch.label) for patch in patches)
        counts = {patient: (of_class[patient, 0], of_class[patient, 1]) for patient, _ in of_class}
        fractions = split_fractions(train_split, val_split)
        split_of_patient = split_patients(counts, fractions=fractions, seed=seed)
    else:
        listed = {patient: facts.split for patient, facts in read_published().items()}
        split_of_patient = {p.patient: listed.get(p.patient) or "training" for p in patches}
    return {patch.source: split_of_patient[patch.patient] for patch in patches}


def split_images(
    sources: Iterable[str], *, train_split: float, val_split: float, seed: int
) -> dict[str, str]:
    """Shuffles patches and cuts as the published scripts do: one patient's lie in all splits."""
    shuffled = sorted(sources)
    random.Random(seed).shuffle(shuffled)
    kept = int(len(shuffled) * train_split)
    validation = int(kept * val_split)
    parts = (shuffled[validation:kept], shuffled[:validation], shuffled[kept:])
    return {source: split for split, part in zip(SPLITS, parts, strict=True) for source in part}


def split_patients(
    counts: Mapping[str, Counts], *, fractions: Mapping[str, float], seed: int
) -> dict[str, str]:
    """Puts whole patients into splits so that patches of both classes come near the fractions.

    The distance is Pearson's chi-square between the patches of each class in each split and those
    that the fractions ask for. From several random beginnings, random moves of one patient and
    swaps of two are kept wherever they lessen it; the nearest end is taken.
    """
    _check_enough(counts)
    generator = random.Random(seed)
    shares = [fractions[split] for split in SPLITS]
    ends = [_approach(counts, shares, generator) for _ in range(BEGINNINGS)]
    _, nearest = min(ends, key=lambda end: end[0])
    return {patient: SPLITS[place] for patient, place in nearest.items()}


def _check_enough(counts: Mapping[str, Counts]) -> None:
    for label, what in enumerate(("benign", "malignant")):
        patients = sorted(patient for patient in counts if counts[patient][label])
        if len(patients) < len(SPLITS):
            raise InputError(
                f"Found {len(patients)} patients with {what} patches ({', '.join(patients)}): "
                "three splits that share no patient and hold both classes need at least 3. Add "
                "patients, or see --split image, whose metrics flatter."
            )


def _approach(
    counts: Mapping[str, Counts], shares: Sequence[float], generator: random.Random
) -> tuple[float, dict[str, int]]:
    """Goes to where no move tried helps; gives the distance, and patients' places in SPLITS."""
    patients, places = sorted(counts), range(len(SPLITS))
    wholes = [sum(of_class) for of_class in zip(*counts.values(), strict=True)]
    expected = [share * whole for whole in wholes for share in shares]
    place_of = dict(zip(patients, generator.choices(places, shares, k=len(patients)), strict=True))
    totals = [0] * len(expected)  # By class and split, one after the other.
    for patient, place in place_of.items():
        for label, patches in enumerate(counts[patient]):
            totals[label * len(SPLITS) + place] += patches
    distance = _distance(totals, expected)
    for _ in range(min(MOST_TRIES, TRIES_PER_PATIENT * len(patients))):
        first, second = generator.sample(patients, 2)
        changes = {first: place_of[second], second: place_of[first]}
        if generator.random() >= 0.5:
            changes = {first: generator.choice(places)}
        changed = totals.copy()
        for patient, place in changes.items():
            for label, patches in enumerate(counts[patient]):
                changed[label * len(SPLITS) + place_of[patient]] -= patches
                changed[label * len(SPLITS) + place] += patches
        if (new_distance := _distance(changed, expected)) < distance:
            distance, totals = new_distance, changed
            place_of |= changes
    return distance, place_of


def _distance(totals: Sequence[int], expected: Sequence[float]) -> float:
    """Pearson's chi-square, and more where a split lacks a class."""
    distance = 0.0
    for total, wanted in zip(totals, expected, strict=True):
        if total == 0:
            distance += MISSING_CLASS
        if wanted:
            distance += (total - wanted) ** 2 / wanted
    return distance
