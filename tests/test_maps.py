"""Positions to grids, what the maps of a slide show, and what their files are called."""

from dataclasses import replace

import matplotlib.colors
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.figure import Figure
from PIL import Image

from cancernet.cli import SAMPLE_NOTICE
from cancernet.prediction import maps
from cancernet.prediction.atlas import safe_name
from cancernet.prediction.maps import Grid
from cancernet.prediction.slides import picture_side

POSITIONS = st.lists(
    st.tuples(st.integers(0, 20), st.integers(0, 20)), min_size=1, max_size=40, unique=True
)

# --- Grids ----------------------------------------------------------------------------------------


@given(POSITIONS, st.integers(0, 10_000), st.integers(0, 10_000))
def test_every_patch_gets_its_own_square_wherever_the_slide_begins(squares, left, top):
    columns, rows = np.array(squares).T
    x, y = left + 50 * columns, top + 50 * rows
    values = np.arange(len(squares))
    placed = Grid(x, y).place(values, -1)
    assert placed.shape == (np.ptp(rows) + 1, np.ptp(columns) + 1)
    assert sorted(placed[placed >= 0]) == list(values)
    assert list(placed[rows - rows.min(), columns - columns.min()]) == list(values)


def test_of_patches_in_one_square_the_first_counts_and_off_the_grid_the_nearest_square():
    x, y = [1, 51, 53, 74, 77], [1, 1, 1, 1, 1]
    grid = Grid(x, y)
    assert grid.place(np.arange(5), -1).tolist() == [[0, 1, 4]]
    pictures = np.arange(5 * 12).reshape(5, 2, 2, 3)
    assert (grid.place(pictures, 255)[0] == pictures[[0, 1, 4]]).all()


def test_a_slide_of_other_patches_has_their_step():
    grid = Grid([-256, 0, 256], [0, 512, 512], (256, 512))
    assert grid.place(np.arange(3), -1).tolist() == [[0, -1, -1], [-1, 1, 2]]


def test_a_grid_that_would_fill_the_memory_is_refused():
    with pytest.raises(ValueError, match=r"20,000,001 x 20,000,001 squares"):
        Grid([1, 10**9], [1, 10**9])


# --- Pictures -------------------------------------------------------------------------------------


def slide(*, name="8863", sample=False, labels=((0, 1, 1), (0, -1, -1))):
    """Two rows of three squares: five patches, the last square glass."""
    probability = np.array([[0.1, 0.9, 0.2], [0.7, 0.5, np.nan]], np.float32)
    return maps.SlideMap(
        name=name,
        probability=probability,
        malignant=probability >= 0.5,
        background=np.array([[False] * 3, [False, False, True]]),
        label=np.array(labels, np.int8),
        tissue=np.full((20, 30, 3), 200, np.uint8),
        threshold=0.5,
        in_context=False,
        sample=sample,
    )


@pytest.fixture
def drawn(monkeypatch):
    """The figures that were saved, by the ending of their file."""
    figures = {}
    savefig = Figure.savefig

    def recorded(figure, path, **settings):
        figures[path.stem.rpartition("_")[2]] = figure
        savefig(figure, path, **settings)

    monkeypatch.setattr(Figure, "savefig", recorded)
    return figures


def legend(figure):
    return [text.get_text() for each in figure.legends for text in each.get_texts()]


def test_all_maps_are_drawn_and_the_outcomes_counted(tmp_path, drawn):
    maps.draw(tmp_path, "8863", slide())
    names = [f"8863_{what}.png" for what in ("errors", "heatmap", "tissue")]
    assert sorted(path.name for path in tmp_path.iterdir()) == names
    with Image.open(tmp_path / "8863_heatmap.png") as image:
        assert image.format == "PNG"
        assert min(image.size) > 350
    assert legend(drawn["errors"]) == [
        "no tissue, skipped: 1",
        "malignant, predicted malignant: 1",
        "benign, predicted benign: 1",
        "malignant, predicted benign: 1",
        "benign, predicted malignant: 1",
        "class not known: 1",
    ]


def test_metrics_are_those_of_the_patches_and_null_where_not_defined():
    def metrics(labels):
        probabilities = np.array([0.1, 0.9, 0.2, 0.7][: len(labels)], np.float32)
        return maps.slide_metrics(np.array(labels), probabilities, threshold=0.5)

    both = metrics([0, 1, 1, 0])
    assert both["confusion_matrix"] == {"tn": 1, "fp": 1, "fn": 1, "tp": 1}
    assert (both["patches"], both["prevalence"], both["roc_auc"]) == (4, 0.5, 0.75)
    benign = metrics([0, 0, 0])
    assert (benign["sensitivity"], benign["roc_auc"]) == (None, None)
    assert benign["specificity"] == 2 / 3


def test_each_square_has_the_colour_of_its_outcome(tmp_path, drawn):
    maps.draw(tmp_path, "8863", slide())
    (image,) = (each for each in drawn["errors"].axes[0].images if each.get_cmap().N == 5)
    shown = image.cmap(image.norm(image.get_array()))[..., :3]
    colours = {what: matplotlib.colors.to_rgb(colour) for what, colour in maps.OUTCOMES}
    for (row, column), what in {
        (0, 0): "benign, predicted benign",
        (0, 1): "malignant, predicted malignant",
        (0, 2): "malignant, predicted benign",
        (1, 0): "benign, predicted malignant",
        (1, 1): "class not known",
    }.items():
        assert tuple(shown[row, column]) == pytest.approx(colours[what])


def test_the_heatmap_has_colour_bar_scale_title_and_legend(tmp_path, drawn):
    maps.draw(tmp_path, "8863", slide())
    axes, bar = drawn["heatmap"].axes
    assert bar.get_ylabel() == "probability of class 1, malignant"
    assert bar.get_ylim() == (0, 1)
    (threshold,) = (line for line in bar.lines if line.get_color() == "red")
    assert list(threshold.get_ydata()) == [0.5, 0.5]
    assert "patches 5, predicted malignant 3" in axes.get_title()
    assert legend(drawn["heatmap"]) == ["no tissue, skipped: 1"]
    colours = next(image for image in axes.images if image.get_cmap().name == "viridis")
    np.testing.assert_array_equal(colours.get_array().filled(np.nan), slide().probability)
    # A patch is 200 micrometres wide, so the slide is 600: a scale of 100 fits in a quarter.
    assert colours.get_extent() == [0, 600, 400, 0]
    (scale,) = (each for each in axes.artists if hasattr(each, "txt_label"))
    assert scale.txt_label.get_text() == "100 µm"


def test_squares_without_a_patch_are_not_taken_for_glass(tmp_path, drawn):
    maps.draw(tmp_path, "x", replace(slide(), background=np.zeros((2, 3), bool)))
    assert legend(drawn["heatmap"]) == ["no patch: 1"]


def test_without_classes_there_are_no_errors_and_without_a_scale_no_bar(tmp_path, drawn):
    known = slide(labels=((-1, -1, -1), (-1, -1, -1)))
    maps.draw(tmp_path, "x", replace(known, to_scale=False))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["x_heatmap.png", "x_tissue.png"]
    assert not [each for each in drawn["heatmap"].axes[0].artists if hasattr(each, "txt_label")]


@pytest.mark.parametrize("sample", [True, False])
def test_the_notice_stands_on_every_map_of_the_sample_and_fits(tmp_path, drawn, sample):
    any_name = "$\\frac \N{CJK UNIFIED IDEOGRAPH-75C5}\udcff\n<b>" * 9
    maps.draw(tmp_path, "99901", slide(name=any_name, sample=sample))
    assert set(drawn) == {"heatmap", "tissue", "errors"}
    for figure in drawn.values():
        notices = [text for text in figure.texts if text.get_text() == SAMPLE_NOTICE]
        assert len(notices) == sample
        for notice in notices:
            box = notice.get_window_extent()
            assert box.x0 >= 0
            assert box.x1 <= figure.bbox.width


def test_a_large_slide_stays_within_the_picture():
    assert picture_side(10, 20) == 50
    assert picture_side(100, 80) == 10
    assert picture_side(10_000, 1) == 1


def test_file_names_by_hand():
    taken: set[str] = set()
    names = ["8863", "a/b", "a b", "A_B", "../../etc", ".", "", "-x", "Müller 病", "\udcff"]
    expected = ["8863", "a_b", "a_b-2", "A_B-3", "_.._etc", "unnamed", "unnamed-2", "x"]
    assert [safe_name(name, taken) for name in names] == [*expected, "Müller_病", "_"]
    long = [safe_name("病" * 80 + end, taken) for end in "ab"]  # File systems count bytes.
    assert long[0] != long[1]
    assert all(len(name.encode()) < 100 for name in long)


@given(st.lists(st.text(max_size=200)))
def test_file_names_are_safe_and_apart(names):
    taken: set[str] = set()
    made = [safe_name(name, taken) for name in names]
    assert len({name.lower() for name in made}) == len(names)
    for name in made:
        assert 0 < len(name) < 120
        assert not name.startswith((".", "-"))
        assert not set(name) & set('/\\:*?"<>|\0\n\r\t ')
