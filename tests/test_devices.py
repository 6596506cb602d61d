"""What training runs on; and training on two devices, which two logical CPUs stand in for."""

import json
import subprocess
import sys

import pytest
import tensorflow as tf
from conftest import PROJECT

from cancernet.cli import InputError
from cancernet.training import devices

GPU = tf.config.PhysicalDevice("/physical_device:GPU:0", "GPU")


def test_without_a_gpu_there_is_one_device_and_float32(monkeypatch):
    monkeypatch.setattr(tf.config, "list_logical_devices", lambda kind: [])
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: [])
    assert devices.strategy().num_replicas_in_sync == 1
    assert not devices.mixed_precision("auto")


@pytest.mark.parametrize(
    ("capabilities", "mixed"), [([(7, 0)], True), ([(8, 9), (6, 1)], False), ([(6, 1)], False)]
)
def test_mixed_precision_where_every_gpu_has_the_units(monkeypatch, capabilities, mixed):
    details = iter(capabilities)
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: [GPU] * len(capabilities))
    monkeypatch.setattr(
        tf.config.experimental,
        "get_device_details",
        lambda gpu: {"compute_capability": next(details)},
    )
    assert devices.mixed_precision("auto") is mixed
    assert devices.mixed_precision("mixed")
    assert not devices.mixed_precision("float32")


def test_an_unknown_precision_is_refused():
    with pytest.raises(InputError, match=r"PRECISION is 'half'.*auto, float32, mixed"):
        devices.mixed_precision("half")


TWO_DEVICES = """
import json, sys
from dataclasses import replace
from pathlib import Path

import keras, numpy as np
import tensorflow as tf
from PIL import Image

from cancernet import config, recipes
from cancernet.data import pipeline
from cancernet.training import epochs, fused, training

folder, count, side, batch = Path(sys.argv[1]), 13, 8, 4  # 3 batches of 4, and 1 patch left over.
tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 2
)
strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
random = np.random.default_rng(1)
labels = [number % 2 for number in range(count)]
files = [folder / f"{number}.png" for number in range(count)]
for number, file in enumerate(files):
    pixels = random.integers(0, 150, (side, side, 3)) + 100 * labels[number]
    pixels[0, 0] = number
    Image.fromarray(pixels.astype("uint8")).save(file)

keras.utils.set_random_seed(1)
network = keras.Sequential([
    keras.Input((side, side, 3)),
    keras.layers.SeparableConv2D(4, 3),
    keras.layers.BatchNormalization(),
    keras.layers.Flatten(),
    keras.layers.BatchNormalization(),
    keras.layers.Dropout(0.25),
    keras.layers.Dense(2),
    keras.layers.Activation("softmax"),
])
recipe = replace(recipes.published(vars(config)), epochs=2, batch_size=batch)
with strategy.scope():
    twin = fused.twin(network)
    training.compile_network(twin, recipe, steps=1)

reading = {"image_size": (side, side), "batch_size": batch, "devices": 2}
def training_batches():
    return pipeline.training_batches(
        files, labels, augmentation=None, seed=1, epochs=2, **reading
    )
shares = [
    [np.rint(np.asarray(share)[:, 0, 0, 0] * 255).astype(int).tolist()
     for share in strategy.experimental_local_results(images)]
    for images in strategy.experimental_distribute_dataset(
        training_batches().map(lambda images, targets: images))
]
validation = pipeline.scoring_batches(files, **reading)
settling = np.concatenate(list(validation))
log = epochs.EpochLog(
    validation, labels, run=folder, sample=True, network=network, settling=settling)
training.fit(twin, training_batches(), labels=labels, recipe=recipe, log=log)

drift = max(
    float(np.abs(np.asarray(first) - np.asarray(second)).max())
    for first, second in (strategy.experimental_local_results(v.value) for v in twin.variables)
    if np.asarray(first).dtype == np.float32
)
saved = keras.models.load_model(folder / "cancernet.keras")
twin.set_weights(saved.get_weights())
one_by_one = saved.predict(np.concatenate(list(validation)), verbose=0)[:, 1]
print(json.dumps({
    "shares": shares,
    "drift": drift,
    "apart": float(np.abs(fused.predict(twin, validation) - one_by_one).max()),
    "iterations": int(twin.optimizer.iterations.numpy()),
    "moved": float(np.abs(twin.layers[1].get_weights()[2]).max()),
}))
"""


def test_two_devices_share_every_batch_and_stay_the_same(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", TWO_DEVICES, str(tmp_path)],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    # Every patch once an epoch; the one left over is joined to the batch before.
    assert [[len(share) for share in step] for step in found["shares"]] == [
        [2, 2],
        [2, 2],
        [3, 2],
    ] * 2
    for epoch in (found["shares"][:3], found["shares"][3:]):
        assert sorted(n for step in epoch for share in step for n in share) == list(range(13))
    assert found["iterations"] == 6
    assert found["moved"] > 0
    assert found["drift"] == 0
    assert found["apart"] < 1e-5
