"""Figures, drawn by matplotlib without a screen."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from sklearn import metrics
from sklearn.calibration import calibration_curve

from cancernet.cli import SAMPLE_NOTICE
from cancernet.evaluation.calibration import BINS
from cancernet.evaluation.evaluation import Labels, Probabilities
from cancernet.files import replacing

# Okabe & Ito (2008), "Color Universal Design": these differ for every kind of eye.
BLUE, VERMILION, GREEN = "#0072B2", "#D55E00", "#009E73"
TRAINING_COLOUR, VALIDATION_COLOUR = BLUE, VERMILION


class OperatingPoint(NamedTuple):
    """How a threshold is marked in every figure."""

    label: str
    colour: str
    marker: str


OPERATING_POINTS = {
    "at_0.5": OperatingPoint("threshold 0.5", VERMILION, "o"),
    "at_validation_threshold": OperatingPoint("validation threshold", GREEN, "D"),
}


def plot_history(
    history: Sequence[Mapping[str, float]], path: Path, *, weighted: bool, sample: bool
) -> None:
    """Draws training and validation loss and accuracy over the epochs, and marks the best epoch.

    Args:
        history: One mapping an epoch, with the names that history.csv has.
        path: PNG file to write.
        weighted: Whether training weighs classes, so that its loss is not that of validation.
        sample: Whether the patches are synthetic, which the figure then says.
    """
    epochs = [row["epoch"] for row in history]
    best = max(history, key=lambda row: row["val_roc_auc"])
    figure = Figure(figsize=(11, 4.5), layout="constrained")
    loss_axes, accuracy_axes = figure.subplots(1, 2)
    loss_axes.set_yscale("log")  # The first epochs' loss may be ten times that of the others.
    for axes, measure, unit in zip(
        (loss_axes, accuracy_axes),
        ("loss", "accuracy"),
        ("nats a patch" + ", class-weighted in training" * weighted, "share of patches"),
        strict=True,
    ):
        for name, label, colour, marker in (
            (measure, "training", TRAINING_COLOUR, "o"),
            (f"val_{measure}", "validation", VALIDATION_COLOUR, "s"),
        ):
            values = [row[name] for row in history]
            axes.plot(epochs, values, color=colour, marker=marker, markersize=4, label=label)
        axes.axvline(best["epoch"], color="0.5", linestyle=":", label="best epoch, kept")
        axes.set(xlabel="epoch", ylabel=f"{measure} ({unit})", title=measure.capitalize())
        axes.xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)
        axes.grid(alpha=0.3)
        axes.legend()
    _save(figure, path, sample=sample)


def plot_scores(
    run: Path,
    *,
    split: str,
    figures: Mapping[str, Any],
    labels: Labels,
    probabilities: Probabilities,
    calibrated: Probabilities,
    sample: bool,
) -> None:
    """Draws confusion_matrix.png, roc.png, precision_recall.png and calibration.png.

    Args:
        run: Directory to write to.
        split: Name of the split that is shown.
        figures: Its figures as metrics.json has them; those that are not defined are left out.
        labels: 0 benign, 1 malignant, shape (patches,).
        probabilities: Of class 1, in [0, 1], shape (patches,).
        calibrated: The same after recalibration.
        sample: Whether the patches are synthetic, which every figure then says.
    """
    what = f"{split}, {figures['patients']:,} patients, {figures['patches']:,} patches"
    points = {name: figures[name] for name in OPERATING_POINTS if figures.get(name)}

    figure = Figure(figsize=(4.4 * len(points), 4.8), layout="constrained")
    for axes, (name, point) in zip(
        np.ravel(figure.subplots(1, len(points))), points.items(), strict=True
    ):
        _draw_confusion(axes, point, title=_point_label(name, point))
    figure.supxlabel(f"Number of patches: {what}", fontsize="medium")
    _save(figure, run / "confusion_matrix.png", sample=sample)

    for file, draw in (("roc.png", _draw_roc), ("precision_recall.png", _draw_precision_recall)):
        figure = Figure(figsize=(5.6, 6), layout="constrained")
        axes = figure.subplots()
        draw(axes, figures, points, labels, probabilities)
        axes.set_title(what, fontsize="medium")
        axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), aspect=1)
        axes.grid(alpha=0.3)
        axes.legend(loc="lower right" if draw is _draw_roc else "lower left")
        _save(figure, run / file, sample=sample)

    figure = Figure(figsize=(5.6, 6), layout="constrained")
    shares, counts = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    _draw_calibration(shares, counts, labels, probabilities, calibrated)
    shares.set_title(what, fontsize="medium")
    _save(figure, run / "calibration.png", sample=sample)


def _draw_confusion(axes: Axes, point: Mapping[str, Any], *, title: str) -> None:
    """Draws a 2x2 table whose shades are the shares of each true class."""
    outcome = point["confusion_matrix"]
    counts = np.array([[outcome["tn"], outcome["fp"]], [outcome["fn"], outcome["tp"]]])
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for (row, column), count in np.ndenumerate(counts):
        share = shares[row, column]
        text = f"{count:,}\n{share:.1%} of row"
        colour = "white" if share > 0.7 else "black"
        axes.text(column, row, text, ha="center", va="center", color=colour)
    names = ("benign", "malignant")
    axes.set_xticks((0, 1), [f"called {name}" for name in names])
    axes.set_yticks((0, 1), [f"truly {name}" for name in names], rotation=90, va="center")
    axes.set_title(title, fontsize="medium")


def _draw_roc(
    axes: Axes,
    figures: Mapping[str, Any],
    points: Mapping[str, Mapping[str, Any]],
    labels: Labels,
    probabilities: Probabilities,
) -> None:
    """Draws the receiver operating characteristic, where both classes are there."""
    if len(np.unique(labels)) == 2:
        falsely, rightly, _ = metrics.roc_curve(labels, probabilities)
        axes.plot(falsely, rightly, color=BLUE, label=f"network, area {_text(figures['roc_auc'])}")
    axes.plot((0, 1), (0, 1), color="0.5", linestyle=":", label="guessing, area 0.5")
    for name, point in points.items():
        if None not in (point["specificity"], point["sensitivity"]):
            _mark(axes, name, point, 1 - point["specificity"], point["sensitivity"])
    axes.set_xlabel("1 - specificity (share of benign patches called malignant)")
    axes.set_ylabel("sensitivity (share of malignant patches called so)")


def _draw_precision_recall(
    axes: Axes,
    figures: Mapping[str, Any],
    points: Mapping[str, Mapping[str, Any]],
    labels: Labels,
    probabilities: Probabilities,
) -> None:
    """Draws the precision-recall curve, where both classes are there."""
    if len(np.unique(labels)) == 2:
        precision, recall, _ = metrics.precision_recall_curve(labels, probabilities)
        label = f"network, average precision {_text(figures['average_precision'])}"
        # A step, as average precision adds it up: a straight line would promise too much.
        axes.step(recall, precision, where="post", color=BLUE, label=label)
    prevalence = figures["prevalence"]
    axes.axhline(prevalence, color="0.5", linestyle=":", label=f"prevalence {prevalence:.3f}")
    for name, point in points.items():
        if None not in (point["sensitivity"], point["ppv"]):
            _mark(axes, name, point, point["sensitivity"], point["ppv"])
    axes.set_xlabel("recall = sensitivity (share of malignant patches called so)")
    axes.set_ylabel("precision = PPV (share of those called malignant that are)")


def _draw_calibration(
    shares: Axes,
    counts: Axes,
    labels: Labels,
    probabilities: Probabilities,
    calibrated: Probabilities,
) -> None:
    """Draws the malignant share against the probability, and below it the patches of each bin."""
    shares.plot((0, 1), (0, 1), color="0.5", linestyle=":", label="perfect")
    edges = np.linspace(0, 1, BINS + 1)
    drawn = [("raw", probabilities, BLUE, "o")]
    if not np.array_equal(probabilities, calibrated):
        drawn.append(("recalibrated", calibrated, VERMILION, "s"))
    for name, values, colour, marker in drawn:
        rate, mean = calibration_curve(labels == 1, values, n_bins=BINS)
        shares.plot(mean, rate, color=colour, marker=marker, markersize=5, label=name)
        # In the bins of calibration_curve, each of which holds its upper edge.
        inside = np.bincount(np.searchsorted(edges[1:-1], values), minlength=BINS)
        counts.stairs(inside, edges, color=colour, linewidth=1.5, label=name)
    shares.set(ylabel="malignant (share of the bin's patches)", ylim=(-0.02, 1.02))
    counts.set(xlabel="probability of class 1, malignant (mean of a bin)", ylabel="patches a bin")
    counts.set_yscale("log")
    counts.set_ylim(bottom=0.8)  # A single patch still shows.
    for axes in (shares, counts):
        axes.grid(alpha=0.3)
    shares.legend(loc="upper left")


def _point_label(name: str, point: Mapping[str, Any]) -> str:
    label = OPERATING_POINTS[name].label
    return label if name == "at_0.5" else f"{label} {point['threshold']:.3f}"


def _mark(axes: Axes, name: str, point: Mapping[str, Any], x: float, y: float) -> None:
    """Marks an operating point."""
    _, colour, marker = OPERATING_POINTS[name]
    axes.plot(
        x,
        y,
        marker,
        color=colour,
        markersize=9,
        markeredgecolor="black",
        linestyle="none",
        label=_point_label(name, point),
    )


def _text(value: float | None) -> str:
    return "not defined" if value is None else f"{value:.3f}"


def _save(figure: Figure, path: Path, *, sample: bool) -> None:
    """Writes the PNG file, with the notice in red where the sample is synthetic."""
    if sample:
        wide = figure.get_figwidth() > 8
        notice = SAMPLE_NOTICE if wide else SAMPLE_NOTICE.replace(": ", ":\n")
        figure.suptitle(notice, color="red", fontsize="large" if wide else "medium")
    with replacing(path) as beside:
        figure.savefig(beside, format="png", dpi=120)
