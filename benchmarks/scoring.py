"""Other ways to score patches than one by one as they are: what they give and take is measured."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

DARKEST = 1 / 255  # Optical density has no end at 0.

Scores = dict[str, NDArray[np.float32]]


def average_symmetries(
    twin: Any, batches: Mapping[str, Any], splits: Mapping[str, Sequence[Any]]
) -> Scores:
    """Averages the probabilities of a patch's eight mirror images and quarter turns."""
    from cancernet.prediction import symmetries
    from cancernet.training import fused

    mean = symmetries.averaged(twin, data_format="channels_last")
    return {split: fused.predict(mean, images) for split, images in batches.items()}


def normalised_slides(
    twin: Any, batches: Mapping[str, Any], splits: Mapping[str, Sequence[Any]]
) -> Scores:
    """Brings each slide's mean optical density of each colour to that of all slides' mean.

    It takes all patches of a slide to know its own: a patch alone cannot be scored in this way.
    """
    scores = {}
    for split, images in batches.items():
        density = -np.log(np.maximum(np.concatenate(list(images.as_numpy_iterator())), DARKEST))
        patients = np.array([row.patient for row in splits[split]])
        own = {name: density[patients == name].mean(axis=(0, 1, 2)) for name in set(patients)}
        common = np.mean(list(own.values()), axis=0)
        factors = np.array([common / own[name] for name in patients], np.float32)
        normalised = np.exp(-density * factors[:, np.newaxis, np.newaxis])
        scores[split] = twin.predict(normalised, verbose=0)[:, 1]
    return scores


WAYS = {"symmetries averaged": average_symmetries, "slides normalised": normalised_slides}
