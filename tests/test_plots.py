"""What the pictures show."""

import made_up
import numpy as np
import pytest
from PIL import Image

from cancernet.cli import SAMPLE_NOTICE
from cancernet.evaluation.calibration import Decision
from cancernet.evaluation.context import Scores
from cancernet.evaluation.plots import plot_history, plot_scores

# By hand: at 0.5 one of two malignant patches is found, one of three benign predicted malignant.
LABELS = (0, 0, 0, 1, 1)
PROBABILITIES = np.array([0.1, 0.2, 0.7, 0.4, 0.9], dtype=np.float32)
HALVES = PROBABILITIES / np.float32(2)


def lines(axes):
    return {line.get_label(): line for line in axes.lines}


def assert_notice(figure, sample):
    """The sample is named, in red and within the edges; other patches are not."""
    notices = [text for text in figure.texts if "SYNTHETIC" in text.get_text()]
    assert len(notices) == sample
    for notice in notices:
        assert " ".join(notice.get_text().split()) == SAMPLE_NOTICE
        assert notice.get_color() == "red"
        box = notice.get_window_extent()
        assert 0 < box.x0 < box.x1 < figure.bbox.width


@pytest.mark.parametrize(
    ("areas", "best", "sample"),
    [((0.9,), 1, True), ((0.7, 0.9, 0.9, 0.8), 2, False), ((0.9,) * 40, 1, True)],
)
def test_history_has_whole_epochs_the_values_and_the_epoch_that_is_kept(
    tmp_path, drawn, areas, best, sample
):
    rows = [
        {"epoch": epoch, "loss": 0.9 / epoch, "accuracy": 1 - 0.5 / epoch, "val_roc_auc": area}
        | {"val_loss": 1.0 / epoch, "val_accuracy": 1 - 0.6 / epoch}
        for epoch, area in enumerate(areas, start=1)
    ]
    plot_history(rows, tmp_path / "plot.png", weighted=sample, sample=sample)
    with Image.open(tmp_path / "plot.png") as image:
        assert (image.format, image.size) == ("PNG", (1320, 540))
    (figure,) = drawn.values()
    assert_notice(figure, sample)
    assert ("class-weighted" in figure.axes[0].get_ylabel()) is sample
    for axes, measure in zip(figure.axes, ("loss", "accuracy"), strict=True):
        assert measure in axes.get_ylabel()
        assert all(tick == round(tick) for tick in axes.get_xticks())
        shown = lines(axes)
        for label, name in (("training", measure), ("validation", f"val_{measure}")):
            expected = [[row["epoch"], row[name]] for row in rows]
            assert shown[label].get_xydata().tolist() == expected
        assert list(shown["best epoch, kept"].get_xdata()) == [best, best]


def plot(folder, labels=LABELS, *, sample=False, calibrated=HALVES):
    rows = [made_up.make_row(str(n % 2), n, label=label) for n, label in enumerate(labels)]
    data = made_up.make_data(rows, sample=sample)
    decision = Decision(0.25, None)
    metrics = made_up.make_metrics(data, {"testing": PROBABILITIES}, decision=decision)
    plot_scores(folder, data.testing, Scores(PROBABILITIES, calibrated, PROBABILITIES), metrics)


@pytest.mark.parametrize("sample", [True, False])
def test_matrices_hold_the_counts_and_thresholds_lie_on_the_curves(tmp_path, drawn, sample):
    plot(tmp_path, sample=sample)
    for figure in drawn.values():
        assert_notice(figure, sample)
        assert all(axes.get_ylabel() for axes in figure.axes)
        assert figure.axes[-1].get_xlabel()
    matrices, roc_figure, recall_figure, _ = drawn.values()
    half, chosen = matrices.axes
    for axes, counts in ((half, "2111"), (chosen, "2102")):  # Row by row: benign, malignant.
        assert [text.get_text().split("\n")[0] for text in axes.texts] == list(counts)
        assert (axes.get_xlabel(), axes.get_ylabel()) == ("predicted", "truly")
        for ticks in (axes.get_xticklabels(), axes.get_yticklabels()):
            assert [tick.get_text() for tick in ticks] == ["benign", "malignant"]
    (roc,), (recall,) = roc_figure.axes, recall_figure.axes
    for axes, at_half, at_chosen in (
        (roc, (1 / 3, 1 / 2), (1 / 3, 1)),
        (recall, (1 / 2, 1 / 2), (1, 2 / 3)),
    ):
        assert axes.get_title() == "testing, 2 patients, 5 patches"
        marks = lines(axes)
        assert marks["threshold 0.5"].get_xydata()[0] == pytest.approx(at_half)
        assert marks["validation threshold 0.250"].get_xydata()[0] == pytest.approx(at_chosen)
    assert [1 / 3, 1] in lines(roc)["network, area 0.833"].get_xydata().tolist()
    assert {"network, average precision 0.833", "prevalence 0.400"} <= lines(recall).keys()


def test_calibration_shows_raw_and_recalibrated_and_the_patches_of_each_bin(tmp_path, drawn):
    plot(tmp_path)
    shares, counts = list(drawn.values())[3].axes
    raw, half = lines(shares)["raw"], lines(shares)["recalibrated"]
    assert raw.get_xdata() == pytest.approx([0.1, 0.2, 0.4, 0.7, 0.9])
    assert list(raw.get_ydata()) == [0, 0, 1, 0, 1]
    assert half.get_xdata() == pytest.approx(raw.get_xdata() / 2, abs=0.1)
    for steps in counts.patches:
        values = steps.get_data().values
        assert (len(values), values.sum()) == (15, len(LABELS))
    plot(tmp_path, calibrated=PROBABILITIES)
    assert "recalibrated" not in lines(list(drawn.values())[3].axes[0])
    for label in (0, 1):  # One class alone has pictures without curves.
        plot(tmp_path, [label] * 5)
        for figure in drawn.values():
            assert not any("network" in name for name in lines(figure.axes[0]))
