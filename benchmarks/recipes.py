"""Compares training recipes by cross-validation on the development patients.

    python benchmarks/recipes.py --data datasets/idc                    screen every candidate
    python benchmarks/recipes.py --data datasets/idc --final published tuned
    python benchmarks/recipes.py                                        the tables of all so far

Folds hold whole patients; those of the published testing list are left out. Some of the patients
that a fold leaves are for validation: best epoch, threshold and recalibration come from them, all
figures from the fold's own. A finished run is a row of benchmarks/recipes.csv and is not run again.
"""

import argparse
import contextlib
import csv
import hashlib
import io
import math
import statistics
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).parents[1]))
import inputs
import scoring

import train_model
from cancernet import cli, config, recipes
from cancernet.data import dataset
from cancernet.data.dataset import Row
from cancernet.data.splitting import read_published
from cancernet.recipes import Augmentation, Recipe

ROWS = Path(__file__).with_suffix(".csv")


class Stage(NamedTuple):
    """How thoroughly recipes are tried."""

    folds: int
    seeds: tuple[int, ...]
    epochs: int


STAGES = {"screen": Stage(3, (1,), 8), "final": Stage(5, (1, 2), 20)}
VALIDATION = 8  # One in so many of the patients that a fold leaves.

# What is scored in the other ways, too, which takes a minute or two.
SCORED_ALL_WAYS = "tuned"

# The published recipe on patches that are each normalised by itself: no recipe of cancernet's.
NORMALISED = "input normalised"

KEY = ("stage", "candidate", "recipe", "fold", "seed", "scoring")
FIGURES = (
    *("roc_auc", "balanced_accuracy", "balanced_accuracy_at_0.5", "ece", "ece_recalibrated"),
    *("patients", "patches", "best_epoch"),
)


def candidates(epochs: int) -> dict[str, Recipe]:
    """Lists what is tried, by name: the published recipe with one change, or with several."""
    published = replace(recipes.published(vars(config)), epochs=epochs)
    warp = published.augmentation
    settings: dict[str, Any] = {"learning_rate": 1e-3, "warm_up": 0.05, "weight_decay": 0.01}
    adamw = replace(published, optimizer="adamw", **settings)
    every = replace(warp, transpose=True, stain=0.1)
    all_changed = replace(adamw, balance="none", augmentation=every)
    tuned = replace(recipes.TUNED, epochs=epochs)
    full = replace(tuned, dropout=1.0)
    full_unsettled = replace(full, settling=0)
    return {
        "published": published,
        "eight symmetries": replace(published, augmentation=replace(warp, transpose=True)),
        "stain 0.1": replace(published, augmentation=replace(warp, stain=0.1)),
        "stain 0.25": replace(published, augmentation=replace(warp, stain=0.25)),
        "adamw": adamw,
        "sgd": replace(adamw, optimizer="sgd", learning_rate=0.05, weight_decay=5e-4),
        "adamw, weights averaged": replace(adamw, weight_average=0.995),
        "label smoothing": replace(published, label_smoothing=0.1),
        "no class weights": replace(published, balance="none"),
        "classes alike": replace(published, balance="classes"),
        "patients alike": replace(published, balance="patients"),
        "half the dropout": replace(published, dropout=0.5),
        "momentum 0.9": replace(published, momentum=0.9),
        "twice the epochs": replace(published, epochs=2 * epochs),
        NORMALISED: replace(published, name=NORMALISED),
        "adamw, unweighted, symmetries, stain 0.1": all_changed,
        "the same, stain 0.25": replace(all_changed, augmentation=replace(every, stain=0.25)),
        "the same, weights averaged": replace(all_changed, weight_average=0.995),
        "unweighted, symmetries, stain 0.1": replace(published, balance="none", augmentation=every),
        "statistics settled": replace(published, settling=tuned.settling),
        "tuned": tuned,
        "tuned, not settled": replace(tuned, settling=0),
        "tuned, no dropout": replace(tuned, dropout=0.0),
        "tuned, stain 0.1": replace(tuned, augmentation=every),
        "tuned, adamw": replace(tuned, optimizer="adamw", **settings),
        "tuned, averaged": replace(tuned, weight_average=0.998),
        "tuned, no dropout, averaged": replace(tuned, dropout=0.0, weight_average=0.998),
        "tuned, full dropout": full,
        "tuned, full dropout, averaged": replace(full, weight_average=0.998),
        "tuned, full dropout, not settled": full_unsettled,
        "tuned, full dropout, not settled, momentum 0.9": replace(full_unsettled, momentum=0.9),
        "tuned, full dropout, not settled, averaged": replace(full_unsettled, weight_average=0.998),
    }


def fingerprint(recipe: Recipe) -> str:
    """Tells recipes apart, so that no row counts for another one than it was made with.

    Defaults are left out: where recipes get one more value, those without it stay what they were.
    """

    def chosen(part: Recipe | Augmentation) -> dict[str, Any]:
        return {
            field.name: chosen(value) if isinstance(value, Augmentation) else value
            for field in fields(part)
            if (value := getattr(part, field.name)) != field.default
        }

    return hashlib.sha256(repr(chosen(recipe)).encode()).hexdigest()[:8]


def development_rows(folder: Path) -> list[Row]:
    """Lists the patches of a data set, less those of the published testing patients."""
    splits, build = dataset.open_dataset(folder)
    if build["sample"]:
        raise cli.InputError(
            f"{folder} is the synthetic sample, which decides no recipe. Name a data set of "
            "real patches."
        )
    published = read_published()
    return [
        row
        for rows in splits.values()
        for row in rows
        if row.patient not in published or published[row.patient].split != "testing"
    ]


def make_folds(rows: list[Row], *, folds: int, seed: int) -> Iterator[dict[str, list[Row]]]:
    """Yields each fold's splits: no patient is in two of them, nor in two folds' testing."""
    from sklearn.model_selection import StratifiedGroupKFold

    def cut(rows: list[Row], parts: int) -> Iterator[tuple[list[Row], list[Row]]]:
        splitter = StratifiedGroupKFold(parts, shuffle=True, random_state=seed)
        labels, patients = [row.label for row in rows], [row.patient for row in rows]
        for kept, apart in splitter.split(rows, labels, patients):
            yield [rows[index] for index in kept], [rows[index] for index in apart]

    for left, testing in cut(rows, folds):
        training, validation = next(cut(left, VALIDATION))
        yield {"training": training, "validation": validation, "testing": testing}


def train(
    recipe: Recipe, splits: dict[str, list[Row]], *, folder: Path, output: Path
) -> train_model.Trained:
    """Trains as train_model.py does, with `output` for what it leaves."""
    arguments = argparse.Namespace(
        dataset=folder, recipe=recipe, batch_size=recipe.batch_size, resume=False
    )
    data = train_model.Data(splits, build={"sample": False}, exclusions=[])
    return train_model.train(arguments, data, run=output, inputs={})


def run(
    recipe: Recipe, splits: dict[str, list[Row]], *, folder: Path, seed: int, all_ways: bool
) -> Iterator[dict[str, Any]]:
    """Trains, and yields the figures of each way of scoring."""
    config.SEED = seed
    config.DECODE_CACHE_MB = 1000
    with (
        tempfile.TemporaryDirectory() as output,
        tempfile.TemporaryDirectory() as normalised,
        contextlib.redirect_stdout(io.StringIO()),
    ):
        if recipe.name == NORMALISED:
            for rows in splits.values():
                inputs.normalise(rows, folder, Path(normalised))
            folder = Path(normalised)
        trained = train(recipe, splits, folder=folder, output=Path(output))
        plain = train_model.score_best_epoch(Path(output), trained)
    best = max(trained.history, key=lambda row: row["val_roc_auc"])
    common = {
        "patients": len({row.patient for row in splits["testing"]}),
        "patches": len(splits["testing"]),
        "best_epoch": best["epoch"],
    }
    yield common | {"scoring": "plain"} | figures(splits, plain)
    if all_ways:
        for name, score in scoring.WAYS.items():
            probabilities = score(trained.twin, trained.scoring, splits)
            yield common | {"scoring": name} | figures(splits, probabilities)


def figures(
    splits: Mapping[str, Sequence[Row]], probabilities: Mapping[str, Any]
) -> dict[str, Any]:
    """Makes the figures of the fold's own patients; threshold and line are of validation."""
    import numpy as np

    from cancernet.evaluation import calibration, evaluation, scorecard

    labels = {split: np.array([row.label for row in splits[split]]) for split in probabilities}
    fitted, _ = scorecard.fit(
        labels["validation"], probabilities["validation"], measure="balanced_accuracy"
    )
    truth, found = labels["testing"], probabilities["testing"]
    chosen = evaluation.confusion(truth, found, threshold=fitted.threshold)
    recalibrated = calibration.recalibrate(found, fitted.recalibration)
    return {
        "roc_auc": evaluation.roc_auc(truth, found),
        "balanced_accuracy": chosen.balanced_accuracy,
        "balanced_accuracy_at_0.5": evaluation.confusion(
            truth, found, threshold=0.5
        ).balanced_accuracy,
        "ece": calibration.expected_calibration_error(truth, found),
        "ece_recalibrated": calibration.expected_calibration_error(truth, recalibrated),
    }


def read_rows() -> list[dict[str, str]]:
    """Reads the rows of all finished runs."""
    if not ROWS.is_file():
        return []
    with ROWS.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def write_rows(rows: Sequence[Mapping[str, Any]]) -> None:
    """Adds the rows of a finished run."""
    new = not ROWS.is_file()
    with ROWS.open("a", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, [*KEY, *FIGURES], lineterminator="\n")
        if new:
            writer.writeheader()
        writer.writerows(rows)


def run_stage(name: str, chosen: Sequence[str], rows: list[Row], folder: Path) -> None:
    """Runs what has no row yet: fold by fold, so that what is there can always be compared."""
    stage = STAGES[name]
    known = candidates(stage.epochs)
    for seed in stage.seeds:
        for fold, splits in enumerate(make_folds(rows, folds=stage.folds, seed=seed)):
            for candidate in chosen:
                key = {
                    "stage": name,
                    "candidate": candidate,
                    "recipe": fingerprint(known[candidate]),
                    "fold": str(fold),
                    "seed": str(seed),
                }
                if any(key.items() <= row.items() for row in read_rows()):
                    continue
                found = run(
                    known[candidate],
                    splits,
                    folder=folder,
                    seed=seed,
                    all_ways=candidate == SCORED_ALL_WAYS,
                )
                done = [key | row for row in found]
                write_rows(done)
                print(
                    f"{name}, seed {seed}, fold {fold + 1} of {stage.folds}, {candidate}: "
                    f"ROC AUC {done[0]['roc_auc']:.4f}",
                    file=sys.stderr,
                )


def table(name: str) -> Iterator[str]:
    """Writes a stage's table: means over folds and seeds, and differences run by run."""
    known = candidates(STAGES[name].epochs)
    results: dict[str, dict[tuple[str, str], dict[str, str]]] = {}
    for row in read_rows():
        candidate = row["candidate"]
        if row["stage"] == name and row["recipe"] == fingerprint(known[candidate]):
            label = candidate if row["scoring"] == "plain" else f"{candidate}, {row['scoring']}"
            results.setdefault(label, {})[row["fold"], row["seed"]] = row
    if "published" not in results:
        return
    stage = STAGES[name]
    yield (
        f"{stage.folds} folds, seed {' and '.join(map(str, stage.seeds))}, {stage.epochs} epochs; "
        "mean over the runs, ± their deviation, and (difference from the published recipe in the "
        "same runs ± its standard error):\n"
    )
    yield "| recipe | runs | ROC AUC | balanced accuracy | at 0.5 | ECE | recalibrated |"
    yield "|---|---:|---|---|---|---|---|"
    for label, runs in results.items():
        cells = [cell(column, runs, results["published"]) for column in FIGURES[:5]]
        yield f"| {label} | {len(runs)} | {' | '.join(cells)} |"


def cell(
    column: str,
    runs: Mapping[tuple[str, str], Mapping[str, str]],
    published: Mapping[tuple[str, str], Mapping[str, str]],
) -> str:
    """Writes mean, deviation and paired difference of a figure."""
    values = [float(row[column]) for row in runs.values()]
    text = f"{statistics.mean(values):.3f}"
    if len(values) > 1:
        text += f" ± {statistics.stdev(values):.3f}"
    gains = [
        float(row[column]) - float(published[key][column])
        for key, row in runs.items()
        if key in published
    ]
    if any(gains):
        text += f" ({statistics.mean(gains):+.3f}"
        if len(gains) > 1:
            text += f" ± {statistics.stdev(gains) / math.sqrt(len(gains)):.3f}"
        text += ")"
    return text


def main() -> None:
    """Runs what is asked for and prints the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, metavar="DIR", help="a data set; none: the tables")
    parser.add_argument("--final", nargs="+", metavar="NAME", help="run these at length")
    parser.add_argument("--screen", nargs="+", metavar="NAME", help="screen these alone")
    arguments = parser.parse_args()
    name = "final" if arguments.final else "screen"
    known = list(candidates(1))
    chosen = arguments.final or arguments.screen or known
    if unknown := set(chosen) - set(known):
        parser.error(f"no such recipe: {', '.join(sorted(unknown))}; known: {', '.join(known)}")
    if arguments.data:
        cli.prepare_tensorflow()
        run_stage(name, chosen, development_rows(arguments.data), arguments.data)
    for stage in STAGES:
        for line in table(stage):
            print(line)
        print()


if __name__ == "__main__":
    cli.run(main)
