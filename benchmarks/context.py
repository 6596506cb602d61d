"""Chooses the form of slide context by cross-validation, and shows what it does per slide.

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
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).parents[1]))
from recipes import FOLDS, folder_of
from sklearn.linear_model import LogisticRegression

from cancernet import cli
from cancernet.data.patch import PATCH_SIDE
from cancernet.evaluation import context, metrics
from cancernet.evaluation.calibration import (
    choose_threshold,
    fit_line,
    recalibrate,
    to_logits,
)
from cancernet.evaluation.context import Grid

# A slide is whole where so many patches have neighbours, most of eight places being taken.
FEWEST, MOST_OF = 200, 0.6

Probabilities = NDArray[np.floating[Any]]
# Fitted on the first patches with their labels, it scores the second.
Form = Callable[["Patches", "Patches"], Probabilities]


@dataclass(frozen=True)
class Patches:
    """One split of one fold, out of fold."""

    grid: Grid
    patients: NDArray[np.str_]
    labels: NDArray[np.int64]
    probabilities: Probabilities

    @classmethod
    def of(cls, rows: Sequence[Mapping[str, str]]) -> "Patches":
        """Makes them of the rows of predictions.csv."""
        x, y = ([int(row[name]) if row[name] else None for row in rows] for name in "xy")
        patients = [row["patient"] for row in rows]
        return cls(
            Grid.of(patients, x, y, PATCH_SIDE),
            np.array(patients),
            np.array([int(row["label"]) for row in rows]),
            np.array([float(row["probability"]) for row in rows]),
        )

    def only(self, which: NDArray[np.bool_]) -> "Patches":
        """Keeps some of the patches."""
        grid = Grid(self.grid.slides[which], self.grid.cells[which])
        return Patches(grid, self.patients[which], self.labels[which], self.probabilities[which])

    @cached_property
    def near(self) -> NDArray[np.intp]:
        """Counts the eight nearest neighbours of each patch that are there."""
        return np.count_nonzero([there >= 0 for _, there in self.grid.neighbours(1)], axis=0)

    def slides(self) -> Iterator[tuple[str, NDArray[np.bool_]]]:
        """Yields each whole slide, and which patches of it have neighbours."""
        for patient in np.unique(self.patients):
            own = (self.patients == patient) & (self.near > 0)
            if own.sum() >= FEWEST and self.near[own].mean() >= 8 * MOST_OF:
                yield str(patient), own


def gaussian(width: float, reach: int) -> Form:
    """The mean of the logits by a Gaussian kernel."""

    def score(_: Patches, of: Patches) -> Probabilities:
        return context.average(of.grid, of.probabilities, width=width, reach=reach)

    return score


def rings(reach: int) -> Form:
    """Logistic regression on the logit and the mean logit of each ring, a missing one as inside."""

    def features(of: Patches) -> NDArray[np.float64]:
        logits = to_logits(of.probabilities)
        columns = [logits]
        for ring in range(1, reach + 1):
            total, number = np.zeros(len(logits)), np.zeros(len(logits))
            for distance, there in of.grid.neighbours(ring):
                if distance >= ring:
                    total += np.where(there >= 0, logits[there], 0)
                    number += there >= 0
            columns.append(np.where(number > 0, total / np.maximum(number, 1), columns[-1]))
        return np.stack(columns, axis=1)

    def score(fitted: Patches, of: Patches) -> Probabilities:
        regression = LogisticRegression(C=1.0).fit(features(fitted), fitted.labels)
        alone = of.near == 0
        return np.where(alone, np.nan, regression.predict_proba(features(of))[:, 1])

    return score


FORMS: dict[str, Form] = {
    "alone": lambda _, of: of.probabilities,
    "mean of 3 x 3": gaussian(1e6, 1),
    "mean of 5 x 5": gaussian(1e6, 2),
    "mean of 7 x 7": gaussian(1e6, 3),
    **{
        f"Gaussian, width {width}": gaussian(width, reach)
        for width, reach in ((0.75, 2), (1.0, 2), (1.5, 3), (2.0, 4), (2.5, 5), (3.0, 6), (4.0, 8))
    },
    "rings, reach 2": rings(2),
    "rings, reach 4": rings(4),
}


def read_folds(name: str) -> Iterator[dict[str, Patches]]:
    """Yields validation and testing of each fold of a recipe.

    Raises:
        cli.InputError: No fold has been run.
    """
    of_fold = folder_of("long", name, 1, 0).name.removesuffix("-0")
    found = sorted(FOLDS.glob(f"{of_fold}-[0-9]/predictions.csv"))
    if not found:
        raise cli.InputError(f"Found no finished fold of {name!r} in {FOLDS}: see recipes.py.")
    for path in found:
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        yield {
            split: Patches.of([row for row in rows if row["split"] == split])
            for split in ("validation", "testing")
        }


def measure(form: Form, folds: Sequence[Mapping[str, Patches]]) -> dict[str, dict[str, float]]:
    """Measures a form on every whole slide of all folds."""
    found = {}
    for fold in folds:
        validation, testing = fold["validation"], fold["testing"]
        mean = form(validation, validation)
        there = np.isfinite(mean) & (validation.near > 0)
        line = fit_line(validation.labels[there], mean[there])
        threshold = choose_threshold(
            validation.labels[there], recalibrate(mean[there], line), measure="balanced_accuracy"
        )
        scores = recalibrate(form(validation, testing), line)
        for patient, own in testing.slides():
            labels, values = testing.labels[own], scores[own]
            counts = metrics.confusion(labels, values, threshold=threshold or 0.5)
            found[patient] = {
                "patches": float(own.sum()),
                "malignant": float(labels.mean()),
                "roc_auc": metrics.roc_auc(labels, values),
                "balanced_accuracy": counts.balanced_accuracy,
                "sensitivity": counts.sensitivity,
                "ece": metrics.expected_calibration_error(labels, values),
                "cross_entropy": metrics.cross_entropy(labels, values),
            }
    return found


def forms_table(folds: Sequence[Mapping[str, Patches]]) -> Iterator[str]:
    """Yields a line per form: means over the slides, and differences from each patch alone."""
    names = ("roc_auc", "balanced_accuracy", "ece", "cross_entropy")
    alone = measure(FORMS["alone"], folds)
    yield f"{len(alone)} whole slides; mean, and (difference from alone ± its standard error):\n"
    yield "| form | ROC AUC | worst slide | balanced accuracy | ECE | cross-entropy |"
    yield "|---|---|---:|---|---|---|"
    for form, score in FORMS.items():
        of_slide = measure(score, folds)
        cells = []
        for name in names:
            gains = [of_slide[slide][name] - alone[slide][name] for slide in alone]
            error = statistics.stdev(gains) / len(gains) ** 0.5
            mean = statistics.mean(row[name] for row in of_slide.values())
            cells.append(f"{mean:.3f} ({statistics.mean(gains):+.3f} ± {error:.3f})")
            if name == "roc_auc":
                cells.append(f"{min(gains):+.3f}")
        yield f"| {form} | {' | '.join(cells)} |"


def slides_table(folds: Sequence[Mapping[str, Patches]], form: Form) -> Iterator[str]:
    """Yields a line per whole slide: alone, and in context."""
    alone, inside = measure(FORMS["alone"], folds), measure(form, folds)
    yield "| slide | patches | malignant | ROC AUC | in context | balanced accuracy | in context |"
    yield "|---|---:|---:|---:|---:|---:|---:|"
    for slide, row in sorted(alone.items()):
        of_both = [
            f"{values[slide][name]:.3f}"
            for name in ("roc_auc", "balanced_accuracy")
            for values in (alone, inside)
        ]
        cells = [f"{row['patches']:,.0f}", f"{row['malignant']:.1%}", *of_both]
        yield f"| {slide} | {' | '.join(cells)} |"


def foci_table(folds: Sequence[Mapping[str, Patches]]) -> Iterator[str]:
    """Yields a line per size of a focus, over the slides of all folds."""
    total: dict[str, list[float]] = {name: [0, 0, 0, 0] for name in context.SIZES}
    for fold in folds:
        validation, testing = fold["validation"], fold["testing"]
        fitted, _ = context.fit(
            validation.grid,
            validation.labels,
            validation.probabilities,
            validation.patients.tolist(),
            measure="balanced_accuracy",
        )
        threshold = choose_threshold(
            validation.labels, validation.probabilities, measure="balanced_accuracy"
        )
        if fitted is None or threshold is None:
            continue
        kept = testing.only(np.any([own for _, own in testing.slides()], axis=0))
        inside = fitted.apply(kept.grid, kept.probabilities) >= fitted.threshold
        alone = kept.probabilities >= threshold
        for row in context.foci(kept.grid, kept.labels, alone, inside):
            patches = row["patches"]
            added = [row["groups"], patches]
            added += [
                (row[name] or 0) * patches for name in ("sensitivity", "sensitivity_in_context")
            ]
            name = str(row["patches_per_group"])
            total[name] = [one + other for one, other in zip(total[name], added, strict=True)]
    yield "| patches per focus | foci | patches | sensitivity alone | in context |"
    yield "|---|---:|---:|---:|---:|"
    for name, (groups, patches, alone_found, inside_found) in total.items():
        shares = [
            f"{part / patches:.3f}" if patches else "-" for part in (alone_found, inside_found)
        ]
        yield f"| {name} | {groups:,.0f} | {patches:,.0f} | {' | '.join(shares)} |"


def main() -> None:
    """Prints the tables."""
    parser = argparse.ArgumentParser(description="Choose the form of slide context.")
    parser.add_argument("candidate", nargs="?", default="tuned", help="as in recipes.py")
    folds = list(read_folds(parser.parse_args().candidate))
    print(*forms_table(folds), sep="\n")
    print()
    form = gaussian(context.WIDTH, context.REACH)
    print(*slides_table(folds, form), sep="\n")
    print()
    print(*foci_table(folds), sep="\n")


if __name__ == "__main__":
    cli.run(main)
