"""Real training, killed and resumed; and what --resume says where it cannot."""

import json
import subprocess
import sys
from pathlib import Path

import kill_training
import pytest
from conftest import PROJECT

EPOCHS = 10


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("killed")
    kill_training.build(folder)
    return folder


def train(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(PROJECT / "train_model.py"), "--batch-size", "16", *options]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


@pytest.mark.skipif(sys.platform == "win32", reason="a process cannot be killed unawares there")
def test_killed_training_ends_as_if_it_had_never_been_stopped(folder: Path) -> None:
    logged, differing = kill_training.kill_and_compare(folder, kills=EPOCHS, seed=3)
    assert len(logged) == EPOCHS
    assert len(set(logged)) > 2, logged  # The kills came at different stages.
    assert differing == []


def test_a_finished_run_gets_what_is_missing_and_trains_nothing(folder: Path) -> None:
    output = folder / "finished"
    first = train(folder, "--epochs", "2", "--output", "finished")
    assert first.returncode == 0, first.stderr
    assert not (output / "checkpoint").exists()
    files = {path.name: path.read_bytes() for path in output.iterdir()}
    for name in ("metrics.json", "predictions.csv", "plot.png"):
        (output / name).unlink()

    refused = train(folder, "--epochs", "2", "--output", "finished")
    assert refused.returncode == 2
    for way_out in ("--resume", "--output", "delete"):
        assert way_out in refused.stderr

    other = train(folder, "--epochs", "3", "--output", "finished", "--resume")
    assert other.returncode == 2
    assert "EPOCHS was 2, is 3" in other.stderr
    assert "Traceback" not in other.stderr

    again = train(folder, "--epochs", "2", "--output", "finished", "--resume")
    assert again.returncode == 0, again.stderr
    assert "epoch   " not in again.stdout
    for name in ("cancernet.keras", "cancernet.json", "history.csv", "predictions.csv"):
        assert (output / name).read_bytes() == files[name], name
    assert files.keys() == {path.name for path in output.iterdir()}
    found, expected = (
        json.loads(text) for text in ((output / "metrics.json").read_text(), files["metrics.json"])
    )
    assert found["testing"] == expected["testing"]
