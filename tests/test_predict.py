"""predict.py, run as a user runs it."""

import csv
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import cv2
import keras
import numpy as np
import pytest
import tifffile
from conftest import PROJECT, WritePatch, run
from PIL import Image

import predict
from cancernet import cli
from cancernet.data.patches import PatchFacts, check_image, read_facts
from cancernet.prediction import inference, inputs, models

HEADER = ["file", "patient", "x", "y", "probability", "calibrated", "malignant"]


class Result(NamedTuple):
    code: int
    rows: list[dict[str, str]]
    errors: str


Predict = Callable[..., Result]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with a small data set and a model trained on it by the scripts."""
    folder = tmp_path_factory.mktemp("trained")
    generator = np.random.default_rng(11)
    for patient in range(20001, 20013):
        for index in range(10):
            label = int(index >= 6)
            pixels = generator.integers(0, 256 - 100 * label, (50, 50, 3), dtype=np.uint8)
            name = f"{patient}_idx5_x{50 * index + 1}_y51_class{label}.png"
            path = folder / "datasets" / "original" / str(patient) / str(label) / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(cv2.imencode(".png", pixels)[1].tobytes())
    for script, *options in (("build_dataset.py",), ("train_model.py", "--epochs", "2")):
        done = run(script, *options, cwd=folder)
        assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture
def predicted(
    trained: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Predict:
    """Runs predict.py in this process, which has TensorFlow loaded, with the trained model."""

    def call(*options: str | Path, model: Path | None = None) -> Result:
        chosen = model or trained / "output" / "cancernet.keras"
        monkeypatch.chdir(tmp_path)
        arguments = ["predict.py", *map(str, options), "--model", str(chosen)]
        monkeypatch.setattr(sys, "argv", arguments)
        with pytest.raises(SystemExit) as ended:
            cli.run(predict.main)
        output, errors = capsys.readouterr()
        assert "Traceback" not in errors
        rows = list(csv.DictReader(io.StringIO(output)))
        if rows:
            assert list(rows[0]) == HEADER
        return Result(int(str(ended.value.code)), rows, errors)

    return call


# --- The command ----------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [["--help"], [], ["x.png", "--mpp", "0"], ["x", "--mpp", "a"]])
def test_help_and_wrong_options_answer_at_once(options: list[str], tmp_path: Path) -> None:
    began = time.perf_counter()
    result = run("predict.py", *options, cwd=tmp_path)
    assert time.perf_counter() - began < 4
    assert result.returncode == (0 if options == ["--help"] else 2)
    assert "usage:" in result.stdout + result.stderr
    assert not list(tmp_path.iterdir())


def test_both_paths_give_the_same_probabilities(trained: Path) -> None:
    result = run("predict.py", "datasets/idc/testing", cwd=trained)
    assert result.returncode == 0, result.stderr
    assert f"Model: {Path('output/cancernet.keras')}" in result.stderr
    found = list(csv.DictReader(io.StringIO(result.stdout)))
    predictions = (trained / "output" / "predictions.csv").read_text(encoding="utf-8")
    expected = list(csv.DictReader(io.StringIO(predictions)))
    assert len(found) == len(expected) > 10
    card = json.loads((trained / "output" / "cancernet.json").read_text())
    for one, other in zip(found, expected, strict=True):
        assert one["file"] == str(Path("datasets/idc") / other["file"])
        for name in ("patient", "x", "y", "probability", "calibrated"):
            assert one[name] == other[name]
        called = np.float32(one["probability"]) >= card["threshold"]
        assert one["malignant"] == str(int(called))
    patients = {row["patient"] for row in expected}
    maps = {path.name for path in (trained / "output" / "predictions").iterdir()}
    assert maps == {
        f"{patient}_{what}"
        for patient in patients
        for what in ("heatmap.png", "tissue.png", "errors.png", "figures.json")
    }


def test_without_a_model_the_ways_out_are_named(
    trained: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(models, "SHIPPED", tmp_path / "none.keras")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["predict.py", str(trained / "datasets")])
    with pytest.raises(SystemExit) as ended:
        cli.run(predict.main)
    output, errors = capsys.readouterr()
    assert ended.value.code == 2
    assert "train_model.py" in errors
    assert "none.keras" in errors
    assert output == ""
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(sys.platform == "win32", reason="Ctrl-C cannot be sent to one process there")
def test_ctrl_c_is_one_word_and_130(trained: Path, tmp_path: Path) -> None:
    # Where a shell started the tests in the background, it has them and their children ignore it.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    process = subprocess.Popen(
        [sys.executable, PROJECT / "predict.py", trained / "datasets", "--output", tmp_path / "o"],
        cwd=trained,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith("Model:"):
            break
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert "Stopped." in errors
    assert "Traceback" not in errors


# --- Patches and folders --------------------------------------------------------------------------


def test_one_patch_of_any_size_is_one_row(
    predicted: Predict, tmp_path: Path, write_patch: WritePatch
) -> None:
    for name, width, height in (("a.tif", 60, 80), ("b.jpg", 1, 1), ("c.png", 100, 7)):
        shutil.rmtree(tmp_path / "output", ignore_errors=True)
        patch = write_patch(tmp_path / name, width=width, height=height)
        code, rows, errors = predicted(patch)
        assert code == 0, errors
        (row,) = rows
        assert (row["file"], row["patient"], row["x"], row["y"]) == (str(patch), "", "", "")
        assert 0 <= float(row["probability"]) <= 1
    assert not (tmp_path / "output").exists()  # Nothing to draw.


def test_symmetries_give_a_patch_and_its_mirror_image_the_same(
    predicted: Predict, tmp_path: Path
) -> None:
    keras.utils.set_random_seed(3)
    layers = [keras.layers.Flatten(), keras.layers.Dense(2, "softmax")]
    keras.Sequential([keras.Input((50, 50, 3)), *layers]).save(tmp_path / "model.keras")
    pixels = np.zeros((50, 50, 3), np.uint8)
    pixels[:20, :30] = 255, 40, 130
    for name, image in (("a.png", pixels), ("b.png", pixels[:, ::-1])):
        Image.fromarray(image).save(tmp_path / name)
    files = tmp_path / "a.png", tmp_path / "b.png"
    plain, averaged = (
        predicted(*files, *options, model=tmp_path / "model.keras")
        for options in ((), ("--symmetries",))
    )
    one, other = (float(row["probability"]) for row in plain.rows)
    assert abs(one - other) > 0.01
    one, other = (float(row["probability"]) for row in averaged.rows)
    assert one == pytest.approx(other, abs=1e-5)
    assert "mean over its eight" in averaged.errors
    assert "mean over its eight" not in plain.errors


def test_the_same_pixels_as_png_and_tiff_are_the_same_patch(
    predicted: Predict, tmp_path: Path
) -> None:
    pixels = np.random.default_rng(2).integers(0, 256, (41, 50, 3), dtype=np.uint8)
    for name in ("patch.png", "patch.tif"):
        Image.fromarray(pixels).save(tmp_path / name)
    _, rows, _ = predicted(tmp_path / "patch.png", tmp_path / "patch.tif")
    assert rows[0]["probability"] == rows[1]["probability"]


def test_paths_stay_as_given_and_each_file_counts_once(
    predicted: Predict, tmp_path: Path, write_patch: WritePatch
) -> None:
    names = ["a,b.png", 'q"uote.png', "two\nlines.png", "Übergröße.PNG", "-dash.png"]
    for name in names:
        write_patch(tmp_path / "deep" / "down" / name)
    (tmp_path / "deep" / ".hidden.png").write_text("x")
    (tmp_path / "deep" / "notes.txt").write_text("x")
    code, rows, errors = predicted("./deep", "./deep", "deep/down/-dash.png")
    assert code == 0, errors
    expected = sorted(f".{os.sep}deep{os.sep}down{os.sep}{name}" for name in names)
    assert [row["file"].replace("./", f".{os.sep}") for row in rows] == [
        *expected,
        "deep/down/-dash.png",
    ]


@pytest.mark.skipif(sys.platform != "linux", reason="other systems allow no such name")
def test_a_name_that_is_no_text_is_escaped(
    predicted: Predict, tmp_path: Path, write_patch: WritePatch
) -> None:
    write_patch(tmp_path / "patch.png").rename(tmp_path / "bad\udcff.png")
    code, rows, errors = predicted(tmp_path)
    assert code == 0, errors
    assert rows[0]["file"] == f"{tmp_path}{os.sep}bad\\udcff.png"


def test_too_little_memory_is_said_in_words(
    predicted: Predict, tmp_path: Path, write_patch: WritePatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise MemoryError("no room for 9 GB")

    monkeypatch.setattr(inference, "score_files", fail)
    result = predicted(write_patch(tmp_path / "patch.png"))
    assert result.code == 2
    assert "no room for 9 GB" in result.errors
    assert "BATCH_SIZE" in result.errors


def test_a_bad_image_among_good_ones_is_named_and_the_rest_done(
    predicted: Predict, tmp_path: Path, write_patch: WritePatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    good = [write_patch(tmp_path / "folder" / f"{index}.png") for index in range(40)]
    cut = tmp_path / "folder" / "cut.png"
    cut.write_bytes(good[0].read_bytes()[:500])
    (tmp_path / "folder" / "text.png").write_text("no image")
    late = tmp_path / "folder" / "late.png"  # Damaged after it was checked.
    late.write_text("no image either")

    def check(data: bytes, **limits: int) -> tuple[int, int]:
        return (50, 50) if data == late.read_bytes() else check_image(data, **limits)

    monkeypatch.setattr(inputs, "check_image", check)
    code, rows, errors = predicted(tmp_path / "folder")
    assert code == 1
    assert [row["file"] for row in rows] == sorted(map(str, good))
    for name in ("cut.png", "text.png", "late.png"):
        assert f"Left out: {tmp_path / 'folder' / name}" in errors


def test_what_cannot_be_used_at_all_is_refused(
    predicted: Predict, tmp_path: Path, write_patch: WritePatch
) -> None:
    good = write_patch(tmp_path / "good.png")
    (tmp_path / "empty").mkdir()
    (tmp_path / "notes.txt").write_text("no image")
    (tmp_path / "link.png").symlink_to(tmp_path / "gone.png")
    folder = tmp_path / "bad"
    folder.mkdir()
    for index in range(9):
        (folder / f"{index}.png").write_bytes(b"")
    for paths, words in (
        ([good, tmp_path / "missing.png"], ["There is no", "missing.png"]),
        ([tmp_path / "link.png"], ["There is no", "link.png"]),
        ([tmp_path / "empty"], ["empty holds no image", ".png"]),
        ([tmp_path / "notes.txt"], ["notes.txt", "not a PNG or JPEG"]),
        ([folder], ["0.png: empty file", "and 4 more"]),
        ([good, "--model", tmp_path / "none.keras"], ["There is no model"]),
    ):
        model = paths.pop() if "--model" in paths else None
        code, rows, errors = predicted(*[p for p in paths if p != "--model"], model=model)
        assert (code, rows) == (2, []), errors
        for word in words:
            assert word in errors
        assert errors.count("error:") == 1


@pytest.mark.skipif(sys.platform == "win32", reason="there are no such files there")
def test_a_pipe_is_not_waited_for(predicted: Predict, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    code, _, errors = predicted(tmp_path)
    assert code == 2
    assert "pipe.png: no file" in errors


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("8863/0/8863_idx5_x51_y101_class0.png", ("8863", 0, 51, 101)),
        ("anywhere/8863_idx5_x51_y101_class1.png", ("8863", 1, 51, 101)),
        ("8863/0/8863_idx5_x51_y101_class1.png", ("8863", None, 51, 101)),  # Which one is it?
        ("anna/1/tile.png", ("anna", 1, None, None)),
        ("idc/testing/1/tile.png", ("", 1, None, None)),
        ("anna/tile.png", ("", None, None, None)),
        ("tile_class1.png", ("", 1, None, None)),
    ],
)
def test_what_a_path_tells(path: str, expected: tuple[object, ...]) -> None:
    assert read_facts(Path(path)) == PatchFacts(*expected)  # type: ignore[arg-type]


# --- Maps -----------------------------------------------------------------------------------------


def test_a_second_run_replaces_maps_of_the_same_patient_alone(
    predicted: Predict, trained: Path, tmp_path: Path
) -> None:
    maps = tmp_path / "maps"
    maps.mkdir()
    (maps / "20009_heatmap.png").write_bytes(b"another patient's")
    (maps / "20001_heatmap.png").write_bytes(b"old")
    code, rows, errors = predicted(trained / "datasets/original/20001", "--output", maps)
    assert code == 0, errors
    assert "20001: patches 10, malignant 40.0%, sensitivity" in errors
    assert (maps / "20001_heatmap.png").read_bytes().startswith(b"\x89PNG")
    assert (maps / "20009_heatmap.png").read_bytes() == b"another patient's"
    figures = json.loads((maps / "20001_figures.json").read_text())
    card = json.loads((trained / "output/cancernet.json").read_text())
    assert figures["threshold"] == card["threshold"]
    malignant = [row for row in rows if "_class1" in row["file"]]
    hits = sum(row["malignant"] == "1" for row in malignant)
    assert figures["sensitivity"] == hits / len(malignant)


def test_an_output_that_is_a_file_is_refused_before_anything_is_scored(
    predicted: Predict, trained: Path, tmp_path: Path
) -> None:
    (tmp_path / "maps").write_text("mine")
    code, rows, _ = predicted(trained / "datasets/original/20001", "--output", tmp_path / "maps")
    assert (code, rows) == (2, [])
    assert (tmp_path / "maps").read_text() == "mine"


def test_positions_too_far_apart_make_no_map(
    predicted: Predict, tmp_path: Path, write_patch: WritePatch
) -> None:
    for x in (1, 10**15 + 1):
        write_patch(tmp_path / "far" / f"7_idx5_x{x}_y{x}_class0.png")
    code, rows, errors = predicted(tmp_path / "far")
    assert (code, len(rows)) == (0, 2), errors
    assert "7: no map, since the positions span" in errors


def test_the_sample_is_marked(predicted: Predict, trained: Path, tmp_path: Path) -> None:
    model = tmp_path / "cancernet.keras"
    shutil.copy(trained / "output/cancernet.keras", model)
    card = json.loads((trained / "output/cancernet.json").read_text()) | {"sample": True}
    model.with_suffix(".json").write_text(json.dumps(card))
    patches = trained / "datasets/original/20001"
    _, rows, errors = predicted(patches, "--output", tmp_path / "maps", model=model)
    assert "SYNTHETIC SAMPLE" in errors
    assert len(rows) == 10
    assert json.loads((tmp_path / "maps/20001_figures.json").read_text())["sample"]
    _, _, errors = predicted(patches, "--output", tmp_path / "maps")
    assert "SYNTHETIC SAMPLE" not in errors
    assert not json.loads((tmp_path / "maps/20001_figures.json").read_text())["sample"]


def test_threshold_and_recalibration_of_the_card_are_used(
    predicted: Predict, trained: Path, tmp_path: Path
) -> None:
    patches = trained / "datasets/original/20001"
    model = tmp_path / "cancernet.keras"
    shutil.copy(trained / "output/cancernet.keras", model)
    _, plain, errors = predicted(patches, model=model)
    assert "there is no cancernet.json beside it" in errors
    assert all(row["calibrated"] == row["probability"] for row in plain)
    probabilities = sorted(np.float32(row["probability"]) for row in plain)
    card = json.loads((trained / "output/cancernet.json").read_text()) | {
        "threshold": float(probabilities[3]),  # Reached by itself.
        "recalibration": {"slope": 2.0, "intercept": 0.5},
    }
    model.with_suffix(".json").write_text(json.dumps(card))
    _, rows, errors = predicted(patches, model=model)
    assert "Notice" not in errors
    assert sum(row["malignant"] == "1" for row in rows) == 7
    for row in rows:
        odds = float(row["probability"]) / (1 - float(row["probability"]))
        expected = 1 / (1 + 1 / (odds**2 * np.exp(0.5)))
        assert float(row["calibrated"]) == pytest.approx(expected, rel=1e-5)


# --- Larger images and slides ---------------------------------------------------------------------


def slide_of(patches: Path) -> np.ndarray:
    """Puts the patches of a patient, ten in a row, into a picture with glass around."""
    picture = np.full((150, 520, 3), 245, np.uint8)
    for path in patches.rglob("*.png"):
        facts = read_facts(path)
        assert facts.x is not None
        pixels = np.asarray(Image.open(path))
        picture[50:100, facts.x - 1 : facts.x + 49] = pixels
    return picture


@pytest.mark.parametrize("kind", ["png", "tif", "tiff"])
def test_a_large_image_is_predicted_as_its_patches_are(
    predicted: Predict, trained: Path, tmp_path: Path, kind: str
) -> None:
    patches = trained / "datasets/original/20002"
    path = tmp_path / f"my slide.{kind}"
    if kind == "tiff":  # A whole slide, 1 micrometre a pixel.
        pixels = slide_of(patches).repeat(4, 0).repeat(4, 1)
        tifffile.imwrite(
            path,
            pixels,
            tile=(64, 64),
            photometric="rgb",
            resolution=(1e4, 1e4),
            resolutionunit="CENTIMETER",
        )
    else:
        Image.fromarray(slide_of(patches)).save(path)
    options = ["--explain"] if kind == "tiff" else []
    code, rows, errors = predicted(path, "--output", tmp_path / "maps", *options)
    assert code == 0, errors
    assert f"{path}: patches 10, background skipped 20" in errors
    _, expected, _ = predicted(patches)
    values = {(row["x"], row["y"]): float(row["probability"]) for row in expected}
    assert len(rows) == 10
    for row in rows:
        assert (row["file"], row["patient"]) == (str(path), "")
        # To the last bit or two: a patch's place in the batch decides how sums are rounded.
        assert float(row["probability"]) == pytest.approx(values[row["x"], row["y"]], abs=1e-6)
    names = {each.name for each in (tmp_path / "maps").iterdir()}
    explained = {"explanation.png"} if options else set()
    assert names == {"my_slide_heatmap.png", "my_slide_tissue.png"} | explained


def test_patches_and_images_go_together_and_a_bad_slide_is_left_out(
    predicted: Predict, trained: Path, tmp_path: Path, write_patch: WritePatch
) -> None:
    Image.fromarray(slide_of(trained / "datasets/original/20003")).save(tmp_path / "slide.png")
    (tmp_path / "broken.svs").write_bytes(b"II*\0 and nothing else")
    write_patch(tmp_path / "patch.png")
    code, rows, errors = predicted(tmp_path, "--output", tmp_path / "maps")
    assert code == 1
    assert [Path(row["file"]).name for row in rows] == ["patch.png"] + ["slide.png"] * 10
    assert f"Left out: {tmp_path / 'broken.svs'}: no slide that OpenSlide reads" in errors


def test_two_images_of_one_name_get_maps_of_their_own(predicted: Predict, tmp_path: Path) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        pixels = np.random.default_rng(1).integers(0, 200, (60, 120, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / folder / "slide.png")
    code, _, errors = predicted(tmp_path / "a", tmp_path / "b", "--output", tmp_path / "maps")
    assert code == 0, errors
    assert {path.name for path in (tmp_path / "maps").iterdir()} == {
        *("slide_heatmap.png", "slide_tissue.png"),
        *("slide-2_heatmap.png", "slide-2_tissue.png"),
    }


def test_glass_alone_is_done_without_a_row(predicted: Predict, tmp_path: Path) -> None:
    Image.fromarray(np.full((120, 120, 3), 250, np.uint8)).save(tmp_path / "glass.png")
    code, rows, errors = predicted(tmp_path / "glass.png")
    assert (code, rows) == (0, []), errors
    assert "background skipped 4" in errors
    assert "Patches: 0" in errors


def test_a_narrow_strip_is_left_out(predicted: Predict, tmp_path: Path) -> None:
    Image.fromarray(np.full((20, 120, 3), 100, np.uint8)).save(tmp_path / "strip.png")
    code, _, errors = predicted(tmp_path / "strip.png")
    assert code == 2
    assert "side under 25 pixels" in errors


def test_a_bomb_is_refused_before_it_is_decoded(predicted: Predict, tmp_path: Path) -> None:
    Image.fromarray(np.zeros((10_001, 10_000), np.uint8)).save(tmp_path / "bomb.png")
    code, _, errors = predicted(tmp_path / "bomb.png")
    assert code == 2
    assert "more than 100,000,000 pixels" in errors


def test_explanations_go_up_to_64_patches(
    predicted: Predict, tmp_path: Path, write_patch: WritePatch
) -> None:
    for index in range(70):
        write_patch(tmp_path / "patches" / f"{index}.png", width=20, height=20)
    options = ("--explain", "--output", tmp_path / "maps")
    code, rows, errors = predicted(tmp_path / "patches", *options)
    assert (code, len(rows)) == (0, 70), errors
    assert "Explanation of the first 64 patches" in errors
    assert [path.name for path in (tmp_path / "maps").iterdir()] == ["explanation.png"]
