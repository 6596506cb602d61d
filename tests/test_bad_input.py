"""Files of every kind in one build by the script: each is used, or left out for its reason."""

import csv
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from conftest import PROJECT, run
from test_fire import run_without_rights
from test_patch import BAD, GOOD, large

from cancernet.data.dataset import Dataset
from cancernet.data.pipeline import Reading, scoring_batches

GENERATOR = np.random.default_rng(3)
BUILD = "build_dataset.py"
USED = None
LINKED = os.name == "posix"  # Links need a right on Windows.
LONG = "組織" * 40  # 240 bytes.


def png() -> bytes:
    """A random picture, another one with each call, so that no two have the same content."""
    pixels = GENERATOR.integers(0, 256, (50, 50, 3), dtype=np.uint8)
    return cv2.imencode(".png", pixels)[1].tobytes()


# Path below the original directory, its content, and the reason why it is left out.
FILES: list[tuple[str, bytes, str | None]] = [
    *((f"p1/0/{name}.png", data, USED) for name, data in GOOD.items()),
    *((f"p1/0/{name}.jpg", data, reason) for name, (data, reason) in BAD.items()),
    ("p1/0/5,000 x 5,000.png", large(5000, 5000), USED),
    *(
        (name, png(), USED)
        for name in (
            "p2/0/with spaces.png",
            "p2/0/with, comma.png",
            "p2/0/it's.png",
            "p2/0/größe 組織.png",
            "p2/0/-rf.png",
            "p2/0/--help",
            "p2/0/upper.PNG",
            "-q/0/patient with a dash.png",
            "p1/0/same name.png",
            "p2/0/same name.png",
            f"p1/0/{LONG}.png",
            f"p2/0/{LONG}.png",
        )
    ),
    ("p1/1/20001_idx5_x1_y1_class0.png", png(), "label mismatch"),
    ("20001/0/20002_idx5_x1_y1_class0.png", png(), "patient mismatch"),
    ("p1/2/a.png", png(), "class folder other than 0 or 1"),
    ("p1/benign/a.png", png(), "class folder other than 0 or 1"),
    ("deeper/20003/0/20003_idx5_x1_y1_class0.png", png(), USED),
    ("stock/0/20002_idx5_x51_y1_class0.png", png(), "same content" if LINKED else USED),
    ("p1/0/._x.png", png(), "hidden or macOS file"),
    ("p1/0/.DS_Store", b"\0", "hidden or macOS file"),
    ("__MACOSX/p1/0/a.png", png(), "hidden or macOS file"),
]
# Links, and to what each leads from its own folder.
LINKS: dict[str, tuple[str, str | None]] = {
    "p1/0/loop.png": ("loop.png", "unreadable file"),
    "p1/0/dangling.png": ("nothing.png", "dangling link"),
    "p1/0/out.png": ("../../../outside.png", "link out of the directory"),
    "p1/0/inside.png": ("../../stock/0/20002_idx5_x51_y1_class0.png", USED),
    "p1/linked": ("../p2", "linked folder"),
}
CLOSED = ["p1/0/closed.png", "p3"]
if os.name == "posix":  # Windows has no such names.
    odd = ('"quoted"', "<script>alert(1)", "two\nlines", "carriage\rreturn", "back\\slash")
    FILES += [(f"p2/0/{name}.png", png(), USED) for name in odd]
if sys.platform == "linux":
    FILES.append(("p2/0/caf\udce9.png", png(), "name is not valid UTF-8"))


def write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


@pytest.fixture(scope="module")
def built() -> Iterator[tuple[Dataset, dict[str, str]]]:
    """A data set of all files above, and the reasons of those left out."""
    folder = Path(tempfile.mkdtemp())  # Not in pytest's directory, which other users cannot enter.
    folder.chmod(0o777)
    original = folder / "original"
    for patient in range(12):
        for label in (0, 1):
            write(original / f"good{patient}" / str(label) / f"{patient}_{label}.png", png())
    for source, content, _ in FILES:
        write(original / source, content)
    if LINKED:
        write(folder / "outside.png", png())
        for source, (target, _) in LINKS.items():
            (original / source).symlink_to(target)
        write(original / CLOSED[0], png())
        (original / CLOSED[1]).mkdir()
        for source in CLOSED:
            (original / source).chmod(0)
        os.mkfifo(original / "p1/0/pipe.png")
    done = run_without_rights(
        str(PROJECT / BUILD), "--original", original, "--dataset", folder / "idc", cwd=folder
    )
    assert (done.returncode, done.stderr) == (0, "")
    with (folder / "idc" / "excluded.csv").open(newline="", encoding="utf-8") as file:
        reasons = {row["source"]: row["reason"] for row in csv.DictReader(file)}
    yield Dataset.open(folder / "idc"), reasons
    if LINKED:
        (original / CLOSED[1]).chmod(0o700)
    shutil.rmtree(folder)


def test_each_file_is_used_or_left_out_for_its_reason(
    built: tuple[Dataset, dict[str, str]],
) -> None:
    data, reasons = built
    expected = {source: reason for source, _, reason in FILES if reason is not USED}
    if LINKED:
        expected |= {source: reason for source, (_, reason) in LINKS.items() if reason}
        expected |= dict(zip(CLOSED, ("unreadable file", "unreadable folder"), strict=True))
        expected |= {"p1/0/pipe.png": "not a regular file"}
    assert reasons == {
        source.encode(errors="backslashreplace").decode(): reason
        for source, reason in expected.items()
    }
    used = {row.source for split in data.splits.values() for row in split.rows}
    assert {source for source, _, reason in FILES if reason is USED} <= used
    assert not used & expected.keys()


def test_what_is_used_can_be_read_in_training(built: tuple[Dataset, dict[str, str]]) -> None:
    paths = [path for split in built[0].splits.values() for path in split.files]
    names = {path.name for path in paths}
    assert {"p1_same name.png", "p2_same name.png"} <= names
    assert max(len(name.encode()) for name in names) <= 255
    batches = scoring_batches(paths, Reading(image_size=(48, 48), batch_size=32))
    assert sum(len(batch) for batch in batches) == len(paths)


def test_an_open_layout_is_refused_and_served_by_the_option_that_it_names(tmp_path: Path) -> None:
    for folder in ("p1/a", "p1/b", "p2/a", "p3/c"):
        for number in range(4):
            write(tmp_path / "original" / folder / str(number % 2) / f"{number}.png", png())
    options = ("--original", "original", "--dataset", "idc")
    refused = run(BUILD, *options, cwd=tmp_path)
    assert (refused.returncode, len(refused.stderr.splitlines())) == (2, 1)
    assert {path.name for path in tmp_path.iterdir()} == {"original"}
    layout = "patient/folder/class/file"
    assert f"--layout {layout} if it is 'p" in refused.stderr
    done = run(BUILD, *options, "--layout", layout, cwd=tmp_path)
    assert f"(patients by the layout {layout}, e.g. 'p1')" in done.stdout, done.stderr
    assert Dataset.open(tmp_path / "idc").build["layout"] == layout
