"""Shows what more training patients bring: the tuned recipe on a part of each fold's.

    python benchmarks/learning_curve.py --data datasets/idc --folds 2

The folds, their validation and their testing patients are those of recipes.py's stage "long".
"""

import argparse
import random
import statistics
import sys
from dataclasses import replace
from itertools import islice
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
from recipes import BASELINE, STAGES, candidate, development_rows, make_folds

from cancernet import cli, config
from cancernet.data.dataset import Dataset, Split

SIZES = (50, 100, None)  # Training patients; None for all of the fold's.


def some_patients(split: Split, number: int | None, *, seed: int) -> Split:
    """Keeps the patches of so many patients, drawn at random, those of fewer among them."""
    patients = sorted(set(split.patients))
    random.Random(seed).shuffle(patients)
    kept = set(patients[:number])
    return replace(split, rows=[row for row in split.rows if row.patient in kept])


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description="Train on fewer patients.")
    parser.add_argument("--data", type=Path, default=config.BASE_PATH, metavar="DIR")
    parser.add_argument("--folds", type=int, default=3, metavar="N", help="how many of three")
    arguments = parser.parse_args()
    data = Dataset.open(arguments.data)
    cli.prepare_tensorflow()
    import training

    stage = STAGES["long"]
    seed, recipe = stage.seeds[0], candidate(BASELINE, epochs=stage.epochs)
    rows = development_rows(data)
    folds = make_folds(rows, data.folder, folds=stage.folds, seed=seed)
    found: dict[int | None, list[tuple[float, ...]]] = {size: [] for size in SIZES}
    for splits in islice(folds, arguments.folds):
        for size in SIZES:
            fewer = splits | {"training": some_patients(splits["training"], size, seed=seed)}
            _, model = training.train(recipe, fewer, seed=seed)
            probabilities = training.score(model, fewer, averaged=False)
            of_it = training.measure(fewer, probabilities)
            patients = len(set(fewer["training"].patients))
            metrics = [of_it[name] or 0.0 for name in ("roc_auc", "balanced_accuracy")]
            found[size].append((patients, len(fewer["training"]), *metrics))
            print(*found[size][-1], file=sys.stderr)
    print("| training patients | patches | ROC AUC | balanced accuracy |\n|---:|---:|---:|---:|")
    for runs in found.values():
        patients, patches, auc, accuracy = map(statistics.mean, zip(*runs, strict=True))
        print(f"| {patients:.0f} | {patches:,.0f} | {auc:.3f} | {accuracy:.3f} |")


if __name__ == "__main__":
    cli.run(main)
