"""Compares forms of slide context by cross-validation, and shows the chosen one per slide.

    python benchmarks/recipes.py --stage long tuned     first, hours
    python benchmarks/context.py

Reads what each fold of that comparison predicted for patients that its network was not trained on.
A form is fitted on a fold's validation patients, as `cancernet.evaluation.context` is, and measured
on the fold's testing patients: whole slides one by one, and the malignant foci of all of them.
"""

import argparse
import csv
import statistics
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).parents[1]))
from recipes import BASELINE, FOLDS, folder_of

from cancernet import cli
from cancernet.data.dataset import Row, Split
from cancernet.evaluation import context, metrics
from cancernet.evaluation.calibration import choose_threshold, fit_line, recalibrate
from cancernet.evaluation.context import Grid, Scores
from cancernet.evaluation.metrics import Probabilities

# A slide is whole where so many patches have neighbours, most of eight places being taken.
FEWEST, MOST_OF = 200, 0.6

ALONE, EVEN = "alone", 1e6
# Width of the Gaussian kernel and its reach to each side, in patches.
FORMS: dict[str, tuple[float, int]] = {
    ALONE: (0, 0),
    "mean of 3 x 3": (EVEN, 1),
    "mean of 5 x 5": (EVEN, 2),
    "Gaussian, width 1.0": (1.0, 2),
    "Gaussian, width 1.5": (1.5, 3),
    "Gaussian, width 2.0": (2.0, 4),
}
CHOSEN = "Gaussian, width 1.5"
COMPARED = ("roc_auc", "balanced_accuracy", "ece", "cross_entropy")


class Scored(NamedTuple):
    """A split, and the probabilities by a network that was not trained on its patients."""

    split: Split
    grid: Grid
    probabilities: Probabilities

    @classmethod
    def of(cls, name: str, lines: list[dict[str, str]]) -> "Scored":
        """Makes it of lines of predictions.csv."""
        rows, probabilities = [], []
        for line in lines:
            if line["split"] == name:
                x, y = (int(line[axis]) if line[axis] else None for axis in "xy")
                rows.append(Row(name, int(line["label"]), line["patient"], x, y, "", "", 0, ""))
                probabilities.append(float(line["probability"]))
        split = Split(name, Path(), rows)
        return cls(split, Grid.of_split(split), np.array(probabilities))

    def near(self) -> NDArray[np.intp]:
        """Counts the eight nearest neighbours of each patch that are there."""
        return np.count_nonzero([there >= 0 for _, there in self.grid.neighbours(1)], axis=0)

    def slides(self) -> Iterator[tuple[str, NDArray[np.bool_]]]:
        """Yields each whole slide, and which patches of it have neighbours."""
        near, patients = self.near(), np.array(self.split.patients)
        for patient in np.unique(patients):
            own = (patients == patient) & (near > 0)
            if own.sum() >= FEWEST and near[own].mean() >= 8 * MOST_OF:
                yield str(patient), own

    def average(self, form: str) -> Probabilities:
        """Applies a form: the probabilities of the mean logits."""
        width, reach = FORMS[form]
        if not reach:
            return self.probabilities
        return context.average(self.grid, self.probabilities, width=width, reach=reach)


Folds = list[tuple[Scored, Scored]]


def read_folds(name: str) -> Folds:
    """Reads validation and testing of each fold of a recipe, of which some must have been run."""
    of_fold = folder_of("long", name, 1, 0).name.removesuffix("-0")
    folds = []
    for path in sorted(FOLDS.glob(f"{of_fold}-[0-9]/predictions.csv")):
        with path.open(newline="", encoding="utf-8") as file:
            lines = list(csv.DictReader(file))
        folds.append((Scored.of("validation", lines), Scored.of("testing", lines)))
    if not folds:
        raise cli.InputError(f"Found no finished fold of {name!r} in {FOLDS}: see recipes.py.")
    return folds


def fit(form: str, validation: Scored, testing: Scored) -> tuple[Probabilities, float]:
    """Fits a form on validation: the testing patches' probabilities by it, and its threshold."""
    there = validation.near() > 0
    labels, mean = validation.split.labels[there], validation.average(form)[there]
    line = fit_line(labels, mean)
    threshold = choose_threshold(labels, recalibrate(mean, line), measure="balanced_accuracy")
    return recalibrate(testing.average(form), line), threshold or 0.5


def measure(form: str, folds: Folds) -> dict[str, dict[str, Any]]:
    """Measures a form on every whole slide of all folds."""
    found = {}
    for validation, testing in folds:
        scores, threshold = fit(form, validation, testing)
        for slide, own in testing.slides():
            labels, values = testing.split.labels[own], scores[own]
            confusion = metrics.confusion(labels, values, threshold=threshold)
            found[slide] = {
                "patches": len(labels),
                "malignant": labels.mean(),
                "roc_auc": metrics.roc_auc(labels, values),
                "balanced_accuracy": confusion.rates()["balanced_accuracy"],
                "ece": metrics.expected_calibration_error(labels, values),
                "cross_entropy": metrics.cross_entropy(labels, values),
            }
    return found


def forms_table(folds: Folds) -> Iterator[str]:
    """Yields a line per form: means over the slides, and differences from each patch alone."""
    alone = measure(ALONE, folds)
    yield f"{len(alone)} whole slides; mean, and (difference from alone ± its standard error):\n"
    yield "| form | ROC AUC | worst slide | balanced accuracy | ECE | cross-entropy |"
    yield "|---|---|---:|---|---|---|"
    for form in FORMS:
        of_slide = measure(form, folds)
        cells = []
        for name in COMPARED:
            gains = [of_slide[slide][name] - alone[slide][name] for slide in alone]
            error = statistics.stdev(gains) / len(gains) ** 0.5
            mean = statistics.mean(row[name] for row in of_slide.values())
            cells.append(f"{mean:.3f} ({statistics.mean(gains):+.3f} ± {error:.3f})")
            if name == "roc_auc":
                cells.append(f"{min(gains):+.3f}")
        yield f"| {form} | {' | '.join(cells)} |"


def slides_table(folds: Folds) -> Iterator[str]:
    """Yields a line per whole slide: alone, and in context."""
    both = measure(ALONE, folds), measure(CHOSEN, folds)
    yield "| slide | patches | malignant | ROC AUC | in context | balanced accuracy | in context |"
    yield "|---|---:|---:|---:|---:|---:|---:|"
    for slide, row in sorted(both[0].items()):
        names = ("roc_auc", "balanced_accuracy")
        cells = [f"{each[slide][name]:.3f}" for name in names for each in both]
        yield f"| {slide} | {row['patches']:,} | {row['malignant']:.1%} | {' | '.join(cells)} |"


def foci(folds: Folds) -> list[dict[str, Any]]:
    """Counts the foci of all whole slides, by size, and what train_model.py's fit finds of them."""
    labels, alone, in_context = [], [], []
    for validation, testing in folds:
        decision, _ = context.decide(
            validation.split, validation.probabilities, measure="balanced_accuracy"
        )
        scores = Scores.of(testing.split, testing.probabilities, decision)
        whole = np.any([own for _, own in testing.slides()], axis=0)
        labels.append(np.where(whole, testing.split.labels, 0))
        alone.append(scores.raw >= decision.threshold)
        in_context.append(scores.in_context >= (decision.context or decision).threshold)
    # No patient is in two folds' testing, so all of it can be one split.
    rows = [row for _, testing in folds for row in testing.split.rows]
    grid = Grid.of_split(Split("testing", Path(), rows))
    return context.foci(grid, *(np.concatenate(parts) for parts in (labels, alone, in_context)))


def main() -> None:
    """Prints both tables, and the foci."""
    parser = argparse.ArgumentParser(description="Compare forms of slide context.")
    parser.add_argument("candidate", nargs="?", default=BASELINE, help="as in recipes.py")
    folds = read_folds(parser.parse_args().candidate)
    print(*forms_table(folds), "", *slides_table(folds), "", *foci(folds), sep="\n")


if __name__ == "__main__":
    cli.run(main)
