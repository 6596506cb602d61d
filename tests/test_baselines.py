"""The two classifiers without a network, and what is said of a network that does not beat them."""

import numpy as np
import pytest

from cancernet.evaluation import baselines

RESAMPLING = {"resamples": 100, "seed": 0}


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
    scores = baselines.colour_scores({"training": training, "testing": others}, labels)
    assert scores is not None
    assert scores.keys() == {"testing"}
    assert scores["testing"].dtype == np.float32
    assert scores["testing"][0] < 0.05 < 0.95 < scores["testing"][1]
    assert baselines.colour_scores({"training": training}, np.ones(200, dtype=int)) is None


def test_a_patient_gets_the_share_of_malignant_patches_in_training():
    patients = {
        "training": ["a", "a", "a", "a", "b", "b"],
        "validation": ["b", "a"],
        "testing": ["a", "new", "b"],
    }
    labels = np.array([1, 0, 0, 0, 1, 1])
    scores = baselines.identity_scores(patients, labels, split="testing")
    assert scores is not None
    assert scores.keys() == {"validation", "testing"}
    assert scores["testing"] == pytest.approx([0.25, 0.5, 1])
    assert scores["validation"] == pytest.approx([1, 0.25])
    apart = patients | {"testing": ["c", "d"]}
    assert baselines.identity_scores(apart, labels, split="testing") is None


def test_lead_is_over_the_same_resamples():
    labels = np.arange(600) % 2
    owners = [str(number % 40) for number in range(600)]
    probabilities = np.random.default_rng(1).random(600, dtype=np.float32) + labels
    rival = np.random.default_rng(0).random(len(labels), dtype=np.float32)
    arguments = {"resamples": 100, "seed": 0}
    ahead = baselines.lead(labels, probabilities, rival, owners, **arguments)
    assert ahead is not None
    low, high = ahead["ci95"]
    assert 0 < low < ahead["roc_auc"] < high
    assert baselines.lead(labels, rival, rival, owners, **arguments) == {
        "roc_auc": 0,
        "ci95": [0, 0],
    }
    assert baselines.lead(np.ones_like(labels), rival, rival, owners, **arguments) is None
    few = baselines.lead(labels, probabilities, rival, ["one"] * len(labels), **arguments)
    assert few is not None
    assert few["ci95"] is None


def judged(name, own, rival, *, patients=12):
    """The verdict on scores of the same made-up patches; the higher `own`, the better it is."""
    generator = np.random.default_rng(3)
    labels = np.arange(600) % 2
    owners = [str(number % patients) for number in range(600)]

    def scores(quality):
        logits = quality * labels + generator.normal(0, 1, 600)
        return (1 / (1 + np.exp(-logits))).astype(np.float32)

    return baselines.judge(
        name,
        {"validation": scores(rival), "testing": scores(rival)},
        scores(own),
        {"validation": labels, "testing": labels},
        owners,
        split="testing",
        measure="f1",
        resampling=RESAMPLING,
    )


@pytest.mark.parametrize(
    ("own", "rival", "words"),
    [
        (0.2, 2, "THE NETWORK DOES NOT BEAT A BASELINE: logistic regression on mean and spread"),
        (1.1, 1, "may be no better"),
        (3, 0.5, None),
    ],
)
def test_verdict_in_words(own, rival, words):
    figures, notes = judged("colour", own, rival)
    assert figures is not None
    assert figures["split"] == "testing"
    assert "per_patient" not in figures
    assert (figures["network_lead"]["roc_auc"] > 0) == (own > rival)
    verdicts = [note for note in notes if note.startswith("testing: ")]
    assert len(verdicts) == (words is not None)
    if words:
        assert words in verdicts[0]
        assert f"reaches ROC AUC {figures['roc_auc']:.3f}" in verdicts[0]


def test_what_the_split_gives_away_is_said_even_of_a_better_network():
    _, notes = judged("patient_identity", 3, 1)
    assert any("sees no pixel" in note and "gives away" in note for note in notes)


def test_without_a_baseline_there_is_the_reason():
    labels = {"validation": np.array([0, 1]), "testing": np.array([0, 1])}
    figures, notes = baselines.judge(
        "patient_identity",
        None,
        np.array([0.1, 0.2]),
        labels,
        ["a", "b"],
        split="testing",
        measure="f1",
        resampling=RESAMPLING,
    )
    assert figures is None
    assert notes == [f"baseline patient_identity: {baselines.WHY_NONE['patient_identity']}"]
