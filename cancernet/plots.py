"""Figures, drawn by matplotlib without a screen."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.figure import Figure

from cancernet.console import SAMPLE_NOTICE
from cancernet.files import replacing

# Okabe & Ito (2008), "Color Universal Design": blue and orange differ for every kind of eye.
TRAINING_COLOUR, VALIDATION_COLOUR = "#0072B2", "#D55E00"


def plot_history(history: Sequence[Mapping[str, float]], path: Path, *, sample: bool) -> None:
    """Draws training and validation loss and accuracy over the epochs, and marks the best epoch.

    Args:
        history: One mapping an epoch, with the names that history.csv has.
        path: PNG file to write.
        sample: Whether the patches are synthetic, which the figure then says.
    """
    epochs = [row["epoch"] for row in history]
    best = max(history, key=lambda row: row["val_roc_auc"])
    figure = Figure(figsize=(11, 4.5), layout="constrained")
    loss_axes, accuracy_axes = figure.subplots(1, 2)
    loss_axes.set_yscale("log")  # The first epochs' loss may be ten times that of the others.
    # In training, each class weighs as much as the other in the loss; in validation, each patch.
    for axes, measure, unit in zip(
        (loss_axes, accuracy_axes),
        ("loss", "accuracy"),
        ("nats a patch, class-weighted in training", "share of patches"),
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
    if sample:
        figure.suptitle(SAMPLE_NOTICE, color="red")
    with replacing(path) as beside:
        figure.savefig(beside, format="png", dpi=120)
