"""Grad-CAM against arithmetic done by hand, and the sheet it is shown on."""

import keras
import numpy as np
import pytest

from cancernet.cancernet import CancerNet
from cancernet.cli import SAMPLE_NOTICE
from cancernet.prediction.gradcam import draw_sheet, grad_cam


def spotter(weights):
    """A network whose one map is its red channel, and whose logits are the map's sum times each."""
    layers = keras.layers
    network = keras.Sequential(
        [
            keras.Input((4, 4, 3)),
            layers.SeparableConv2D(1, 1, use_bias=False),
            layers.Activation("relu"),
            layers.Flatten(),
            layers.Dense(2, use_bias=False),
            layers.Activation("softmax"),
        ]
    )
    network.layers[0].set_weights([np.ones((1, 1, 3, 1)), np.array([[[[1.0], [0.0], [0.0]]]])])
    network.layers[3].set_weights([np.tile(weights, (16, 1))])
    return network


@pytest.mark.parametrize(
    ("weights", "each"),
    [
        ([1.0, 3.0], 2.0),  # Each point of the map adds 3 to malignant's logit, 1 to benign's.
        ([3.0, 1.0], 0.0),  # What speaks for benign is left out.
        ([0.0, 1000.0], 1000.0),  # A sure softmax hides nothing.
    ],
)
def test_evidence_is_the_map_times_the_difference_of_the_logits(weights, each):
    images = np.zeros((2, 4, 4, 3), np.float32)
    images[0, 1, 2, 0] = 0.5
    images[1, ..., 1] = 1.0  # Green, which the map does not show.
    expected = np.zeros((2, 4, 4))
    expected[0, 1, 2] = each * 0.5
    np.testing.assert_allclose(grad_cam(spotter(weights), images), expected, rtol=1e-6)


def test_of_cancernet_the_maps_of_the_last_block_are_taken():
    images = np.random.default_rng(1).random((3, 48, 48, 3), np.float32)
    evidence = grad_cam(CancerNet.build(48, 48, 3, 2), images)
    assert evidence.shape == (3, 12, 12)
    assert evidence.min() >= 0 < evidence.max()


@pytest.mark.parametrize(("patches", "sample"), [(1, False), (9, True)])
def test_the_sheet_shows_every_patch_and_the_notice(tmp_path, drawn, patches, sample):
    images = np.random.default_rng(1).random((patches, 4, 4, 3)).astype(np.float32)
    name = "$0.5 \N{CJK UNIFIED IDEOGRAPH-75C5}.png"
    examples = [(name, np.float32(n / 10), image) for n, image in enumerate(images)]
    draw_sheet(tmp_path / "sheet.png", spotter([1.0, 3.0]), examples, sample=sample)
    shown = [axes.get_title() for axes in drawn["sheet"].axes if axes.images]
    assert shown == [f"{n / 10:.2f}  $0.5 ?.png" for n in range(patches)]
    assert (SAMPLE_NOTICE in drawn["sheet"].texts[0].get_text()) == sample
