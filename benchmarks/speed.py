"""Times what was made fast: each variant in a process of its own, by turns; prints medians.

    python benchmarks/speed.py training --data datasets/idc     against the published training
    python benchmarks/speed.py memory --data datasets/idc       at 1 x and 4 x the patches
    python benchmarks/speed.py scoring --data datasets/idc      against the published scoring
    python benchmarks/speed.py recipes --data datasets/idc      an epoch of each recipe

Without --data on the synthetic sample. A machine's speed drifts, so what is compared runs A B C,
A B C, ... after a first time that is not counted. Not for Windows.
"""

import argparse
import io
import multiprocessing
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))
import published

from cancernet import cli, config, recipe
from cancernet.data.dataset import Dataset
from cancernet.settings import option

PROJECT = Path(__file__).parents[1]
STEPS = 100  # Of training, each time.
SIZE = (published.SIDE, published.SIDE)
ONEDNN = "published, oneDNN kernels on"

# --- What is compared: each yields rates, working once for every one that is asked for -----------


def timed(count: int, work: Callable[[], object]) -> Iterator[float]:
    """Yields how many are done per second, by doing so many."""
    while True:
        began = time.perf_counter()
        work()
        yield count / (time.perf_counter() - began)


def train(folder: Path, *, ours: bool = True, fused: bool = True, **how: int) -> Iterator[float]:
    """Trains for some steps: patches/s."""
    model = make_model(fused=ours and fused)
    if ours:
        batches = make_batches(folder, **how)
    else:
        batches = published.batches(folder / "training", training=True)
    weights = {0: 1.0, 1: 2.5}
    options = {"steps_per_epoch": STEPS, "class_weight": weights, "shuffle": False, "verbose": 0}
    return timed(STEPS * published.BATCH_SIZE, lambda: model.fit(batches, **options))


def score(folder: Path, *, ours: bool = True) -> Iterator[float]:
    """Scores the training patches, the most there are: patches/s."""
    from cancernet.data import pipeline

    model, files = make_model(fused=ours), Dataset.open(folder).training.files
    reading = pipeline.Reading(SIZE, published.BATCH_SIZE)

    def work() -> None:
        theirs = None if ours else published.batches(folder / "training", training=False)
        model.predict(theirs or pipeline.scoring_batches(files, reading), verbose=0)

    return timed(len(files), work)


def train_by(folder: Path, *, name: str) -> Iterator[float]:
    """Trains two epochs by a recipe: epochs/hour of the second one, since the first compiles."""
    import recipes
    import training

    chosen, splits = recipes.candidate(name, epochs=2), Dataset.open(folder).splits
    while True:
        run, _ = training.train(chosen, splits, seed=config.SEED)
        yield 3600 / run.rows[-1]["seconds"]


def make_batches(folder: Path, *, times: int = 1, cache_bytes: int = 0) -> Any:
    """Makes our endless training batches, of so many times the patches."""
    from cancernet.data import pipeline

    training = Dataset.open(folder).training
    return pipeline.training_batches(
        replace(training, rows=training.rows * times),
        replace(recipe.published(vars(config)), epochs=1000),
        pipeline.Reading(SIZE, published.BATCH_SIZE, cache_bytes=cache_bytes),
        seed=config.SEED,
    )


def make_model(*, fused: bool) -> Any:
    """Builds and compiles the network, or its fused model."""
    from cancernet.cancernet import CancerNet
    from cancernet.training.fused import fuse

    model = CancerNet.build(width=published.SIDE, height=published.SIDE, depth=3, classes=2)
    if fused:
        model = fuse(model)
    optimizer = recipe.published(vars(config)).optimizer()
    model.compile(loss="categorical_crossentropy", optimizer=optimizer, metrics=["accuracy"])
    return model


Make = Callable[[Path], Iterator[float]]


def against_published(make: Callable[..., Iterator[float]]) -> dict[str, Make]:
    """Lists the variants that training and scoring both have."""
    theirs = partial(make, ours=False)
    return {"published": theirs, ONEDNN: theirs, "ours": make}


# By comparison: its variants by name, the first one being the base.
COMPARISONS: dict[str, dict[str, Make]] = {
    "training": against_published(train)
    | {
        "ours, stock layers": partial(train, fused=False),
        "ours, decode cache": partial(train, cache_bytes=10**12),
    },
    "memory": {"1 x the patches": train, "4 x the patches": partial(train, times=4)},
    "scoring": against_published(score),
    "recipes": {name: partial(train_by, name=name) for name in recipe.RECIPES},
}

# --- Comparing -----------------------------------------------------------------------------------

rates: Iterator[float]  # Of a variant, in its own process.


def begin(what: str, name: str, folder: Path) -> None:
    """Makes a variant in the process that is its own."""
    global rates
    sys.stdout = io.StringIO()  # Keras tells how many files it found.
    if name == ONEDNN:
        os.environ["TF_ENABLE_ONEDNN_OPTS"] = "1"
    if what != "recipes" and name.startswith("published"):
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    else:
        cli.prepare_tensorflow()
    rates = COMPARISONS[what][name](folder)


def work() -> tuple[float, float]:
    """Works once: the rate, and the most memory so far in MB."""
    rate, peak = next(rates), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return rate, peak * (1 if sys.platform == "darwin" else 1024) / 10**6


def compare(what: str, folder: Path, rounds: int) -> Iterator[str]:
    """Lets the variants work by turns; yields a table of medians and ratios to the first one."""
    spawn = multiprocessing.get_context("spawn")
    processes = {
        name: ProcessPoolExecutor(1, spawn, begin, (what, name, folder))
        for name in COMPARISONS[what]
    }
    turns = [
        {name: process.submit(work).result() for name, process in processes.items()}
        for _ in range(1 + rounds)
    ]
    unit = "epochs/hour" if what == "recipes" else "patches/s"
    yield f"| what | {unit}, median (lowest to highest) | ratio | peak memory, MB |"
    yield "|---|---:|---:|---:|"
    base = None
    for name, process in processes.items():
        reached = [turn[name][0] for turn in turns[1:]]
        median = statistics.median(reached)
        base = base or median
        spread = f"{min(reached):,.0f} to {max(reached):,.0f}"
        memory = f"{turns[-1][name][1]:,.0f}"
        yield f"| {name} | {median:,.0f} ({spread}) | {median / base:.2f} | {memory} |"
        process.shutdown()


def main() -> None:
    """Compares."""
    parser = argparse.ArgumentParser(description="Time what was made fast.")
    parser.add_argument("what", choices=COMPARISONS)
    parser.add_argument("--data", type=Path, metavar="DIR", help="a data set")
    parser.add_argument("--rounds", type=option("EPOCHS"), default=5, metavar="N")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as drawn:
        folder = arguments.data
        if folder is None:
            print(f"{cli.SAMPLE_NOTICE}\n")
            command = [sys.executable, str(PROJECT / "build_dataset.py"), "--sample"]
            subprocess.run(command, cwd=drawn, check=True, stdout=subprocess.DEVNULL)
            folder = Path(drawn, "datasets/idc")
        print(*compare(arguments.what, folder, arguments.rounds), sep="\n")


if __name__ == "__main__":
    cli.run(main)
