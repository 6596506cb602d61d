"""What a network has to beat: the colours alone, and knowing the patient alone."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from cancernet.evaluation import bootstrap, evaluation, scorecard
from cancernet.evaluation.evaluation import Labels, Probabilities

WHAT = {
    "colour": "logistic regression on mean and spread of the colours",
    "patient_identity": "a score that sees no pixel, only whose patch it is,",
}
WHY_NONE = {
    "colour": "training has patches of one class alone",
    "patient_identity": "no patient judged is in training as well, so there is nothing to know",
}


def colour_features(batches: Iterable[NDArray[np.float32]]) -> NDArray[np.float32]:
    """Reduces patches to the mean and the standard deviation of each colour channel.

    Args:
        batches: Images in [0, 1], shape (batch, height, width, 3) each.

    Returns:
        Shape (patches, 6).
    """
    features = [
        np.concatenate([images.mean(axis=(1, 2)), images.std(axis=(1, 2))], axis=1)
        for images in batches
    ]
    return np.concatenate(features)


def colour_scores(
    features: Mapping[str, NDArray[np.float32]], labels: Labels
) -> dict[str, Probabilities] | None:
    """Fits a logistic regression on the colours of the training patches, and scores the others.

    Args:
        features: Of "training" and of the splits to score.
        labels: 0 or 1, of the training patches.

    Returns:
        Probabilities of class 1, float32, of each split but training; None where training has one
        class alone.
    """
    if len(np.unique(labels)) < 2:
        return None
    regression = make_pipeline(StandardScaler(), LogisticRegression())
    regression.fit(features["training"], labels)
    return {
        split: regression.predict_proba(features[split])[:, 1].astype(np.float32)
        for split in features
        if split != "training"
    }


def identity_scores(
    patients: Mapping[str, Sequence[str]], labels: Labels, *, split: str
) -> dict[str, Probabilities] | None:
    """Scores a patch by the share of malignant patches that its patient has in training.

    It sees no pixel. What it reaches is what a split that shares patients gives away.

    Args:
        patients: Each patch's patient, of each split.
        labels: 0 or 1, of the training patches.
        split: The one that is judged.

    Returns:
        float32 of each split but training; a patient who is not in training gets the share in the
        whole of training. None where `split` shares no patient with training.
    """
    if not set(patients["training"]) & set(patients[split]):
        return None
    names, owner = np.unique(np.asarray(patients["training"]), return_inverse=True)
    shares = np.bincount(owner, labels) / np.bincount(owner)
    known = dict(zip(names.tolist(), shares, strict=True))
    whole = float(np.mean(labels))
    return {
        name: np.array([known.get(patient, whole) for patient in own], dtype=np.float32)
        for name, own in patients.items()
        if name != "training"
    }


def lead(
    labels: Labels,
    probabilities: Probabilities,
    rival: Probabilities,
    patients: Sequence[str],
    *,
    resamples: int,
    seed: int,
) -> dict[str, Any] | None:
    """Tells by how much ROC AUC is above a rival's on the same patches.

    Returns:
        The difference, and its interval over the same resamples for both (None with too few
        patients); None where a class is missing.
    """
    own, other = evaluation.roc_auc(labels, probabilities), evaluation.roc_auc(labels, rival)
    if own is None or other is None:
        return None
    interval = None
    if len(set(patients)) >= scorecard.FEWEST_PATIENTS:
        drawn = bootstrap.draw(patients, resamples=resamples, seed=seed)
        areas = [bootstrap.areas(labels, scores, drawn)[0] for scores in (probabilities, rival)]
        interval = bootstrap.interval(areas[0] - areas[1])
    return {"roc_auc": own - other, "ci95": interval}


def judge(
    name: str,
    rival: Mapping[str, Probabilities] | None,
    probabilities: Probabilities,
    labels: Mapping[str, Labels],
    patients: Sequence[str],
    *,
    split: str,
    measure: str,
    resampling: Mapping[str, int],
) -> tuple[dict[str, Any] | None, list[str]]:
    """Makes a baseline's figures, as the network's are made, and compares the two.

    Args:
        name: "colour" or "patient_identity".
        rival: The baseline's probabilities, of "validation" and of `split`; None: it has none.
        probabilities: The network's on `split`.
        labels: 0 or 1, of each split.
        patients: Each patch's patient, of `split`.
        split: The one to judge on.
        measure: What the baseline's threshold maximises on validation.
        resampling: `resamples` and `seed` of the intervals.

    Returns:
        The figures, with `split`, and `network_lead`: by how much the network's ROC AUC is above;
        None where the baseline has none. And notes on them.
    """
    if rival is None:
        return None, [f"baseline {name}: {WHY_NONE[name]}"]
    fitted, notes = scorecard.fit(labels["validation"], rival["validation"], measure=measure)
    figures, more = scorecard.score(
        labels[split], rival[split], patients, fitted=fitted, **resampling
    )
    del figures["per_patient"]
    ahead = lead(labels[split], probabilities, rival[split], patients, **resampling)
    notes = [f"baseline {name}: {note}" for note in notes + more]
    if ahead is not None:
        notes += [f"{split}: {note}" for note in _verdict(name, figures["roc_auc"], ahead)]
    return {"split": split, **figures, "network_lead": ahead}, notes


def _verdict(name: str, roc_auc: float, ahead: Mapping[str, Any]) -> Iterator[str]:
    """Says in words what a reader of the network's figures must know of the baseline's."""
    reached = f"{WHAT[name]} reaches ROC AUC {roc_auc:.3f}"
    network = f"the network's {roc_auc + ahead['roc_auc']:.3f}"
    if ahead["roc_auc"] <= 0:
        yield f"THE NETWORK DOES NOT BEAT A BASELINE: {reached}, {network}"
    elif ahead["ci95"] and ahead["ci95"][0] <= 0:
        low, high = ahead["ci95"]
        yield (
            f"{reached}, {network}: the 95 % interval of the difference, {low:.3f} to {high:.3f}, "
            "holds 0, so the network may be no better"
        )
    elif name == "patient_identity":
        yield f"{reached}, which this split gives away to the network as well"
