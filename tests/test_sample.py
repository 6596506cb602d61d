"""The synthetic sample: its files, that the seed alone decides, and how hard it is."""

import re
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import pytest
from conftest import contents
from numpy.typing import NDArray
from PIL import Image
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import GroupKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from cancernet.cli import InputError
from cancernet.data import sample
from cancernet.data.sample import SAMPLE_PATIENTS, draw_sample
from cancernet.data.splitting import read_published

NAME = re.compile(r"(\d{5})_idx5_x(\d+)_y(\d+)_class([01])\.png")


class Drawn(NamedTuple):
    folder: Path
    files: list[Path]
    images: NDArray[np.uint8]  # RGB, shape (patches, 50, 50, 3).
    patients: list[str]
    labels: NDArray[np.int64]


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Drawn:
    folder = tmp_path_factory.mktemp("drawn") / "échantillon"
    draw_sample(folder, seed=42)
    files = sorted(folder.rglob("*.png"))
    return Drawn(
        folder=folder,
        files=files,
        images=np.stack([np.asarray(Image.open(file)) for file in files]),
        patients=[file.parent.parent.name for file in files],
        labels=np.array([int(file.parent.name) for file in files]),
    )


def test_patches_of_unpublished_patients_are_50_by_50_rgb_named_as_they_lie(drawn: Drawn) -> None:
    assert 3000 <= len(drawn.files) <= 3400
    assert {*drawn.patients} == {*SAMPLE_PATIENTS}
    assert read_published().keys().isdisjoint(SAMPLE_PATIENTS)
    assert drawn.labels.mean() == pytest.approx(0.28, abs=0.02)
    placed = {}
    for file, image in zip(drawn.files, drawn.images, strict=True):
        patient, x, y, label = NAME.fullmatch(file.name).groups()  # type: ignore[union-attr]
        assert file.relative_to(drawn.folder).parts == (patient, label, file.name)
        assert int(x) % 50 == int(y) % 50 == 1
        placed[patient, int(x), int(y)] = image.astype(float)
    assert len(placed) == len(drawn.files)
    assert drawn.images.shape == (len(drawn.files), 50, 50, 3)
    red, green, blue = drawn.images.mean(axis=(0, 1, 2))
    assert red > blue > green  # As haematoxylin and eosin have it.
    # Neighbouring patches continue each other.
    seams = [
        np.abs(placed[patient, x + 50, y][:, 0] - image[:, -1]).mean()
        for (patient, x, y), image in placed.items()
        if (patient, x + 50, y) in placed
    ]
    assert np.mean(seams) == pytest.approx(
        np.abs(np.diff(drawn.images.astype(np.float32), axis=2)).mean(), rel=0.1
    )


def test_the_seed_alone_decides_and_an_older_sample_is_replaced(
    drawn: Drawn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sample, "SAMPLE_PATIENTS", SAMPLE_PATIENTS[:1])
    folder = tmp_path / "sample" / SAMPLE_PATIENTS[0]
    (folder / "1").mkdir(parents=True)
    (folder / "1" / "stale.png").write_bytes(b"old")
    draw_sample(folder.parent, seed=42)
    same = contents(folder)
    assert same == contents(drawn.folder / folder.name)
    draw_sample(folder.parent, seed=43)
    assert set(same.values()).isdisjoint(contents(folder).values())
    assert [place.name for place in tmp_path.iterdir()] == ["sample"]


def test_the_sample_is_neither_trivial_nor_impossible(drawn: Drawn) -> None:
    colours = drawn.images.mean(axis=(1, 2))
    spreads = drawn.images.std(axis=(1, 2))
    gray = drawn.images.mean(axis=3, dtype=np.float32)
    texture = [[cv2.Laplacian(image, cv2.CV_32F).var(), (image < 110).mean()] for image in gray]

    def score(features: NDArray[np.floating]) -> float:
        model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000))
        folds = {"groups": drawn.patients, "cv": GroupKFold(5), "method": "predict_proba"}
        chance = cross_val_predict(model, features, drawn.labels, **folds)[:, 1]
        return roc_auc_score(drawn.labels, chance)

    auc = score(np.hstack([colours, spreads, np.array(texture)]))
    assert 0.60 < score(colours) < auc < 0.97
    assert auc > 0.80


def test_foreign_files_are_refused_and_left(tmp_path: Path) -> None:
    for name in ("99902/0/older.png", "mine/thesis.txt"):
        file = tmp_path / "sample" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"mine")
    before = contents(tmp_path)
    with pytest.raises(InputError, match="'mine'"):
        draw_sample(tmp_path / "sample", seed=42)
    assert contents(tmp_path) == before
