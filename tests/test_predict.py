"""predict.py, run as a user runs it."""

import csv
import io
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import pytest
import tifffile
from conftest import PROJECT, read_csv, read_json, run, run_well
from made_slides import with_metadata
from PIL import Image

import predict
from cancernet import cli, config
from cancernet.data.patch import read_facts
from cancernet.prediction import model
from cancernet.prediction.scored import HEADER


class Result(NamedTuple):
    code: int
    rows: list[dict[str, str]]
    errors: str


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    """The bundled network, without its metadata."""
    return Path(shutil.copy(model.BUNDLED, tmp_path_factory.mktemp("network") / "own.keras"))


@pytest.fixture
def predicted(network, tmp_path, monkeypatch, capsys):
    """Runs predict.py in this process, which has TensorFlow loaded."""

    def call(*options, model=network):
        monkeypatch.chdir(tmp_path)
        named = ["--model", str(model)] if model else []
        monkeypatch.setattr(sys, "argv", ["predict.py", *map(str, options), *named])
        with pytest.raises(SystemExit) as ended:
            cli.run(predict.main)
        output, errors = capsys.readouterr()
        assert "Traceback" not in errors
        rows = list(csv.DictReader(io.StringIO(output)))
        assert not rows or tuple(rows[0]) == HEADER
        return Result(int(str(ended.value.code)), rows, errors)

    return call


# --- The command ----------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [["--help"], ["x.png", "--mpp", "0"]])
def test_help_and_wrong_options_answer_at_once(options, tmp_path):
    began = time.perf_counter()
    result = run("predict.py", *options, cwd=tmp_path)
    assert time.perf_counter() - began < 4
    assert result.returncode == (0 if options == ["--help"] else 2)
    assert "usage:" in result.stdout + result.stderr
    assert not list(tmp_path.iterdir())


def test_training_and_prediction_give_the_same_probabilities(originals, tmp_path):
    run_well("build_dataset.py", "--original", originals, cwd=tmp_path)
    run_well("train_model.py", "--epochs", "2", cwd=tmp_path)
    result = run("predict.py", "datasets/idc/testing", cwd=tmp_path)
    assert f"Model: {Path('output/cancernet.keras')}" in result.stderr
    found = list(csv.DictReader(io.StringIO(result.stdout)))
    expected = read_csv(tmp_path / "output/predictions.csv")
    assert len(found) == len(expected) > 10
    threshold = read_json(tmp_path / "output/cancernet.json")["threshold"]
    for one, other in zip(found, expected, strict=True):
        assert one["file"] == str(Path("datasets/idc") / other["file"])
        for name in ("patient", "x", "y", "probability", "calibrated", "in_context"):
            assert one[name] == other[name]
        assert one["malignant"] == str(int(np.float32(one["probability"]) >= threshold))
    endings = ("_heatmap.png", "_tissue.png", "_errors.png", "_figures.json", ".geojson")
    names = {row["patient"] + end for row in expected for end in endings} | {"predictions.html"}
    assert {path.name for path in (tmp_path / "output/predictions").iterdir()} == names


@pytest.mark.skipif(sys.platform == "win32", reason="Ctrl-C cannot be sent to one process there")
def test_ctrl_c_is_one_word_and_130(originals, tmp_path):
    # Where a shell started the tests in the background, it has them and their children ignore it.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    process = subprocess.Popen(
        [sys.executable, PROJECT / "predict.py", originals, "--output", tmp_path / "maps"],
        cwd=tmp_path,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    next(line for line in process.stderr if line.startswith("Model:"))
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert (process.returncode, errors.splitlines()[-1]) == (130, "Stopped."), errors
    assert "Traceback" not in errors


# --- Patches and folders --------------------------------------------------------------------------


def test_symmetries_give_a_patch_and_its_mirror_image_the_same(predicted, tmp_path):
    pixels = np.random.default_rng(5).integers(0, 256, (48, 48, 3), dtype=np.uint8)
    pixels[:20, :30] = 255, 40, 130
    for name, image in (("a.png", pixels), ("b.png", pixels[:, ::-1])):
        Image.fromarray(image).save(tmp_path / name)
    for options, least, most in (((), 0.01, math.inf), (("--symmetries",), 0, 1e-4)):
        _, rows, errors = predicted("a.png", "b.png", *options)
        one, other = (float(row["probability"]) for row in rows)
        assert least <= abs(one - other) / one <= most
        assert ("mean over its eight" in errors) == bool(options)


def test_paths_stay_as_given_and_each_file_counts_once(predicted, tmp_path, write_patch):
    names = ["a,b.png", 'q"uote.png', "two\nlines.png", "Übergröße.PNG", "-dash.png"]
    for name in names:
        write_patch(tmp_path / "deep" / "down" / name)
    if sys.platform == "linux":  # Other systems allow no such name.
        names.append("bad\udcff.png")
        write_patch(tmp_path / "patch.png").rename(tmp_path / "deep" / "down" / names[-1])
    for hidden in (".hidden.png", ".trash/a.png", "__MACOSX/below/a.png"):
        (tmp_path / "deep" / hidden).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "deep" / hidden).write_text("x")
    (tmp_path / "deep" / "notes.txt").write_text("x")
    code, rows, errors = predicted("./deep", "./deep", "deep/down/-dash.png")
    assert code == 0, errors
    expected = sorted(f".{os.sep}deep{os.sep}down{os.sep}{name}" for name in names)
    found = [row["file"].replace("./", f".{os.sep}") for row in rows]
    escaped = [path.encode(errors="backslashreplace").decode() for path in expected]
    assert found == [*escaped, "deep/down/-dash.png"]


def test_every_file_of_a_folder_is_scored_or_named(predicted, tmp_path):
    folder = tmp_path / "folder"
    folder.mkdir()
    image = Image.fromarray(np.random.default_rng(1).integers(0, 200, (7, 80, 3), dtype=np.uint8))
    for name in ("a.png", "b.bmp", "c.webp", "d.jfif", "e.tif", "f.PNG", "other.gif"):
        image.save(folder / name)
    image.save(folder / "g", "png")
    image.resize((120, 60)).save(folder / "large.png")
    for name in (".DS_Store", "Thumbs.db", "x.csv", "y.TXT", "z.json", "README.md", "w.xml"):
        (folder / name).write_text("litter")
    bad = {
        "cut.png": ((folder / "a.png").read_bytes()[:500], "truncated image"),
        "text.png": (b"no image", "no image or slide of a known kind: starts with b'no image'"),
        "scan.dcm": (bytes(200), "no image or slide of a known kind"),
        "broken.svs": (b"II*\0 and nothing else", "unreadable image"),
    }
    bad |= {f"{index}.dcm": bad["scan.dcm"] for index in range(5)}
    for name, (data, _) in bad.items():
        (folder / name).write_bytes(data)
    code, rows, errors = predicted(folder)
    assert code == 1
    # What is cut up comes first.
    assert [Path(row["file"]).name[0] for row in rows] == list("llabcdefg")
    for name, (_, reason) in bad.items():
        assert f"Left out: {folder / name}: {reason}" in errors
    assert f"Left out: {folder / 'other.gif'}: no image or slide of a known kind" in errors
    assert "in all: 10 files (no image or slide of a known kind: 8, " in errors
    assert errors.count("Left out") == 11
    # A pattern as a shell that expands nothing passes it.
    assert len(predicted(str(tmp_path / "**" / "[abx].*")).rows) == 2


def test_what_cannot_be_used_at_all_is_refused(predicted, tmp_path):
    def image(name, *shape):
        Image.fromarray(np.full(shape, 100, np.uint8)).save(tmp_path / name)

    image("good.png", 50, 50, 3)
    image("strip.png", 20, 120, 3)
    image("bomb.png", 10_001, 10_000)
    (tmp_path / "notes.txt").write_text("no image")
    (tmp_path / "link.png").symlink_to(tmp_path / "gone.png")
    (tmp_path / "empty").mkdir()
    (tmp_path / "bad").mkdir()
    for index in range(9):
        (tmp_path / "bad" / f"{index}.png").write_bytes(b"")
    refused = {
        "good.png missing.png": ["There is no missing.png"],
        "link.png": ["link.png: no file: a dangling link"],
        "empty": ["In empty there is no image"],
        "none*.png": ["There is no none*.png"],
        "notes.txt": ["notes.txt", "no image or slide of a known kind", "WebP"],
        "bad": ["0.png: no image or slide of a known kind: empty", "and 4 more"],
        "strip.png": ["side under 25 pixels"],
        "bomb.png": ["more than 100,000,000 pixels"],
        "good.png --explain --output notes.txt": ["notes.txt"],
        "good.png --csv good.png": ["--csv is good.png, which holds something else"],
        "good.png --model none.keras": ["There is no model none.keras"],
        "good.png --model good.png": ["good.png is no model of train_model.py"],
    }
    if sys.platform != "win32":
        (tmp_path / "pipes").mkdir()
        os.mkfifo(tmp_path / "pipes" / "pipe.png")  # Is not waited for.
        refused["pipes"] = ["pipe.png: no file"]
        refused["good.png --csv pipes/pipe.png"] = ["pipes/pipe.png, a directory or a device"]
    for arguments, words in refused.items():
        named = {"model": None} if "--model" in arguments else {}
        code, rows, errors = predicted(*arguments.split(), **named)
        assert (code, rows) == (2, []), arguments
        assert errors.count("error:") == 1
        assert all(word in errors for word in words), errors


# --- The model's metadata -------------------------------------------------------------------------


def test_threshold_and_recalibration_are_the_models_own(predicted, network, originals, tmp_path):
    patches = originals / "20001"
    _, plain, errors = predicted(patches)
    assert "there is no own.json beside it" in errors
    assert all(row["calibrated"] == row["probability"] for row in plain)
    probabilities = sorted(np.float32(row["probability"]) for row in plain)
    threshold = float(probabilities[3])  # Reached by itself.
    line = {"slope": 2.0, "intercept": 0.5}
    own = with_metadata(network, tmp_path, threshold=threshold, recalibration=line, sample=True)
    _, rows, errors = predicted(patches, "--output", "maps", model=own)
    assert "Notice" not in errors
    for words in ("SYNTHETIC SAMPLE", "20001: patches 6, predicted malignant 0.500 of them"):
        assert words in errors
    figures = read_json(tmp_path / "maps/20001_figures.json")
    assert (figures["threshold"], figures["sample"]) == (threshold, True)
    found = [row["malignant"] == "1" for row in rows if "_class1" in row["file"]]
    assert figures["sensitivity"] == np.mean(found)
    assert sum(row["malignant"] == "1" for row in rows) == 3
    for row in rows:
        odds = float(row["probability"]) / (1 - float(row["probability"]))
        expected = 1 / (1 + 1 / (odds**2 * np.exp(0.5)))
        assert float(row["calibrated"]) == pytest.approx(expected, rel=1e-5)


CONTEXT = {"width": 1.5, "reach": 3, "slope": 2.0, "intercept": 0.5, "threshold": 0.3}
CONTEXT |= {"patches": 400, "patients": 2}


def test_a_patch_gets_the_context_of_its_slide(predicted, network, originals, tmp_path):
    own = with_metadata(network, tmp_path, context=CONTEXT)
    _, rows, _ = predicted(originals / "20001", originals / "20002", model=own)
    columns = np.array([int(row["x"]) // 50 for row in rows])
    probabilities = np.array([float(row["probability"]) for row in rows])
    logits = np.log(probabilities / (1 - probabilities))
    for row, column in zip(rows, columns, strict=True):
        apart = np.abs(columns - column)
        near = (apart <= 3) & np.array([row["patient"] == other["patient"] for other in rows])
        mean = np.average(logits[near], weights=np.exp(-0.5 * (apart[near] / 1.5) ** 2))
        expected = 1 / (1 + np.exp(-2 * mean - 0.5))
        assert float(row["in_context"]) == pytest.approx(expected, rel=1e-4)
        assert row["malignant_in_context"] == str(int(float(row["in_context"]) >= 0.3))
    figures = read_json(tmp_path / "output/predictions/20001_figures.json")
    assert (figures["patches"], figures["in_context"]["patches"]) == (6, 6)
    features = read_json(tmp_path / "output/predictions/20001.geojson")["features"]
    detections = [each for each in features if each["properties"]["objectType"] == "detection"]
    corners = [each["geometry"]["coordinates"][0][0] for each in detections]
    assert sorted(corners) == [
        [50 * column + 1, 51] for column in range(6)
    ]  # As the names have it.
    for feature in detections:
        measurements = feature["properties"]["measurements"]
        assert measurements.keys() == {"probability", "calibrated", "in context"}
    found = [row["malignant_in_context"] == "1" for row in rows if row["patient"] == "20001"]
    assert figures["malignant_share"] == np.mean(found)
    assert figures["malignant_area_mm2"] == pytest.approx(0.04 * sum(found))
    # One alone has no neighbour; and a model may have no context.
    page = tmp_path / "output/predictions/predictions.html"
    assert '"context_threshold":0.3' in page.read_text(encoding="utf-8")
    (one,) = predicted(originals / "20001/0/20001_idx5_x1_y51_class0.png", model=own).rows
    assert '"context_threshold":null' in page.read_text(encoding="utf-8")
    for row in (one, predicted(originals / "20001").rows[0]):
        assert (row["in_context"], row["malignant_in_context"]) == ("", "")


def test_rows_go_to_a_file_and_slides_are_done_once(predicted, network, tmp_path):
    generator = np.random.default_rng(1)
    for name in ("one.png", "two.png"):
        pixels = generator.integers(60, 200, (160, 210, 3), dtype=np.uint8)
        cv2.imwrite(str(tmp_path / name), pixels)
    (tmp_path / ".model").mkdir()
    own = with_metadata(network, tmp_path / ".model", context=CONTEXT)
    names = ("one.png", "two.png", "--csv", "rows.csv")
    texts = []
    again = "done before with the same model and options"
    for options, expected in (
        ((), 0),
        ((), 2),
        (("--again",), 0),
        (("--mpp", "3.9"), 0),  # Other patches.
        ((), 0),  # What was done last counts.
    ):
        code, rows, errors = predicted(*names, *options, model=own)
        assert (code, rows, errors.count(again)) == (0, [], expected), errors
        texts.append((tmp_path / "rows.csv").read_text(encoding="utf-8"))
    assert texts[0] == texts[1] == texts[2] == texts[4] != texts[3]
    assert len(texts[0].splitlines()) == 1 + 2 * 12
    folder = tmp_path / "output/predictions"
    assert {path.name for path in folder.glob("*.geojson")} == {"one.geojson", "two.geojson"}
    for damaged in (folder / "done").iterdir():
        damaged.write_bytes(damaged.read_bytes()[:100])
    assert again not in predicted(*names, model=own).errors
    assert (tmp_path / "rows.csv").read_text(encoding="utf-8") == texts[0]
    # Maps beside the images are no images.
    for path in (".", ".", "*.png"):
        code, rows, errors = predicted(path, "--output", ".", model=own)
        assert (code, len(rows)) == (0, 2 * 12), errors
    (tmp_path / "rows.csv").unlink()
    (tmp_path / "rows.csv").mkdir()
    assert "--csv is rows.csv, a directory" in predicted(*names, model=own).errors


# --- Maps -----------------------------------------------------------------------------------------


def test_own_images_get_their_patients_metrics_and_qupaths_tiles_a_map(
    predicted, network, tmp_path, write_patch
):
    for index in range(6):
        position = f"x={512 * (index // 2)},y={512 * (index % 2)},w=512,h=512"
        # Folder and name of the last contradict each other.
        end = "_class0" * (index == 5)
        for name in (f"bob/{index % 2}/{index}", f"eve/{index % 2}/s 1 [d=10,{position}]{end}"):
            write_patch(tmp_path / "own" / f"{name}.png")
    # Known classes have figures, without a position nothing that a page shows.
    assert predicted("own/bob", "--output", "figures").errors.endswith("Maps: figures\n")
    own = with_metadata(network, tmp_path, threshold=0)  # All are malignant, without a scale.
    _, rows, errors = predicted("own", "--output", "maps", model=own)
    assert "bob: patches 6, truly malignant 0.500, sensitivity" in errors
    assert "eve s 1: patches 6, predicted malignant 1.000 of them, truly malignant 0.400" in errors
    assert "Patches on no map: 6, whose names tell no position" in errors
    assert {(row["patient"], row["x"], row["y"]) for row in rows if "eve" in row["file"]} == {
        ("eve", str(512 * column), str(512 * row)) for column in range(3) for row in range(2)
    }
    figures = read_json(tmp_path / "maps/eve_s_1_figures.json")
    assert (figures["patches"], figures["labelled"]) == (6, 5)
    drawn = ("_errors.png", "_figures.json", "_heatmap.png", "_tissue.png", ".geojson")
    names = {f"eve_s_1{end}" for end in drawn} | {"bob_figures.json", "predictions.html"}
    assert {path.name for path in (tmp_path / "maps").iterdir()} == names


def test_a_model_that_gives_nan_is_refused(predicted, tmp_path, write_patch, monkeypatch):
    class Diverged:
        def predict(self, batches, **_):
            return np.full((1, 2), np.nan, np.float32)

    monkeypatch.setattr("cancernet.prediction.predictor.load", lambda saved: Diverged())
    code, rows, errors = predicted(write_patch(tmp_path / "patch.png"))
    assert (code, rows) == (2, [])
    assert "no probabilities but NaN" in errors
    assert not (tmp_path / "output").exists()  # Nothing to draw.


def test_what_is_on_no_map_is_said(predicted, network, tmp_path, write_patch):
    for patient, x in ((7, 1), (7, 10**15 + 1), (8, 1), (8, 3), (9, 1), (9, 10**30)):
        write_patch(tmp_path / "far" / f"{patient}_idx5_x{x}_y{x}_class0.png")
    for name in ("nowhere.png", "s [x=0,y=0,w=0,h=0].png"):
        write_patch(tmp_path / "far" / name)
    own = with_metadata(network, tmp_path, context=CONTEXT)
    code, rows, errors = predicted(tmp_path / "far", model=own)
    assert (code, len(rows)) == (0, 8), errors
    assert "7: no map, since the positions span 20,000,000,000,001 x" in errors
    assert "9: no map, since the positions span" in errors
    assert "8: 1 patches share a square with another" in errors
    assert "Patches on no map: 2, whose names tell no position" in errors


def test_explanations_go_up_to_64_patches(predicted, tmp_path, write_patch):
    for index in range(70):
        write_patch(tmp_path / "patches" / f"{index}.png", width=20, height=20)
    _, rows, errors = predicted("patches", "--explain", "--output", "maps")
    assert len(rows) == 70
    assert "Explanation of the first 64 patches" in errors
    assert [path.name for path in (tmp_path / "maps").iterdir()] == ["explanation.png"]


# --- Larger images and slides ---------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["png", "tiff"])
def test_a_large_image_is_predicted_as_its_patches_are(predicted, originals, tmp_path, kind):
    patches = originals / "20002"
    picture = np.full((150, 320, 3), 245, np.uint8)  # Six in a row, with glass around.
    for each in patches.rglob("*.png"):
        x = read_facts(each).x or 0
        picture[50:100, x - 1 : x + 49] = np.asarray(Image.open(each))
    path = tmp_path / f"my slide.{kind}"
    if kind == "tiff":  # A whole slide, 1 micrometre per pixel.
        scale: Any = {"resolution": (1e4, 1e4), "resolutionunit": "CENTIMETER"}
        enlarged = picture.repeat(4, 0).repeat(4, 1)
        tifffile.imwrite(path, enlarged, tile=(64, 64), photometric="rgb", **scale)
    else:
        Image.fromarray(picture).save(path)
    _, rows, errors = predicted(path, "--output", "maps", "--explain")
    assert f"{path}: patches 6, skipped without tissue 12" in errors
    _, expected, _ = predicted(patches)
    values = {(row["x"], row["y"]): float(row["probability"]) for row in expected}
    assert len(rows) == 6
    for row in rows:
        assert (row["file"], row["patient"]) == (str(path), "")
        # To the last bits: a patch's place in the batch decides how sums are rounded.
        assert float(row["probability"]) == pytest.approx(values[row["x"], row["y"]], abs=1e-6)
    endings = ("_heatmap.png", "_tissue.png", "_figures.json", ".geojson")
    drawn = {f"my_slide{end}" for end in endings} | {"done", "predictions.html", "explanation.png"}
    assert {each.name for each in (tmp_path / "maps").iterdir()} == drawn


def test_many_patches_are_scored_as_in_one_go(predicted, originals, monkeypatch):
    monkeypatch.setattr(config, "BATCH_SIZE", 4)
    _, expected, _ = predicted(originals)
    monkeypatch.setattr("cancernet.prediction.predictor.CHUNK", 9)
    # In threads ahead, or each file in its turn.
    for largest in (0, 100_000):
        monkeypatch.setattr("cancernet.prediction.predictor.LARGEST_FILE", largest)
        assert predicted(originals).rows == expected
