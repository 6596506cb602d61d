"""What build_dataset.py says of a build: the table and the sentences around it."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from cancernet.data.dataset import Dataset
from cancernet.data.originals import Exclusion
from cancernet.data.patch import LAYOUT, PATCH_SIDE, Patch, read_facts
from cancernet.data.patients import described
from cancernet.data.splitting import SPLITS, read_published

MISSING_SHOWN = 5


def lines(data: Dataset, patches: Sequence[Patch]) -> list[str]:
    """Lays out what a user has to know of the data set just built of `patches`, line by line."""
    return [
        "",
        *split_table(data.build["splits"]),
        "",
        *method_lines(data.build, patches),
        *exclusion_lines(data.exclusions, patches),
        *coverage_lines(patches, data.exclusions),
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
    if odd := sum(patch.size != (PATCH_SIDE, PATCH_SIDE) for patch in patches):
        lines.append(
            f"{odd:,} patches used are not {PATCH_SIDE} x {PATCH_SIDE} pixels: "
            "training stretches them, as published."
        )
    return lines


def method_lines(build: Mapping[str, Any], patches: Sequence[Patch]) -> list[str]:
    """Says what the reader of the metrics must know about the chosen split."""
    patients = {patch.patient for patch in patches}
    told = described(patches, build.get("layout", LAYOUT.text))
    if build["method"] == "image":
        return [
            f"The image split shares {build['overlap']['patients']:,} of {len(patients):,} "
            "patients between splits: the network is tested on tissue of patients it was trained "
            f"on, which flatters its metrics ({told})."
        ]
    lines = [f"No patient, file name or content stands in two splits ({told})."]
    if build["method"] == "published":
        listed = {patient: facts.split for patient, facts in read_published().items()}
        unlisted = sum(listed.get(patient) is None for patient in patients)
        lines.append(f"{unlisted:,} patients in no published list went to training.")
        for split in SPLITS:
            of_split = {patient for patient in listed if listed[patient] == split}
            missing = f"{len(of_split - patients)} of its {len(of_split)} published patients"
            if build["splits"][split]["patches"] == 0:
                lines.append(f"The {split} split stays empty: {missing} are missing.")
            elif of_split - patients:
                lines.append(f"The {split} split lacks {missing}.")
    return lines


def coverage_lines(patches: Iterable[Patch], exclusions: Iterable[Exclusion]) -> list[str]:
    """Compares what was found, used or not, with the published counts of the real download."""
    found = [*patches, *(read_facts(Path(exclusion.source)) for exclusion in exclusions)]
    places = {(each.patient, each.label, each.x, each.y) for each in found if each.x is not None}
    counts = Counter(patient for patient, *_ in places)
    published = {name: facts.benign + facts.malignant for name, facts in read_published().items()}
    expected = {patient: patches for patient, patches in published.items() if patches}
    present = expected.keys() & counts.keys()
    if not present:
        return []
    lines = [
        f"Of the public download: {len(present):,} of {len(expected):,} patients, "
        f"{sum(counts[patient] for patient in present):,} of {sum(expected.values()):,} patches"
    ]
    incomplete = [patient for patient in present if counts[patient] != expected[patient]]
    for kind, which in (("missing", expected.keys() - present), ("incomplete", incomplete)):
        if which:
            shown = ", ".join(sorted(which)[:MISSING_SHOWN])
            more = ", ..." if len(which) > MISSING_SHOWN else ""
            lines.append(f"  {len(which):,} patients {kind} ({shown}{more}).")
    lines[0] += ":" if lines[1:] else "."
    return lines
