"""Times what was made fast: each variant in processes of its own, by turns; prints medians.

    python benchmarks/speed.py training --data datasets/idc     against the published training
    python benchmarks/speed.py scoring --data datasets/idc      against the published scoring

A machine's speed drifts, so what is compared runs A B C, A B C, ... Not for Windows.
"""

import argparse
import io
import multiprocessing
import os
import resource
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))
from cancernet import cli, config, recipe
from cancernet.data.dataset import Dataset
from cancernet.settings import RULES

STEPS = 100  # Of training, at most.
SIZE = (config.IMAGE_HEIGHT, config.IMAGE_WIDTH)
PUBLISHED = recipe.published(vars(config))
ONEDNN = "published, oneDNN kernels on"

# --- What is compared: each gives patches per second ---------------------------------------------


def rate(count: int, work: Callable[[], object]) -> float:
    """Tells how many are done per second, by doing so many; a first time compiles."""
    work()
    began = time.perf_counter()
    work()
    return count / (time.perf_counter() - began)


def train(data: Dataset, *, ours: bool = True, fused: bool = True, times: int = 1) -> float:
    """Trains for some steps on so many times the patches: patches/s."""
    from cancernet.data import pipeline

    if ours:
        training = replace(data.training, rows=data.training.rows * times)
        reading = pipeline.Reading(SIZE, PUBLISHED.batch_size)
        endless = replace(PUBLISHED, epochs=1000)
        batches = pipeline.training_batches(training, endless, reading, seed=config.SEED)
    else:
        batches = published_batches(data, warped=True)
    model, weights = make_model(fused=ours and fused), {0: 1.0, 1: 2.5}
    steps = min(STEPS, len(data.training) // PUBLISHED.batch_size)  # The published ones do end.
    options = {"steps_per_epoch": steps, "class_weight": weights, "shuffle": False, "verbose": 0}
    return rate(steps * PUBLISHED.batch_size, lambda: model.fit(batches, **options))


def score(data: Dataset, *, ours: bool = True) -> float:
    """Scores the training patches, the most there are: patches/s."""
    from cancernet.data import pipeline

    files, reading = data.training.files, pipeline.Reading(SIZE, PUBLISHED.batch_size)
    model = make_model(fused=ours)

    def work() -> None:
        theirs = None if ours else published_batches(data, warped=False)
        model.predict(theirs or pipeline.scoring_batches(files, reading), verbose=0)

    return rate(len(files), work)


def published_batches(data: Dataset, *, warped: bool) -> Any:
    """Makes the published batches, warped and shuffled patch after patch in Python."""
    # Keras 3 keeps the generator under its old TensorFlow name alone.
    from tensorflow.keras.preprocessing.image import ImageDataGenerator

    how = PUBLISHED.augmentation
    warp = {
        "rotation_range": how.rotation,
        "zoom_range": how.zoom,
        "width_shift_range": how.width_shift,
        "height_shift_range": how.height_shift,
        "shear_range": how.shear,
        "horizontal_flip": how.horizontal_flip,
        "vertical_flip": how.vertical_flip,
    }
    generator = ImageDataGenerator(rescale=1 / 255, **(warp if warped else {}))
    folder, batch = str(data.folder / "training"), PUBLISHED.batch_size
    return generator.flow_from_directory(
        folder, classes=["0", "1"], target_size=SIZE, shuffle=warped, batch_size=batch
    )


def make_model(*, fused: bool) -> Any:
    """Builds and compiles the network, or its fused model."""
    from cancernet.cancernet import CancerNet
    from cancernet.training.fused import fuse

    model = CancerNet.build(config.IMAGE_WIDTH, config.IMAGE_HEIGHT, depth=3, classes=2)
    if fused:
        model = fuse(model)
    model.compile(PUBLISHED.optimizer(), "categorical_crossentropy", metrics=["accuracy"])
    return model


# By comparison: its variants by name, the first one being the base.
COMPARISONS: dict[str, dict[str, Callable[[Dataset], float]]] = {
    what: {"published": partial(ours, ours=False), ONEDNN: partial(ours, ours=False), "ours": ours}
    for what, ours in (("training", train), ("scoring", score))
}
COMPARISONS["training"] |= {
    "ours, stock layers": partial(train, fused=False),
    "ours, 4 x the patches": partial(train, times=4),
}

# --- Comparing -----------------------------------------------------------------------------------


def measure(what: str, name: str, data: Dataset) -> tuple[float, float]:
    """Gives the rate of a variant, and the most memory in MB of this process, which is its own."""
    sys.stdout = io.StringIO()  # Keras tells how many files it found.
    if name == ONEDNN:
        os.environ["TF_ENABLE_ONEDNN_OPTS"] = "1"
    if name.startswith("published"):
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    else:
        cli.prepare_tensorflow()
    found, peak = COMPARISONS[what][name](data), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return found, peak * (1 if sys.platform == "darwin" else 1024) / 10**6


def compare(what: str, data: Dataset, rounds: int) -> Iterator[str]:
    """Lets the variants work by turns; yields a table of medians and ratios to the first one."""
    names = list(COMPARISONS[what])
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, spawn, max_tasks_per_child=1) as process:
        turns = [
            [process.submit(measure, what, name, data).result() for name in names]
            for _ in range(rounds)
        ]
    yield "| what | patches/s, median (lowest to highest) | ratio | peak memory, MB |"
    yield "|---|---:|---:|---:|"
    base = None
    for name, results in zip(names, zip(*turns, strict=True), strict=True):
        rates, peaks = zip(*results, strict=True)
        median = statistics.median(rates)
        base = base or median
        cells = f"{median:,.0f} ({min(rates):,.0f} to {max(rates):,.0f}) | {median / base:.2f}"
        yield f"| {name} | {cells} | {max(peaks):,.0f} |"


def main() -> None:
    """Compares."""
    parser = argparse.ArgumentParser(description="Time what was made fast.")
    parser.add_argument("what", choices=COMPARISONS)
    parser.add_argument("--data", type=Path, default=config.BASE_PATH, metavar="DIR")
    parser.add_argument("--rounds", type=RULES["EPOCHS"].read, default=5, metavar="N")
    arguments = parser.parse_args()
    data = Dataset.open(arguments.data)
    if data.sample:
        print(f"{cli.SAMPLE_NOTICE}\n")
    print(*compare(arguments.what, data, arguments.rounds), sep="\n")


if __name__ == "__main__":
    cli.run(main)
