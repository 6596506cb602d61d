"""The scripts, run as a user runs them."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from conftest import (
    PROJECT,
    WritePatch,
    assert_refused,
    contents,
    read_csv,
    read_json,
    run,
    run_well,
)

from cancernet.evaluation.calibration import Recalibration, recalibrate

BUILD, TRAIN = "build_dataset.py", "train_model.py"


@pytest.mark.parametrize("script", [BUILD, TRAIN])
@pytest.mark.parametrize("option", ["--help", "--no-such-option", "--seed=x", "--epochs=0"])
def test_help_and_wrong_options_answer_at_once(script: str, option: str, tmp_path: Path) -> None:
    began = time.perf_counter()
    result = run(script, option, cwd=tmp_path)
    # Far above the second that it takes, far below the many that importing TensorFlow takes.
    assert time.perf_counter() - began < 4
    assert result.returncode == (0 if option == "--help" else 2)
    assert "usage:" in result.stdout + result.stderr
    assert "Traceback" not in result.stderr
    assert not list(tmp_path.iterdir())


def test_without_data_the_ways_out_are_named(tmp_path: Path) -> None:
    result = run(BUILD, cwd=tmp_path)
    assert_refused(result, str(Path("datasets/original")), "--download", "--sample")
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]
    assert_refused(run(TRAIN, cwd=tmp_path), "build_dataset.py")


def test_a_build_is_the_same_on_every_run_and_stays_when_the_next_is_refused(
    originals: Path, tmp_path: Path
) -> None:
    options = ("--original", originals, "--split", "patient", "--seed", "3")
    printed = run_well(BUILD, *options, "--dataset", "one", cwd=tmp_path)
    for split in ("training", "validation", "testing"):
        assert f"Building {split} set ...\n" in printed  # As the published script.
    disjoint = "No patient, file name or content stands in two splits (patients by the file names, "
    assert f"{disjoint}e.g. '20001')." in printed
    run_well(BUILD, *options, "--dataset", "two", cwd=tmp_path)
    assert contents(tmp_path / "one") == contents(tmp_path / "two")
    build = read_json(tmp_path / "one" / "build.json")
    assert (build["seed"], build["sample"]) == (3, False)
    assert build["overlap"] == {"patients": 0, "files": 0, "contents": 0}

    for patch in originals.glob("*/1/*.png"):
        patch.unlink()
    refused = run(BUILD, *options, "--dataset", "one", cwd=tmp_path)
    assert_refused(refused, "48 benign and 0 malignant")
    assert contents(tmp_path / "one") == contents(tmp_path / "two")


CHANGES = """
ORIG_INPUT_DATASET = "original"
BASE_PATH = "elsewhere"
TRAIN_PATH = "elsewhere/learn"
VAL_PATH, TEST_PATH = "elsewhere/validation", "elsewhere/testing"
SPLIT_BY, TRAIN_SPLIT, VAL_SPLIT, SEED = "image", 0.5, 0.5, 7
IMAGE_WIDTH, IMAGE_HEIGHT = 16, 8
EPOCHS, BATCH_SIZE, LEARNING_RATE = 1, 5, 0.5
OUTPUT_PATH = "results"
"""


def test_editing_the_configuration_changes_what_is_done(originals: Path, tmp_path: Path) -> None:
    for name in (BUILD, TRAIN):
        shutil.copy(PROJECT / name, tmp_path)
    shutil.copytree(PROJECT / "cancernet", tmp_path / "cancernet")
    config = tmp_path / "cancernet" / "config.py"
    config.write_text(config.read_text() + CHANGES)

    printed = run_well(tmp_path / BUILD, cwd=tmp_path)
    build = read_json(tmp_path / "elsewhere" / "build.json")
    assert (build["method"], build["seed"]) == ("image", 7)
    assert build["splits"]["testing"]["patches"] == 36
    assert (tmp_path / "elsewhere" / "learn").is_dir()
    assert 0 < build["overlap"]["patients"] <= 12
    assert f"shares {build['overlap']['patients']} of 12 patients between splits" in printed
    assert "flatters" in printed

    run_well(tmp_path / TRAIN, cwd=tmp_path)
    metadata = read_json(tmp_path / "results" / "cancernet.json")
    assert (metadata["height"], metadata["width"], metadata["channels"]) == (8, 16, 3)
    (epoch,) = read_csv(tmp_path / "results" / "history.csv")
    last_step = -(-build["splits"]["training"]["patches"] // 5) - 1
    assert float(epoch["learning_rate"]) == pytest.approx(0.5 / (1 + last_step * 0.5 / 1))
    metrics = read_json(tmp_path / "results" / "metrics.json")
    assert metrics["baselines"]["patient_identity"]["roc_auc"] is not None  # Patients are shared.

    config.write_text(config.read_text() + "EPOCHS, TRAIN_SPLIT = 0, 1.5\n")
    assert_refused(run(tmp_path / TRAIN, cwd=tmp_path), "EPOCHS is 0")
    assert_refused(run(tmp_path / BUILD, cwd=tmp_path), "TRAIN_SPLIT")


@pytest.mark.parametrize(
    ("answer", "words"),
    [("return {original!r}", ()), ('raise ConnectionError("no route")', ("no route", "--sample"))],
)
def test_download_goes_through_kagglehub_and_is_not_copied(
    originals: Path, tmp_path: Path, answer: str, words: tuple[str, ...]
) -> None:
    code = f"""
import runpy, sys, kagglehub
def dataset_download(handle):
    assert handle == "paultimothymooney/breast-histopathology-images", handle
    {answer.format(original=str(originals))}
kagglehub.dataset_download = dataset_download
sys.path.insert(0, {str(PROJECT)!r})
runpy.run_path({str(PROJECT / BUILD)!r}, run_name="__main__")
"""
    (tmp_path / "download.py").write_text(code)
    done = run(tmp_path / "download.py", "--download", cwd=tmp_path)
    if words:
        assert_refused(done, *words)
        return
    assert done.returncode == 0, done.stderr
    assert {path.name for path in tmp_path.iterdir()} == {"original", "datasets", "download.py"}
    assert {path.name for path in (tmp_path / "datasets").iterdir()} == {"idc"}


# --- Both, on the sample --------------------------------------------------------------------------


@pytest.fixture(scope="module")
def sample_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sample run")
    printed = run_well(BUILD, "--sample", cwd=folder)
    trained = run_well(TRAIN, "--epochs", "2", "--batch-size", "64", cwd=folder)
    assert printed.startswith("SYNTHETIC SAMPLE")
    assert trained.startswith("SYNTHETIC SAMPLE")
    return folder


def test_training_leaves_the_promised_files_which_agree(sample_run: Path) -> None:
    output = sample_run / "output"
    assert {path.name for path in output.iterdir()} == {
        *("cancernet.keras", "cancernet.json", "history.csv", "plot.png", "metrics.json"),
        *("predictions.csv", "confusion_matrix.png", "roc.png", "precision_recall.png"),
        *("calibration.png", "report.html"),
    }
    metrics, metadata = (read_json(output / f"{name}.json") for name in ("metrics", "cancernet"))
    assert metrics["sample"]
    assert metadata["sample"]
    assert "SYNTHETIC SAMPLE" in (output / "report.html").read_text(encoding="utf-8")
    assert [row["epoch"] for row in read_csv(output / "history.csv")] == ["1", "2"]
    predictions = read_csv(output / "predictions.csv")
    manifest = read_csv(sample_run / "datasets/idc/manifest.csv")
    testing = [row for row in manifest if row["split"] == "testing"]
    for name in ("file", "patient", "x", "y", "label"):
        assert [row[name] for row in predictions] == [row[name] for row in testing]
    probabilities = np.array([row["probability"] for row in predictions], dtype=np.float32)
    malignant = np.array([row["label"] == "1" for row in predictions])
    for at, threshold in (("at_0.5", 0.5), ("at_validation_threshold", metadata["threshold"])):
        found, predicted = metrics["testing"][at], probabilities >= threshold
        assert found["threshold"] == metrics["validation"][at]["threshold"] == threshold
        assert found["sensitivity"] == pytest.approx(predicted[malignant].mean())
        assert found["specificity"] == pytest.approx(1 - predicted[~malignant].mean())
    calibrated = np.array([row["calibrated"] for row in predictions], dtype=np.float32)
    line = metadata["recalibration"] and Recalibration(**metadata["recalibration"])
    assert (calibrated == recalibrate(probabilities, line)).all()
    assert metrics["config"]["EPOCHS"] == 2
    assert metrics["split"] == read_json(sample_run / "datasets/idc/build.json")
    assert metrics["baselines"]["patient_identity"] is None
    assert any("patient_identity" in note for note in metrics["notes"])


def test_the_saved_network_tells_the_same_without_this_package(sample_run: Path) -> None:
    code = """
import csv, sys
import keras, numpy as np
from PIL import Image
model = keras.models.load_model("output/cancernet.keras")
assert model.count_params() == 1_235_133
assert "cancernet" not in sys.modules and not hasattr(model, "optimizer")
with open("output/predictions.csv", newline="") as file:
    rows = list(csv.DictReader(file))[:64]
images = [Image.open("datasets/idc/" + row["file"]).convert("RGB") for row in rows]
pixels = np.stack([np.asarray(i.resize((48, 48), Image.NEAREST)) for i in images]) / 255
found = model.predict(pixels.astype("float32"), verbose=0)[:, 1]
expected = np.array([float(row["probability"]) for row in rows])
assert np.abs(found - expected).max() < 1e-4, np.abs(found - expected).max()
"""
    plain = os.environ | {"KERAS_BACKEND": "tensorflow"}
    subprocess.run([sys.executable, "-c", code], cwd=sample_run, check=True, env=plain)


@pytest.mark.skipif(sys.platform == "win32", reason="Ctrl-C cannot be sent to one process there")
def test_ctrl_c_after_an_epoch_tests_and_reports(sample_run: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, str(PROJECT / TRAIN), "--epochs", "50", "--output", "stopped"],
        cwd=sample_run,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert any(line.startswith("epoch") for line in process.stdout)
    process.send_signal(signal.SIGINT)
    rest, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    assert "Traceback" not in errors
    stopped = f"stopped after {len(read_csv(sample_run / 'stopped/history.csv'))} of 50 epochs"
    assert f"Note: {stopped}." in rest
    metrics = read_json(sample_run / "stopped/metrics.json")
    assert metrics["notes"][0] == stopped
    assert metrics["testing"]["patches"] > 0


# --- Both, on other patches -----------------------------------------------------------------------


def test_what_training_cannot_use_is_refused_before_it_begins(
    originals: Path, tmp_path: Path
) -> None:
    run_well(BUILD, "--original", originals, cwd=tmp_path)
    assert_refused(run(TRAIN, "--plot", tmp_path, cwd=tmp_path), "--plot", "a file in it")
    assert_refused(run(TRAIN, "--output", Path("/"), cwd=tmp_path), "a whole disk")
    patch = min((tmp_path / "datasets/idc/training/0").iterdir())
    patch.write_bytes(b"x" * patch.stat().st_size)
    verified = run(TRAIN, "--verify", cwd=tmp_path)
    assert_refused(verified, patch.name, "changed", "hash", "Build")
    assert not list((tmp_path / "output").iterdir())  # Nothing was trained.
    assert_refused(run(TRAIN, "--epochs", "1", cwd=tmp_path), patch.name, "cannot be read", "Build")


def test_without_testing_patients_validation_is_reported(
    tmp_path: Path, write_patch: WritePatch
) -> None:
    for patient in ("8865", "8867", "8863"):  # Of the published training, validation and no list.
        for index in range(8):
            name = f"{patient}_idx5_x{50 * index + 1}_y1_class{index % 2}.png"
            write_patch(tmp_path / "datasets/original" / patient / str(index % 2) / name)
    built = run_well(BUILD, "--split", "published", cwd=tmp_path)
    assert "testing split stays empty: 49 of its 49 published patients" in built
    trained = run_well(TRAIN, "--epochs", "1", "--plot", "my plot.png", cwd=tmp_path)
    output = tmp_path / "output"
    metrics = read_json(output / "metrics.json")
    assert metrics["testing"] is None
    assert metrics["validation"]["patches"] == 8
    large = "BATCH_SIZE is 32, more than the 16 training patches: an epoch is one step"
    assert large in metrics["notes"]
    assert f"Note: {large}." in trained
    assert read_csv(output / "predictions.csv") == []
    assert (tmp_path / "my plot.png").is_file()
    assert "The testing split is empty" in (output / "report.html").read_text(encoding="utf-8")

    # A finished run is replaced, here by one of the tuned recipe, an unfinished one is not.
    run_well(TRAIN, "--epochs", "1", "--recipe", "tuned", cwd=tmp_path)
    assert read_json(output / "cancernet.json")["recipe"] == "tuned"
    assert {path.name for path in tmp_path.iterdir()} == {"datasets", "output", "my plot.png"}
    (output / "checkpoint").mkdir()
    (output / "checkpoint/state.npz").touch()
    assert_refused(run(TRAIN, "--epochs", "1", cwd=tmp_path), "unfinished run", "--output")
