"""Pictures of a run, drawn by matplotlib without a screen."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from sklearn.calibration import calibration_curve
from sklearn.metrics import ConfusionMatrixDisplay, PrecisionRecallDisplay, RocCurveDisplay

from cancernet.cli import SAMPLE_NOTICE
from cancernet.data.dataset import Split
from cancernet.evaluation.context import Scores
from cancernet.evaluation.metrics import BINS, Labels, Probabilities
from cancernet.files import replacing

# Okabe & Ito (2008), "Color Universal Design": these differ for every kind of eye.
BLUE, VERMILION, GREEN = "#0072B2", "#D55E00", "#009E73"
DOTTED: dict[str, Any] = {"color": "0.5", "linestyle": ":"}

# Each threshold's colour, marker and name, in every picture.
POINTS = {
    "at_0.5": (VERMILION, "o", "threshold 0.5"),
    "at_validation_threshold": (GREEN, "D", "validation threshold {:.3f}"),
}


def plot_history(
    history: Sequence[Mapping[str, float]], path: Path, *, weighted: bool, sample: bool
) -> None:
    """Draws loss and accuracy over the epochs, the rows of history.csv, and marks the best one.

    Where training weighs classes, its loss is not that of validation, which the picture says.
    """
    epochs = [row["epoch"] for row in history]
    best = max(history, key=lambda row: row["val_roc_auc"])
    figure = Figure(figsize=(11, 4.5), layout="constrained")
    both = figure.subplots(1, 2)
    both[0].set_yscale("log")  # The first epochs' loss may be ten times that of the others.
    loss_unit = "nats per patch" + ", class-weighted in training" * weighted
    units = {"loss": loss_unit, "accuracy": "share of patches"}
    for axes, (measure, unit) in zip(both, units.items(), strict=True):
        for label, name, style in (
            ("training", measure, {"color": BLUE, "marker": "o"}),
            ("validation", f"val_{measure}", {"color": VERMILION, "marker": "s"}),
        ):
            axes.plot(epochs, [row[name] for row in history], markersize=4, label=label, **style)
        axes.axvline(best["epoch"], label="best epoch, kept", **DOTTED)
        axes.set(xlabel="epoch", ylabel=f"{measure} ({unit})", title=measure.capitalize())
        axes.xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)
        axes.grid(alpha=0.3)
        axes.legend()
    _save(figure, path, sample=sample)


def plot_scores(folder: Path, split: Split, scores: Scores, metrics: Mapping[str, Any]) -> None:
    """Draws confusion_matrix.png, roc.png, precision_recall.png and calibration.png of a split.

    They show the scores of each patch alone; `metrics` is the content of metrics.json.
    """
    shown, labels, sample = metrics[split.name], split.labels, metrics["sample"]
    what = f"{split.name}, {shown['patients']:,} patients, {shown['patches']:,} patches"

    figure = Figure(figsize=(8.8, 4.8), layout="constrained")
    for axes, (name, (*_, label)) in zip(figure.subplots(1, 2), POINTS.items(), strict=True):
        _draw_confusion(axes, shown[name]["confusion_matrix"])
        axes.set_title(label.format(shown[name]["threshold"]), fontsize="medium")
    figure.supxlabel(f"Number of patches: {what}", fontsize="medium")
    _save(figure, folder / "confusion_matrix.png", sample=sample)

    for file, draw, corner in (
        ("roc.png", _draw_roc, 4),  # Lower right.
        ("precision_recall.png", _draw_precision_recall, 3),  # Lower left.
    ):
        figure = Figure(figsize=(5.6, 6.2), layout="constrained")
        axes = figure.subplots()
        draw(axes, shown, labels, scores.raw)
        axes.set_title(what, fontsize="medium")
        axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), aspect=1)
        axes.grid(alpha=0.3)
        axes.legend(loc=corner)
        _save(figure, folder / file, sample=sample)

    figure = Figure(figsize=(5.6, 6), layout="constrained")
    drawn = {"raw": scores.raw}
    if not np.array_equal(scores.raw, scores.calibrated):
        drawn["recalibrated"] = scores.calibrated
    _draw_calibration(figure, labels, drawn).set_title(what, fontsize="medium")
    _save(figure, folder / "calibration.png", sample=sample)


def _draw_confusion(axes: Axes, outcome: Mapping[str, int]) -> None:
    """Draws a 2x2 table whose shades are the shares of each true class."""
    counts = np.array([[outcome["tn"], outcome["fp"]], [outcome["fn"], outcome["tp"]]])
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    display = ConfusionMatrixDisplay(shares, display_labels=("benign", "malignant"))
    display.plot(ax=axes, cmap="Blues", colorbar=False, im_kw={"vmin": 0, "vmax": 1})
    for place, text in np.ndenumerate(display.text_):
        text.set_text(f"{counts[place]:,}\n{shares[place]:.1%} of row")
        text.set_color("white" if shares[place] > 0.7 else "black")
    axes.set(xlabel="predicted", ylabel="truly")


def _draw_roc(axes: Axes, shown: Mapping[str, Any], labels: Labels, raw: Probabilities) -> None:
    if shown["roc_auc"] is not None:
        style = {"color": BLUE, "label": f"network, area {shown['roc_auc']:.3f}"}
        RocCurveDisplay.from_predictions(labels, raw, ax=axes, curve_kwargs=style)
    axes.plot((0, 1), (0, 1), label="guessing, area 0.5", **DOTTED)
    _mark_thresholds(axes, shown, "specificity", "sensitivity")
    axes.set_xlabel("1 - specificity (share of benign patches predicted malignant)")
    axes.set_ylabel("sensitivity (share of malignant patches predicted so)")


def _draw_precision_recall(
    axes: Axes, shown: Mapping[str, Any], labels: Labels, raw: Probabilities
) -> None:
    if shown["average_precision"] is not None:
        label = f"network, average precision {shown['average_precision']:.3f}"
        style = {"color": BLUE, "label": label}
        PrecisionRecallDisplay.from_predictions(labels, raw, ax=axes, curve_kwargs=style)
    axes.axhline(shown["prevalence"], label=f"prevalence {shown['prevalence']:.3f}", **DOTTED)
    _mark_thresholds(axes, shown, "sensitivity", "ppv")
    axes.set_xlabel("recall = sensitivity (share of malignant patches predicted so)")
    axes.set_ylabel("precision = PPV (share of those predicted malignant that are)")


def _draw_calibration(figure: Figure, labels: Labels, drawn: Mapping[str, Probabilities]) -> Axes:
    """Draws the malignant share against the probability, and below it the patches of each bin."""
    shares, counts = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    shares.plot((0, 1), (0, 1), label="perfect", **DOTTED)
    edges = np.linspace(0, 1, BINS + 1)
    for (name, values), colour, marker in zip(drawn.items(), (BLUE, VERMILION), "os", strict=False):
        # Not CalibrationDisplay, which refuses patches of one class.
        rate, mean = calibration_curve(labels == 1, values, n_bins=BINS)
        shares.plot(mean, rate, color=colour, marker=marker, markersize=5, label=name)
        # In the bins of calibration_curve, each of which holds its upper edge.
        inside = np.bincount(np.searchsorted(edges[1:-1], values), minlength=BINS)
        counts.stairs(inside, edges, color=colour, linewidth=1.5, label=name)
    shares.set(ylabel="malignant (share of the bin's patches)", ylim=(-0.02, 1.02))
    counts.set(xlabel="probability of class 1, malignant (mean of a bin)", yscale="log")
    counts.set(ylabel="patches per bin")
    counts.set_ylim(bottom=0.8)  # A single patch still shows.
    for axes in (shares, counts):
        axes.grid(alpha=0.3)
    shares.legend(loc="upper left")
    return shares


def _mark_thresholds(axes: Axes, shown: Mapping[str, Any], across: str, up: str) -> None:
    """Marks both thresholds on a curve of two metrics, where these are defined."""
    for name, (colour, marker, label) in POINTS.items():
        x, y = shown[name][across], shown[name][up]
        if x is not None and y is not None:
            style: dict[str, Any] = {"color": colour, "markersize": 9, "markeredgecolor": "black"}
            style["label"] = label.format(shown[name]["threshold"])
            axes.plot(1 - x if across == "specificity" else x, y, marker, **style)


def _save(figure: Figure, path: Path, *, sample: bool) -> None:
    """Writes the PNG file, with the notice in red where the sample is synthetic."""
    if sample:
        wide = figure.get_figwidth() > 8
        notice = SAMPLE_NOTICE if wide else SAMPLE_NOTICE.replace(": ", ":\n")
        figure.suptitle(notice, color="red", fontsize="large" if wide else "medium")
    with replacing(path) as beside:
        figure.savefig(beside, format="png", dpi=120)
