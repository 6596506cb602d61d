"""Model files from anywhere: what is let in, what is refused, and that nothing of it is run."""

import json
import zipfile
from pathlib import Path

import h5py
import keras
import numpy as np
import pytest
from made_slides import with_metadata

from cancernet.cancernet import CancerNet
from cancernet.cli import InputError
from cancernet.evaluation.calibration import Recalibration
from cancernet.prediction import model

RAN = Path("ran")  # What code in a model file would leave behind, were it run.
IMAGES = np.random.default_rng(4).random((3, 8, 16, 3), np.float32)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A network that was trained a little, with its optimizer, and no metadata beside it."""
    path = tmp_path_factory.mktemp("saved") / "own.keras"
    network = CancerNet.build(16, 8, 3, 2)
    network.compile("adagrad", "categorical_crossentropy")
    network.fit(IMAGES, np.eye(2)[[0, 1, 0]], verbose=0)
    network.save(path)
    return path


def rewritten(saved, path, change=None, **members):
    """Copies a model; `change` edits its description, `members` replace or add members."""
    with zipfile.ZipFile(saved) as old, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as new:
        contents = {name: old.read(name) for name in old.namelist()}
        if change:
            description = json.loads(contents["config.json"])
            change(description["config"]["layers"])
            contents["config.json"] = json.dumps(description).encode()
        for name, data in (contents | members).items():
            new.writestr(name, data)
    return path


# --- Networks -------------------------------------------------------------------------------------


def test_a_saved_network_predicts_as_keras_loads_it(saved):
    opened = model.read(saved)
    assert (opened.metadata, opened.alone) == (model.Metadata(), True)
    found = model.load(opened)
    assert not found.compiled
    expected = keras.models.load_model(saved).predict(IMAGES, verbose=0)
    np.testing.assert_array_equal(found.predict(IMAGES, verbose=0), expected)


def leave_a_trace(images):
    RAN.touch()
    return images


@pytest.mark.parametrize("nested", [False, True])
def test_another_network_is_refused_and_nothing_of_it_is_run(tmp_path, monkeypatch, nested):
    monkeypatch.chdir(tmp_path)
    layers = CancerNet.build(16, 8, 3, 2).layers
    foreign = keras.layers.Lambda(leave_a_trace)
    layers.insert(int(nested), keras.Sequential([foreign]) if nested else foreign)
    keras.Sequential([keras.Input((8, 16, 3)), *layers]).save("other.keras")
    RAN.unlink(missing_ok=True)  # Building the network has run it.
    with pytest.raises(InputError, match=r"other\.keras is no model of train_model.py"):
        model.load(model.read(Path("other.keras")))
    assert not RAN.exists()


def set_layer(kind, **settings):
    """Changes the configuration of the last layer of a kind."""

    def change(layers):
        layer = next(each for each in reversed(layers) if each["class_name"] == kind)
        layer["config"] |= settings

    return change


# What a file is rewritten with, changed in its description or in its members, and what is said.
BAD_FILES = {
    "epsilon": (set_layer("BatchNormalization", epsilon=0.1), {}, "0.1.*0.001"),
    "a layer less": (lambda layers: layers.pop(), {}, "a layer None"),
    "more pixels": (set_layer("InputLayer", batch_shape=[None, 16, 16, 3]), {}, "not be loaded"),
    "colours first": (set_layer("InputLayer", batch_shape=[None, 3, 16, 16]), {}, "damaged"),
    "any size": (set_layer("InputLayer", batch_shape=[None] * 4), {}, "is no CancerNet"),
    "sigmoids": (set_layer("Activation", activation="sigmoid"), {}, "'sigmoid'.*'softmax'"),
    "words": (lambda layers: layers.insert(3, "words"), {}, "is no CancerNet"),
    "weights": (None, {"model.weights.h5": b"no HDF5"}, "damaged"),
    "deep": (None, {"config.json": b"[" * 100_000}, "damaged"),
    "no archive": (None, b"no zip", "damaged"),
    "no HDF5": (None, b"\x89HDF\r\n\x1a\n and nothing else", "damaged"),
}


@pytest.mark.parametrize(("change", "members", "words"), BAD_FILES.values(), ids=BAD_FILES)
def test_a_bad_file_is_one_message(saved, tmp_path, change, members, words):
    path = tmp_path / "bad.keras"
    if isinstance(members, bytes):
        path.write_bytes(members)
    else:
        rewritten(saved, path, change, **members)
    with pytest.raises(InputError, match=rf"(?s)bad\.keras is no model of train_model.*{words}"):
        model.load(model.read(path))


def as_keras_2(path, network, *, form):
    """Saves a network in HDF5 as Keras 2 did, in the words of its early or its late versions."""
    network.save(path)
    with h5py.File(path, "r+") as file:
        layers = json.loads(file.attrs["model_config"])["config"]["layers"]
        first = layers[0]["config"]
        first["batch_input_shape"] = first.pop("batch_shape")
        if form == "early":
            layers[1]["config"]["batch_input_shape"] = first["batch_input_shape"]
            del layers[0]
        config = layers if form == "early" else {"name": "sequential", "layers": layers}
        file.attrs["model_config"] = json.dumps({"class_name": "Sequential", "config": config})


@pytest.mark.filterwarnings("ignore:You are saving")
@pytest.mark.parametrize("form", ["early", "late", "weights", "new.weights"])
def test_hdf5_of_the_same_network_is_loaded_whatever_its_ending(tmp_path, form):
    keras.utils.set_random_seed(5)
    network = CancerNet.build(48, 48, 3, 2)
    path = tmp_path / f"{form}.h5"
    if form in ("early", "late"):
        as_keras_2(path, network, form=form)
    elif form == "weights":
        network.save(path)
        with h5py.File(path, "r+") as file:
            del file.attrs["model_config"]
    else:
        network.save_weights(path)
    path = path.rename(tmp_path / "tutorial.MODEL")
    images = IMAGES.repeat(6, 1).repeat(3, 2)
    found = model.load(model.read(path)).predict(images, verbose=0)
    np.testing.assert_array_equal(found, network.predict(images, verbose=0))


def test_what_a_description_says_beside_its_layers_is_never_made(saved, tmp_path):
    foreign = {"module": "os", "class_name": "system", "config": {}, "registered_name": "x"}
    for settings in ({"kernel_initializer": foreign}, {"dtype": foreign}, {"anything": [foreign]}):
        path = rewritten(saved, tmp_path / "foreign.keras", set_layer("Dense", **settings))
        np.testing.assert_array_equal(model.load(model.read(path))(IMAGES).shape, (3, 2))


def test_the_model_is_chosen_in_the_stated_order(tmp_path):
    trained, bundled = tmp_path / "trained.keras", tmp_path / "bundled.keras"
    with pytest.raises(InputError, match=r"trained\.keras and no .*bundled\.keras"):
        model.find(None, (trained, bundled))
    bundled.touch()
    assert model.find(None, (trained, bundled)) == bundled
    trained.touch()
    assert model.find(None, (trained, bundled)) == trained
    assert model.find(bundled, (trained,)) == bundled
    with pytest.raises(InputError, match="There is no model"):
        model.find(tmp_path / "none.keras", (trained, bundled))
    with pytest.raises(InputError, match=r"SavedModel.*save_weights"):
        model.find(tmp_path, ())


# --- Metadata -------------------------------------------------------------------------------------


def test_metadata_are_those_of_training_and_refused_where_they_do_not_fit(saved, tmp_path):
    line = {"slope": 0.5, "intercept": -1.25}
    path = with_metadata(saved, tmp_path, threshold=0.25, sample=True, recalibration=line)
    opened = model.read(path)
    assert opened.metadata == model.Metadata(0.25, Recalibration(0.5, -1.25), sample=True)
    assert not opened.alone
    for changes, words in (
        ({"sha256": "0" * 64}, "another model"),
        ({"threshold": "high"}, "ValueError"),
        ({"threshold": float("nan")}, "NaN or infinite"),
        ({"recalibration": line | {"slope": "steep"}}, "TypeError"),
        ({"recalibration": 3}, "TypeError"),
    ):
        message = rf"cancernet\.json does not say.*cancernet\.keras.*{words}"
        with pytest.raises(InputError, match=message):
            model.read(with_metadata(saved, tmp_path, **changes))


# --- Symmetries -----------------------------------------------------------------------------------


def test_it_is_the_mean_of_a_networks_probabilities_of_all_eight():
    keras.utils.set_random_seed(3)
    # One that finds each of the eight another thing, as a new CancerNet hardly does.
    layers = [keras.Input((6, 6, 3)), keras.layers.Flatten(), keras.layers.Dense(2, "softmax")]
    network = keras.Sequential(layers)
    averaged = model.averaged(network)
    for image in np.random.default_rng(5).random((3, 6, 6, 3), dtype=np.float32):
        turned = [np.rot90(image, turn) for turn in range(4)]
        eight = np.stack([*turned, *(each[:, ::-1] for each in turned)])
        each = network.predict(eight, verbose=0)
        assert np.ptp(each, axis=0).max() > 0.01
        found = averaged.predict(eight, verbose=0)
        np.testing.assert_allclose(found, np.tile(each.mean(axis=0), (8, 1)), atol=1e-6)


def test_patches_that_are_not_square_are_refused():
    with pytest.raises(InputError, match=r"48 x 56 pixels.*--symmetries"):
        model.averaged(CancerNet.build(width=48, height=56, depth=3, classes=2))
