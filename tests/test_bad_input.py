"""Files of every kind in one build by the script: each is used, or left out for its reason."""

import os
import shutil
import sys
import tempfile
from pathlib import Path

import cv2
import numpy as np
from conftest import PROJECT, assert_refused, read_csv, run, run_well
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
    """A random picture, another one with each call."""
    pixels = GENERATOR.integers(0, 256, (50, 50, 3), dtype=np.uint8)
    return cv2.imencode(".png", pixels)[1].tobytes()


# Path below the original directory, its content, and the reason why it is left out.
FILES: list[tuple[str, bytes, str | None]] = [
    *((f"p1/0/{name}.png", data, USED) for name, data in GOOD.items()),
    *((f"p1/0/{name}.jpg", data, reason) for name, (data, reason) in BAD.items()),
    ("p1/0/5,000 x 5,000.png", large(5000, 5000), USED),
    *(
        (f"p2/0/{name}", png(), USED)
        for name in ("a, b.png", "it's ö 組織.png", "--help", "up.PNG")
    ),
    *((f"{folder}/0/same name.png", png(), USED) for folder in ("p1", "p2", "-q")),
    *((f"{folder}/0/{LONG}.png", png(), USED) for folder in ("p1", "p2")),
    ("p1/1/20001_idx5_x1_y1_class0.png", png(), "label mismatch"),
    ("20001/0/20002_idx5_x1_y1_class0.png", png(), "patient mismatch"),
    ("p1/2/a.png", png(), "class folder other than 0 or 1"),
    ("deeper/20003/0/20003_idx5_x1_y1_class0.png", png(), USED),
    ("stock/0/20002_idx5_x51_y1_class0.png", png(), "same content" if LINKED else USED),
    ("p1/0/._x.png", png(), "hidden or macOS file"),
    ("p1/0/.DS_Store", b"\0", "hidden or macOS file"),
    ("__MACOSX/p1/0/a.png", png(), "hidden or macOS file"),
]
# Links, and to what each leads from its own folder.
LINKS: dict[str, tuple[str, str | None]] = {
    "p1/0/loop.png": ("loop.png", "unreadable file"),
    "p1/0/dangling.png": ("nothing.png", "unreadable file"),
    "p1/0/out.png": ("../../../outside.png", USED),
    "p1/0/inside.png": ("../../stock/0/20002_idx5_x51_y1_class0.png", USED),
    "p1/linked": ("../p2", "linked folder"),
}
CLOSED = {"p1/0/closed.png": "unreadable file", "p3": "unreadable folder"}
if os.name == "posix":  # Windows has no such names.
    odd = ('"quoted"', "<script>alert(1)", "two\nlines", "carriage\rreturn", "back\\slash")
    FILES += [(f"p2/0/{name}.png", png(), USED) for name in odd]
if sys.platform == "linux":
    FILES.append(("p2/0/caf\udce9.png", png(), "name is not valid UTF-8"))


def write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def write_all(folder: Path) -> dict[str, str | None]:
    """Writes all files above, and good ones beside them: the reason of each, as excluded.csv."""
    original = folder / "original"
    for patient in range(12):
        for label in (0, 1):
            write(original / f"good{patient}" / str(label) / f"{patient}_{label}.png", png())
    for source, content, _ in FILES:
        write(original / source, content)
    expected = {source: reason for source, _, reason in FILES}
    if LINKED:
        write(folder / "outside.png", png())
        for source, (target, reason) in LINKS.items():
            (original / source).symlink_to(target)
            expected[source] = reason
        write(original / "p1/0/closed.png", png())
        (original / "p3").mkdir()
        for source, reason in CLOSED.items():
            (original / source).chmod(0)
            expected[source] = reason
    return expected


def test_each_file_is_used_and_can_be_read_or_is_left_out_for_its_reason() -> None:
    folder = Path(tempfile.mkdtemp())  # Not in pytest's directory, which other users cannot enter.
    folder.chmod(0o777)
    expected = write_all(folder)
    options = ("--original", folder / "original", "--dataset", folder / "idc")
    done = run_without_rights(str(PROJECT / BUILD), *options, cwd=folder)
    assert (done.returncode, done.stderr) == (0, "")
    assert {row["source"]: row["reason"] for row in read_csv(folder / "idc/excluded.csv")} == {
        source.encode(errors="backslashreplace").decode(): reason
        for source, reason in expected.items()
        if reason is not USED
    }
    splits = Dataset.open(folder / "idc").splits.values()
    used = {row.source for split in splits for row in split.rows}
    good = {source for source in used if source.startswith("good")}
    assert used - good == {source for source, reason in expected.items() if reason is USED}
    paths = [path for split in splits for path in split.files]
    names = {path.name for path in paths}
    assert {"p1_same name.png", "p2_same name.png"} <= names
    assert max(len(name.encode()) for name in names) <= 255
    batches = scoring_batches(paths, Reading(image_size=(48, 48), batch_size=32))
    assert sum(len(batch) for batch in batches) == len(paths)
    if LINKED:
        (folder / "original/p3").chmod(0o700)
    shutil.rmtree(folder)


def test_an_open_layout_is_refused_and_served_by_the_option_that_it_names(tmp_path: Path) -> None:
    for folder in ("p1/a", "p1/b", "p2/a", "p3/c"):
        for number in range(4):
            write(tmp_path / "original" / folder / str(number % 2) / f"{number}.png", png())
    options = ("--original", "original", "--dataset", "idc")
    layout = "patient/slide/class/file"
    assert_refused(run(BUILD, *options, cwd=tmp_path), f"--layout {layout}, ")
    assert {path.name for path in tmp_path.iterdir()} == {"original"}
    printed = run_well(BUILD, *options, "--layout", layout, cwd=tmp_path)
    assert f"(patients by the layout {layout}, e.g. 'p1')" in printed
    assert Dataset.open(tmp_path / "idc").build["layout"] == layout
