"""Times scoring from files, ours against the published one, by turns.

python benchmarks/scoring_speed.py                             on synthetic patches
python benchmarks/scoring_speed.py --data datasets/idc/testing
"""

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
import inputs
import published
import turns

from cancernet import cli

# Each variant's name, its worker's, and what is set in the worker's environment.
VARIANTS: dict[str, tuple[str, dict[str, str]]] = {
    "published": ("published", {}),
    "published, oneDNN kernels on": ("published", {"TF_ENABLE_ONEDNN_OPTS": "1"}),
    "ours": ("ours", {}),
}


def make_work(variant: str, folder: Path) -> Callable[[], float]:
    """Makes what a worker does at each request: it scores every patch, in patches a second."""
    files, _ = inputs.list_classes(folder)
    size = (published.SIDE, published.SIDE)
    if variant != "published":
        cli.prepare_tensorflow()
    from cancernet.cancernet import CancerNet
    from cancernet.data import pipeline
    from cancernet.training import fused

    network = CancerNet.build(*size, 3, 2)
    twin = fused.twin(network)

    def score() -> float:
        began = time.perf_counter()
        if variant == "published":
            batches = published.batches(folder, training=False)
            steps = len(files) // published.BATCH_SIZE + 1
            network.predict(batches, steps=min(steps, len(batches)), verbose=0)
        else:
            reader = pipeline.scoring_batches(
                files, image_size=size, batch_size=published.BATCH_SIZE
            )
            fused.predict(twin, reader)
        return len(files) / (time.perf_counter() - began)

    return score


def main() -> None:
    """Compares, or works as one of those compared."""
    parser = argparse.ArgumentParser(description="Time scoring, ours against the published one.")
    parser.add_argument("--data", type=Path, metavar="DIR", help="a folder that holds 0/ and 1/")
    parser.add_argument("--rounds", type=cli.positive_integer, default=5, metavar="N")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        turns.serve(make_work(arguments.worker, arguments.data))
        return
    with inputs.classes(arguments.data) as (folder, source):
        workers = {
            name: turns.Worker(
                __file__, "--data", folder, "--worker", worker, environment=environment
            )
            for name, (worker, environment) in VARIANTS.items()
        }
        turns.by_turns(list(workers.values()), rounds=arguments.rounds)
        print(f"Scoring, {source}:\n")
        print(*turns.table(workers, unit="patches/s", base="published"), sep="\n")


if __name__ == "__main__":
    cli.run(main)
