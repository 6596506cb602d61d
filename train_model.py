"""Script 2: trains CancerNet on the data set, tests the best epoch and reports.

    python train_model.py                    as the configuration says
    python train_model.py --epochs 5         a shorter run

`cancernet/config.py` decides what no option says.
"""

from __future__ import annotations

import argparse
import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from cancernet import cli, config, settings

if TYPE_CHECKING:
    import tensorflow as tf

    from cancernet.data.dataset import Dataset
    from cancernet.data.pipeline import Reading
    from cancernet.settings import Settings
    from cancernet.training.run import Run
    from cancernet.training.workers import Workers


def parse_arguments() -> argparse.Namespace:
    """Reads the command line; None stands for what is not given."""
    parser = argparse.ArgumentParser(
        description="Train CancerNet on the data set, test the best epoch and report."
    )
    add = settings.adder(parser, config)
    add("--dataset", "BASE_PATH", "DIR", "the data set that build_dataset.py made")
    add("--output", "OUTPUT_PATH", "DIR", "where model, plot and report go")
    add("--recipe", "RECIPE", "NAME", "how to train, published or tuned")
    add("--epochs", "EPOCHS", "N", "passes over the training patches, part of the decay, too")
    add("--batch-size", "BATCH_SIZE", "N", "patches per step")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="where a copy of plot.png goes")
    parser.add_argument("--resume", action="store_true", help="go on after the last whole epoch")
    parser.add_argument("--verify", action="store_true", help="check every patch's hash first")
    return parser.parse_args()


def make_batches(
    options: Settings, data: Dataset, run: Run, workers: Workers, reading: Reading
) -> tuple[tf.data.Dataset, dict[str, tf.data.Dataset]]:
    """Makes the batches of the epochs to train, shuffled and warped, and those to be scored."""
    from cancernet.data import pipeline

    batches = pipeline.training_batches(
        data.training.files,
        data.training.labels,
        reading=reading,
        augmentation=options.recipe.augmentation,
        seed=options.seed,
        epochs=run.epochs,
        first_epoch=run.epoch,
        cache_bytes=int(options.decode_cache_mb * 10**6),
        worker=workers.rank,
        workers=workers.count,
    )
    whole = reading if workers.count == 1 else replace(reading, replicas=1)
    scoring = {
        split.name: pipeline.scoring_batches(split.files, whole)
        for split in (data.validation, data.testing)
        if split
    }
    return batches, scoring


def main() -> None:
    """Trains, tests and reports."""
    lap = cli.stopwatch()
    options = settings.read(config, parse_arguments(), script="train")
    recipe = options.recipe
    # What takes seconds to import waits until the command line has been read.
    from cancernet import files
    from cancernet.data.dataset import Dataset
    from cancernet.evaluation import report
    from cancernet.training.run import Run
    from cancernet.training.workers import find

    # 1. Data, which no build may change from now on; and where the run's files go
    workers = find(os.environ)
    files.lock_for_reading(options.dataset)
    data = Dataset.open(options.dataset, verify=options.verify or options.resume)
    if data.sample:
        print(cli.SAMPLE_NOTICE, flush=True)
    inputs = report.inputs(options.constants, data) | {"workers": workers.count}
    run = Run(None, epochs=recipe.epochs)
    if workers.is_chief:
        run = Run.open(options.output, epochs=recipe.epochs, inputs=inputs, resume=options.resume)
        if options.plot:
            files.check_copy(options.plot, option="--plot")

    cli.prepare_tensorflow()
    import keras

    from cancernet.cancernet import CancerNet
    from cancernet.data.failures import explained
    from cancernet.data.pipeline import Reading, read_sample, steps_per_epoch
    from cancernet.evaluation import baselines, calibration
    from cancernet.training import distribution
    from cancernet.training.callbacks import Progress, StopOnCtrlC, StopOnNaN, Validate, ended
    from cancernet.training.fused import fuse, stock

    patches = [file for split in data.splits.values() for file in split.files]
    with explained(patches, batch_size=recipe.batch_size, lost=distribution.lost(workers)):
        # 2. Network: on the CPU, every GPU, or the workers of TF_CONFIG
        strategy = distribution.strategy(workers, inputs)
        distribution.set_seed(options.seed, deterministic=options.deterministic)
        mixed = distribution.mixed_precision(options.precision)
        with strategy.scope():
            network = CancerNet.build(
                width=options.image_width,
                height=options.image_height,
                depth=options.image_depth,
                classes=options.classes,
            )
            # The same layers and weights, but faster to train; `stock` undoes it for saving.
            model = fuse(network, dropout=recipe.dropout, mixed_precision=mixed)
            # The published loss is the binary cross-entropy of both columns of a two-way softmax:
            # with one-hot labels the same number. Keras 3 computes another one by that name.
            model.compile(
                loss="categorical_crossentropy",
                optimizer=recipe.optimizer(mixed_precision=mixed),
                metrics=["accuracy"],
            )
        run.restore(model)
        distribution.begin(model, run, workers, patches=len(data.training), recipe=recipe)

        # 3. Fit
        reading = Reading(
            image_size=(options.image_height, options.image_width),
            batch_size=recipe.batch_size,
            data_format=keras.config.image_data_format(),
            replicas=strategy.num_replicas_in_sync,
        )
        batches, scoring = make_batches(options, data, run, workers, reading)
        validate = Validate(
            run,
            recipe,
            scoring["validation"],
            data.validation.labels,
            predict=distribution.predict,
            reestimation=read_sample(
                data.training.files, recipe.reestimation, reading, seed=options.seed
            ),
        )
        model.fit(
            batches,
            epochs=run.epochs,
            initial_epoch=run.epoch,
            steps_per_epoch=steps_per_epoch(
                len(data.training), batch_size=recipe.batch_size, replicas=reading.replicas
            ),
            class_weight=recipe.class_weight(data.training.labels),
            shuffle=False,  # The batches come shuffled.
            verbose=0,
            callbacks=[Progress(), StopOnCtrlC(run), StopOnNaN(run), validate],
        )
        notes = run.notes + ended(run)
        if not workers.is_chief:
            return
        seconds = {"training": lap()}

        # 4. Evaluate the best epoch; threshold and recalibration are fitted on validation
        run.load_best(model)
        probabilities = {
            name: distribution.predict(model, batches) for name, batches in scoring.items()
        }
        seconds["scoring"] = lap()
        decision, more = calibration.fit_decision(
            data.validation.labels, probabilities["validation"], measure=options.threshold_measure
        )
        notes += more
        baseline = baselines.score(data, reading)
        seconds["baselines"] = lap()
        metrics = report.make_metrics(
            data,
            probabilities,
            decision,
            baseline,
            config=options.constants,
            seconds=seconds,
            notes=notes,
        )

        # 5. Report
        run.finish(
            stock(model),
            decision,
            recipe=recipe.name,
            sample=data.sample,
            write_report=lambda folder: report.write(
                folder, data, probabilities, decision, metrics, run.rows
            ),
        )
        if options.plot:
            files.copy(options.output / "plot.png", options.plot)
        print(report.as_text(metrics, data, probabilities))
        print(f"\nModel, metrics and report: {options.output}, see report.html first")


if __name__ == "__main__":
    cli.run(main)
