"""Bad input, tried one by one: each has its outcome, and none is a traceback or a silent use.

Excluded with a reason, used, or exit code 2 with one message. What is missing here has its place in
another file: files that vanish in test_originals.py, a batch larger than the set in
test_scripts.py.
"""

import csv
import io
import os
import shutil
import struct
import sys
import tempfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import fields
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image
from test_building import build
from test_fire import run_without_rights
from test_scripts import BUILD, PROJECT

import build_dataset
import predict
import train_model
from cancernet import cli, config, files
from cancernet.data import dataset
from cancernet.data.dataset import Dataset
from cancernet.data.patch import PNG_SIGNATURE
from cancernet.data.pipeline import Reading, scoring_batches

GENERATOR = np.random.default_rng(3)


def picture(mode: str = "RGB", *, width: int = 50, height: int = 50) -> Image.Image:
    """A random picture, another one with each call, so that no two have the same content."""
    pixels = GENERATOR.integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels).convert(mode)


def encoded(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def png(mode: str = "RGB", *, width: int = 50, height: int = 50) -> bytes:
    return encoded(picture(mode, width=width, height=height))


def cut(share: float) -> bytes:
    data = png()
    return data[: int(len(data) * share)]


def flipped() -> bytes:
    data = bytearray(png())
    data[len(data) // 2] ^= 0xFF
    return bytes(data)


def sixteen_bits() -> bytes:
    _, data = cv2.imencode(".png", GENERATOR.integers(0, 2**16, (50, 50, 3), np.uint16))
    return data.tobytes()


def large(width: int, height: int, *, real: bool) -> bytes:
    """A grey PNG of a few kilobytes; where it is not real, its picture data is left out."""
    header = struct.pack(">4sIIBBBBB", b"IHDR", width, height, 8, 0, 0, 0, 0)
    rows = zlib.compress(bytes((width + 1) * height)) if real else zlib.compress(b"")
    return PNG_SIGNATURE + b"".join(
        struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk))
        for chunk in (header, b"IDAT" + rows, b"IEND")
    )


USED = None

# Path below the original directory, its content, and the reason why it is left out.
FILES: list[tuple[str, Callable[[], bytes], str | None]] = [
    ("p1/0/zero byte.png", lambda: b"", "empty file"),
    ("p1/0/cut at 10 %.png", lambda: cut(0.1), "truncated image"),
    ("p1/0/cut at 50 %.png", lambda: cut(0.5), "truncated image"),
    ("p1/0/cut at 90 %.png", lambda: cut(0.9), "truncated image"),
    ("p1/0/flipped.png", flipped, "damaged image"),
    ("p1/0/text.png", lambda: b"no picture", "not a PNG or JPEG image"),
    ("p1/0/jpeg.png", lambda: encoded(picture(), "JPEG"), USED),
    ("p1/0/16 bits.png", sixteen_bits, "not 8 bits a channel"),
    ("p1/0/greyscale.png", lambda: png("L"), USED),
    ("p1/0/palette.png", lambda: png("P"), USED),
    ("p1/0/rgba.png", lambda: png("RGBA"), USED),
    ("p1/0/cmyk.jpg", lambda: encoded(picture("CMYK"), "JPEG"), "CMYK image"),
    ("p1/0/1 x 1.png", lambda: png(width=1, height=1), "side under 25 pixels"),
    ("p1/0/50 x 1.png", lambda: png(height=1), "side under 25 pixels"),
    ("p1/0/5,000 x 5,000.png", lambda: large(5000, 5000, real=True), USED),
    (
        "p1/0/bomb.png",
        lambda: large(10_000, 10_001, real=False),
        "more than 100,000,000 pixels",
    ),
    (
        "p1/0/animated.png",
        lambda: encoded(picture(), save_all=True, append_images=[picture()]),
        "animated image",
    ),
    ("p2/0/with spaces.png", png, USED),
    ("p2/0/with, comma.png", png, USED),
    ("p2/0/it's.png", png, USED),
    ("p2/0/größe 組織.png", png, USED),
    ("p2/0/-rf.png", png, USED),
    ("p2/0/--help", png, USED),
    ("p2/0/upper.PNG", png, USED),
    ("p2/0/upper.JPG", lambda: encoded(picture(), "JPEG"), USED),
    ("-p/0/patient with a dash.png", png, USED),
    ("p1/0/same name.png", png, USED),
    ("p2/0/same name.png", png, USED),
    ("p1/1/20001_idx5_x1_y1_class0.png", png, "label mismatch"),
    ("20001/0/20002_idx5_x1_y1_class0.png", png, "patient mismatch"),
    ("p1/2/a.png", png, "class folder other than 0 or 1"),
    ("p1/benign/a.png", png, "class folder other than 0 or 1"),
    ("deeper/p3/0/nested.png", png, USED),
    ("p1/0/._x.png", png, "hidden or macOS file"),
    ("p1/0/.DS_Store", lambda: b"\0", "hidden or macOS file"),
    ("__MACOSX/p1/0/a.png", png, "hidden or macOS file"),
]
if os.name == "posix":  # Windows has no such names.
    FILES += [
        ('p2/0/"quoted".png', png, USED),
        ("p2/0/<script>alert(1).png", png, USED),
        ("p2/0/two\nlines.png", png, USED),
        ("p2/0/carriage\rreturn.png", png, USED),
        ("p2/0/back\\slash.png", png, USED),
    ]

LINKS = {  # To what each leads, from its own folder.
    "p1/0/loop.png": ("loop.png", "unreadable file"),
    "p1/0/dangling.png": ("nothing.png", "dangling link"),
    "p1/0/out.png": ("../../../outside.png", "link out of the directory"),
    "p1/linked": ("../p2", "linked folder"),
}
CLOSED = "p1/0/closed.png"


@pytest.fixture(scope="module")
def built() -> Iterator[tuple[Path, set[str], dict[str, str]]]:
    """One data set of all files above; gives it, the sources used and the reasons of the others."""
    # Not in pytest's directory, which users other than root cannot enter.
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o777)
    original = folder / "original"
    for patient in range(12):
        for label in (0, 1):
            write(original / f"good{patient}" / str(label) / f"{patient}_{label}.png", png())
    for source, content, _ in FILES:
        write(original / source, content())
    if os.name == "posix":
        write(folder / "outside.png", png())
        for source, (target, _) in LINKS.items():
            (original / source).symlink_to(target)
        write(original / CLOSED, png())
        (original / CLOSED).chmod(0)
    done = run_without_rights(
        str(PROJECT / BUILD), "--original", original, "--dataset", folder / "idc", cwd=folder
    )
    assert (done.returncode, done.stderr) == (0, "")
    data = Dataset.open(folder / "idc")
    used = {row.source for split in data.splits.values() for row in split.rows}
    with (folder / "idc" / "excluded.csv").open(newline="", encoding="utf-8") as file:
        reasons = {row["source"]: row["reason"] for row in csv.DictReader(file)}
    yield folder / "idc", used, reasons
    shutil.rmtree(folder)


def write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("source", "reason"), [(source, reason) for source, _, reason in FILES], ids=str
)
def test_each_file_is_used_or_left_out_for_its_reason(
    built: tuple[Path, set[str], dict[str, str]], source: str, reason: str | None
) -> None:
    _, used, reasons = built
    assert reasons.get(source) == reason
    assert (source in used) == (reason is USED)


@pytest.mark.skipif(os.name != "posix", reason="links need a right on Windows, modes mean nothing")
def test_links_and_closed_files_are_left_out_for_their_reasons(
    built: tuple[Path, set[str], dict[str, str]],
) -> None:
    _, used, reasons = built
    expected = {source: reason for source, (_, reason) in LINKS.items()}
    expected[CLOSED] = "unreadable file"
    assert {source: reasons.get(source) for source in expected} == expected
    assert not used & expected.keys()


def test_what_is_used_can_be_read_in_training(
    built: tuple[Path, set[str], dict[str, str]],
) -> None:
    folder, used, _ = built
    paths = [path for split in Dataset.open(folder).splits.values() for path in split.files]
    assert len(paths) == len(used)
    assert {"p1_same name.png", "p2_same name.png"} <= {path.name for path in paths}
    batches = scoring_batches(paths, Reading(image_size=(48, 48), batch_size=32))
    assert sum(len(batch) for batch in batches) == len(paths)


# --- Exit code 2 ---------------------------------------------------------------------------------


@pytest.fixture
def script(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> Callable[..., str]:
    """Runs a script's main in this process, which has its modules; gives what a refusal says."""
    monkeypatch.chdir(tmp_path)
    releases: list[Callable[[], None]] = []
    monkeypatch.setattr(files.atexit, "register", releases.append)

    def refusal(main: Callable[[], None], *options: str | Path, code: int = 2) -> str:
        monkeypatch.setattr(sys, "argv", ["script", *map(str, options)])
        with pytest.raises(SystemExit) as end:
            cli.run(main)
        for release in releases:
            release()
        captured = capsys.readouterr().err
        assert end.value.code == code, captured
        return captured

    return refusal


def originals_of(folder: Path, *, patients: int, labels: tuple[int, ...] = (0, 1)) -> Path:
    for patient in range(patients):
        for label in labels:
            for number in range(40):
                write(folder / f"p{patient}" / str(label) / f"{patient}_{label}{number}.png", png())
    return folder


@pytest.mark.parametrize(
    ("patients", "labels", "split", "message"),
    [
        (0, (0, 1), "patient", "Found 0 files"),
        (5, (0,), "patient", "no malignant patch"),
        (5, (1,), "image", "no benign patch"),
        (1, (0, 1), "patient", "Found 1 patients"),
        (2, (0, 1), "patient", "Found 2 patients"),
        (1, (0, 1), "image", None),
        (3, (0, 1), "patient", None),
    ],
)
def test_originals_that_cannot_be_split_are_refused(
    script: Callable[..., str],
    tmp_path: Path,
    patients: int,
    labels: tuple[int, ...],
    split: str,
    message: str | None,
) -> None:
    (tmp_path / "original").mkdir()
    original = originals_of(tmp_path / "original", patients=patients, labels=labels)
    options = ("--original", original, "--dataset", tmp_path / "idc", "--split", split)
    said = script(build_dataset.main, *options, code=2 if message else 0)
    assert (message or "") in said
    assert (tmp_path / "idc").exists() == (message is None)
    assert {path.name for path in tmp_path.iterdir()} <= {"original", "idc"}


@pytest.mark.parametrize(
    ("main", "constant", "value"),
    [
        (build_dataset.main, "COPY_MODE", ["copy"]),
        (build_dataset.main, "BASE_PATH", 5),
        (train_model.main, "EPOCHS", 0),
        (train_model.main, "ROTATION_RANGE", None),
        (predict.main, "OUTPUT_PATH", 5),
        (predict.main, "BATCH_SIZE", 0),
    ],
)
def test_every_script_refuses_a_bad_constant_by_name(
    script: Callable[..., str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    main: Callable[[], None],
    constant: str,
    value: object,
) -> None:
    """Every constant and every value: test_settings.py."""
    monkeypatch.setattr(config, constant, value)
    said = script(main, *(["x.png"] if main is predict.main else []))
    assert said.startswith(f"error: {constant} is {value!r}: expected ")
    assert len(said.splitlines()) == 1
    assert not list(tmp_path.iterdir())


def test_no_split_may_be_left_without_patients(script: Callable[..., str], tmp_path: Path) -> None:
    originals_of(tmp_path / "datasets" / "original", patients=3)
    options = ("--split", "image")
    with pytest.MonkeyPatch.context() as changed:
        changed.setattr(config, "VAL_SPLIT", 1e-9)
        assert "VAL_SPLIT" in script(build_dataset.main, *options)
    assert not (tmp_path / "datasets" / "idc").exists()


# --- A data set that was changed -----------------------------------------------------------------


@pytest.fixture(scope="module")
def whole_set(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("set")
    for patient in range(20001, 20013):
        for number in range(4):
            label = number // 2
            name = f"{patient}_idx5_x{50 * number + 1}_y1_class{label}.png"
            write(folder / "original" / str(patient) / str(label) / name, png())
    build(folder / "original", folder / "idc")
    return folder / "idc"


def edit(change: Callable[[list[list[str]]], None]) -> Callable[[Path], object]:
    """Changes the rows of manifest.csv, the header being row 0."""

    def edited(folder: Path) -> None:
        path = folder / "manifest.csv"
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.reader(file))
        change(rows)
        with path.open("w", newline="", encoding="utf-8") as file:
            csv.writer(file, lineterminator="\n").writerows(rows)

    return edited


def put(column: str, value: str) -> Callable[[Path], object]:
    names = [field.name for field in fields(dataset.Row)]
    return edit(lambda rows: rows[3].__setitem__(names.index(column), value))


def swap_labels(rows: list[list[str]]) -> None:
    """Swaps the labels of two rows of a split: no count tells."""
    one = next(row for row in rows[1:] if row[:2] == ["training", "0"])
    other = next(row for row in rows[1:] if row[:2] == ["training", "1"])
    one[1], other[1] = "1", "0"


def cut_manifest(folder: Path, share: float) -> None:
    data = (folder / "manifest.csv").read_bytes()
    (folder / "manifest.csv").write_bytes(data[: int(len(data) * share)])


def first_patch(folder: Path) -> Path:
    return min((folder / "training").rglob("*.png"))


def overwrite(folder: Path) -> None:
    """Other content of the same size."""
    path = first_patch(folder)
    path.write_bytes(bytes(path.stat().st_size))


DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "label": (put("label", "7"), "damaged"),
    "label swapped": (edit(swap_labels), "damaged"),
    "split": (put("split", "holdout"), "damaged"),
    "patient": (put("patient", "20099"), "damaged"),
    "x": (put("x", "7"), "damaged"),
    "no number": (put("bytes", "many"), "damaged"),
    "size": (put("bytes", "7"), "changed"),
    "climbs out": (put("file", "../../x/1/a.png"), "climbs out"),
    "climbs out, by a source": (put("source", "../../x"), "damaged"),
    "absolute": (put("file", "/etc/0/passwd"), "climbs out"),
    "same file twice": (edit(lambda rows: rows.append(rows[-1])), "same file"),
    "row removed": (edit(lambda rows: rows.__delitem__(3)), "do not count"),
    "header": (edit(lambda rows: rows[0].reverse()), "columns"),
    "cut in a row": (lambda folder: cut_manifest(folder, 0.5), "damaged"),
    "empty": (lambda folder: cut_manifest(folder, 0), "damaged"),
    "removed": (lambda folder: (folder / "manifest.csv").unlink(), "no "),
    "binary": (lambda folder: (folder / "manifest.csv").write_bytes(b"\xff\0"), "damaged"),
    "build.json": (lambda folder: (folder / "build.json").write_text("[" * 10**5), "damaged"),
    "build.json of others": (lambda folder: (folder / "build.json").write_text("{}"), "expected"),
    "patch removed": (lambda folder: first_patch(folder).unlink(), "missing"),
    "patch cut": (lambda folder: first_patch(folder).write_bytes(b""), "found 0 bytes"),
    "patch added": (lambda folder: (folder / "training/0/new.png").write_bytes(b"x"), "added"),
    "patch moved": (lambda folder: first_patch(folder).rename(folder / "a.png"), "missing"),
    "patch overwritten": (overwrite, "hash"),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_a_changed_data_set_is_refused(
    script: Callable[..., str], whole_set: Path, tmp_path: Path, name: str
) -> None:
    damage, message = DAMAGES[name]
    shutil.copytree(whole_set, tmp_path / "idc")
    damage(tmp_path / "idc")
    said = script(train_model.main, "--dataset", tmp_path / "idc", "--verify")
    assert message in said
    assert len(said.splitlines()) == 1
    assert "uild" in said  # What to do.
    if name.startswith("patch"):
        assert "new.png" in said if name == "patch added" else first_patch(whole_set).name in said
    assert {path.name for path in tmp_path.iterdir()} == {"idc"}


def test_files_of_file_managers_are_no_change(whole_set: Path, tmp_path: Path) -> None:
    shutil.copytree(whole_set, tmp_path / "idc")
    for name in (".DS_Store", "Thumbs.db", "training/desktop.ini"):
        (tmp_path / "idc" / name).write_bytes(b"x")
    assert Dataset.open(tmp_path / "idc").training
