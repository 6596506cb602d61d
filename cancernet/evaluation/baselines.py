"""What a network has to beat: the colours alone, and knowing the patient alone."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from cancernet.data.dataset import Dataset
from cancernet.evaluation.metrics import Labels, Probabilities

if TYPE_CHECKING:  # It imports TensorFlow.
    from cancernet.data.pipeline import Reading

WHAT = {
    "colour": "logistic regression on mean and spread of the colours",
    "patient_identity": "a score that sees no pixel, only whose patch it is,",
}
WHY_NONE = {
    "colour": "training has patches of one class alone",
    "patient_identity": "no patient judged is in training as well, so there is nothing to know",
}


def score(data: Dataset, reading: "Reading") -> dict[str, dict[str, Probabilities] | None]:
    """Scores patches by their colours, read as the network's are, and by whose they are.

    Returns:
        By baseline, its probabilities of each split that has patches; None where it has none.
    """
    from cancernet.data import pipeline

    reading = replace(reading, replicas=1)
    features = {
        name: colour_features(pipeline.scoring_batches(split.files, reading).as_numpy_iterator())
        for name, split in data.splits.items()
        if split
    }
    colour = colour_scores(features, data.training.labels)
    return {"colour": colour, "patient_identity": identity_scores(data)}


def colour_features(batches: Iterable[NDArray[np.float32]]) -> NDArray[np.float32]:
    """Reduces images, (batch, height, width, 3), to mean and spread by channel: (patches, 6)."""
    return np.concatenate(
        [np.hstack([images.mean(axis=(1, 2)), images.std(axis=(1, 2))]) for images in batches]
    )


def colour_scores(
    features: Mapping[str, NDArray[np.float32]], labels: Labels
) -> dict[str, Probabilities] | None:
    """Fits a logistic regression on training's features and scores each split, if it can."""
    if len(np.unique(labels)) < 2:
        return None
    regression = make_pipeline(StandardScaler(), LogisticRegression())
    regression.fit(features["training"], labels)
    return {
        split: regression.predict_proba(own)[:, 1].astype(np.float32)
        for split, own in features.items()
    }


def identity_scores(data: Dataset) -> dict[str, Probabilities] | None:
    """Scores a patch by the share of malignant patches that its patient has in training.

    It sees no pixel: what it reaches is what a split that shares patients gives away. Others get
    the share in the whole of training. None where the judged split shares no patient with it.
    """
    names, owner = np.unique(np.asarray(data.training.patients), return_inverse=True)
    shares = np.bincount(owner, data.training.labels) / np.bincount(owner)
    known = dict(zip(names.tolist(), shares, strict=True))
    if not known.keys() & set(data.judged.patients):
        return None
    whole = float(np.mean(data.training.labels))
    return {
        name: np.array([known.get(patient, whole) for patient in split.patients], np.float32)
        for name, split in data.splits.items()
    }
