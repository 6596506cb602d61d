"""Times training, ours against the published one, each in a process of its own and by turns.

    python benchmarks/training_speed.py                              on synthetic patches
    python benchmarks/training_speed.py --data datasets/idc/training
    python benchmarks/training_speed.py --memory                     at 1 x and 4 x the patches

Rows: training end to end, then the input pipelines alone. "In memory" is the ceiling: the same
network on patches that are in memory already and not warped.
"""

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))
import inputs
import published
import turns

import train_model
from cancernet import cli, config, recipes

ONEDNN = {"TF_ENABLE_ONEDNN_OPTS": "1"}
# Each variant's name, its worker's, and what is set in the worker's environment.
TRAINING: dict[str, tuple[str, dict[str, str]]] = {
    "published": ("published", {}),
    "published, oneDNN kernels on": ("published", ONEDNN),
    "ours, from files": ("files", {}),
    "ours, from files, stock layers": ("stock", {}),
    "ours, decode cache": ("cache", {}),
    "ours, in memory, not warped (ceiling)": ("memory", {}),
}
INPUT: dict[str, tuple[str, dict[str, str]]] = {
    "published": ("published-input", {}),
    "ours, from files": ("files-input", {}),
    "ours, decode cache": ("cache-input", {}),
}


def our_batches(folder: Path, *, cached: bool = False, times: int = 1) -> Any:
    """Makes our training batches; with `times`, of every patch so many times over."""
    from cancernet.data import pipeline

    files, labels = inputs.list_classes(folder)
    return pipeline.training_batches(
        files * times,
        labels * times,
        image_size=(published.SIDE, published.SIDE),
        batch_size=published.BATCH_SIZE,
        augmentation=recipes.published(vars(config)).augmentation,
        seed=config.SEED,
        epochs=1000,
        cache_bytes=10**12 if cached else 0,
    )


def memory_batches(folder: Path, steps: int) -> Any:
    """Makes batches of patches that are in memory, neither shuffled nor warped."""
    import tensorflow as tf

    from cancernet.data import pipeline

    files, labels = inputs.list_classes(folder)
    count = min(len(files), steps * published.BATCH_SIZE)
    chosen = [index * len(files) // count for index in range(count)]
    images = pipeline.scoring_batches(
        [files[index] for index in chosen],
        image_size=(published.SIDE, published.SIDE),
        batch_size=published.BATCH_SIZE,
    )
    targets = tf.one_hot([labels[index] for index in chosen], depth=2)
    pairs = (tf.concat(list(images), axis=0), targets)
    return tf.data.Dataset.from_tensor_slices(pairs).batch(published.BATCH_SIZE).repeat()


def make_model(*, stock: bool) -> Any:
    """Builds and compiles the network, or its faster twin, for the published recipe."""
    from cancernet.cancernet import CancerNet
    from cancernet.training import fused, training

    model = CancerNet.build(published.SIDE, published.SIDE, 3, 2)
    if not stock:
        model = fused.twin(model)
    training.compile_network(model, recipes.published(vars(config)), steps=1)
    return model


def make_work(variant: str, folder: Path, *, steps: int, times: int) -> Callable[[], float]:
    """Makes what a worker does at each request: some steps, timed, in patches a second."""
    kind, _, input_alone = variant.partition("-")
    if kind == "published":
        batches = published.batches(folder, training=True)
    else:
        cli.prepare_tensorflow()
        train_model.settle_determinism()
        if kind == "memory":
            batches = memory_batches(folder, steps)
        else:
            batches = our_batches(folder, cached=kind == "cache", times=times)
    if input_alone:
        return lambda: timed(lambda: read(batches, steps), steps)
    model = make_model(stock=kind in ("published", "stock"))

    def train() -> None:
        model.fit(
            batches,
            steps_per_epoch=steps,
            class_weight={0: 1.0, 1: 2.5},
            shuffle=False,
            verbose=0,
        )

    return lambda: timed(train, steps)


def read(batches: Any, steps: int) -> None:
    """Reads some batches and does nothing with them."""
    iterator = iter(batches)
    for _ in range(steps):
        next(iterator)


def timed(work: Callable[[], None], steps: int) -> float:
    """Does the work and tells the patches a second."""
    began = time.perf_counter()
    work()
    return steps * published.BATCH_SIZE / (time.perf_counter() - began)


def parse_arguments() -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description="Time training, ours against the published one.")
    parser.add_argument("--data", type=Path, metavar="DIR", help="a folder that holds 0/ and 1/")
    parser.add_argument("--rounds", type=cli.positive_integer, default=5, metavar="N")
    parser.add_argument("--steps", type=cli.positive_integer, default=150, metavar="N")
    parser.add_argument("--memory", action="store_true", help="memory at 1 x and 4 x the patches")
    parser.add_argument("--times", type=cli.positive_integer, default=1, help=argparse.SUPPRESS)
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    return parser.parse_args()


def start(
    variants: dict[str, tuple[str, dict[str, str]]], folder: Path, *options: str
) -> dict[str, turns.Worker]:
    """Starts a worker a variant."""
    return {
        name: turns.Worker(
            __file__, "--data", folder, "--worker", worker, *options, environment=environment
        )
        for name, (worker, environment) in variants.items()
    }


def compare(folder: Path, arguments: argparse.Namespace, *, source: str) -> None:
    """Prints the tables."""
    unit, steps = "patches/s", ("--steps", str(arguments.steps))
    if arguments.memory:
        workers: dict[str, turns.Worker] = {}
        for times in (1, 4):
            name = f"ours, from files, {times} x the patches"
            started = start({name: ("files", {})}, folder, *steps, "--times", str(times))
            turns.by_turns(list(started.values()), rounds=arguments.rounds)
            workers |= started
        print(f"Memory, {source}:\n")
        print(*turns.table(workers, unit=unit, base=next(iter(workers))), sep="\n")
        one, four = (worker.megabytes for worker in workers.values())
        print(f"\nPeak memory at 4 x the patches / at 1 x: {four / one:.3f}")
        return
    for title, variants in (("Training end to end", TRAINING), ("Input alone", INPUT)):
        workers = start(variants, folder, *steps)
        turns.by_turns(list(workers.values()), rounds=arguments.rounds)
        print(f"{title}, {source}:\n")
        print(*turns.table(workers, unit=unit, base="published"), sep="\n")
        print()


def main() -> None:
    """Compares, or works as one of those compared."""
    arguments = parse_arguments()
    if arguments.worker:
        work = make_work(
            arguments.worker, arguments.data, steps=arguments.steps, times=arguments.times
        )
        turns.serve(work)
    else:
        with inputs.classes(arguments.data) as (folder, source):
            compare(folder, arguments, source=source)


if __name__ == "__main__":
    cli.run(main)
