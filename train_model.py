"""Script 2: trains CancerNet on the data set, tests the best epoch and reports.

    python train_model.py                    as the configuration says
    python train_model.py --epochs 5         a shorter run

`cancernet/config.py` decides what no option says.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from cancernet import config, console

if TYPE_CHECKING:  # What takes seconds to import waits until the command line has been read.
    import keras
    import tensorflow as tf

    from cancernet.dataset import Row
    from cancernet.evaluation import Probabilities


Result = TypeVar("Result")

# What build_dataset.py used of the configuration stands in build.json.
BUILD_CONSTANTS = {
    "ORIG_INPUT_DATASET",
    "TRAIN_PATH",
    "VAL_PATH",
    "TEST_PATH",
    "SAMPLE_PATH",
    "SPLIT_BY",
    "TRAIN_SPLIT",
    "VAL_SPLIT",
    "MIN_SIDE",
    "MAX_PIXELS",
    "COPY_MODE",
}


def parse_arguments() -> argparse.Namespace:
    """Reads the command line; what is not given comes from the configuration."""
    parser = argparse.ArgumentParser(
        description="Train CancerNet on the data set, test the best epoch and report."
    )
    parser.add_argument(
        "--dataset",
        type=Path,
        default=console.configured_path("BASE_PATH", config.BASE_PATH),
        metavar="DIR",
        help="the data set that build_dataset.py made (default: %(default)s)",
    )
    parser.add_argument(
        "--output",
        type=Path,
        default=console.configured_path("OUTPUT_PATH", config.OUTPUT_PATH),
        metavar="DIR",
        help="where model, plot and figures go (default: %(default)s)",
    )
    # Text, so that argparse checks what the configuration says as it checks the command line.
    parser.add_argument(
        "--epochs",
        type=console.positive_integer,
        default=str(config.EPOCHS),
        metavar="N",
        help="passes over the training patches, part of the decay, too (default: %(default)s)",
    )
    parser.add_argument(
        "--batch-size",
        type=console.positive_integer,
        default=str(config.BATCH_SIZE),
        metavar="N",
        help="patches a step (default: %(default)s)",
    )
    parser.add_argument(
        "--plot",
        type=Path,
        metavar="FILE",
        help="where a copy of the plot goes (default: plot.png in the output directory alone)",
    )
    parser.add_argument(
        "--verify",
        action="store_true",
        help="compare every patch with its hash in manifest.csv first",
    )
    return parser.parse_args()


def settings(arguments: argparse.Namespace) -> dict[str, object]:
    """Lists the constants that training depends on, as this run uses them, and checks them."""
    from cancernet import scorecard

    names = [name for name in vars(config) if name.isupper() and name not in BUILD_CONSTANTS]
    constants = {name: getattr(config, name) for name in names} | {
        "BASE_PATH": str(arguments.dataset),
        "OUTPUT_PATH": str(arguments.output),
        "EPOCHS": arguments.epochs,
        "BATCH_SIZE": arguments.batch_size,
    }
    for name, value in constants.items():
        if not isinstance(value, str | int | float) or value != value:
            raise console.InputError(
                f"{name} is {value!r}: expected text or a number. Change it in cancernet/config.py."
            )
    scorecard.check_settings(measure=config.THRESHOLD_MEASURE, resamples=config.RESAMPLES)
    return constants


def make_batches(
    arguments: argparse.Namespace, splits: dict[str, list[Row]], *, devices: int
) -> dict[str, tf.data.Dataset]:
    """Makes the batches of every split that has patches; training alone is shuffled and warped."""
    from keras.config import image_data_format

    from cancernet import pipeline
    from cancernet.augmentation import Augmentation

    paths = {
        split: [arguments.dataset / row.file for row in rows] for split, rows in splits.items()
    }
    reading = {
        "image_size": (config.IMAGE_HEIGHT, config.IMAGE_WIDTH),
        "batch_size": arguments.batch_size,
        "data_format": image_data_format(),
        "devices": devices,
    }
    batches = {
        split: pipeline.scoring_batches(paths[split], **reading)
        for split in ("validation", "testing")
        if paths[split]
    }
    batches["training"] = pipeline.training_batches(
        paths["training"],
        [row.label for row in splits["training"]],
        augmentation=Augmentation(
            rotation=config.ROTATION_RANGE,
            zoom=config.ZOOM_RANGE,
            width_shift=config.WIDTH_SHIFT_RANGE,
            height_shift=config.HEIGHT_SHIFT_RANGE,
            shear=config.SHEAR_RANGE,
            horizontal_flip=config.HORIZONTAL_FLIP,
            vertical_flip=config.VERTICAL_FLIP,
        ),
        seed=config.SEED,
        epochs=arguments.epochs,
        cache_bytes=config.DECODE_CACHE_MB * 10**6,
        **reading,
    )
    return batches


def make_networks(epochs: int, strategy: tf.distribute.Strategy) -> tuple[keras.Model, keras.Model]:
    """Builds and compiles the network as configured, and its faster twin, which is trained."""
    from keras.utils import set_random_seed

    from cancernet import devices, fused, training
    from cancernet.cancernet import CancerNet

    size = {
        "width": config.IMAGE_WIDTH,
        "height": config.IMAGE_HEIGHT,
        "depth": config.IMAGE_DEPTH,
        "classes": config.CLASSES,
    }
    training.check_settings(
        **size,
        learning_rate=config.LEARNING_RATE,
        seed=config.SEED,
        decode_cache_mb=config.DECODE_CACHE_MB,
    )
    set_random_seed(config.SEED)
    network = CancerNet.build(**size)
    training.compile_published(network, learning_rate=config.LEARNING_RATE, epochs=epochs)
    mixed = devices.mixed_precision(config.PRECISION)
    with strategy.scope():
        twin = fused.twin(network, mixed_precision=mixed)
        training.compile_published(
            twin, learning_rate=config.LEARNING_RATE, epochs=epochs, mixed_precision=mixed
        )
    return network, twin


def train(
    network: keras.Model,
    twin: keras.Model,
    batches: dict[str, tf.data.Dataset],
    labels: dict[str, list[int]],
    *,
    arguments: argparse.Namespace,
    run: Path,
    sample: bool,
) -> tuple[list[dict[str, float]], list[str]]:
    """Trains the twin, logs and saves the network; gives the rows of history.csv and the notes."""
    from cancernet import training

    log = training.EpochLog(
        batches["validation"], labels["validation"], run=run, sample=sample, network=network
    )
    notes = training.fit(
        twin,
        batches["training"],
        labels=labels["training"],
        epochs=arguments.epochs,
        batch_size=arguments.batch_size,
        log=log,
    )
    size, patches = arguments.batch_size, len(labels["training"])
    if size > patches:
        notes.append(
            f"BATCH_SIZE is {size}, more than the {patches} training patches: an epoch is one step"
        )
    return log.rows, notes


def timed(function: Callable[..., Result], *arguments: object) -> tuple[Result, float]:
    """Calls a function, and tells its wall time in seconds as well."""
    began = time.perf_counter()
    return function(*arguments), time.perf_counter() - began


def score_best_epoch(
    run: Path, twin: keras.Model, batches: dict[str, tf.data.Dataset]
) -> dict[str, Probabilities]:
    """Computes the probabilities of validation and, where there is one, of testing."""
    from keras.models import load_model

    from cancernet import training

    twin.set_weights(load_model(run / training.MODEL_FILE).get_weights())
    scored = [split for split in ("validation", "testing") if split in batches]
    return {split: training.predict(twin, batches[split]) for split in scored}


def score_baselines(
    arguments: argparse.Namespace, splits: dict[str, list[Row]]
) -> dict[str, dict[str, Probabilities] | None]:
    """Scores the patches without a network: by their colours, and by whose they are."""
    import numpy as np

    from cancernet import baselines, pipeline

    splits = {split: rows for split, rows in splits.items() if rows}
    training = np.array([row.label for row in splits["training"]])
    features = {
        split: baselines.colour_features(
            pipeline.scoring_batches(
                [arguments.dataset / row.file for row in rows],
                image_size=(config.IMAGE_HEIGHT, config.IMAGE_WIDTH),
                batch_size=arguments.batch_size,
            ).as_numpy_iterator()
        )
        for split, rows in splits.items()
    }
    patients = {split: [row.patient for row in rows] for split, rows in splits.items()}
    return {
        "colour": baselines.colour_scores(features, training),
        "patient_identity": baselines.identity_scores(
            patients, training, split="testing" if "testing" in splits else "validation"
        ),
    }


def main() -> None:
    """Trains, tests and reports."""
    began = time.perf_counter()
    arguments = parse_arguments()
    from cancernet import dataset, files, locks

    # 1. Data
    constants = settings(arguments)
    locks.share(arguments.dataset)
    locks.write(arguments.output)
    splits, build = dataset.open_dataset(arguments.dataset)
    if arguments.verify:
        dataset.verify(arguments.dataset, [row for rows in splits.values() for row in rows])
    if build["sample"]:
        print(console.SAMPLE_NOTICE, flush=True)
    run = files.begin_run(arguments.output, plot_copy=arguments.plot)

    # These take seconds to import: after all that can be refused at once.
    console.prepare_tensorflow()
    from cancernet import failures

    patches = [arguments.dataset / row.file for rows in splits.values() for row in rows]
    with failures.explained(patches, batch_size=arguments.batch_size):
        train_and_report(arguments, splits, build, constants=constants, run=run, began=began)


def train_and_report(
    arguments: argparse.Namespace,
    splits: dict[str, list[Row]],
    build: dict[str, Any],
    *,
    constants: dict[str, object],
    run: Path,
    began: float,
) -> None:
    """Does all that is left once the data set is open and the output can be written to."""
    from cancernet import devices, files, plots, report, scorecard, screen

    # 2. Network and training
    strategy = devices.strategy()
    network, twin = make_networks(arguments.epochs, strategy)
    batches = make_batches(arguments, splits, devices=strategy.num_replicas_in_sync)
    labels = {split: [row.label for row in rows] for split, rows in splits.items()}
    history, notes = train(
        network, twin, batches, labels, arguments=arguments, run=run, sample=build["sample"]
    )
    plots.plot_history(history, run / files.PLOT_FILE, sample=build["sample"])

    # 3. Scores of the best epoch, and without a network
    seconds = {"training": time.perf_counter() - began}
    probabilities, seconds["scoring"] = timed(score_best_epoch, run, twin, batches)
    baselines, seconds["baselines"] = timed(score_baselines, arguments, splits)
    measure = config.THRESHOLD_MEASURE
    fitted, more = scorecard.fit(labels["validation"], probabilities["validation"], measure=measure)

    # 4. Report
    metrics = report.make_metrics(
        splits,
        probabilities,
        fitted=fitted,
        baselines=baselines,
        resampling={"resamples": config.RESAMPLES, "seed": config.SEED},
        build=build,
        config=constants,
        seconds=seconds,
        notes=notes + more,
    )
    report.write_run(run, metrics, splits["testing"], probabilities.get("testing"), fitted)
    files.finish_run(run, arguments.output, plot_copy=arguments.plot)
    print(*screen.lines(metrics, splits, probabilities), sep="\n")
    print(f"\nModel, figures and plot: {arguments.output}")


if __name__ == "__main__":
    console.run(main)
