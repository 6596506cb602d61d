"""Trains the network of stock layers and its faster twin from several seeds and compares both.

    python benchmarks/twin_accuracy.py --data datasets/idc

Prints the ROC AUC on validation after the last epoch. The twin is as good as the stock network if
the two differ by less than seeds do. Nothing is tested: the testing split is not scored.
"""

import argparse
import contextlib
import io
import statistics
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
import train_model
from cancernet import cli, config, recipes
from cancernet.data import dataset


def train(arguments: argparse.Namespace, name: str, seed: int) -> float:
    """Trains as train_model.py does and tells the ROC AUC on validation after the last epoch."""
    import keras

    from cancernet.training import fused

    config.SEED = seed
    splits, build = dataset.open_dataset(arguments.dataset)
    make_twin = fused.twin
    if name == "stock":
        fused.twin = lambda network, **_: keras.models.clone_model(network)
    try:
        with tempfile.TemporaryDirectory() as run, contextlib.redirect_stdout(io.StringIO()):
            data = train_model.Data(splits, build, exclusions=[])
            trained = train_model.train(arguments, data, run=Path(run), inputs={})
    finally:
        fused.twin = make_twin
    return trained.history[-1]["val_roc_auc"]


def main() -> None:
    """Trains all and compares."""
    parser = argparse.ArgumentParser(description="Compare the stock network and its twin.")
    parser.add_argument(
        "--data", type=Path, default=Path(config.BASE_PATH), metavar="DIR", dest="dataset"
    )
    parser.add_argument("--seeds", type=cli.positive_integer, default=3, metavar="N")
    parser.add_argument("--epochs", type=cli.positive_integer, default=5, metavar="N")
    parser.add_argument("--batch-size", type=cli.positive_integer, default=config.BATCH_SIZE)
    arguments = parser.parse_args()
    arguments.resume = False
    arguments.recipe = replace(
        recipes.published(vars(config)), epochs=arguments.epochs, batch_size=arguments.batch_size
    )
    cli.prepare_tensorflow()
    found: dict[str, list[float]] = {"stock": [], "twin": []}
    for seed in range(1, arguments.seeds + 1):
        for name, areas in found.items():
            areas.append(train(arguments, name, seed))
            print(f"seed {seed}, {name:<5}: ROC AUC {areas[-1]:.4f}", flush=True)
    for name, areas in found.items():
        spread = statistics.stdev(areas) if len(areas) > 1 else float("nan")
        print(f"{name:<5}: mean {statistics.mean(areas):.4f}, deviation over seeds {spread:.4f}")


if __name__ == "__main__":
    cli.run(main)
