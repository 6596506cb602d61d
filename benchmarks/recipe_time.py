"""Times an epoch of each recipe, in a process of its own and by turns.

    python benchmarks/recipe_time.py --data datasets/idc

It is all that an epoch takes: training, settling and scoring the validation split.
"""

import argparse
import contextlib
import io
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
import turns
from recipes import train

from cancernet import cli, config, recipes
from cancernet.data import dataset

RECIPES = ("published", "tuned")


def epoch_seconds(name: str, folder: Path) -> float:
    """Trains two epochs and tells how long the second one took: the first one compiles."""
    recipe = replace(recipes.choose(name, vars(config)), epochs=2)
    splits, _ = dataset.open_dataset(folder)
    with tempfile.TemporaryDirectory() as output, contextlib.redirect_stdout(io.StringIO()):
        trained = train(recipe, splits, folder=folder, output=Path(output))
    return trained.history[-1]["seconds"]


def main() -> None:
    """Compares, or works as one of those compared."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="a data set")
    parser.add_argument("--rounds", type=cli.positive_integer, default=5, metavar="N")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        cli.prepare_tensorflow()
        turns.serve(lambda: epoch_seconds(arguments.worker, arguments.data))
        return
    _, build = dataset.open_dataset(arguments.data)
    if build["sample"]:
        print(f"{cli.SAMPLE_NOTICE}\n")
    workers = {
        name: turns.Worker(__file__, "--data", arguments.data, "--worker", name) for name in RECIPES
    }
    turns.by_turns(list(workers.values()), rounds=arguments.rounds)
    print(*turns.table(workers, unit="seconds an epoch", base="published"), sep="\n")


if __name__ == "__main__":
    cli.run(main)
