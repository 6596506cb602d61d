"""Opens a trained network, from anywhere: nothing that its file brings along is run.

A .keras file is a ZIP archive of weights and a description (config.json). Keras would make objects
of whatever a description names, code included. So it is read as plain data alone, held against that
of `CancerNet.build`, and the weights are loaded into what the latter builds.
"""

from __future__ import annotations

import hashlib
import json
import math
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cancernet.cli import SAMPLE_NOTICE, InputError
from cancernet.evaluation.calibration import Recalibration

if TYPE_CHECKING:  # What can be refused is refused before TensorFlow is loaded.
    import keras

BUNDLED = Path(__file__).parents[1] / "weights" / "cancernet-idc.keras"
METADATA = "cancernet.json"  # Of a model; it lies beside it, under this name or the model's own.

# What a .keras file holds, and the most bytes read of it: ten times what CancerNet takes, or more.
DESCRIPTION = "config.json"
MEMBERS = {DESCRIPTION: 2**20, "metadata.json": 2**20, "model.weights.h5": 200 * 2**20}

LARGEST_SIDE = 1024  # Of the patches, in pixels: the dense layer's weights grow with their area.

# What a layer computes beside its weights, whose shapes are checked when they are loaded. All else
# in a description is names, first values and how it was trained.
COMPUTED = ("activation", "padding", "strides", "kernel_size", "pool_size", "epsilon")


@dataclass(frozen=True)
class Metadata:
    """What the JSON file beside a network says of it.

    Attributes:
        threshold: A patch is predicted malignant where its probability is at least this.
        recalibration: What makes a probability calibrated, if anything.
        sample: Whether the network was trained on synthetic patches.
    """

    threshold: float = 0.5
    recalibration: Recalibration | None = None
    sample: bool = False


@dataclass(frozen=True)
class SavedModel:
    """A model file that was looked into without Keras.

    Attributes:
        path: The .keras file.
        image_size: Height and width of its patches in pixels.
        layers: Each layer's class and what it computes, as in COMPUTED.
        metadata: What belongs to it.
        alone: Whether there is no file of metadata, so that these are made up.
    """

    path: Path
    image_size: tuple[int, int]
    layers: list[Any]
    metadata: Metadata
    alone: bool


def find(named: Path | None, defaults: Sequence[Path]) -> Path:
    """Chooses the model: the one that is named, else the first of the others that exists.

    Raises:
        InputError: It does not exist.
    """
    candidates = [named] if named else defaults
    for path in candidates:
        if path.is_file():
            return path
    missing = " and no ".join(map(str, candidates))
    raise InputError(f"There is no model {missing}. Train one with train_model.py or name --model.")


def read(path: Path) -> SavedModel:
    """Reads a model file's description, as plain data, and its metadata.

    Raises:
        InputError: It is no model file of CancerNet, or its metadata are damaged or of another.
    """
    try:
        layers = _read_layers(path)
        size, computed = _image_size(layers), _computed(layers)
    # RuntimeError: encrypted, packed in an unknown way, or a description nested without end.
    except (zipfile.BadZipFile, zlib.error, RuntimeError, EOFError, ValueError) as error:
        raise _unusable(path, str(error)) from error
    except (AttributeError, LookupError, TypeError) as error:
        raise _unusable(path, f"its {DESCRIPTION} describes no CancerNet") from error
    metadata = read_metadata(path)
    return SavedModel(path, size, computed, metadata or Metadata(), alone=metadata is None)


def _unusable(path: Path, why: str) -> InputError:
    return InputError(f"{path} is no model of train_model.py, or damaged: {why}. Train it again.")


def _read_layers(path: Path) -> list[Any]:
    if path.suffix != ".keras":  # By which Keras tells the kinds of model files apart.
        raise ValueError("expected a file name ending in .keras")
    with zipfile.ZipFile(path) as archive:
        sizes = {member.filename: member.file_size for member in archive.infolist()}
        if sizes.keys() != MEMBERS.keys() or any(sizes[name] > MEMBERS[name] for name in MEMBERS):
            found = dict(sorted(sizes.items())[:9])
            raise ValueError(f"it holds {found}, expected, with their most bytes, {MEMBERS}")
        return json.loads(archive.read(DESCRIPTION))["config"]["layers"]


def _image_size(layers: list[Any]) -> tuple[int, int]:
    """Finds height and width of the patches in the description of the first layers."""
    _, *shape = layers[0]["config"]["batch_shape"]
    if layers[1]["config"]["data_format"] == "channels_first":
        shape = [*shape[1:], shape[0]]
    height, width, channels = shape
    if channels != 3 or not all(side in range(1, LARGEST_SIDE + 1) for side in (height, width)):
        raise ValueError(
            f"it takes images of height, width and channels {shape}; expected at most "
            f"{LARGEST_SIDE} pixels per side and 3 channels"
        )
    return int(height), int(width)


def _computed(layers: list[Any]) -> list[Any]:
    return [
        (layer["class_name"], [layer["config"].get(name) for name in COMPUTED]) for layer in layers
    ]


def read_metadata(path: Path) -> Metadata | None:
    """Reads what belongs to a model from the JSON file beside it; None where there is none.

    Raises:
        InputError: The file is damaged, or belongs to another model.
    """
    places = (path.with_suffix(".json"), path.with_name(METADATA))
    beside = next((place for place in places if place.is_file()), None)
    if beside is None:
        return None
    try:
        content = json.loads(beside.read_text(encoding="utf-8"))
        threshold, line = float(content["threshold"]), content["recalibration"]
        if line:
            line = Recalibration(float(line["slope"]), float(line["intercept"]))
        if not all(map(math.isfinite, (threshold, *(vars(line).values() if line else ())))):
            raise ValueError("a number in it is NaN or infinite")
        if content["sha256"] != hashlib.sha256(path.read_bytes()).hexdigest():
            raise ValueError("by its sha256 it belongs to another model")
        return Metadata(threshold, line, bool(content["sample"]))
    except (AttributeError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{beside} does not say what belongs to {path} ({type(error).__name__}: {error}). "
            f"Put the two that belong together beside each other, train again, or move "
            f"{beside.name} away: the model is then used at threshold 0.5."
        ) from error


def describe(saved: SavedModel, *, average_symmetries: bool) -> list[str]:
    """Says which model is used, and how, and what is not known of it."""
    own = saved.path.with_suffix(".json").name
    lines = {
        f"Model: {saved.path}, threshold {saved.metadata.threshold:.6g}.": True,
        "Each patch gets the mean over its eight mirror images and turns. Threshold and "
        "recalibration are those made without.": average_symmetries,
        f"Notice: there is no {own} beside it, so the threshold is 0.5 and calibrated "
        "probabilities are the network's own.": saved.alone,
        SAMPLE_NOTICE: saved.metadata.sample,
    }
    return [line for line, holds in lines.items() if holds]


def load(saved: SavedModel) -> keras.Sequential:
    """Builds CancerNet and loads a file's weights into it.

    Colours always come last, wherever they were in training: the weights are the same.

    Returns:
        From float32 patches in [0, 1], shape (batch, height, width, 3), to the probabilities of
        both classes, shape (batch, 2).

    Raises:
        InputError: The file describes another network, or its weights are damaged.
    """
    import keras

    from cancernet.cancernet import CancerNet

    keras.config.set_floatx("float32")  # Whatever the user's own keras.json says.
    keras.config.set_image_data_format("channels_last")
    height, width = saved.image_size
    network = CancerNet.build(width=width, height=height, depth=3, classes=2)
    expected = _computed(json.loads(network.to_json())["config"]["layers"])
    try:
        for one, other in zip_longest(saved.layers, expected):
            if one != other:
                raise ValueError(f"it has a layer {one}, CancerNet {other}")
        network.load_weights(saved.path)
    except Exception as error:  # What Keras raises on a file of the wrong content is not defined.
        raise _unusable(saved.path, str(error).partition("\n")[0]) from error
    return network


def averaged(network: keras.Model) -> keras.Model:
    """Makes a network that gives the mean of another one over a patch's mirror images and turns.

    Tissue has no up, down or side: the eight symmetries of the square are one patch to it. It takes
    eight times as many multiplications, and memory for eight times as many patches.

    Raises:
        InputError: The network's images are not square, so that they cannot be turned.
    """
    import keras
    from keras import ops

    _, height, width, _ = network.input_shape
    if height != width:
        raise InputError(
            f"The model takes patches of {width} x {height} pixels, which cannot be turned by 90 "
            "degrees. Leave --symmetries out."
        )
    images = keras.Input(network.input_shape[1:])
    turned = [images, ops.swapaxes(images, 1, 2)]
    for axis in (1, 2):
        turned += [ops.flip(image, axis) for image in turned]
    probabilities = network(ops.concatenate(turned, axis=0))
    of_each = ops.reshape(probabilities, (len(turned), -1, 2))
    return keras.Model(images, ops.mean(of_each, axis=0))
