"""Opens a trained network, from anywhere: nothing that its file brings along is run.

A .keras file is a ZIP archive of weights and a description of layers; an HDF5 file of Keras 2 (.h5,
.model) holds the same in other words, or weights alone. Keras would make objects of whatever a
description names, code included. So it is read as plain data alone, held against that of
`CancerNet.build`, and the weights are loaded into what the latter builds.
"""

from __future__ import annotations

import hashlib
import json
import math
import shutil
import tempfile
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import astuple, dataclass
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any

import h5py

from cancernet.cli import SAMPLE_NOTICE, InputError
from cancernet.evaluation.calibration import Recalibration
from cancernet.evaluation.context import Context
from cancernet.files import read_json

if TYPE_CHECKING:  # What can be refused is refused before TensorFlow is loaded.
    import keras

BUNDLED = Path(__file__).parents[1] / "weights" / "cancernet-idc.keras"
METADATA = "cancernet.json"  # Of a model; it lies beside it, under this name or the model's own.

HDF5_SIGNATURE = b"\x89HDF\r\n\x1a\n"
CONVERT = (
    "Expected a .keras file of train_model.py, or an HDF5 file of the same network: where a model "
    "was made, keras.models.load_model(...).save_weights('cancernet.h5') writes one for --model."
)
USUAL_SIZE = 48, 48  # Height and width that the published network takes, where no file says.

# What a layer computes beside its weights, whose shapes are checked when they are loaded. All else
# in a description is names, first values and how it was trained.
COMPUTED = ("activation", "padding", "strides", "kernel_size", "pool_size", "epsilon")


@dataclass(frozen=True)
class Metadata:
    """What the JSON file beside a network says of it."""

    threshold: float = 0.5  # A patch is predicted malignant where its probability is at least this.
    recalibration: Recalibration | None = None  # What makes a probability calibrated, if anything.
    sample: bool = False  # Whether the network was trained on synthetic patches.
    context: Context | None = None  # What makes a probability in context, if anything.


@dataclass(frozen=True)
class SavedModel:
    """A model file that was looked into without Keras."""

    path: Path
    kind: str  # The ending by which Keras knows such files.
    image_size: tuple[int, int]  # Height and width of its patches in pixels.
    layers: list[Any] | None  # Each one's class and what it computes; None where not described.
    metadata: Metadata
    alone: bool  # Whether there is no file of metadata, so that these are made up.


def find(named: Path | None, defaults: Sequence[Path]) -> Path:
    """Chooses the model: the one that is named, else the first of the others that exists."""
    if named and named.is_dir():  # Loading it would run what is in it.
        raise InputError(f"{named} is a folder, as TensorFlow's SavedModel is. {CONVERT}")
    candidates = [named] if named else defaults
    for path in candidates:
        if path.is_file():
            return path
    missing = " and no ".join(map(str, candidates))
    raise InputError(f"There is no model {missing}. Train one with train_model.py or name --model.")


def read(path: Path) -> SavedModel:
    """Reads a model file's description, as plain data, and its metadata; refuses another's."""
    try:
        kind, layers = _read_layers(path)
        height, width = USUAL_SIZE
        if layers:
            first = layers[0]["config"]
            _, height, width, _ = first.get("batch_shape") or first["batch_input_shape"]
        size, computed = (int(height), int(width)), _computed(layers) if layers else None
    # RuntimeError: encrypted, packed in an unknown way, or a description nested without end.
    except (zipfile.BadZipFile, zlib.error, RuntimeError, EOFError, ValueError) as error:
        raise _unusable(path, str(error)) from error
    except (AttributeError, LookupError, TypeError) as error:
        raise _unusable(path, "what it describes is no CancerNet") from error
    metadata = read_metadata(path)
    return SavedModel(path, kind, size, computed, metadata or Metadata(), alone=metadata is None)


def _unusable(path: Path, why: str) -> InputError:
    return InputError(f"{path} is no model of train_model.py, or damaged: {why}. {CONVERT}")


def _read_layers(path: Path) -> tuple[str, list[Any] | None]:
    with path.open("rb") as file:
        if file.read(len(HDF5_SIGNATURE)) != HDF5_SIGNATURE:
            with zipfile.ZipFile(path) as archive:
                return ".keras", json.loads(archive.read("config.json"))["config"]["layers"]
    try:
        with h5py.File(path) as content:
            description = content.attrs.get("model_config")
            kind = ".weights.h5" if "layers" in content else ".h5"  # Of Keras 3, or older.
    except OSError as error:
        raise ValueError(str(error)) from error
    if description is None:
        return kind, None
    config = json.loads(description)["config"]
    return kind, config if isinstance(config, list) else config["layers"]


def _computed(layers: list[Any]) -> list[Any]:
    return [
        (layer["class_name"], [layer["config"].get(name) for name in COMPUTED])
        for layer in layers
        if layer["class_name"] != "InputLayer"  # Which old files lack.
    ]


def read_metadata(path: Path) -> Metadata | None:
    """Reads what belongs to a model from the JSON file beside it; None where there is none."""
    places = (path.with_suffix(".json"), path.with_name(METADATA))
    beside = next((place for place in places if place.is_file()), None)
    if beside is None:
        return None
    try:
        content = read_json(beside)
        line, around = content["recalibration"], content.get("context")  # Older models have none.
        if content["sha256"] != hashlib.sha256(path.read_bytes()).hexdigest():
            raise ValueError("by its sha256 it belongs to another model")
        threshold = float(content["threshold"])
        recalibration = Recalibration(**line) if line else None
        context = Context(**around) if around else None
        numbers = [number for each in (recalibration, context) if each for number in astuple(each)]
        if not all(map(math.isfinite, (threshold, *numbers))):
            raise ValueError("a number in it is NaN or infinite")
        return Metadata(threshold, recalibration, bool(content["sample"]), context)
    except (AttributeError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{beside} does not say what belongs to {path} ({type(error).__name__}: {error}). "
            f"Put the two that belong together beside each other, train again, or move "
            f"{beside.name} away: the model is then used at threshold 0.5."
        ) from error


def describe(saved: SavedModel, *, average_symmetries: bool) -> list[str]:
    """Says which model is used, and how, and what is not known of it."""
    symmetries = (
        "Each patch gets the mean over its eight mirror images and turns. Threshold and "
        "recalibration are those made without."
    )
    alone = (
        f"Notice: there is no {saved.path.with_suffix('.json').name} beside it, so the threshold "
        "is 0.5 and calibrated probabilities are the network's own."
    )
    return [
        f"Model: {saved.path}, threshold {saved.metadata.threshold:.6g}.",
        *([symmetries] * average_symmetries),
        *([alone] * saved.alone),
        *([SAMPLE_NOTICE] * saved.metadata.sample),
    ]


def load(saved: SavedModel) -> keras.Sequential:
    """Builds CancerNet and loads a file's weights into it; refuses another network's.

    Colours always come last, wherever they were in training: the weights are the same.

    Returns:
        From float32 patches in [0, 1], shape (batch, height, width, 3), to the probabilities of
        both classes, shape (batch, 2).
    """
    from cancernet.cancernet import CancerNet

    height, width = saved.image_size
    try:
        network = CancerNet.build(width=width, height=height, depth=3, classes=2)
        expected = _computed(json.loads(network.to_json())["config"]["layers"])
        for one, other in zip_longest(saved.layers or expected, expected):
            if one != other:
                raise ValueError(f"it has a layer {one}, CancerNet {other}")
        with tempfile.TemporaryDirectory() as folder:
            copy = Path(folder) / f"copy{saved.kind}"  # Keras goes by the ending.
            shutil.copyfile(saved.path, copy)
            network.load_weights(copy)
    except Exception as error:  # What Keras raises on a file of the wrong content is not defined.
        raise _unusable(saved.path, str(error).partition("\n")[0]) from error
    return network


def averaged(network: keras.Model) -> keras.Model:
    """Makes a network that gives the mean of another one over a patch's mirror images and turns.

    Tissue has no up, down or side: the eight symmetries of the square are one patch to it.
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
