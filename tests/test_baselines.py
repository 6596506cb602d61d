"""The two classifiers without a network."""

from dataclasses import replace
from pathlib import Path

import cv2
import made_up
import numpy as np
import pytest

from cancernet.data.pipeline import Reading
from cancernet.evaluation import baselines


def test_colours_are_the_mean_and_spread_of_each_channel():
    images = np.random.default_rng(0).random((5, 4, 6, 3), dtype=np.float32)
    found = baselines.colour_features([images[:3], images[3:]])
    assert found.shape == (5, 6)
    red, blue = images[4, :, :, 0], images[4, :, :, 2]
    assert found[4, [0, 2, 3, 5]] == pytest.approx([red.mean(), blue.mean(), red.std(), blue.std()])


def test_colours_are_learnt_from_training_alone():
    generator = np.random.default_rng(0)
    labels = np.arange(200) % 2
    training = (generator.normal(0, 1, (200, 6)) + labels[:, np.newaxis]).astype(np.float32)
    others = np.array([[-2] * 6, [3] * 6], dtype=np.float32)
    features = {"training": training, "testing": others}
    scores = baselines.colour_scores(features, labels) or {}
    benign, malignant = scores["testing"]
    assert benign < 0.05 < 0.95 < malignant
    assert baselines.colour_scores(features, np.ones(200, dtype=int)) is None


def data_of(splits, folder=Path()):
    """A data set of patches given as patient and label."""
    rows = [
        made_up.make_row(patient, number, label=label, split=split)
        for split, patches in splits.items()
        for number, (patient, label) in enumerate(patches)
    ]
    return made_up.make_data(rows, folder)


SPLITS = {
    "training": [("a", 1), ("a", 0), ("a", 0), ("a", 0), ("b", 1), ("b", 1)],
    "validation": [("b", 1), ("a", 0)],
}


def test_a_patient_gets_the_share_of_malignant_patches_in_training():
    testing = {"testing": [("a", 1), ("new", 0), ("b", 1)]}
    scores = baselines.identity_scores(data_of(SPLITS | testing)) or {}
    assert scores["testing"] == pytest.approx([0.25, 0.5, 1])
    assert scores["validation"] == pytest.approx([1, 0.25])
    apart = {"testing": [("c", 1), ("d", 0)]}
    assert baselines.identity_scores(data_of(SPLITS | apart)) is None


def test_patches_are_read_with_their_colours_however_the_network_reads_them(tmp_path):
    data = data_of(SPLITS, tmp_path)  # Testing is empty.
    for split in data.splits.values():
        for path, label in zip(split.files, split.labels, strict=True):
            path.parent.mkdir(parents=True, exist_ok=True)
            colour = (200, 40, 200) if label else (40, 200, 200)
            cv2.imwrite(str(path), np.full((50, 50, 3), colour, np.uint8))
    reading = Reading(image_size=(48, 48), batch_size=4)
    for replicas in (1, 3):
        found = baselines.score(data, replace(reading, replicas=replicas))
        assert found.keys() == {"colour", "patient_identity"}
        for scores in found.values():
            malignant, benign = (scores or {})["validation"]
            assert malignant > 0.5 > benign
