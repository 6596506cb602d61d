"""What build_dataset.py says of a build: the table and the sentences around it."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from cancernet.data.originals import SECOND_COPY_REASON, Exclusion, Patch
from cancernet.data.patches import PATCH_SIDE, ExcludedError, parse_source
from cancernet.data.splitting import SPLITS, PublishedPatient

MISSING_SHOWN = 5


def report(
    build: Mapping[str, Any],
    patches: Sequence[Patch],
    exclusions: Sequence[Exclusion],
    published: Mapping[str, PublishedPatient],
) -> list[str]:
    """Lays out everything that a user has to know of the data set just built, line by line."""
    return [
        "",
        *split_table(build["splits"]),
        "",
        *method_lines(build, (patch.patient for patch in patches), published),
        *exclusion_lines(exclusions, patches),
        *coverage_lines(patches, exclusions, published),
    ]


def split_table(splits: Mapping[str, Mapping[str, int]]) -> list[str]:
    """Lays out patients and patches of each split, and the share of malignant ones."""
    lines = [
        f"{'split':<10} {'patients':>9} {'patches':>9} {'benign':>9} {'malignant':>9} {'share':>7}"
    ]
    for split, counts in splits.items():
        share = f"{counts['malignant'] / counts['patches']:.1%}" if counts["patches"] else "-"
        lines.append(
            f"{split:<10} {counts['patients']:>9,} {counts['patches']:>9,} "
            f"{counts['benign']:>9,} {counts['malignant']:>9,} {share:>7}"
        )
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
    build: Mapping[str, Any], patients: Iterable[str], published: Mapping[str, PublishedPatient]
) -> list[str]:
    """Says what the reader of the figures must know about the chosen split."""
    patients = set(patients)
    shared = build["overlap"]["patients"]
    if build["method"] == "image":
        return [
            f"The image split shares {shared:,} of {len(patients):,} patients between splits: the "
            "network is tested on tissue of patients it was trained on, which flatters its figures."
        ]
    lines = ["No patient, file name or content stands in two splits."]
    if build["method"] == "published":
        unlisted = {
            patient
            for patient in patients
            if patient not in published or published[patient].split is None
        }
        lines.append(f"{len(unlisted):,} patients in no published list went to training.")
        for split in SPLITS:
            listed = {patient for patient, facts in published.items() if facts.split == split}
            missing = len(listed - patients)
            if build["splits"][split]["patches"] == 0:
                lines.append(
                    f"The {split} split stays empty: {missing} of its {len(listed)} published "
                    "patients are missing."
                )
            elif missing:
                lines.append(
                    f"The {split} split lacks {missing} of its {len(listed)} published patients."
                )
    return lines


def coverage_lines(
    patches: Iterable[Patch],
    exclusions: Iterable[Exclusion],
    published: Mapping[str, PublishedPatient],
) -> list[str]:
    """Compares what was found, used or not, with the published counts of the real download."""
    found = {(patch.patient, patch.label, patch.x, patch.y) for patch in patches}
    for exclusion in exclusions:
        if exclusion.reason == SECOND_COPY_REASON:
            continue
        try:
            name = parse_source(exclusion.source)
        except ExcludedError:
            continue
        found.add((name.patient, name.label, name.x, name.y))
    counts = Counter(patient for patient, _, x, _ in found if x is not None)
    expected = {
        patient: facts.benign + facts.malignant
        for patient, facts in published.items()
        if facts.benign is not None and facts.malignant is not None
    }
    present = expected.keys() & counts.keys()
    if not present:
        return []
    patches_found = sum(counts[patient] for patient in present)
    line = (
        f"Of the public download: {len(present):,} of {len(expected):,} patients, "
        f"{patches_found:,} of {sum(expected.values()):,} patches"
    )
    absent = sorted(expected.keys() - present)
    incomplete = sorted(patient for patient in present if counts[patient] != expected[patient])
    if not absent and not incomplete:
        return [line + "."]
    lines = [line + ":"]
    for kind, which in (("missing", absent), ("incomplete", incomplete)):
        if which:
            shown = ", ".join(which[:MISSING_SHOWN]) + (", ..." if which[MISSING_SHOWN:] else "")
            lines.append(f"  {len(which):,} patients {kind} ({shown}).")
    return lines
