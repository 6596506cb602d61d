"""What a build is said to hold."""

import pytest

from cancernet.data import splitting, summary
from cancernet.data.originals import Exclusion
from cancernet.data.patch import Patch

PUBLISHED = splitting.read_published()
OWN = Patch("anna", 0, None, None, "anna/0/a.png", size=(50, 41))


@pytest.fixture(scope="module")
def whole_download() -> list[Patch]:
    patches = []
    for patient, facts in PUBLISHED.items():
        for label, count in enumerate((facts.benign, facts.malignant)):
            for x in range(count):
                source = f"{patient}/{label}/{patient}_idx5_x{x}_y1_class{label}.png"
                patches.append(Patch(patient, label, x, 1, source))
    return patches


def test_the_whole_download_is_recognised_and_other_data_are_not_compared(whole_download) -> None:
    *used, sliver = whole_download
    exclusions = [Exclusion(sliver.source, "side under 25 pixels", "50 x 8")]
    exclusions.append(Exclusion(f"IDC_regular_ps50_idx5/{used[0].source}", "second copy", ""))
    assert summary.coverage_lines(used, exclusions) == [
        "Of the public download: 279 of 279 patients, 277,524 of 277,524 patches."
    ]
    assert summary.coverage_lines([OWN], []) == []


def test_what_is_missing_is_told(whole_download: list[Patch]) -> None:
    patches = [patch for patch in whole_download[1:] if patch.patient != "8864"]
    missing = PUBLISHED["8864"].benign + PUBLISHED["8864"].malignant
    assert summary.coverage_lines(patches, []) == [
        f"Of the public download: 278 of 279 patients, {277_524 - missing - 1:,} of 277,524 "
        "patches:",
        "  1 patients missing (8864).",
        "  1 patients incomplete (8863).",
    ]


def test_exclusions_odd_sizes_and_an_empty_split_are_shown() -> None:
    exclusions = [Exclusion("a", "empty file", ""), Exclusion("b", "empty file", "")]
    assert summary.exclusion_lines(exclusions, [OWN]) == [
        "2 files left out, see excluded.csv: empty file 2.",
        "1 patches used are not 50 x 50 pixels: training stretches them, as published.",
    ]
    _, line = summary.split_table(
        {"testing": dict.fromkeys(("patients", "patches", "benign", "malignant"), 0)}
    )
    assert line.split() == ["testing", "0", "0", "0", "0", "-"]
