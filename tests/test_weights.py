"""The model that comes along: what its cards say of it, and that a new clone predicts with it."""

import csv
import hashlib
import io
import json
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import h5py
import numpy as np
import pytest
from conftest import WritePatch, run

from cancernet.data.splitting import read_published
from cancernet.evaluation import evaluation
from cancernet.prediction import models

CARD = models.SHIPPED.with_name("README.md")


def test_its_cards_belong_to_it() -> None:
    digest = hashlib.sha256(models.SHIPPED.read_bytes()).hexdigest()
    card = json.loads(models.SHIPPED.with_suffix(".json").read_text(encoding="utf-8"))
    assert card["sha256"] == digest
    assert digest in CARD.read_text(encoding="utf-8")
    assert card["recipe"] == "tuned"
    assert not card["sample"]
    models.check_model(models.SHIPPED)
    assert models.read_card(models.SHIPPED)


def test_plain_keras_loads_it(tmp_path: Path) -> None:
    program = (
        "import keras, sys\n"
        "model = keras.models.load_model(sys.argv[1])\n"
        "print(model.count_params(), any('cancernet' in name for name in sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, models.SHIPPED],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == ["1235133", "False"]


def test_its_optimizer_is_left_out() -> None:
    with zipfile.ZipFile(models.SHIPPED) as archive:
        weights = io.BytesIO(archive.read("model.weights.h5"))
    with h5py.File(weights) as file:
        assert "layers" in file
        assert "optimizer" not in file


def test_a_new_clone_predicts_with_it(tmp_path: Path, write_patch: WritePatch) -> None:
    done = run("predict.py", write_patch(tmp_path / "a.png"), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert f"Model: {models.SHIPPED}, threshold " in done.stderr
    assert len(done.stdout.splitlines()) == 2


def test_validation_has_the_figure_that_the_card_tells(real_patches: Path, tmp_path: Path) -> None:
    patients = [name for name, facts in read_published().items() if facts.split == "validation"]
    folders = [real_patches / name for name in patients if (real_patches / name).is_dir()]
    done = run("predict.py", *folders, cwd=tmp_path)
    rows = list(csv.DictReader(io.StringIO(done.stdout)))
    labels = np.array([int(row["file"][-5]) for row in rows])
    probabilities = np.array([row["probability"] for row in rows], np.float32)
    told = re.search(r"^\| ROC AUC \| ([\d.]+) ", CARD.read_text(encoding="utf-8"), re.MULTILINE)
    assert told is not None
    assert evaluation.roc_auc(labels, probabilities) == pytest.approx(float(told[1]), abs=0.002)
