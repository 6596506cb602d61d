"""Times training on one and on two processes of this machine, and estimates more machines.

    python benchmarks/machines.py                                  on synthetic patches
    python benchmarks/machines.py --data datasets/idc/training

Two processes here share the processor, so that two are not faster than one: what is measured is
what the exchange of gradients costs. From it the table is worked out on paper.
"""

import argparse
import math
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
import inputs
import pretended
import published

import train_model
from cancernet import cli, config, recipes
from cancernet.training import machines

# For the estimate: of the whole public download, 72 % for training.
PATCHES = round(0.72 * 277_524)
# A name, patches/s of one machine (None: as measured here), bytes/s of its network.
KINDS: tuple[tuple[str, float | None, float], ...] = (
    ("laptop, 1 Gbit/s", None, 1e9 / 8),
    ("GPU, 10 Gbit/s", 20_000.0, 10e9 / 8),
)
COUNTS, BATCH_SIZES = (1, 2, 4, 8, 16), (32, 256, 2048)


def measure(folder: Path, batch_size: int, steps: int, rounds: int) -> None:
    """Works as one of the machines: prints seconds a step, seconds an exchange and its bytes."""
    cli.prepare_tensorflow(quiet=True)
    us = machines.find(os.environ)
    train_model.settle_determinism()
    from cancernet.data import pipeline
    from cancernet.training import devices, team

    joined = team.join(us) if us else None
    strategy = joined.strategy if joined else devices.strategy()
    files, labels = inputs.list_classes(folder)
    recipe = replace(recipes.published(vars(config)), batch_size=batch_size)
    _, twin = train_model.make_networks(recipe, len(labels), strategy)
    batches = pipeline.training_batches(
        files,
        labels,
        image_size=(published.SIDE, published.SIDE),
        batch_size=batch_size,
        augmentation=recipe.augmentation,
        seed=config.SEED,
        epochs=10**6,
        devices=strategy.num_replicas_in_sync,
        machine=us.rank if us else 0,
        machines=len(us.addresses) if us else 1,
    )
    train = make_training(twin, joined, batches, len(labels), batch_size)
    exchange = make_exchange(twin, joined) if joined else lambda: None
    medians = [timed(work, steps, rounds) for work in (train, exchange)]
    size = sum(math.prod(variable.shape) * 4 for variable in twin.trainable_variables)
    print(*medians, size, flush=True)


def make_training(
    twin: Any, joined: Any, batches: Any, patches: int, batch_size: int
) -> Callable[[], object]:
    """Makes what takes the next step: as `fit` does on one machine, as `steps` on several."""
    from cancernet.data import pipeline
    from cancernet.training import steps

    devices = joined.replicas if joined else 1
    count = pipeline.steps_per_epoch(patches, batch_size=batch_size, devices=devices)
    of_step = steps.Patches(patches, batch_size=batch_size, steps=count).of_step
    iterator, number = iter(batches), iter(range(10**9))
    if joined is None:
        weight = {0: 1.0, 1: 2.5}

        def alone() -> object:
            images, targets = next(iterator)
            return twin.train_on_batch(images, targets, class_weight=weight)

        return alone
    joined.begin(twin, [])
    step = steps.make_step(twin, joined, [1.0, 2.5])
    return lambda: step(*next(iterator), of_step(next(number) % count), False)


def make_exchange(twin: Any, joined: Any) -> Callable[[], object]:
    """Makes what exchanges gradients, zeros, and does nothing else."""
    import tensorflow as tf

    def of_replica() -> Any:
        gradients = [tf.zeros(variable.shape) for variable in twin.trainable_variables]
        summed = tf.distribute.get_replica_context().all_reduce("SUM", gradients)
        return tf.add_n([tf.reduce_sum(each) for each in summed])

    function = tf.function(lambda: joined.strategy.run(of_replica))
    return lambda: function().numpy()


def timed(work: Callable[[], object], steps: int, rounds: int) -> float:
    """Gives the median over the rounds of the seconds that it takes, once it is warm."""
    for _ in range(3):
        work()
    found = []
    for _ in range(rounds):
        began = time.perf_counter()
        for _ in range(steps):
            work()
        found.append((time.perf_counter() - began) / steps)
    return statistics.median(found)


def run(count: int, arguments: argparse.Namespace, folder: Path) -> tuple[float, float, int]:
    """Measures in so many processes of this machine; gives what the first one says."""
    numbers = ["--steps", arguments.steps, "--rounds", arguments.rounds]
    command = [__file__, "--worker", "--data", str(folder), *map(str, numbers)]
    command += ["--batch-size", str(arguments.batch_size)]
    if count == 1:
        processes = [
            subprocess.Popen(
                [sys.executable, *command],
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                env={name: text for name, text in os.environ.items() if name != "TF_CONFIG"},
            )
        ]
    else:
        processes = pretended.start_all(*[command] * count, folders=[Path.cwd()] * count)
    texts = [process.communicate() for process in processes]
    if any(process.returncode for process in processes):
        sys.exit(texts[0][1])
    step, exchange, size = texts[0][0].splitlines()[-1].split()
    return float(step), float(exchange), int(size)


def seconds_an_epoch(
    count: int, batch_size: int, *, speed: float, network: float, size: int, fixed: float
) -> float:
    """Estimates an epoch on so many machines.

    A ring of n machines sends 2 (n - 1) / n times the gradients from each (Patarasuk and Yuan,
    Bandwidth optimal all-reduce algorithms for clusters of workstations, 2009).

    Args:
        count: Machines.
        batch_size: Patches a step over all of them.
        speed: Patches/s of one.
        network: Bytes/s from and to each.
        size: Bytes of the gradients.
        fixed: Seconds that an exchange takes besides.
    """
    exchange = fixed + 2 * (count - 1) / count * size / network if count > 1 else 0.0
    return math.ceil(PATCHES / batch_size) * (batch_size / count / speed + exchange)


def table(speed: float, size: int, fixed: float) -> list[str]:
    """Lays out the estimate, with what is gained over one machine."""
    lines = [f"| an epoch of {PATCHES:,} patches, estimated | patches a step |"]
    lines[0] += "".join(f" {count} |" for count in COUNTS)
    lines.append("|---|---:|" + "---:|" * len(COUNTS))
    for name, its_speed, network in KINDS:
        for batch_size in BATCH_SIZES:
            epochs = [
                seconds_an_epoch(
                    count,
                    batch_size,
                    speed=its_speed or speed,
                    network=network,
                    size=size,
                    fixed=fixed,
                )
                for count in COUNTS
            ]
            cells = "".join(f" {each:,.0f} s ({epochs[0] / each:.1f}) |" for each in epochs)
            lines.append(f"| {name} | {batch_size:,} |{cells}")
    return lines


def parse_arguments() -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description="Time training on one and two processes.")
    parser.add_argument("--data", type=Path, metavar="DIR", help="a folder that holds 0/ and 1/")
    for name, default in (("--batch-size", 32), ("--steps", 20), ("--rounds", 5)):
        parser.add_argument(name, type=cli.positive_integer, default=default, metavar="N")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args()


def compare(folder: Path, arguments: argparse.Namespace, *, source: str) -> None:
    """Prints what was measured, and the table."""
    one, _, _ = run(1, arguments, folder)
    two, exchange, size = run(2, arguments, folder)
    speed = arguments.batch_size / one
    print(f"Measured here, {source}, {arguments.batch_size} patches a step; medians:\n")
    print(f"one process                  {1000 * one:7.1f} ms a step, {speed:,.0f} patches/s")
    print(f"two, sharing the processor   {1000 * two:7.1f} ms a step ({one / two:.2f} x the speed)")
    print(f"exchange of gradients alone  {1000 * exchange:7.1f} ms, {size:,} bytes\n")
    print(*table(speed, size, exchange), sep="\n")
    speeds = "; ".join(f"{name}: {its or speed:,.0f} patches/s a machine" for name, its, _ in KINDS)
    print(f"\nIn brackets: times as fast as one machine. Assumed of one: {speeds}, at any")
    print("number of patches a step; the exchange as measured here, and on top of it a ring's")
    print("transfers at the network's full speed, one after the other with the computing.")


def main() -> None:
    """Compares, or works as one of those compared."""
    arguments = parse_arguments()
    if arguments.worker:
        measure(arguments.data, arguments.batch_size, arguments.steps, arguments.rounds)
    else:
        with inputs.classes(arguments.data) as (folder, source):
            compare(folder, arguments, source=source)


if __name__ == "__main__":
    cli.run(main)
