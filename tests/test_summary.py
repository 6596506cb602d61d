from dataclasses import replace

import pytest

from cancernet.data import splitting, summary
from cancernet.data.originals import SECOND_COPY_REASON, Exclusion, Patch

PUBLISHED = splitting.read_published()


@pytest.fixture(scope="module")
def whole_download() -> list[Patch]:
    patches = []
    for patient, facts in PUBLISHED.items():
        for label, count in enumerate((facts.benign or 0, facts.malignant or 0)):
            for index in range(count):
                x, y = 50 * index + 1, 50 * label + 1
                source = f"{patient}/{label}/{patient}_idx5_x{x}_y{y}_class{label}.png"
                patches.append(Patch(source, patient, label, x, y, 10, source, 50, 50))
    return patches


def test_the_whole_download_is_recognised(whole_download: list[Patch]) -> None:
    assert summary.coverage_lines(whole_download, [], PUBLISHED) == [
        "Of the public download: 279 of 279 patients, 277,524 of 277,524 patches."
    ]


def test_excluded_slivers_count_as_found_and_second_copies_do_not_count_twice(
    whole_download: list[Patch],
) -> None:
    *used, sliver = whole_download
    again = replace(used[0], source=f"IDC_regular_ps50_idx5/{used[0].source}")
    exclusions = [
        Exclusion(sliver.source, "side under 25 pixels", "50 x 8"),
        Exclusion(again.source, "second copy of the data set", ""),
    ]
    assert summary.coverage_lines(used, exclusions, PUBLISHED) == [
        "Of the public download: 279 of 279 patients, 277,524 of 277,524 patches."
    ]


def test_second_copies_do_not_stand_in_for_missing_patches(whole_download: list[Patch]) -> None:
    first, *others = whole_download
    again = Exclusion(f"IDC_regular_ps50_idx5/{first.source}", SECOND_COPY_REASON, "")
    line = summary.coverage_lines(others, [again], PUBLISHED)[0]
    assert line.endswith("277,523 of 277,524 patches:")


def test_missing_patients_and_patches_are_told_apart(whole_download: list[Patch]) -> None:
    patches = [patch for patch in whole_download[1:] if patch.patient != "8864"]
    missing = (PUBLISHED["8864"].benign or 0) + (PUBLISHED["8864"].malignant or 0)
    assert summary.coverage_lines(patches, [], PUBLISHED) == [
        f"Of the public download: 278 of 279 patients, {277_524 - missing - 1:,} of 277,524 "
        "patches:",
        "  1 patients missing (8864).",
        "  1 patients incomplete (8863).",
    ]


def test_other_data_are_not_compared_with_the_download() -> None:
    own = Patch("anna/0/a.png", "anna", 0, None, None, 10, "", 50, 50)
    assert summary.coverage_lines([own], [], PUBLISHED) == []


def test_exclusions_are_counted_by_reason_and_odd_sizes_named() -> None:
    exclusions = [Exclusion("a", "empty file", ""), Exclusion("b", "empty file", "")]
    odd = Patch("anna/0/a.png", "anna", 0, None, None, 10, "", 50, 41)
    assert summary.exclusion_lines(exclusions, [odd]) == [
        "2 files left out, see excluded.csv: empty file 2.",
        "1 patches used are not 50 x 50 pixels: training stretches them, as published.",
    ]


def test_the_table_shows_an_empty_split() -> None:
    counts = {"patients": 0, "patches": 0, "benign": 0, "malignant": 0}
    _, line = summary.split_table({"testing": counts})
    assert line.split() == ["testing", "0", "0", "0", "0", "-"]
