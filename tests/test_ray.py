"""Two workers of Ray Train; skipped where Ray is not installed (requirements-ray.txt)."""

import subprocess
import sys
from pathlib import Path

import kill_training
import pytest
from conftest import PROJECT

ray = pytest.importorskip("ray")

# As the README shows it, but for where things are.
PROGRAM = """
import subprocess, sys
from ray.train import ScalingConfig
from ray.train.tensorflow import TensorflowTrainer

def train() -> None:  # Ray Train has set TF_CONFIG.
    command = [sys.executable, "{script}", "--output", "output", "--epochs", "2"]
    subprocess.run(command, cwd="{folder}", check=True)

TensorflowTrainer(train, scaling_config=ScalingConfig(num_workers=2)).fit()
"""


def test_ray_train_runs_it_on_two_workers(tmp_path: Path) -> None:
    kill_training.build(tmp_path)
    program = PROGRAM.format(script=PROJECT / "train_model.py", folder=tmp_path)
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, timeout=400
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert (tmp_path / "output/report.html").exists()
    said = done.stdout + done.stderr
    assert "epoch   2/2" in said
    assert "alone writes output" in said  # By the other worker.
