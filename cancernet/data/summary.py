"""What build_dataset.py says of a build: the table and the sentences around it."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence, Set
from contextlib import suppress
from typing import Any

from cancernet.data.dataset import Dataset
from cancernet.data.originals import SECOND_COPY_REASON, Exclusion, Patch
from cancernet.data.patch import PATCH_SIDE, ExcludedError, PatchName, parse_source
from cancernet.data.splitting import PublishedPatient, read_published

MISSING_SHOWN = 5


def lines(data: Dataset, patches: Sequence[Patch], exclusions: Sequence[Exclusion]) -> list[str]:
    """Lays out everything that a user has to know of the data set just built, line by line.

    Args:
        data: The data set.
        patches: The files that were to be used.
        exclusions: The files left out before any was copied.
    """
    published = read_published()
    return [
        "",
        *split_table(data.build["splits"]),
        "",
        *method_lines(data.build, {patch.patient for patch in patches}, published),
        *exclusion_lines(exclusions, patches),
        *coverage_lines(patches, exclusions, published),
    ]


def split_table(splits: Mapping[str, Mapping[str, int]]) -> list[str]:
    """Lays out patients and patches of each split, and the share of malignant ones."""
    columns = ("patients", "patches", "benign", "malignant")
    lines = [f"{'split':<10} " + " ".join(f"{name:>9}" for name in columns) + f" {'share':>7}"]
    for split, counts in splits.items():
        share = f"{counts['malignant'] / counts['patches']:.1%}" if counts["patches"] else "-"
        numbers = " ".join(f"{counts[name]:>9,}" for name in columns)
        lines.append(f"{split:<10} {numbers} {share:>7}")
    return lines


def exclusion_lines(exclusions: Sequence[Exclusion], patches: Sequence[Patch]) -> list[str]:
    """Counts the files left out by reason, and the used ones of odd size."""
    lines = []
    if exclusions:
        reasons = Counter(exclusion.reason for exclusion in exclusions).most_common()
        listed = ", ".join(f"{reason} {count:,}" for reason, count in reasons)
        lines.append(f"{len(exclusions):,} files left out, see excluded.csv: {listed}.")
    odd = sum((patch.width, patch.height) != (PATCH_SIDE, PATCH_SIDE) for patch in patches)
    if odd:
        lines.append(
            f"{odd:,} patches used are not {PATCH_SIDE} x {PATCH_SIDE} pixels: "
            "training stretches them, as published."
        )
    return lines


def method_lines(
    build: Mapping[str, Any], patients: Set[str], published: Mapping[str, PublishedPatient]
) -> list[str]:
    """Says what the reader of the metrics must know about the chosen split."""
    if build["method"] == "image":
        return [
            f"The image split shares {build['overlap']['patients']:,} of {len(patients):,} "
            "patients between splits: the network is tested on tissue of patients it was trained "
            "on, which flatters its metrics."
        ]
    lines = ["No patient, file name or content stands in two splits."]
    if build["method"] == "published":
        listed = {patient: facts.split for patient, facts in published.items() if facts.split}
        unlisted = len(patients - listed.keys())
        lines.append(f"{unlisted:,} patients in no published list went to training.")
        for split, counts in build["splits"].items():
            of_split = {patient for patient in listed if listed[patient] == split}
            missing = len(of_split - patients)
            if counts["patches"] == 0:
                lines.append(
                    f"The {split} split stays empty: {missing} of its {len(of_split)} published "
                    "patients are missing."
                )
            elif missing:
                lines.append(
                    f"The {split} split lacks {missing} of its {len(of_split)} published patients."
                )
    return lines


def coverage_lines(
    patches: Iterable[Patch],
    exclusions: Iterable[Exclusion],
    published: Mapping[str, PublishedPatient],
) -> list[str]:
    """Compares what was found, used or not, with the published counts of the real download."""
    found: list[Patch | PatchName] = [*patches]
    for exclusion in exclusions:
        if exclusion.reason != SECOND_COPY_REASON:
            with suppress(ExcludedError):
                found.append(parse_source(exclusion.source))
    places = {(each.patient, each.label, each.x, each.y) for each in found if each.x is not None}
    counts = Counter(patient for patient, *_ in places)
    expected = {
        patient: facts.benign + facts.malignant
        for patient, facts in published.items()
        if facts.benign is not None and facts.malignant is not None
    }
    present = expected.keys() & counts.keys()
    if not present:
        return []
    line = (
        f"Of the public download: {len(present):,} of {len(expected):,} patients, "
        f"{sum(counts[patient] for patient in present):,} of {sum(expected.values()):,} patches"
    )
    lines = []
    absent = sorted(expected.keys() - present)
    incomplete = sorted(patient for patient in present if counts[patient] != expected[patient])
    for kind, which in (("missing", absent), ("incomplete", incomplete)):
        if which:
            shown = ", ".join(which[:MISSING_SHOWN]) + (", ..." if which[MISSING_SHOWN:] else "")
            lines.append(f"  {len(which):,} patients {kind} ({shown}).")
    return [line + (":" if lines else "."), *lines]
