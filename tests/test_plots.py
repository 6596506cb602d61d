"""What the figures show."""

import pytest
from matplotlib.figure import Figure
from PIL import Image

from cancernet.console import SAMPLE_NOTICE
from cancernet.plots import plot_history


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
    plot_history(history(*[0.9] * epochs), tmp_path / "plot.png", sample=sample)
    with Image.open(tmp_path / "plot.png") as image:
        assert image.format == "PNG"
        assert image.size == (1320, 540)
        assert len(image.convert("RGB").getcolors(maxcolors=2**16) or []) > 10
    assert [path.name for path in tmp_path.iterdir()] == ["plot.png"]


@pytest.mark.parametrize("epochs", [1, 2, 3, 40])
def test_epochs_are_marked_as_whole_numbers(tmp_path, drawn, epochs):
    plot_history(history(*[0.9] * epochs), tmp_path / "plot.png", sample=False)
    for axes in drawn[0].axes:
        ticks = axes.get_xticks()
        assert all(tick == round(tick) for tick in ticks)
        assert any(1 <= tick <= epochs for tick in ticks)


def test_plot_takes_the_place_of_an_older_one(tmp_path):
    (tmp_path / "plot.png").write_bytes(b"old")
    plot_history(history(0.9), tmp_path / "plot.png", sample=False)
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")


def test_sample_notice_stands_on_figures_of_the_sample_alone(tmp_path, drawn):
    for sample in (True, False):
        plot_history(history(0.9, 0.8), tmp_path / "plot.png", sample=sample)
    of_sample, of_real_patches = drawn
    assert "SYNTHETIC SAMPLE" in SAMPLE_NOTICE
    assert SAMPLE_NOTICE in words(of_sample)
    assert words(of_real_patches) == []


def test_sample_notice_fits_on_the_figure(tmp_path, drawn):
    plot_history(history(0.9, 0.8), tmp_path / "plot.png", sample=True)
    (notice,) = drawn[0].texts
    box = notice.get_window_extent()
    assert box.x0 > 0
    assert box.x1 < drawn[0].bbox.width


@pytest.mark.parametrize("column", ["loss", "accuracy"])
def test_lines_are_the_training_and_the_validation_values(tmp_path, drawn, column):
    rows = history(0.7, 0.9, 0.8)
    plot_history(rows, tmp_path / "plot.png", sample=False)
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
    plot_history(history(*areas), tmp_path / "plot.png", sample=False)
    for axes in drawn[0].axes:
        (mark,) = (line for line in axes.lines if line.get_label() == "best epoch, kept")
        assert list(mark.get_xdata()) == [best, best]
