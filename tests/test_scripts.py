"""The scripts, run as a user runs them."""

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import PROJECT, WritePatch, run

from cancernet.evaluation.calibration import Recalibration, recalibrate

BUILD, TRAIN = "build_dataset.py", "train_model.py"


def assert_refused(result: subprocess.CompletedProcess[str], *words: str) -> None:
    assert result.returncode == 2, result.stderr
    assert "Traceback" not in result.stderr
    for word in words:
        assert word in result.stderr


def read_csv(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


# --- build_dataset.py ----------------------------------------------------------------------------


@pytest.mark.parametrize("script", [BUILD, TRAIN])
@pytest.mark.parametrize("options", [["--help"], ["--no-such-option"], ["--epochs", "0"]])
def test_help_and_wrong_options_answer_at_once(
    script: str, options: list[str], tmp_path: Path
) -> None:
    began = time.perf_counter()
    result = run(script, *options, cwd=tmp_path)
    # Far above the second that it takes, far below the many that importing TensorFlow takes.
    assert time.perf_counter() - began < 4
    assert result.returncode == (0 if options == ["--help"] else 2)
    assert "usage:" in result.stdout + result.stderr
    assert "Traceback" not in result.stderr
    assert not list(tmp_path.iterdir())


def test_without_data_the_ways_out_are_named(tmp_path: Path) -> None:
    result = run(BUILD, cwd=tmp_path)
    assert_refused(result, str(Path("datasets/original")), "--download", "--sample")
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]
    assert_refused(run(TRAIN, cwd=tmp_path), "build_dataset.py")


def test_build_prints_as_published_and_is_the_same_on_every_run(
    originals: Path, tmp_path: Path
) -> None:
    options = ("--original", originals, "--split", "patient", "--seed", "3")
    first = run(BUILD, *options, "--dataset", "one", cwd=tmp_path)
    assert first.returncode == 0, first.stderr
    assert first.stderr == ""
    for split in ("training", "validation", "testing"):
        assert f"Building {split} set ...\n" in first.stdout
    disjoint = "No patient, file name or content stands in two splits (patients by the file names, "
    assert f"{disjoint}e.g. '20001')." in first.stdout
    run(BUILD, *options, "--dataset", "two", cwd=tmp_path)
    for name in ("manifest.csv", "excluded.csv", "build.json"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
    build = json.loads((tmp_path / "one" / "build.json").read_text())
    assert build["seed"] == 3
    assert build["overlap"] == {"patients": 0, "files": 0, "contents": 0}
    assert not build["sample"]


def test_the_image_split_says_what_it_shares(originals: Path, tmp_path: Path) -> None:
    result = run(BUILD, "--original", originals, "--split", "image", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    shared = json.loads((tmp_path / "datasets/idc/build.json").read_text())["overlap"]["patients"]
    assert 0 < shared <= 12
    assert f"shares {shared} of 12 patients between splits" in result.stdout
    assert "flatters" in result.stdout


BUILD_CHANGES = {
    'BASE_PATH = "datasets/idc"': 'BASE_PATH = "elsewhere"',
    'f"{BASE_PATH}/training"': 'f"{BASE_PATH}/learn"',
    'SPLIT_BY = "patient"': 'SPLIT_BY = "image"',
    "TRAIN_SPLIT = 0.8": "TRAIN_SPLIT = 0.5",
    "VAL_SPLIT = 0.1": "VAL_SPLIT = 0.5",
    "SEED = 42": "SEED = 7",
}
TRAIN_CHANGES = {
    "IMAGE_WIDTH = 48": "IMAGE_WIDTH = 16",
    "IMAGE_HEIGHT = 48": "IMAGE_HEIGHT = 8",
    "EPOCHS = 40": "EPOCHS = 1",
    "BATCH_SIZE = 32": "BATCH_SIZE = 5",
    "LEARNING_RATE = 1e-2": "LEARNING_RATE = 0.5",
    'OUTPUT_PATH = "output"': 'OUTPUT_PATH = "results"',
}


def test_editing_the_configuration_changes_what_is_done(originals: Path, tmp_path: Path) -> None:
    for name in (BUILD, TRAIN):
        shutil.copy(PROJECT / name, tmp_path)
    shutil.copytree(PROJECT / "cancernet", tmp_path / "cancernet")
    config = tmp_path / "cancernet" / "config.py"
    plain = config.read_text().replace("datasets/original", originals.as_posix())

    def run_with(script: str, changes: dict[str, str]) -> subprocess.CompletedProcess[str]:
        text = plain
        for old, new in changes.items():
            assert old in text
            text = text.replace(old, new)
        config.write_text(text)
        return run(tmp_path / script, cwd=tmp_path)

    assert run_with(BUILD, BUILD_CHANGES).returncode == 0
    build = json.loads((tmp_path / "elsewhere" / "build.json").read_text())
    assert (build["method"], build["seed"]) == ("image", 7)
    assert build["splits"]["testing"]["patches"] == 36
    assert (tmp_path / "elsewhere" / "learn").is_dir()

    assert run_with(TRAIN, BUILD_CHANGES | TRAIN_CHANGES).returncode == 0
    card = json.loads((tmp_path / "results" / "cancernet.json").read_text())
    assert (card["height"], card["width"], card["channels"]) == (8, 16, 3)
    (epoch,) = read_csv(tmp_path / "results" / "history.csv")
    last_step = -(-build["splits"]["training"]["patches"] // 5) - 1
    assert float(epoch["learning_rate"]) == pytest.approx(0.5 / (1 + last_step * 0.5 / 1))
    metrics = json.loads((tmp_path / "results" / "metrics.json").read_text())
    assert metrics["baselines"]["patient_identity"]["roc_auc"] is not None  # Patients are shared.

    assert_refused(run_with(TRAIN, {"EPOCHS = 40": "EPOCHS = 0"}), "EPOCHS is 0")
    assert_refused(run_with(BUILD, {"TRAIN_SPLIT = 0.8": "TRAIN_SPLIT = 1.5"}), "TRAIN_SPLIT")


def test_a_refused_build_leaves_the_older_set(
    originals: Path, tmp_path: Path, write_patch: WritePatch
) -> None:
    options = ("--original", originals)
    assert run(BUILD, *options, cwd=tmp_path).returncode == 0
    before = (tmp_path / "datasets/idc/manifest.csv").read_bytes()
    for patch in originals.glob("*/1/*.png"):
        patch.unlink()
    assert_refused(run(BUILD, *options, cwd=tmp_path), "48 benign and 0 malignant")
    assert (tmp_path / "datasets/idc/manifest.csv").read_bytes() == before


@pytest.mark.parametrize(
    ("answer", "words"),
    [("return {original!r}", None), ('raise ConnectionError("no route")', "no route")],
)
def test_download_goes_through_kagglehub_and_is_not_copied(
    originals: Path, tmp_path: Path, answer: str, words: str | None
) -> None:
    code = f"""
import runpy, sys, kagglehub
def dataset_download(handle):
    assert handle == "paultimothymooney/breast-histopathology-images", handle
    {answer.format(original=str(originals))}
kagglehub.dataset_download = dataset_download
sys.argv = ["build_dataset.py", "--download"]
sys.path.insert(0, {str(PROJECT)!r})
runpy.run_path({str(PROJECT / BUILD)!r}, run_name="__main__")
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    if words:
        assert_refused(done, words, "network", "--sample")
        return
    assert done.returncode == 0, done.stderr
    assert {path.name for path in tmp_path.iterdir()} == {"original", "datasets"}
    assert {path.name for path in (tmp_path / "datasets").iterdir()} == {"idc"}


# --- Both ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def sample_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sample run")
    built = run(BUILD, "--sample", cwd=folder)
    assert built.returncode == 0, built.stderr
    (folder / "build.txt").write_text(built.stdout)
    trained = run(TRAIN, "--epochs", "2", "--batch-size", "64", cwd=folder)
    assert trained.returncode == 0, trained.stderr
    (folder / "train.txt").write_text(trained.stdout)
    return folder


def read_json(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8"))


def test_training_leaves_the_promised_files_and_the_sample_is_marked(sample_run: Path) -> None:
    output = sample_run / "output"
    assert {path.name for path in output.iterdir()} == {
        *("cancernet.keras", "cancernet.json", "history.csv", "plot.png", "metrics.json"),
        *("predictions.csv", "confusion_matrix.png", "roc.png", "precision_recall.png"),
        *("calibration.png", "report.html"),
    }
    assert [row["epoch"] for row in read_csv(output / "history.csv")] == ["1", "2"]
    assert (output / "plot.png").read_bytes().startswith(b"\x89PNG")
    for name in ("build.txt", "train.txt"):
        assert (sample_run / name).read_text().startswith("SYNTHETIC SAMPLE")
    assert "SYNTHETIC SAMPLE" in (output / "report.html").read_text(encoding="utf-8")
    files = (sample_run / "datasets/idc/build.json", output / "metrics.json")
    assert all(read_json(path)["sample"] for path in (*files, output / "cancernet.json"))


def test_the_metrics_follow_from_the_predictions(sample_run: Path) -> None:
    metrics = read_json(sample_run / "output/metrics.json")
    card = read_json(sample_run / "output/cancernet.json")
    predictions = read_csv(sample_run / "output/predictions.csv")
    manifest = read_csv(sample_run / "datasets/idc/manifest.csv")
    testing = [row for row in manifest if row["split"] == "testing"]
    for name in ("file", "patient", "x", "y", "label"):
        assert [row[name] for row in predictions] == [row[name] for row in testing]
    probabilities = np.array([row["probability"] for row in predictions], dtype=np.float32)
    malignant = np.array([row["label"] == "1" for row in predictions])
    for at, threshold in (("at_0.5", 0.5), ("at_validation_threshold", card["threshold"])):
        found, predicted = metrics["testing"][at], probabilities >= threshold
        assert found["threshold"] == metrics["validation"][at]["threshold"] == threshold
        assert found["confusion_matrix"]["tp"] == np.sum(malignant & predicted)
        assert found["sensitivity"] == pytest.approx(predicted[malignant].mean())
        assert found["specificity"] == pytest.approx(1 - predicted[~malignant].mean())
    calibrated = np.array([row["calibrated"] for row in predictions], dtype=np.float32)
    line = card["recalibration"] and Recalibration(**card["recalibration"])
    assert (calibrated == recalibrate(probabilities, line)).all()
    assert metrics["testing"]["patches"] == len(testing)
    assert metrics["config"]["EPOCHS"] == 2
    assert metrics["split"]["method"] == "patient"
    assert 0 < metrics["baselines"]["colour"]["roc_auc"] <= 1
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


def test_what_training_cannot_use_is_refused_before_it_begins(
    sample_run: Path, tmp_path: Path
) -> None:
    data = ("--dataset", sample_run / "datasets/idc", "--output", tmp_path / "output")
    assert_refused(run(TRAIN, *data, "--plot", tmp_path, cwd=tmp_path), "--plot", "a file in it")
    assert_refused(run(TRAIN, *data[:2], "--output", Path("/"), cwd=tmp_path), "a whole disk")
    assert not list((tmp_path / "output").iterdir())  # Nothing was trained.


def test_a_patch_damaged_after_the_build_is_one_message(originals: Path, tmp_path: Path) -> None:
    assert run(BUILD, "--original", originals, cwd=tmp_path).returncode == 0
    patch = min((tmp_path / "datasets/idc/training/0").iterdir())
    patch.write_bytes(b"x" * patch.stat().st_size)
    assert_refused(run(TRAIN, "--epochs", "1", cwd=tmp_path), patch.name, "cannot be read", "Build")
    verified = run(TRAIN, "--epochs", "1", "--verify", cwd=tmp_path)
    assert_refused(verified, patch.name, "changed", "hash", "Build")


def test_real_patches_go_through_both_scripts(real_patches: Path, tmp_path: Path) -> None:
    for patient in sorted(real_patches.iterdir())[:40]:
        for label in ("0", "1"):
            for patch in sorted((patient / label).glob("*.png"))[:6]:
                target = tmp_path / "datasets/original" / patient.name / label / patch.name
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(patch, target)
    built = run(BUILD, cwd=tmp_path)
    assert "Of the public download: 40 of 279 patients" in built.stdout, built.stderr
    trained = run(TRAIN, "--epochs", "1", cwd=tmp_path)
    assert trained.returncode == 0, trained.stderr
    metrics = read_json(tmp_path / "output/metrics.json")
    assert not metrics["sample"]
    assert metrics["testing"]["patients"] >= 2
    assert 0 <= metrics["testing"]["roc_auc"] <= 1


def test_without_testing_patients_validation_is_reported(
    tmp_path: Path, write_patch: WritePatch
) -> None:
    for patient in ("8865", "8867", "8863"):  # Of the published training, validation and no list.
        for index in range(8):
            name = f"{patient}_idx5_x{50 * index + 1}_y1_class{index % 2}.png"
            write_patch(tmp_path / "datasets/original" / patient / str(index % 2) / name)
    built = run(BUILD, "--split", "published", cwd=tmp_path)
    assert built.returncode == 0, built.stderr
    assert "testing split stays empty: 49 of its 49 published patients" in built.stdout
    trained = run(TRAIN, "--epochs", "1", "--plot", "my plot.png", cwd=tmp_path)
    assert trained.returncode == 0, trained.stderr
    metrics = json.loads((tmp_path / "output/metrics.json").read_text())
    assert metrics["testing"] is None
    assert metrics["validation"]["patches"] == 8
    assert any("testing" in note for note in metrics["notes"])
    large = "BATCH_SIZE is 32, more than the 16 training patches: an epoch is one step"
    assert large in metrics["notes"]
    assert f"Note: {large}." in trained.stdout
    assert len((tmp_path / "output/predictions.csv").read_text().splitlines()) == 1
    assert (tmp_path / "my plot.png").is_file()
    page = (tmp_path / "output/report.html").read_text(encoding="utf-8")
    assert "The testing split is empty" in page

    # A finished run is replaced, here by one of the tuned recipe, an unfinished one is not.
    again = run(TRAIN, "--epochs", "1", "--recipe", "tuned", cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    assert json.loads((tmp_path / "output/cancernet.json").read_text())["recipe"] == "tuned"
    assert {path.name for path in tmp_path.iterdir()} == {"datasets", "output", "my plot.png"}
    (tmp_path / "output/metrics.json").unlink()
    assert_refused(run(TRAIN, "--epochs", "1", cwd=tmp_path), "unfinished run", "--output")


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
    for line in process.stdout:
        if line.startswith("epoch"):
            process.send_signal(signal.SIGINT)
            break
    rest, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    assert "Traceback" not in errors
    finished = len(read_csv(sample_run / "stopped/history.csv"))
    assert f"Note: stopped after {finished} of 50 epochs." in rest
    metrics = json.loads((sample_run / "stopped/metrics.json").read_text())
    assert metrics["notes"][0] == f"stopped after {finished} of 50 epochs"
    assert metrics["testing"]["patches"] > 0
