"""Opens a trained network, from anywhere: nothing that its file brings along is run.

A .keras file is a ZIP archive of a description (config.json) and weights. A description can name
Lambda layers, which hold code, and classes of any installed package, whose import is code, too.
So it is read as plain data first, and Keras gets it only where all that it names is harmless.
"""

from __future__ import annotations

import hashlib
import json
import math
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cancernet.cli import InputError
from cancernet.evaluation.calibration import Recalibration

if TYPE_CHECKING:  # What can be refused is refused before TensorFlow is loaded.
    import keras

# The model that comes with the project.
SHIPPED = Path(__file__).parents[1] / "weights" / "cancernet-idc.keras"

# What belongs to the model lies beside it, under its own name or this one.
CARD = "cancernet.json"

# CancerNet's weights and optimizer take 10 MB, its description 20 kB.
LARGEST_MODEL, LARGEST_DESCRIPTION = 200 * 2**20, 2**20
CONFIG = "config.json"
MEMBERS = {"metadata.json", CONFIG, "model.weights.h5"}

# What a description may name, by module: plain layers of networks such as CancerNet.
ALLOWED = {
    "keras": {"Sequential", "DTypePolicy"},
    "keras.src.models.functional": {"Functional"},
    "keras.initializers": {
        *("Constant", "GlorotNormal", "GlorotUniform", "HeNormal", "HeUniform", "Ones", "Zeros"),
        *("LecunNormal", "LecunUniform", "RandomNormal", "RandomUniform", "TruncatedNormal"),
    },
    "keras.regularizers": {"L1", "L1L2", "L2"},
    "keras.layers": {
        *("InputLayer", "SeparableConv2D", "Activation", "BatchNormalization", "MaxPooling2D"),
        *("Dropout", "Flatten", "Dense", "Conv2D", "DepthwiseConv2D", "AveragePooling2D"),
        *("GlobalAveragePooling2D", "GlobalMaxPooling2D", "SpatialDropout2D", "ReLU"),
        *("LeakyReLU", "Softmax", "Rescaling", "ZeroPadding2D", "Add", "Concatenate"),
        *("LayerNormalization", "GroupNormalization"),
    },
}
PLACEHOLDER = "__keras_tensor__"  # A connection between two layers, without a module.


@dataclass(frozen=True)
class TrainedModel:
    """A network and what belongs to it.

    Attributes:
        network: From float32 patches in [0, 1] to probabilities of both classes.
        scorer: The same, or its mean over the symmetries of each patch.
        image_size: Height and width of the patches in pixels.
        data_format: "channels_last" or "channels_first".
        threshold: A patch is called malignant where its probability is at least this.
        recalibration: What makes a probability calibrated, if anything.
        sample: Whether it was trained on synthetic patches.
    """

    network: keras.Model
    scorer: keras.Model
    image_size: tuple[int, int]
    data_format: str
    threshold: float
    recalibration: Recalibration | None
    sample: bool


@dataclass(frozen=True)
class Card:
    """What belongs to a network, as the JSON file beside it says."""

    threshold: float
    recalibration: Recalibration | None
    sample: bool


def find_model(named: Path | None, defaults: Sequence[Path]) -> Path:
    """Chooses the model: the one that is named, else the first of the others that exists.

    Raises:
        InputError: It does not exist.
    """
    if named is not None:
        if not named.is_file():
            raise InputError(f"There is no model {named}. Name a .keras file, or none at all.")
        return named
    for path in defaults:
        if path.is_file():
            return path
    places = " and no ".join(str(path) for path in defaults)
    raise InputError(f"There is no {places}. Train a model with train_model.py or name a --model.")


def check_model(path: Path) -> None:
    """Makes sure that a model file can be given to Keras, and loads nothing.

    Raises:
        InputError: It is no .keras file, or one that names what could run code.
    """
    for named in _named_objects(_read_description(path)):
        module, name, registered = (
            named.get(key) for key in ("module", "class_name", "registered_name")
        )
        if name == PLACEHOLDER and module is None:
            continue
        allowed = isinstance(name, str) and name in ALLOWED.get(str(module), ())
        if not allowed or registered not in (None, name):
            what = f"{name!r} of {module!r}" + (f", {registered!r}" if registered else "")
            raise InputError(
                f"{path} names {what}, which is none of the plain Keras layers that are let in "
                "here, since others can run code. Use a model that train_model.py made."
            )


def _read_description(path: Path) -> dict[str, Any]:
    """Reads the description of a network, less how it was compiled, which nobody loads."""
    wrong = f"{path} is no model of train_model.py"
    if path.suffix != ".keras":
        raise InputError(f"{wrong}: expected a file name ending in .keras.")
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            names = sorted(member.filename for member in members)
            if set(names) != MEMBERS or len(names) > len(MEMBERS):
                raise InputError(f"{wrong}: it holds {names[:9]}, expected {sorted(MEMBERS)}.")
            size = sum(member.file_size for member in members)
            description = archive.getinfo(CONFIG)
            if size > LARGEST_MODEL or description.file_size > LARGEST_DESCRIPTION:
                raise InputError(
                    f"{wrong}: unpacked it has {size:,} bytes, {description.file_size:,} of them "
                    f"description; at most {LARGEST_MODEL:,} and {LARGEST_DESCRIPTION:,} are read."
                )
            network = json.loads(archive.read(description))
    except InputError:
        raise
    # RuntimeError: encrypted, packed in an unknown way, or a description nested without end.
    except (zipfile.BadZipFile, zlib.error, ValueError, RuntimeError, EOFError) as error:
        raise InputError(f"{wrong}, or damaged: {error}. Train it again.") from error
    if not isinstance(network, dict):
        raise InputError(f"{wrong}: {CONFIG} describes no network.")
    network.pop("compile_config", None)
    return network


def _named_objects(description: Any) -> Iterator[dict[str, Any]]:
    """Walks a description and yields whatever Keras would make an object of."""
    waiting = [description]
    while waiting:
        part = waiting.pop()
        if isinstance(part, dict):
            if "class_name" in part:
                yield part
            waiting += part.values()
        elif isinstance(part, list):
            waiting += part


def read_card(path: Path) -> Card | None:
    """Reads what belongs to a model from the JSON file beside it; None where there is none.

    Raises:
        InputError: The file is damaged, or belongs to another model.
    """
    card_path = path.with_suffix(".json")
    if not card_path.is_file():
        card_path = path.with_name(CARD)
    if not card_path.is_file():
        return None
    try:
        content = json.loads(card_path.read_text(encoding="utf-8"))
        line = content["recalibration"]
        card = Card(
            threshold=float(content["threshold"]),
            recalibration=line and Recalibration(float(line["slope"]), float(line["intercept"])),
            sample=bool(content["sample"]),
        )
        numbers = [card.threshold, *([*vars(card.recalibration).values()] if line else [])]
        if not all(math.isfinite(number) for number in numbers):
            raise ValueError("a number in it is none")
        expected = content["sha256"]
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{card_path} does not say what belongs to a model ({type(error).__name__}: {error}). "
            f"Train again, or move it away: {path} is then used at threshold 0.5."
        ) from error
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    if found != expected:
        raise InputError(
            f"{card_path} belongs to another model than {path}: it names sha256 {expected}, the "
            f"model's is {found}. Put the two that belong together beside each other, or move "
            f"{card_path.name} away: the model is then used at threshold 0.5."
        )
    return card


def open_model(path: Path, card: Card | None, *, average_symmetries: bool = False) -> TrainedModel:
    """Loads a network; `check_model` must have passed it.

    Args:
        path: The .keras file.
        card: What belongs to it; None for threshold 0.5 and no recalibration.
        average_symmetries: Score each patch by the mean over its mirror images and turns.

    Raises:
        InputError: It is damaged, or not from patches to the two classes, or from patches that
            cannot be turned.
    """
    from keras.models import load_model

    from cancernet.prediction import symmetries
    from cancernet.training import fused

    try:
        network = load_model(path, compile=False, safe_mode=True)
    except Exception as error:  # What Keras raises on a file of the wrong content is not defined.
        first_line = str(error).partition("\n")[0]
        raise InputError(f"{path} is damaged: {first_line}. Train it again.") from error
    shapes = getattr(network, "input_shape", None), getattr(network, "output_shape", None)
    match shapes:
        case ((None, int(height), int(width), 3), (None, 2)):
            data_format = "channels_last"
        case ((None, 3, int(height), int(width)), (None, 2)) if _channels_first(network):
            data_format = "channels_first"
        case _:
            raise InputError(
                f"{path} is another kind of network, from shape {shapes[0]} to {shapes[1]}: "
                "expected (None, height, width, 3) to (None, 2). Use a model that "
                "train_model.py made."
            )
    network = fused.twin(network)  # As training scores: the same probabilities, to the bit.
    scorer = (
        symmetries.averaged(network, data_format=data_format) if average_symmetries else network
    )
    return TrainedModel(
        network=network,
        scorer=scorer,
        image_size=(height, width),
        data_format=data_format,
        threshold=card.threshold if card else 0.5,
        recalibration=card.recalibration if card else None,
        sample=bool(card and card.sample),
    )


def _channels_first(network: keras.Model) -> bool:
    formats = (getattr(layer, "data_format", None) for layer in network.layers)
    return "channels_first" in formats
