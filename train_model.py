"""Script 2: trains CancerNet on the data set, tests the best epoch and reports.

    python train_model.py                    as the configuration says
    python train_model.py --epochs 5         a shorter run

`cancernet/config.py` decides what no option says.
"""

import argparse
import os
from functools import partial
from pathlib import Path

from cancernet import cli, config, settings


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


def main() -> None:
    """Trains, tests and reports."""
    lap = cli.stopwatch()
    options = settings.read(config, parse_arguments(), script="train")
    recipe = options.recipe
    # What takes seconds to import waits until the command line has been read.
    from cancernet import files
    from cancernet.data.dataset import Dataset
    from cancernet.evaluation import baselines, context, report
    from cancernet.training.run import Run
    from cancernet.training.workers import find

    # 1. Data, which no build may change from now on; and the run, which the chief alone writes
    workers = find(os.environ)
    files.lock_for_reading(options.dataset)
    data = Dataset.open(options.dataset, verify=options.verify or options.resume)
    if data.sample:
        print(cli.SAMPLE_NOTICE, flush=True)
    inputs = report.inputs(options.constants, data) | {"workers": workers.count}
    run = Run(options.output if workers.is_chief else None, epochs=recipe.epochs, inputs=inputs)
    run.open(resume=options.resume, plot=options.plot)

    cli.prepare_tensorflow()
    from cancernet.cancernet import CancerNet
    from cancernet.data import pipeline
    from cancernet.training import distribution, fused
    from cancernet.training.callbacks import Progress, StopOnCtrlC, Validate

    lost = partial(distribution.lost, workers)
    patches = [file for split in data.splits.values() for file in split.files]
    with pipeline.explained(patches, batch_size=recipe.batch_size, lost=lost):
        # 2. Network: on the CPU, every GPU, or the workers of TF_CONFIG
        strategy = distribution.strategy(workers, run)
        distribution.set_seed(options.seed, deterministic=options.deterministic)
        mixed = distribution.mixed_precision(options.precision)
        with strategy.scope():
            network = CancerNet.build(
                options.image_width, options.image_height, options.image_depth, options.classes
            )
            # The same layers and weights, but faster to train; `stock` undoes it for saving.
            model = fused.fuse(network, dropout=recipe.dropout, mixed_precision=mixed)
            # The published loss is the binary cross-entropy of both columns of a two-way softmax:
            # with one-hot labels the same number. Keras 3 computes another one by that name.
            model.compile(
                loss="categorical_crossentropy",
                optimizer=recipe.optimizer(mixed_precision=mixed),
                metrics=["accuracy"],
            )
        distribution.begin(model, run, workers, recipe, patches=len(data.training))

        # 3. Fit
        reading = pipeline.Reading(
            image_size=(options.image_height, options.image_width),
            batch_size=recipe.batch_size,
            replicas=strategy.num_replicas_in_sync,
            worker=workers.rank,
            workers=workers.count,
        )
        splits = [split for split in (data.validation, data.testing) if split]
        scoring = {split.name: pipeline.scoring_batches(split.files, reading) for split in splits}
        sample = pipeline.read_sample(data.training, recipe, reading, seed=options.seed)
        validate = Validate(run, recipe, scoring["validation"], data.validation.labels, sample)
        model.fit(
            pipeline.training_batches(
                data.training, recipe, reading, seed=options.seed, first_epoch=run.epoch
            ),
            epochs=run.epochs,
            initial_epoch=run.epoch,
            steps_per_epoch=pipeline.steps_per_epoch(len(data.training), reading),
            class_weight=recipe.class_weight(data.training.labels),
            shuffle=False,  # The batches come shuffled.
            verbose=0,
            callbacks=[Progress(), StopOnCtrlC(run), validate],
        )
        notes, seconds = run.ended(), {"training": lap()}
        if not workers.is_chief:
            return

        # 4. Evaluate the best epoch; threshold, recalibration, context are fitted on validation
        model.set_weights(run.best_weights)
        probabilities = {name: distribution.predict(model, its) for name, its in scoring.items()}
        seconds["scoring"] = lap()
        decision, more = context.decide(
            data.validation, probabilities["validation"], measure=options.threshold_measure
        )
        baseline = baselines.score(data, reading)
        seconds["baselines"] = lap()
        about = {"config": options.constants, "seconds": seconds, "notes": notes + more}
        scores = {
            name: context.Scores.of(data.splits[name], own, decision)
            for name, own in probabilities.items()
        }
        metrics = report.make_metrics(data, scores, decision, baseline, **about)

        # 5. Report
        with run.finish(fused.stock(model), decision, recipe.name, data.sample) as folder:
            report.write(folder, data, scores, metrics, run.rows)
        print(report.as_text(metrics, data, scores))
        print(f"\nModel, metrics and report: {options.output}, see report.html first")


if __name__ == "__main__":
    cli.run(main)
