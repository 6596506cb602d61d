"""Script 2: trains CancerNet on the data set, tests the best epoch and reports.

    python train_model.py                    as the configuration says
    python train_model.py --epochs 5         a shorter run

`cancernet/config.py` decides what no option says.
"""

from __future__ import annotations

import argparse
import os
import random
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from cancernet import cli, config, recipes

if TYPE_CHECKING:  # What takes seconds to import waits until the command line has been read.
    import keras
    import numpy as np
    import tensorflow as tf
    from numpy.typing import NDArray

    from cancernet.data.dataset import Row
    from cancernet.data.originals import Exclusion
    from cancernet.evaluation.evaluation import Probabilities
    from cancernet.recipes import Recipe
    from cancernet.training.machines import Machines
    from cancernet.training.team import Team


Result = TypeVar("Result")


class Data(NamedTuple):
    """The data set."""

    splits: dict[str, list[Row]]
    build: dict[str, Any]  # build.json.
    exclusions: list[Exclusion]


class Trained(NamedTuple):
    """What training leaves for the report."""

    twin: keras.Model
    scoring: dict[str, tf.data.Dataset | None]  # Batches of validation and testing, or none of it.
    history: list[dict[str, float]]  # The rows of history.csv.
    notes: list[str]
    resumable: bool  # Whether Ctrl-C left epochs to train.
    team: Team | None  # The machines, if there are several.


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
        default=cli.configured_path("BASE_PATH", config.BASE_PATH),
        metavar="DIR",
        help="the data set that build_dataset.py made (default: %(default)s)",
    )
    parser.add_argument(
        "--output",
        type=Path,
        default=cli.configured_path("OUTPUT_PATH", config.OUTPUT_PATH),
        metavar="DIR",
        help="where model, plot and figures go (default: %(default)s)",
    )
    parser.add_argument(
        "--recipe",
        default=config.RECIPE,
        metavar="NAME",
        help="how to train: published or tuned (default: %(default)s)",
    )
    parser.add_argument(
        "--epochs",
        type=cli.positive_integer,
        metavar="N",
        help="passes over the training patches, part of the decay, too (default: the recipe's)",
    )
    parser.add_argument(
        "--batch-size",
        type=cli.positive_integer,
        metavar="N",
        help="patches a step (default: the recipe's)",
    )
    parser.add_argument(
        "--plot",
        type=Path,
        metavar="FILE",
        help="where a copy of the plot goes (default: plot.png in the output directory alone)",
    )
    parser.add_argument(
        "--resume",
        action="store_true",
        help="go on with the run in the output directory after its last finished epoch",
    )
    parser.add_argument(
        "--verify",
        action="store_true",
        help="compare every patch with its hash in manifest.csv first",
    )
    recipe = recipes.choose(parser.parse_args().recipe, vars(config))
    # Text, so that argparse checks what the configuration says as it checks the command line.
    parser.set_defaults(epochs=str(recipe.epochs), batch_size=str(recipe.batch_size))
    arguments = parser.parse_args()
    arguments.recipe = replace(recipe, epochs=arguments.epochs, batch_size=arguments.batch_size)
    return arguments


def settings(arguments: argparse.Namespace) -> dict[str, object]:
    """Lists the constants that training depends on, as this run uses them, and checks them."""
    from cancernet.evaluation import scorecard

    names = [name for name in vars(config) if name.isupper() and name not in BUILD_CONSTANTS]
    constants = {name: getattr(config, name) for name in names} | {
        "BASE_PATH": str(arguments.dataset),
        "OUTPUT_PATH": str(arguments.output),
        **recipes.constants(arguments.recipe),
    }
    for name, value in constants.items():
        if not isinstance(value, str | int | float) or value != value:
            raise cli.InputError(
                f"{name} is {value!r}: expected text or a number. Change it in cancernet/config.py."
            )
    scorecard.check_settings(measure=config.THRESHOLD_MEASURE, resamples=config.RESAMPLES)
    return constants


def open_data(arguments: argparse.Namespace, *, writes: bool) -> Data:
    """Opens the data set, which no build may change from now on."""
    from cancernet import locks
    from cancernet.data import dataset

    locks.share(arguments.dataset)
    if writes:
        locks.write(arguments.output)
    splits, build = dataset.open_dataset(arguments.dataset)
    exclusions = dataset.read_exclusions(arguments.dataset)
    if arguments.verify or arguments.resume:
        dataset.verify(arguments.dataset, [row for rows in splits.values() for row in rows])
    if build["sample"]:
        print(cli.SAMPLE_NOTICE, flush=True)
    return Data(splits, build, exclusions)


def reading(arguments: argparse.Namespace, devices: int) -> dict[str, Any]:
    """Says how patches are read, whatever they are read for."""
    from keras.config import image_data_format

    return {
        "image_size": (config.IMAGE_HEIGHT, config.IMAGE_WIDTH),
        "batch_size": arguments.batch_size,
        "data_format": image_data_format(),
        "devices": devices,
    }


def make_scoring_batches(
    arguments: argparse.Namespace,
    splits: dict[str, list[Row]],
    *,
    devices: int,
    team: Team | None,
) -> dict[str, tf.data.Dataset | None]:
    """Makes the batches of validation and testing that are scored here, of splits with patches."""
    from cancernet.data import pipeline

    batches = {}
    for split in ("validation", "testing"):
        files = [arguments.dataset / row.file for row in splits[split]]
        own = team.share(files, batch_size=arguments.batch_size) if team else files
        if files:
            way = reading(arguments, 1 if team else devices)
            batches[split] = pipeline.scoring_batches(own, **way) if own else None
    return batches


def make_training_batches(
    arguments: argparse.Namespace,
    rows: list[Row],
    *,
    devices: int,
    first_epoch: int,
    team: Team | None,
) -> tf.data.Dataset:
    """Makes the batches of the training split, shuffled and warped, or this machine's shares."""
    from cancernet.data import pipeline

    recipe = arguments.recipe
    return pipeline.training_batches(
        [arguments.dataset / row.file for row in rows],
        [row.label for row in rows],
        augmentation=recipe.augmentation,
        seed=config.SEED,
        epochs=recipe.epochs,
        first_epoch=first_epoch,
        cache_bytes=int(config.DECODE_CACHE_MB * 10**6),
        shares=recipes.shares(recipe, [row.label for row in rows], [row.patient for row in rows]),
        machine=team.machines.rank if team else 0,
        machines=len(team.machines.addresses) if team else 1,
        **reading(arguments, devices),
    )


def read_settling(arguments: argparse.Namespace, rows: list[Row]) -> NDArray[np.float32] | None:
    """Reads the patches that settle batch normalization before scoring, if the recipe has any."""
    import numpy as np

    from cancernet.data import pipeline

    count = min(arguments.recipe.settling, len(rows))
    if not count:
        return None
    chosen = random.Random(config.SEED).sample(rows, count)
    files = [arguments.dataset / row.file for row in chosen]
    batches = pipeline.scoring_batches(files, **reading(arguments, devices=1))
    return np.concatenate(list(batches.as_numpy_iterator()))


def settle_determinism() -> None:
    """Has TensorFlow round the same in every run, if the configuration says so."""
    import tensorflow as tf

    if config.DETERMINISTIC:
        tf.config.experimental.enable_op_determinism()


def make_networks(
    recipe: Recipe, patches: int, strategy: tf.distribute.Strategy
) -> tuple[keras.Model, keras.Model]:
    """Builds the network as configured, to be saved, and its faster twin, compiled for training.

    Args:
        recipe: How the twin is trained.
        patches: How many training patches there are.
        strategy: The devices that it is trained on.
    """
    from keras.utils import set_random_seed

    from cancernet.cancernet import CancerNet
    from cancernet.data import pipeline
    from cancernet.training import devices, fused, training

    size = {
        "width": config.IMAGE_WIDTH,
        "height": config.IMAGE_HEIGHT,
        "depth": config.IMAGE_DEPTH,
        "classes": config.CLASSES,
    }
    training.check_settings(
        **size,
        learning_rate=recipe.learning_rate,
        seed=config.SEED,
        decode_cache_mb=config.DECODE_CACHE_MB,
    )
    set_random_seed(config.SEED)
    network = CancerNet.build(**size)
    mixed = devices.mixed_precision(config.PRECISION)
    steps = pipeline.steps_per_epoch(
        patches, batch_size=recipe.batch_size, devices=strategy.num_replicas_in_sync
    )
    with strategy.scope():
        twin = fused.twin(
            network, mixed_precision=mixed, dropout=recipe.dropout, momentum=recipe.momentum
        )
        training.compile_network(twin, recipe, steps=steps, mixed_precision=mixed)
    return network, twin


def run_inputs(
    arguments: argparse.Namespace, constants: dict[str, object], machines: Machines | None
) -> dict[str, object]:
    """Lists what the trained weights depend on: a run is resumed with the same alone."""
    from cancernet.data import dataset
    from cancernet.evaluation import report

    inputs = constants | report.versions() | {dataset.MANIFEST: dataset.digest(arguments.dataset)}
    if machines:
        inputs["machines"] = len(machines.addresses)
    places = ("BASE_PATH", "OUTPUT_PATH", "platform")
    return {name: value for name, value in inputs.items() if name not in places}


def join(machines: Machines, inputs: dict[str, object]) -> Team:
    """Waits for the other machines, and refuses those that would train with something else."""
    from cancernet.training import team

    if not machines.is_chief:
        print(f"Training with {machines.names([0])}, which alone writes output.", flush=True)
    joined = team.join(machines)
    joined.compare(inputs)
    return joined


def train(
    arguments: argparse.Namespace,
    data: Data,
    *,
    run: Path | None,
    inputs: dict[str, object],
    machines: Machines | None = None,
) -> Trained:
    """Trains the network's faster twin; logs and saves the network itself."""
    from cancernet.training import checkpoint, devices, epochs, fused, training

    splits = data.splits
    settle_determinism()
    team = join(machines, inputs) if machines else None
    strategy = team.strategy if team else devices.strategy()
    network, twin = make_networks(arguments.recipe, len(splits["training"]), strategy)
    count = strategy.num_replicas_in_sync
    scoring = make_scoring_batches(arguments, splits, devices=count, team=team)
    labels = {split: [row.label for row in rows] for split, rows in splits.items()}
    log = epochs.EpochLog(
        scoring["validation"],
        labels["validation"],
        run=run,
        sample=data.build["sample"],
        recipe=arguments.recipe.name,
        settling=read_settling(arguments, splits["training"]),
        network=network,
        checkpoints=checkpoint.Checkpoints(run, inputs) if run else None,
        predict=team.predict if team else fused.predict,
    )
    if arguments.resume:
        log.resume(twin)
    if team:
        log.rows = team.begin(twin, log.rows)
    notes = training.fit(
        twin,
        make_training_batches(
            arguments, splits["training"], devices=count, first_epoch=len(log.rows), team=team
        ),
        labels=labels["training"],
        recipe=arguments.recipe,
        log=log,
        team=team,
    )
    if machines:
        count = len(machines.addresses)
        notes.append(f"trained on {count} machines, each normalizing its own share of a batch")
    return Trained(twin, scoring, log.rows, notes, log.interrupted, team)


def timed(function: Callable[..., Result], *arguments: object) -> tuple[Result, float]:
    """Calls a function, and tells its wall time in seconds as well."""
    began = time.perf_counter()
    return function(*arguments), time.perf_counter() - began


def score_best_epoch(run: Path | None, trained: Trained) -> dict[str, Probabilities]:
    """Computes the probabilities of validation and, where there is one, of testing."""
    from keras.models import load_model

    from cancernet import files
    from cancernet.training import fused

    twin, team = trained.twin, trained.team
    if run:
        twin.set_weights(load_model(run / files.MODEL_FILE).get_weights())
    if team:
        team.copy(twin.variables)
    predict = team.predict if team else fused.predict
    return {split: predict(twin, batches) for split, batches in trained.scoring.items()}


def score_baselines(
    arguments: argparse.Namespace, splits: dict[str, list[Row]]
) -> dict[str, dict[str, Probabilities] | None]:
    """Scores the patches without a network: by their colours, and by whose they are."""
    import numpy as np

    from cancernet.data import pipeline
    from cancernet.evaluation import baselines

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


def write_report(
    arguments: argparse.Namespace,
    run: Path,
    trained: Trained,
    probabilities: dict[str, Probabilities],
    *,
    data: Data,
    constants: dict[str, object],
    inputs: dict[str, object],
    seconds: dict[str, float],
) -> None:
    """Scores the patches without a network, too; writes all that a run leaves, and says it."""
    from cancernet import files
    from cancernet.evaluation import report, scorecard, screen

    splits, build, exclusions = data
    baselines, seconds["baselines"] = timed(score_baselines, arguments, splits)
    labels = [row.label for row in splits["validation"]]
    fitted, more = scorecard.fit(
        labels, probabilities["validation"], measure=config.THRESHOLD_MEASURE
    )
    metrics = report.make_metrics(
        splits,
        probabilities,
        fitted=fitted,
        baselines=baselines,
        resampling={"resamples": config.RESAMPLES, "seed": config.SEED},
        build=build,
        config=constants,
        seconds=seconds,
        notes=trained.notes + more,
    )
    report.write_run(
        run,
        metrics,
        splits=splits,
        probabilities=probabilities,
        fitted=fitted,
        history=trained.history,
        exclusions=exclusions,
        dataset=arguments.dataset,
        trained_with=None if trained.resumable else inputs,
    )
    files.finish_run(run, arguments.output, plot_copy=arguments.plot, resumable=trained.resumable)
    print(*screen.lines(metrics, splits, probabilities), sep="\n")
    print(f"\nModel, figures and page: {arguments.output}, see {files.PAGE_FILE} first")


def main() -> None:
    """Trains, tests and reports."""
    began = time.perf_counter()
    arguments = parse_arguments()
    from cancernet import files
    from cancernet.training.machines import find

    # 1. Machines, of which the chief alone writes, and data
    machines = find(os.environ)
    constants = settings(arguments)
    run = None
    data = open_data(arguments, writes=not machines or machines.is_chief)
    if not machines or machines.is_chief:
        run = files.begin_run(arguments.output, plot_copy=arguments.plot, resume=arguments.resume)

    # 2. Network and training; this takes seconds to import, after all that can be refused at once.
    cli.prepare_tensorflow(quiet=machines is not None)
    from cancernet import failures

    inputs = run_inputs(arguments, constants, machines)
    patches = [arguments.dataset / row.file for rows in data.splits.values() for row in rows]
    with failures.explained(patches, batch_size=arguments.batch_size, machines=machines):
        trained = train(arguments, data, run=run, inputs=inputs, machines=machines)
        seconds = {"training": time.perf_counter() - began}

        # 3. Scores of the best epoch
        probabilities, seconds["scoring"] = timed(score_best_epoch, run, trained)

        # 4. Report
        if run:
            write_report(
                arguments,
                run,
                trained,
                probabilities,
                data=data,
                constants=constants,
                inputs=inputs,
                seconds=seconds,
            )


if __name__ == "__main__":
    cli.run(main)
