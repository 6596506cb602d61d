"""Compares training recipes by cross-validation on the development patients.

    python benchmarks/recipes.py published tuned
    python benchmarks/recipes.py --stage screen "tuned, dropout=0.25"
    python benchmarks/recipes.py              only writes the tables anew

A candidate is "published" or "tuned", with any field of Recipe or Augmentation changed. Folds hold
whole patients; those of the published testing list are left out. Some of the patients that a fold
leaves are for validation: best epoch, threshold and recalibration come from them, all metrics from
the fold's own. A finished run is a row of benchmarks/recipes.csv and is not run again. All runs are
in the tables of docs/experiments.md. The history of each run, and its probabilities of the patients
that it was not trained on, stay under output/folds.
"""

import argparse
import ast
import csv
import hashlib
import itertools
import re
import statistics
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).parents[1]))
from cancernet import cli, config, files, recipe
from cancernet.data.dataset import Dataset, Row, Split
from cancernet.data.splitting import read_published
from cancernet.recipe import Recipe

ROWS = Path(__file__).with_suffix(".csv")
PAGE = Path(__file__).parents[1] / "docs" / "experiments.md"
FOLDS = Path(__file__).parents[1] / "output" / "folds"
MARKS = "<!-- {}: by python benchmarks/recipes.py -->", "<!-- end of {} -->"


class Stage(NamedTuple):
    """How thoroughly recipes are tried."""

    folds: int
    seeds: tuple[int, ...]
    epochs: int
    baseline: str = "published"


BASELINE = "tuned, averaging=1"  # What was compared on more patches.
STAGES = {
    "final": Stage(5, (1, 2), 20),
    "screen": Stage(3, (1,), 8),
    "long": Stage(3, (1, 2), 20, BASELINE),  # On 41,897 patches, 22 whole slides among them.
}
VALIDATION = 8  # One in so many of the patients that a fold leaves.

KEY = ("stage", "candidate", "recipe", "fold", "seed", "scoring")
METRICS = ("roc_auc", "balanced_accuracy", "balanced_accuracy_at_0.5", "ece", "ece_recalibrated")
ABOUT = ("patients", "patches", "best_epoch")
COLUMNS = (*KEY, *METRICS, *ABOUT)

# A recipe's rows, by fold and seed.
Runs = dict[tuple[str, str], dict[str, str]]

# A row's scoring: of each patch as it is, or by the mean over its eight symmetries.
PLAIN, AVERAGED = "plain", "symmetries averaged"


def has_ended(name: str) -> bool:
    """Tells whether a candidate is an ended experiment: a change in words is no field any more."""
    return any("=" not in change for change in name.split(", ")[1:])


def candidate(name: str, *, epochs: int) -> Recipe:
    """Makes the recipe of a name such as "tuned, dropout=0.25, transpose=False".

    Raises:
        InputError: There is no such recipe or field, or the value is none.
    """
    base, *changes = name.split(", ")
    known = {"published": recipe.published(vars(config)), "tuned": recipe.TUNED}
    try:
        found = replace(known[base], epochs=epochs)
        for change in changes:
            field, text = change.split("=")
            value = {field: ast.literal_eval(text)}
            if hasattr(found.augmentation, field):
                value = {"augmentation": replace(found.augmentation, **value)}
            found = replace(found, **value)
    except (KeyError, ValueError, SyntaxError, TypeError) as error:
        raise cli.InputError(
            f"{name!r} is no candidate ({error!r}): expected published or tuned, and changes of "
            "the fields of Recipe and Augmentation such as dropout=0.5."
        ) from error
    return found


def folder_of(stage: str, name: str, seed: int, fold: int) -> Path:
    """Tells where the probabilities of a run are kept."""
    return FOLDS / re.sub(r"[^\w.]+", "-", f"{stage} {name} {seed} {fold}")


def fingerprint(of: Recipe) -> str:
    """Tells recipes apart, so that no row counts for another one than it was made with."""
    return hashlib.sha256(repr(of).encode()).hexdigest()[:8]


def development_rows(data: Dataset) -> list[Row]:
    """Lists the patches of a data set, less those of the published testing patients.

    Raises:
        InputError: It is the synthetic sample.
    """
    if data.sample:
        raise cli.InputError(f"{data.folder} is the synthetic sample, which decides no recipe.")
    tested = {name for name, facts in read_published().items() if facts.split == "testing"}
    return [
        row for split in data.splits.values() for row in split.rows if row.patient not in tested
    ]


def make_folds(
    rows: list[Row], folder: Path, *, folds: int, seed: int
) -> Iterator[dict[str, Split]]:
    """Yields each fold's splits: no patient is in two of them, nor in two folds' testing."""
    from sklearn.model_selection import StratifiedGroupKFold

    def cut(rows: list[Row], parts: int) -> Iterator[list[list[Row]]]:
        splitter = StratifiedGroupKFold(parts, shuffle=True, random_state=seed)
        labels, patients = [row.label for row in rows], [row.patient for row in rows]
        for two in splitter.split(rows, labels, patients):
            yield [[rows[index] for index in part] for part in two]

    for left, testing in cut(rows, folds):
        training, validation = next(cut(left, VALIDATION))
        parts = {"training": training, "validation": validation, "testing": testing}
        yield {name: Split(name, folder, part) for name, part in parts.items()}


def run_candidate(
    chosen: Recipe, splits: Mapping[str, Split], *, seed: int, averaged: bool, kept: Path
) -> Iterator[dict[str, Any]]:
    """Trains, and yields the row of each way of scoring, but for its key."""
    import training  # Loads TensorFlow.

    run, model = training.train(chosen, splits, seed=seed)
    files.write_csv(kept / "history.csv", list(run.rows[0]), [row.values() for row in run.rows])
    testing = splits["testing"]
    best = max(run.rows, key=lambda row: row["val_roc_auc"])
    about = dict(zip(ABOUT, (len(set(testing.patients)), len(testing), best["epoch"]), strict=True))
    for scoring in (PLAIN, AVERAGED) if averaged else (PLAIN,):
        probabilities = training.score(model, splits, averaged=scoring == AVERAGED)
        if scoring == PLAIN:
            keep(kept / "predictions.csv", splits, probabilities)
        yield training.measure(splits, probabilities) | about | {"scoring": scoring}


def keep(file: Path, splits: Mapping[str, Split], probabilities: Mapping[str, Any]) -> None:
    """Writes the probabilities of patients that took no part in training."""
    columns = ("split", "file", "patient", "x", "y", "label", "probability")
    rows = [
        (name, row.file, row.patient, row.x, row.y, row.label, float(probability))
        for name in probabilities
        for row, probability in zip(splits[name].rows, probabilities[name], strict=True)
    ]
    files.write_csv(file, columns, rows)


def run_stage(name: str, chosen: Sequence[str], data: Dataset) -> None:
    """Runs what has no row yet: fold by fold, so that what is there can always be compared."""
    stage = STAGES[name]
    rows = development_rows(data)
    for seed in stage.seeds:
        folds = make_folds(rows, data.folder, folds=stage.folds, seed=seed)
        for (fold, splits), tried in itertools.product(enumerate(folds), chosen):
            of_it = candidate(tried, epochs=stage.epochs)
            values = (name, tried, fingerprint(of_it), str(fold), str(seed))
            key = dict(zip(KEY, values, strict=False))
            if any(key.items() <= row.items() for row in read_rows()):
                continue
            kept = folder_of(name, tried, seed, fold)
            kept.mkdir(parents=True, exist_ok=True)
            found = run_candidate(of_it, splits, seed=seed, averaged=tried == "tuned", kept=kept)
            done = [key | row for row in found]
            add_rows(done)
            about = f"{name}, seed {seed}, fold {fold + 1} of {stage.folds}, {tried}"
            print(f"{about}: ROC AUC {done[0]['roc_auc']:.4f}", file=sys.stderr)


def read_rows() -> list[dict[str, str]]:
    """Reads the rows of all finished runs."""
    if not ROWS.is_file():
        return []
    with ROWS.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def add_rows(rows: Sequence[Mapping[str, Any]]) -> None:
    """Adds the rows of a finished run."""
    everything = [*read_rows(), *rows]
    files.write_csv(ROWS, COLUMNS, [[row.get(name) for name in COLUMNS] for row in everything])


def table(name: str) -> Iterator[str]:
    """Yields a stage's table: means over folds and seeds, and differences run by run."""
    stage = STAGES[name]
    results: dict[str, Runs] = {}
    for row in read_rows():
        tried = row["candidate"]
        if row["stage"] == name and (
            has_ended(tried) or row["recipe"] == fingerprint(candidate(tried, epochs=stage.epochs))
        ):
            label = tried if row["scoring"] == PLAIN else f"{tried}; {row['scoring']}"
            results.setdefault(label, {})[row["fold"], row["seed"]] = row
    yield (
        f"{stage.folds} folds, seed {' and '.join(map(str, stage.seeds))}, {stage.epochs} epochs; "
        f"mean over the runs, ± their\ndeviation, and (difference from the {stage.baseline} recipe "
        "in the same runs ± its standard error):\n"
    )
    yield "| recipe | runs | ROC AUC | balanced accuracy | at 0.5 | ECE | recalibrated |"
    yield "|---|---:|---|---|---|---|---|"
    for label, runs in results.items():
        cells = [cell(column, runs, results.get(stage.baseline, {})) for column in METRICS]
        yield f"| {label} | {len(runs)} | {' | '.join(cells)} |"


def cell(column: str, runs: Runs, baseline: Runs) -> str:
    """Writes mean, deviation and paired difference of a metric."""
    values = {key: float(row[column]) for key, row in runs.items()}
    gains = [values[key] - float(baseline[key][column]) for key in values if key in baseline]
    text = f"{statistics.mean(values.values()):.3f}"
    if len(values) > 1:
        text += f" ± {statistics.stdev(values.values()):.3f}"
    if any(gains):
        error = f" ± {statistics.stdev(gains) / len(gains) ** 0.5:.3f}" if len(gains) > 1 else ""
        text += f" ({statistics.mean(gains):+.3f}{error})"
    return text


def passes(name: str) -> Iterator[str]:
    """Yields how fast the recipes of a stage learn, from the histories under output/folds."""
    stage, text = STAGES[name], "{}, seed {}, fold {}: {} reaches ROC AUC {:.3f} on validation {}"
    tried = dict.fromkeys(row["candidate"] for row in read_rows() if row["stage"] == name)
    for seed, fold in itertools.product(stage.seeds, range(stage.folds)):
        curves = {}
        for each in tried:
            history = folder_of(name, each, seed, fold) / "history.csv"
            if history.is_file():
                with history.open(newline="", encoding="utf-8") as file:
                    curves[each] = [float(row["val_roc_auc"]) for row in csv.DictReader(file)]
        if "published" not in curves:
            continue
        best = max(curves["published"])
        for each, areas in curves.items():
            first = next((f"in epoch {i}" for i, area in enumerate(areas, 1) if area >= best), None)
            yield text.format(name, seed, fold + 1, each, best, first or "in no epoch")


def write_page() -> None:
    """Puts the tables between their marks in docs/experiments.md."""
    text = PAGE.read_text(encoding="utf-8")
    for name in STAGES:
        first, last = (mark.format(name) for mark in MARKS)
        lines = "\n".join(table(name))
        before, _, rest = text.partition(first)
        text = f"{before}{first}\n\n{lines}\n\n{last}{rest.partition(last)[2]}"
    with files.replacing(PAGE) as beside:
        beside.write_text(text, encoding="utf-8")


def main() -> None:
    """Runs the candidates that are named, and writes the tables."""
    parser = argparse.ArgumentParser(description="Compare recipes by cross-validation.")
    add = parser.add_argument
    add("candidates", nargs="*", metavar="NAME", help="a recipe, as in 'tuned, dropout=0.25'")
    add("--stage", choices=STAGES, default="final", help="how thoroughly (default: final)")
    add("--data", type=Path, default=config.BASE_PATH, metavar="DIR", help="of real patches")
    arguments = parser.parse_args()
    for name in arguments.candidates:
        candidate(name, epochs=1)  # Refuses a wrong name before hours of training.
    if arguments.candidates:
        data = Dataset.open(arguments.data)
        cli.prepare_tensorflow()
        run_stage(arguments.stage, arguments.candidates, data)
    write_page()
    print(*passes(arguments.stage), f"Tables: {PAGE}", sep="\n")


if __name__ == "__main__":
    cli.run(main)
