"""What the figures show."""

import made_up
import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from cancernet.cli import SAMPLE_NOTICE
from cancernet.evaluation import evaluation
from cancernet.evaluation.plots import plot_history, plot_scores


def history(*areas):
    return [
        {
            "epoch": epoch,
            "loss": 0.9 / epoch,
            "accuracy": 1 - 0.5 / epoch,
            "val_loss": 1.0 / epoch,
            "val_accuracy": 1 - 0.6 / epoch,
            "val_roc_auc": area,
            "learning_rate": 0.01,
            "seconds": 1.0,
        }
        for epoch, area in enumerate(areas, start=1)
    ]


@pytest.fixture
def drawn(monkeypatch):
    """The figures that were saved."""
    figures: list[Figure] = []
    savefig = Figure.savefig

    def recorded(figure, *arguments, **settings):
        figures.append(figure)
        savefig(figure, *arguments, **settings)

    monkeypatch.setattr(Figure, "savefig", recorded)
    return figures


def words(figure):
    return [text.get_text() for text in figure.texts]


@pytest.mark.parametrize("epochs", [1, 5])
@pytest.mark.parametrize("sample", [True, False])
def test_plot_is_a_png_of_the_expected_size(tmp_path, epochs, sample):
    plot_history(history(*[0.9] * epochs), tmp_path / "plot.png", weighted=True, sample=sample)
    with Image.open(tmp_path / "plot.png") as image:
        assert image.format == "PNG"
        assert image.size == (1320, 540)
        assert len(image.convert("RGB").getcolors(maxcolors=2**16) or []) > 10
    assert [path.name for path in tmp_path.iterdir()] == ["plot.png"]


@pytest.mark.parametrize("epochs", [1, 2, 3, 40])
def test_epochs_are_marked_as_whole_numbers(tmp_path, drawn, epochs):
    plot_history(history(*[0.9] * epochs), tmp_path / "plot.png", weighted=True, sample=False)
    for axes in drawn[0].axes:
        ticks = axes.get_xticks()
        assert all(tick == round(tick) for tick in ticks)
        assert any(1 <= tick <= epochs for tick in ticks)


def test_weighted_loss_is_called_so(tmp_path, drawn):
    for weighted in (True, False):
        plot_history(history(0.9), tmp_path / "plot.png", weighted=weighted, sample=False)
    told = ["class-weighted" in figure.axes[0].get_ylabel() for figure in drawn]
    assert told == [True, False]


def test_plot_takes_the_place_of_an_older_one(tmp_path):
    (tmp_path / "plot.png").write_bytes(b"old")
    plot_history(history(0.9), tmp_path / "plot.png", weighted=True, sample=False)
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")


def test_sample_notice_stands_on_figures_of_the_sample_alone(tmp_path, drawn):
    for sample in (True, False):
        plot_history(history(0.9, 0.8), tmp_path / "plot.png", weighted=True, sample=sample)
    of_sample, of_real_patches = drawn
    assert "SYNTHETIC SAMPLE" in SAMPLE_NOTICE
    assert SAMPLE_NOTICE in words(of_sample)
    assert words(of_real_patches) == []


def test_sample_notice_fits_on_the_figure(tmp_path, drawn):
    plot_history(history(0.9, 0.8), tmp_path / "plot.png", weighted=True, sample=True)
    (notice,) = drawn[0].texts
    box = notice.get_window_extent()
    assert box.x0 > 0
    assert box.x1 < drawn[0].bbox.width


@pytest.mark.parametrize("column", ["loss", "accuracy"])
def test_lines_are_the_training_and_the_validation_values(tmp_path, drawn, column):
    rows = history(0.7, 0.9, 0.8)
    plot_history(rows, tmp_path / "plot.png", weighted=True, sample=False)
    (axes,) = (axes for axes in drawn[0].axes if axes.get_title() == column.capitalize())
    assert axes.get_xlabel() == "epoch"
    assert column in axes.get_ylabel()
    lines = {line.get_label(): line for line in axes.lines}
    for label, name in (("training", column), ("validation", f"val_{column}")):
        assert list(lines[label].get_xdata()) == [1, 2, 3]
        assert list(lines[label].get_ydata()) == [row[name] for row in rows]
    shown = [text.get_text() for text in axes.get_legend().get_texts()]
    assert shown == ["training", "validation", "best epoch, kept"]


@pytest.mark.parametrize(
    ("areas", "best"), [((0.7, 0.9, 0.8), 2), ((0.9, 0.7, 0.8), 1), ((0.7, 0.9, 0.9), 2)]
)
def test_epoch_that_is_kept_is_marked(tmp_path, drawn, areas, best):
    plot_history(history(*areas), tmp_path / "plot.png", weighted=True, sample=False)
    for axes in drawn[0].axes:
        (mark,) = (line for line in axes.lines if line.get_label() == "best epoch, kept")
        assert list(mark.get_xdata()) == [best, best]


# --- Scores --------------------------------------------------------------------------------------

# By hand: at 0.5 one of two malignant patches is found, and one of three benign called malignant.
LABELS = np.array([0, 0, 0, 1, 1])
PROBABILITIES = np.array([0.1, 0.2, 0.7, 0.4, 0.9], dtype=np.float32)
PICTURES = ["confusion_matrix.png", "roc.png", "precision_recall.png", "calibration.png"]


def plot(folder, labels=LABELS, probabilities=PROBABILITIES, *, sample=False, **changes):
    figures = {
        "patients": 2,
        "patches": len(labels),
        "prevalence": float(labels.mean()),
        "at_0.5": made_up.at(labels, probabilities, 0.5),
        "at_validation_threshold": made_up.at(labels, probabilities, 0.25),
        "roc_auc": evaluation.roc_auc(labels, probabilities),
        "average_precision": evaluation.average_precision(labels, probabilities),
    }
    plot_scores(
        folder,
        split="testing",
        figures=figures | changes,
        labels=labels,
        probabilities=probabilities,
        calibrated=probabilities / 2,
        sample=sample,
    )


def lines(axes):
    return {line.get_label(): line for line in axes.lines}


def test_scores_are_four_pictures(tmp_path, drawn):
    plot(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(PICTURES)
    for name in PICTURES:
        with Image.open(tmp_path / name) as image:
            assert image.format == "PNG"
    for figure in drawn[1:]:
        assert all(axes.get_ylabel() for axes in figure.axes)
        assert figure.axes[-1].get_xlabel()
        assert figure.axes[0].get_title() == "testing, 2 patients, 5 patches"


def test_every_picture_of_the_sample_says_so_within_its_edges(tmp_path, drawn):
    plot(tmp_path, sample=True)
    plot(tmp_path, sample=False)
    for figure in drawn[:4]:
        (notice,) = (text for text in figure.texts if "SYNTHETIC SAMPLE" in text.get_text())
        assert " ".join(notice.get_text().split()) == SAMPLE_NOTICE
        assert notice.get_color() == "red"
        box = notice.get_window_extent()
        assert box.x0 > 0
        assert box.x1 < figure.bbox.width
    assert not any("SYNTHETIC" in word for figure in drawn[4:] for word in words(figure))


def test_confusion_matrices_hold_the_counts(tmp_path, drawn):
    plot(tmp_path)
    half, chosen = drawn[0].axes
    cells = [text.get_text().split("\n")[0] for text in half.texts]
    assert cells == ["2", "1", "1", "1"]  # Row by row: truly benign, truly malignant.
    assert [text.get_text().split("\n")[0] for text in chosen.texts] == ["2", "1", "0", "2"]
    assert chosen.get_title() == "validation threshold 0.250"


def test_operating_points_lie_on_the_curves(tmp_path, drawn):
    plot(tmp_path)
    (roc,), (recall,) = drawn[1].axes, drawn[2].axes
    for axes, half, chosen in (
        (roc, (1 / 3, 1 / 2), (1 / 3, 1)),
        (recall, (1 / 2, 1 / 2), (1, 2 / 3)),
    ):
        marks = lines(axes)
        assert marks["threshold 0.5"].get_xydata()[0] == pytest.approx(half)
        assert marks["validation threshold 0.250"].get_xydata()[0] == pytest.approx(chosen)
    curve = lines(roc)["network, area 0.833"].get_xydata()
    assert (curve[0].tolist(), curve[-1].tolist()) == ([0, 0], [1, 1])
    assert [1 / 3, 1] in curve.tolist()


def test_calibration_shows_raw_and_recalibrated_and_the_patches_of_each_bin(tmp_path, drawn):
    plot(tmp_path)
    shares, counts = drawn[3].axes
    raw, half = lines(shares)["raw"], lines(shares)["recalibrated"]
    assert raw.get_xdata() == pytest.approx([0.1, 0.2, 0.4, 0.7, 0.9])
    assert list(raw.get_ydata()) == [0, 0, 1, 0, 1]
    assert half.get_xdata() == pytest.approx(raw.get_xdata() / 2, abs=0.1)
    for steps in counts.patches:
        assert steps.get_data().values.sum() == len(LABELS)
        assert len(steps.get_data().values) == 15


def test_without_recalibration_there_is_one_line(tmp_path, drawn):
    plot_scores(
        tmp_path,
        split="validation",
        figures={"patients": 1, "patches": 5, "prevalence": 0.4}
        | {"at_0.5": made_up.at(LABELS, PROBABILITIES, 0.5), "at_validation_threshold": None}
        | {"roc_auc": None, "average_precision": None},
        labels=LABELS,
        probabilities=PROBABILITIES,
        calibrated=PROBABILITIES,
        sample=False,
    )
    assert "recalibrated" not in lines(drawn[3].axes[0])
    assert len(drawn[0].axes) == 1


@pytest.mark.parametrize("label", [0, 1])
def test_one_class_alone_has_pictures_without_curves(tmp_path, drawn, label):
    plot(tmp_path, np.full(5, label), PROBABILITIES, roc_auc=None, average_precision=None)
    for figure in drawn[1:3]:
        assert not any("network" in name for name in lines(figure.axes[0]))
