"""Model files from anywhere: what is let in, what is refused, and that nothing of it is run."""

import json
import zipfile
from pathlib import Path

import keras
import numpy as np
import pytest
from conftest import recipe_of

from cancernet.cancernet import CancerNet
from cancernet.cli import InputError
from cancernet.evaluation.calibration import Recalibration
from cancernet.prediction import models
from cancernet.training.epochs import save_network
from cancernet.training.training import compile_network

RAN = Path("ran")  # What code in a model file would leave behind, were it run.


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A network as train_model.py saves it, with its optimizer."""
    path = tmp_path_factory.mktemp("saved") / "cancernet.keras"
    network = CancerNet.build(16, 8, 3, 2)
    compile_network(network, recipe_of(epochs=2), steps=1)
    network.fit(np.zeros((4, 8, 16, 3)), np.eye(2)[[0, 1, 0, 1]], verbose=0)
    save_network(network, path, recipe="published", sample=False)
    return path


def load(path):
    models.check_model(path)
    return models.open_model(path, models.read_card(path))


def rewritten(saved, path, change=None, **members):
    """Copies a model; `change` edits its description, `members` replace or add members."""
    with zipfile.ZipFile(saved) as old, zipfile.ZipFile(path, "w") as new:
        contents = {name: old.read(name) for name in old.namelist()}
        if change:
            description = json.loads(contents["config.json"])
            change(description)
            contents["config.json"] = json.dumps(description).encode()
        for name, data in (contents | members).items():
            new.writestr(name, data)
    return path


def layers_of(description):
    return description["config"]["layers"]


def test_what_training_saves_is_let_in(saved):
    model = load(saved)
    assert (model.image_size, model.data_format) == ((8, 16), "channels_last")
    assert (model.threshold, model.recalibration, model.sample) == (0.5, None, False)
    probabilities = model.network.predict(np.zeros((1, 8, 16, 3)), verbose=0)
    expected = keras.models.load_model(saved).predict(np.zeros((1, 8, 16, 3)), verbose=0)
    np.testing.assert_array_equal(probabilities, expected)


def test_a_functional_network_of_plain_layers_is_let_in(tmp_path):
    patch = keras.Input((8, 8, 3))
    flat = keras.layers.Flatten()(keras.layers.Conv2D(2, 3, activation="relu")(patch))
    network = keras.Model(patch, keras.layers.Dense(2, activation="softmax")(flat))
    network.save(tmp_path / "own.keras")
    assert load(tmp_path / "own.keras").image_size == (8, 8)


def test_a_lambda_is_refused_also_in_a_network_in_the_network(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def leave_a_trace(images):
        RAN.touch()
        return images

    bad = keras.layers.Lambda(lambda images: leave_a_trace(images))
    for name, part in (("flat", bad), ("nested", keras.Sequential([bad]))):
        layers = [keras.Input((8, 8, 3)), part, keras.layers.Flatten(), keras.layers.Dense(2)]
        keras.Sequential(layers).save(f"{name}.keras")
        RAN.unlink(missing_ok=True)  # Building the network has run it.
        with pytest.raises(InputError, match=f"{name}.keras names .*(Lambda|lambda)"):
            load(Path(f"{name}.keras"))
        assert not RAN.exists()


@keras.saving.register_keras_serializable(package="Elsewhere")
class Custom(keras.layers.Layer):
    def __init__(self, **settings):
        super().__init__(**settings)
        RAN.touch()

    def call(self, inputs):
        return inputs


def test_a_custom_layer_is_refused_though_it_is_registered(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    layers = [keras.Input((8, 8, 3)), Custom(), keras.layers.Flatten(), keras.layers.Dense(2)]
    keras.Sequential(layers).save("custom.keras")
    RAN.unlink()
    with pytest.raises(InputError, match="Custom"):
        load(Path("custom.keras"))
    assert not RAN.exists()


FOREIGN = {
    "module": {"module": "os", "class_name": "system", "config": {}},
    "no module": {"class_name": "Lambda", "config": {}},
    "registered": {
        "module": "keras.layers",
        "class_name": "Dense",
        "config": {},
        "registered_name": "Elsewhere>Custom",
    },
    "function": {"module": "keras.utils", "class_name": "function", "config": "get_file"},
    "type": {"class_name": "__typespec__", "spec_name": "x", "module": "os", "config": []},
    "saved model": {"module": "keras.layers", "class_name": "TFSMLayer", "config": {}},
    "no text": {"module": ["keras.layers"], "class_name": {"a": 1}, "config": {}},
}


@pytest.mark.parametrize("foreign", FOREIGN.values(), ids=FOREIGN)
@pytest.mark.parametrize("place", ["layer", "initializer", "activation", "build", "compiled"])
def test_what_is_not_of_keras_layers_is_refused_anywhere(saved, tmp_path, foreign, place):
    def change(description):
        layer = next(each for each in layers_of(description) if each["class_name"] == "Dense")
        if place == "layer":
            layers_of(description).append(foreign)
        elif place == "initializer":
            layer["config"]["kernel_initializer"] = foreign
        elif place == "activation":
            layer["config"]["activation"] = foreign
        elif place == "build":
            layer["build_config"] = {"input_shape": [foreign]}
        else:  # How an inner network was compiled: Keras would make these objects, too.
            layer["compile_config"] = {"optimizer": foreign}

    path = rewritten(saved, tmp_path / "foreign.keras", change)
    with pytest.raises(InputError, match=r"foreign\.keras names"):
        models.check_model(path)


def test_how_the_network_itself_was_compiled_is_never_loaded(saved, tmp_path):
    def change(description):
        description["compile_config"] = {"optimizer": FOREIGN["module"], "loss": FOREIGN["type"]}

    path = rewritten(saved, tmp_path / "compiled.keras", change)
    assert not load(path).network.compiled


def test_every_object_that_cancernet_is_made_of_is_let_in():
    for named in models._named_objects(json.loads(CancerNet.build(48, 48, 3, 2).to_json())):
        assert named["class_name"] in models.ALLOWED[named["module"]]


@pytest.mark.parametrize(
    "shape", [(8, 8, 1), (3, 8, 1), (None, None, 3), (8, 3)], ids=["grey", "thin", "any", "flat"]
)
def test_another_input_shape_is_refused(tmp_path, shape):
    end = keras.layers.GlobalAveragePooling2D() if len(shape) == 3 else keras.layers.Flatten()
    network = keras.Sequential([keras.Input(shape), end, keras.layers.Dense(2)])
    network.save(tmp_path / "other.keras")
    with pytest.raises(InputError, match=r"from shape \(None, .*expected \(None, height"):
        load(tmp_path / "other.keras")


def test_colours_may_come_first_where_the_layers_say_so(tmp_path):
    flat = keras.layers.Flatten(data_format="channels_first")
    keras.Sequential([keras.Input((3, 8, 16)), flat, keras.layers.Dense(2)]).save(
        tmp_path / "first.keras"
    )
    model = load(tmp_path / "first.keras")
    assert (model.image_size, model.data_format) == ((8, 16), "channels_first")


def test_another_output_shape_is_refused(tmp_path):
    keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Flatten(), keras.layers.Dense(1)]).save(
        tmp_path / "other.keras"
    )
    with pytest.raises(InputError, match=r"to \(None, 1\)"):
        load(tmp_path / "other.keras")


def test_what_is_no_model_file_is_refused(saved, tmp_path):
    text = tmp_path / "text.keras"
    text.write_text("no zip")
    cut = tmp_path / "cut.keras"
    cut.write_bytes(saved.read_bytes()[:-100])
    empty = tmp_path / "empty.keras"
    zipfile.ZipFile(empty, "w").close()
    named = tmp_path / "model.h5"
    named.write_bytes(saved.read_bytes())
    more = rewritten(saved, tmp_path / "more.keras", **{"assets/../../climbs": b"x"})
    words = rewritten(saved, tmp_path / "words.keras", **{"config.json": b'"words"'})
    broken = rewritten(saved, tmp_path / "broken.keras", **{"config.json": b"{"})
    deep = rewritten(saved, tmp_path / "deep.keras", **{"config.json": b"[" * 100_000})
    for path in (text, cut, empty, named, more, words, broken, deep):
        with pytest.raises(InputError, match=path.name):
            models.check_model(path)


def test_damaged_weights_are_one_message(saved, tmp_path):
    path = rewritten(saved, tmp_path / "weights.keras", **{"model.weights.h5": b"no HDF5"})
    with pytest.raises(InputError, match=r"weights\.keras is damaged"):
        load(path)


def test_what_unpacks_to_too_much_is_refused(saved, tmp_path):
    path = tmp_path / "bomb.keras"
    with zipfile.ZipFile(saved) as old, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as new:
        for name in ("metadata.json", "config.json"):
            new.writestr(name, old.read(name))
        with new.open("model.weights.h5", "w") as member:
            for _ in range(models.LARGEST_MODEL // 2**20 + 1):
                member.write(bytes(2**20))
    assert path.stat().st_size < 10**6
    with pytest.raises(InputError, match="unpacked it has 210,"):
        models.check_model(path)
    blanks = b" " * (models.LARGEST_DESCRIPTION + 1)
    long = rewritten(saved, tmp_path / "long.keras", **{"config.json": blanks})
    with pytest.raises(InputError, match="description"):
        models.check_model(long)


def test_the_model_is_chosen_in_the_stated_order(tmp_path):
    trained, shipped = tmp_path / "trained.keras", tmp_path / "shipped.keras"
    with pytest.raises(InputError, match=r"trained\.keras and no .*shipped\.keras"):
        models.find_model(None, (trained, shipped))
    shipped.touch()
    assert models.find_model(None, (trained, shipped)) == shipped
    trained.touch()
    assert models.find_model(None, (trained, shipped)) == trained
    assert models.find_model(shipped, (trained,)) == shipped
    with pytest.raises(InputError, match="There is no model"):
        models.find_model(tmp_path / "none.keras", (trained, shipped))
    assert models.SHIPPED.parts[-3:] == ("cancernet", "weights", "cancernet-idc.keras")


def with_card(saved, tmp_path, name="cancernet.json", **changes):
    path = tmp_path / "cancernet.keras"
    path.write_bytes(saved.read_bytes())
    card = json.loads(saved.with_suffix(".json").read_text()) | changes
    (tmp_path / name).write_text(json.dumps(card))
    return path


def test_threshold_and_recalibration_are_those_of_training(saved, tmp_path):
    line = {"slope": 0.5, "intercept": -1.25}
    path = with_card(saved, tmp_path, threshold=0.25, recalibration=line, sample=True)
    model = load(path)
    assert (model.threshold, model.sample) == (0.25, True)
    assert model.recalibration == Recalibration(slope=0.5, intercept=-1.25)


def test_without_a_card_the_threshold_is_half(saved, tmp_path):
    path = tmp_path / "alone.keras"
    path.write_bytes(saved.read_bytes())
    assert models.read_card(path) is None
    assert load(path).threshold == 0.5
    # Under another name it is found as cancernet.json.
    with_card(saved, tmp_path, threshold=0.75)
    assert load(path).threshold == 0.75


def test_a_card_of_another_model_is_refused_by_both_names(saved, tmp_path):
    path = with_card(saved, tmp_path, sha256="0" * 64)
    with pytest.raises(InputError, match=r"cancernet\.json belongs to another .*cancernet\.keras"):
        models.read_card(path)


@pytest.mark.parametrize(
    "changes",
    [
        {"threshold": None},
        {"threshold": float("nan")},
        {"threshold": "high"},
        {"recalibration": 3},
        {"recalibration": {"slope": 1.0}},
        {"recalibration": {"slope": float("inf"), "intercept": 0.0}},
    ],
)
def test_a_damaged_card_is_refused(saved, tmp_path, changes):
    path = with_card(saved, tmp_path, **changes)
    with pytest.raises(InputError, match=r"cancernet\.json does not say"):
        models.read_card(path)
    (tmp_path / "cancernet.json").write_text("[]")
    with pytest.raises(InputError, match=r"cancernet\.json does not say"):
        models.read_card(path)
