"""The bundled model: what its card and metadata say, and that a new clone predicts with it."""

import csv
import hashlib
import io
import re
import zipfile
from pathlib import Path

import h5py
import numpy as np
import pytest
from conftest import read_json, run, run_well

from cancernet.data.splitting import read_published
from cancernet.evaluation import metrics
from cancernet.prediction import model

CARD = model.BUNDLED.with_name("README.md")


def test_card_and_metadata_belong_to_it() -> None:
    digest = hashlib.sha256(model.BUNDLED.read_bytes()).hexdigest()
    metadata = read_json(model.BUNDLED.with_suffix(".json"))
    assert (metadata["sha256"], metadata["recipe"]) == (digest, "tuned")
    assert digest in CARD.read_text(encoding="utf-8")
    saved = model.read(model.BUNDLED)
    assert saved.image_size == (48, 48)
    assert (saved.alone, saved.metadata.sample) == (False, False)


def test_plain_keras_loads_it_and_its_optimizer_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(
        "import keras, sys\n"
        "model = keras.models.load_model(sys.argv[1])\n"
        "print(model.count_params(), any('cancernet' in name for name in sys.modules))"
    )
    printed = run_well(tmp_path / "program.py", model.BUNDLED, cwd=tmp_path)
    assert printed.split() == ["1235133", "False"]
    with zipfile.ZipFile(model.BUNDLED) as archive:
        weights = io.BytesIO(archive.read("model.weights.h5"))
    with h5py.File(weights) as file:
        assert "layers" in file
        assert "optimizer" not in file


def test_validation_has_the_figure_that_the_card_tells(real_patches: Path, tmp_path: Path) -> None:
    patients = [name for name, facts in read_published().items() if facts.split == "validation"]
    folders = [real_patches / name for name in patients if (real_patches / name).is_dir()]
    done = run("predict.py", *folders, cwd=tmp_path)
    assert f"Model: {model.BUNDLED}, threshold " in done.stderr
    rows = list(csv.DictReader(io.StringIO(done.stdout)))
    labels = np.array([int(row["file"][-5]) for row in rows])
    probabilities = np.array([row["probability"] for row in rows], np.float32)
    told = re.search(r"^\| ROC AUC \| ([\d.]+) ", CARD.read_text(encoding="utf-8"), re.MULTILINE)
    assert told is not None
    assert metrics.roc_auc(labels, probabilities) == pytest.approx(float(told[1]), abs=0.002)
