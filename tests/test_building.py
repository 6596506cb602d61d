"""Names in the data set, the files in it, the proof of no overlap, and what is never replaced."""

import json
from collections.abc import Mapping
from pathlib import Path

import pytest
from conftest import run
from hypothesis import given
from hypothesis import strategies as st

from cancernet.cli import InputError
from cancernet.data import building, splitting
from cancernet.data import originals as module
from cancernet.data.building import check_replaceable
from cancernet.data.dataset import Dataset, Row
from cancernet.data.originals import Exclusion, Patch
from cancernet.data.patch import LAYOUT

FOLDERS = {split: split for split in splitting.SPLITS}


def build(original: Path, target: Path, *, seed: int = 42, copy_mode: str = "copy") -> Dataset:
    """Builds a data set split by patient."""
    patches, exclusions = module.examine(original, LAYOUT, min_side=25, max_pixels=10**8)
    split_of = splitting.assign_splits(
        patches, method="patient", train_split=0.6, val_split=0.4, seed=seed
    )
    return building.build(
        target,
        building.plan(patches, split_of, FOLDERS),
        exclusions,
        original=original,
        copy_mode=copy_mode,
        about={
            "method": "patient",
            "seed": seed,
            "fractions": {},
            "sample": False,
            "layout": LAYOUT.text,
        },
    )


def files_below(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


# --- Names ---------------------------------------------------------------------------------------


def planned(split_of: Mapping[str, str]) -> dict[str, str]:
    patches = []
    for source in split_of:
        *_, patient, label, _ = source.split("/")
        patches.append(Patch(source, patient, int(label), None, None, 10, source, 50, 50))
    rows = building.plan(patches, split_of, FOLDERS)
    assert [row.file for row in rows] == sorted(row.file for row in rows)
    return {row.source: row.file for row in rows}


LONG = "組織" * 40


@pytest.mark.parametrize(
    "expected",
    [
        {  # Names stay, and shared ones get the patient in front.
            "anna/0/1.png": "training/0/anna_1.png",
            "bert/0/1.png": "testing/0/bert_1.png",
            "bert/1/2.png": "testing/1/2.png",
        },
        {"anna/0/1.png": "training/0/anna_1.png", "anna/1/1.png": "training/1/anna_1.png"},
        # One name to Windows and macOS.
        {"anna/0/A.png": "training/0/anna_A.png", "bert/0/a.png": "training/0/bert_a.png"},
        {  # 255 bytes are the most.
            f"{LONG}/0/{LONG}.png": f"training/0/{LONG[:78]}_d53a182bd011d43f.png",
            f"a/1/{LONG}.png": f"training/1/a_{LONG}.png",
        },
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
    split_of_name: dict[str, str] = {}
    for source, file in files.items():
        name = file.split("/")[-1].casefold()
        assert split_of_name.setdefault(name, split_of[source]) == split_of[source]


# --- Files ---------------------------------------------------------------------------------------


def test_the_set_holds_what_the_manifest_says_and_nothing_of_an_earlier_one(
    originals: Path, tmp_path: Path
) -> None:
    build(originals, tmp_path / "idc", seed=1)
    before = files_below(tmp_path / "idc")
    (originals / "z, with comma.txt").touch()
    (originals / 'a "quoted".txt').touch()
    built = build(originals, tmp_path / "idc", seed=2)
    assert {path.name for path in tmp_path.iterdir()} == {"original", "idc"}
    rows = [row for split in built.splits.values() for row in split.rows]
    assert len(rows) == 72
    lists = {"manifest.csv", "excluded.csv", "build.json"}
    assert before != files_below(tmp_path / "idc") == {row.file for row in rows} | lists
    for row in rows:
        content = (originals / row.source).read_bytes()
        assert (tmp_path / "idc" / row.file).read_bytes() == content
        assert row.file == f"{row.split}/{row.label}/{Path(row.source).name}"
    assert Dataset.open(tmp_path / "idc", verify=True) == built
    listed = [exclusion.source for exclusion in built.exclusions]
    assert listed == ['a "quoted".txt', "z, with comma.txt"]


@pytest.mark.parametrize("copy_mode", ["hardlink", "symlink"])
def test_links_stand_for_the_originals(originals: Path, tmp_path: Path, copy_mode: str) -> None:
    data = build(originals, tmp_path / "idc", copy_mode=copy_mode)
    for row, file in zip(data.training.rows, data.training.files, strict=True):
        assert file.samefile(originals / row.source)
        assert file.is_symlink() == (copy_mode == "symlink")


@pytest.mark.parametrize("copy_mode", ["copy", "symlink"])
def test_files_that_change_or_vanish_after_the_check_are_excluded(
    originals: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, copy_mode: str
) -> None:
    plan = building.plan
    gone = []

    def change_then_plan(*arguments):
        rows = plan(*arguments)
        (originals / rows[0].source).unlink()
        gone.append(Exclusion(rows[0].source, "vanished during the build", ""))
        if copy_mode == "copy":  # A link has what its file has.
            (originals / rows[1].source).write_bytes(b"other content")
            gone.append(Exclusion(rows[1].source, "changed during the build", ""))
        return rows

    monkeypatch.setattr(building, "plan", change_then_plan)
    data = build(originals, tmp_path / "idc", copy_mode=copy_mode)
    assert data.exclusions == gone
    assert sum(map(len, data.splits.values())) == 72 - len(gone)
    assert Dataset.open(tmp_path / "idc") == data


# --- The proof of no overlap ---------------------------------------------------------------------


def row(split: str, label: int, patient: str, name: str, sha256: str) -> Row:
    return Row(split, label, patient, 1, 1, name, f"{split}/{label}/{name}", 10, sha256)


GOOD = [
    row(split, label, f"patient of {split}", f"{split}{label}.png", f"{split}{label}")
    for split in splitting.SPLITS
    for label in (0, 1)
]


def prove(rows: list[Row], method: str = "patient") -> dict[str, dict[str, dict[str, int]]]:
    about = {"method": method, "seed": 1, "fractions": {}, "sample": False, "layout": LAYOUT.text}
    return building.prove(rows, about)


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
    none = {"patients": 0, "files": 0, "contents": 0}
    assert prove(GOOD)["overlap"] == none
    if (kind, method) == ("patients", "image"):
        assert prove([*GOOD, extra], method)["overlap"] == none | {"patients": 1}
    else:
        with pytest.raises(InputError, match=f"1 {kind} stand in two splits"):
            prove([*GOOD, extra], method)


@pytest.mark.parametrize("method", ["patient", "image", "published"])
def test_a_split_without_a_class_is_refused_but_for_an_empty_published_one(method: str) -> None:
    rows = [each for each in GOOD if (each.split, each.label) != ("validation", 1)]
    with pytest.raises(InputError, match="validation split has no malignant patch"):
        prove(rows, method)
    rows = [each for each in GOOD if each.split != "testing"]
    if method == "published":
        assert prove(rows, method)["splits"]["testing"]["patches"] == 0
    else:
        with pytest.raises(InputError, match="testing split has no benign patch"):
            prove(rows, method)


# --- What may be replaced ------------------------------------------------------------------------


def test_only_an_older_data_set_is_replaced(originals: Path, tmp_path: Path) -> None:
    build(originals, tmp_path / "idc")
    foreign = tmp_path / "photos"
    foreign.mkdir()
    check_replaceable(foreign, original=originals, sample=False)
    (foreign / "holiday.jpg").touch()
    check_replaceable(tmp_path / "idc", original=originals, sample=False)
    for place, original, sample, message in (
        ("photos", originals, False, "no data set of ours"),
        ("photos", None, False, "no data set of ours"),
        ("photos/holiday.jpg", None, False, "is a file"),
        ("idc", originals, True, "real patches.*--dataset"),
        ("original", originals, False, "one in the other"),
        ("original/idc", originals, False, "one in the other"),
        (".", originals, False, "one in the other"),
    ):
        with pytest.raises(InputError, match=message):
            check_replaceable(tmp_path / place, original=original, sample=sample)
    (foreign / "build.json").write_text(json.dumps({"name": "a build of something else"}))
    with pytest.raises(InputError, match="no data set of ours"):
        check_replaceable(foreign, original=None, sample=False)
    # It is found before anything is downloaded.
    (tmp_path / "kagglehub.py").write_text("raise SystemExit('downloaded')")
    refused = run("build_dataset.py", "--download", "--dataset", "photos", cwd=tmp_path)
    assert (refused.returncode, "no data set of ours" in refused.stderr) == (2, True)
