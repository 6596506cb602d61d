"""Names in the data set, the files in it, the proof of no overlap, and what is never replaced."""

from collections.abc import Mapping
from pathlib import Path

import pytest
from conftest import contents, run
from hypothesis import given
from hypothesis import strategies as st

from cancernet.cli import InputError
from cancernet.data import building, originals, splitting
from cancernet.data.building import check_replaceable
from cancernet.data.dataset import Dataset, Row
from cancernet.data.originals import Exclusion
from cancernet.data.patch import LAYOUT, Patch

FOLDERS = {split: split for split in splitting.SPLITS}
ABOUT = {"method": "patient", "seed": 42, "fractions": None, "sample": False}


def prepare(original: Path, seed: int) -> tuple[list[Row], list[Exclusion]]:
    patches, exclusions = originals.examine(original, LAYOUT, min_side=25, max_pixels=10**8)
    split_of = splitting.assign_splits(
        patches, method="patient", train_split=0.6, val_split=0.4, seed=seed
    )
    return building.plan(patches, split_of, FOLDERS), exclusions


def build(original: Path, target: Path, *, seed: int = 42) -> Dataset:
    """Builds a data set split by patient."""
    about = ABOUT | {"seed": seed}
    return building.build(target, *prepare(original, seed), original=original, about=about)


def planned(split_of: Mapping[str, str]) -> dict[str, str]:
    patches = []
    for source in split_of:
        *_, patient, label, _ = source.split("/")
        patches.append(Patch(patient, int(label), None, None, source))
    rows = building.plan(patches, split_of, FOLDERS)
    assert [row.file for row in rows] == sorted(row.file for row in rows)
    return {row.source: row.file for row in rows}


LONG = "組織" * 40


@pytest.mark.parametrize(
    "expected",
    [
        {  # Names stay, and shared ones get the patient in front.
            "anna/0/1.png": "training/0/anna_1.png",
            "anna/1/1.png": "training/1/anna_1.png",
            "bert/0/1.png": "testing/0/bert_1.png",
            "bert/1/2.png": "testing/1/2.png",
        },
        {"anna/0/1.png": "training/0/anna_1.png", "s2/anna/0/1.png": "training/0/anna_1_2.png"},
        {  # 255 bytes are the most.
            f"{LONG}/0/{LONG}.png": f"training/0/{LONG[:78]}_d53a182bd011d43f.png",
            f"a/1/{LONG}.png": f"training/1/a_{LONG}.png",
        },
        # One name to Windows and macOS.
        {"anna/0/A.png": "training/0/anna_A.png", "bert/0/a.png": "training/0/bert_a.png"},
    ],
)
def test_files_keep_their_names_apart(expected: dict[str, str]) -> None:
    assert planned({source: file.split("/")[0] for source, file in expected.items()}) == expected


sources = st.builds(
    "{}{}/{}/{}".format,
    st.sampled_from(["", "deep/", "deeper/"]),
    st.sampled_from(["a", "b", "a_b"]),
    st.integers(0, 1),
    st.sampled_from(["c.png", "C.png", "b_c.png", "a_c.png", "a_b_c.png", "a_c_2.png"]),
)


@given(st.dictionaries(sources, st.sampled_from(splitting.SPLITS), min_size=1))
def test_no_two_files_meet_and_no_name_is_in_two_splits(split_of: dict[str, str]) -> None:
    files = planned(split_of)
    assert len({file.casefold() for file in files.values()}) == len(split_of)
    places = {(Path(file).name.casefold(), split_of[source]) for source, file in files.items()}
    assert len({name for name, _ in places}) == len(places)


def test_the_set_holds_what_the_manifest_says_and_nothing_of_an_earlier_one(
    originals: Path, tmp_path: Path
) -> None:
    build(originals, tmp_path / "idc", seed=1)
    before = contents(tmp_path / "idc").keys()
    (originals / 'a, "b".txt').touch()
    built = build(originals, tmp_path / "idc", seed=2)
    assert {path.name for path in tmp_path.iterdir()} == {"original", "idc"}
    rows = [row for split in built.splits.values() for row in split.rows]
    assert len(rows) == 72
    after = contents(tmp_path / "idc")
    lists = {"manifest.csv", "excluded.csv", "build.json"}
    assert before != after.keys() == {row.file for row in rows} | lists
    for row in rows:
        assert after[row.file] == (originals / row.source).read_bytes()
        assert row.file == f"{row.split}/{row.label}/{Path(row.source).name}"
    assert Dataset.open(tmp_path / "idc", verify=True) == built
    assert [exclusion.source for exclusion in built.exclusions] == ['a, "b".txt']


def test_files_that_change_or_vanish_after_the_check_are_excluded(
    originals: Path, tmp_path: Path
) -> None:
    rows, _ = prepare(originals, 42)
    gone, changed, *_ = (row.source for row in rows)
    (originals / gone).unlink()
    (originals / changed).write_bytes(b"other content")
    data = building.build(tmp_path / "idc", rows, [], original=originals, about=ABOUT)
    reasons = {exclusion.source: exclusion.reason for exclusion in data.exclusions}
    assert reasons == {gone: "unreadable file", changed: "changed during the build"}
    assert Dataset.open(tmp_path / "idc") == data


def row(split: str, label: int, patient: str, name: str, sha256: str) -> Row:
    return Row(split, label, patient, 1, 1, name, f"{split}/{label}/{name}", 10, sha256)


GOOD = [
    row(split, label, f"patient of {split}", f"{split}{label}.png", f"{split}{label}")
    for split in splitting.SPLITS
    for label in (0, 1)
]


@pytest.mark.parametrize("method", ["patient", "image"])
@pytest.mark.parametrize(
    ("extra", "kind"),
    [
        (row("testing", 0, "patient of training", "new.png", "new"), "patients"),
        (row("testing", 0, "patient of testing", "TRAINING0.png", "new"), "files"),
        (row("testing", 0, "patient of testing", "new.png", "training0"), "contents"),
    ],
)
def test_any_overlap_is_refused_but_that_of_patients_in_the_image_split(extra, kind, method):
    about, none = {"method": method}, {"patients": 0, "files": 0, "contents": 0}
    assert building.prove(GOOD, about)["overlap"] == none
    if (kind, method) == ("patients", "image"):
        assert building.prove([*GOOD, extra], about)["overlap"] == none | {"patients": 1}
    else:
        with pytest.raises(InputError, match=f"1 {kind} stand in two splits"):
            building.prove([*GOOD, extra], about)


def test_a_split_without_a_class_is_refused_but_for_an_empty_published_one() -> None:
    without_testing = GOOD[:4]
    proved = building.prove(without_testing, {"method": "published"})
    assert proved["splits"]["testing"]["patches"] == 0
    for rows, method, lacking in (
        (without_testing, "patient", "benign"),
        (GOOD[:-1], "patient", "malignant"),
        (GOOD[:-1], "published", "malignant"),
    ):
        with pytest.raises(InputError, match=f"testing split has no {lacking} patch"):
            building.prove(rows, {"method": method})


def test_only_an_older_data_set_is_replaced(originals: Path, tmp_path: Path) -> None:
    build(originals, tmp_path / "idc")
    foreign = tmp_path / "photos"
    foreign.mkdir()
    for replaceable in (foreign, tmp_path / "idc"):
        check_replaceable(replaceable, original=originals, sample=False)
    (foreign / "build.json").write_text('{"name": "a build of something else"}')
    for place, sample, message in (
        ("photos", False, "no data set of ours"),
        ("idc", True, "real patches.*--dataset"),
        ("original", False, "one in the other"),
        ("original/idc", False, "one in the other"),
        (".", False, "one in the other"),
    ):
        with pytest.raises(InputError, match=message):
            check_replaceable(tmp_path / place, original=originals, sample=sample)
    # It is found before anything is downloaded.
    (tmp_path / "kagglehub.py").write_text("raise SystemExit('downloaded')")
    refused = run("build_dataset.py", "--download", "--dataset", "photos", cwd=tmp_path)
    assert (refused.returncode, "no data set of ours" in refused.stderr) == (2, True)
