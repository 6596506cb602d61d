"""Positions to grids, what the maps of a slide show, and what their files are called."""

import matplotlib.colors
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_slides import make_slide

from cancernet.cli import SAMPLE_NOTICE
from cancernet.data.patch import PatchFacts
from cancernet.prediction import maps
from cancernet.prediction.atlas import safe_name, slide_metrics
from cancernet.prediction.inputs import Source
from cancernet.prediction.model import Metadata
from cancernet.prediction.scored import Slide
from cancernet.prediction.slides import Frame

POSITIONS = st.lists(
    st.tuples(st.integers(0, 20), st.integers(0, 20)), min_size=1, max_size=40, unique=True
)

# --- Grids ----------------------------------------------------------------------------------------


@settings(deadline=None)
@given(POSITIONS, st.integers(0, 10_000), st.integers(0, 10_000))
def test_every_patch_gets_its_own_square_wherever_the_slide_begins(squares, left, top):
    columns, rows = np.array(squares).T
    values = np.arange(len(squares))
    placed = make_slide(np.add(squares, (left, top)), values / 50).place(values, -1)
    assert placed.shape == (np.ptp(rows) + 1, np.ptp(columns) + 1)
    assert sorted(placed[placed >= 0]) == list(values)
    assert list(placed[rows - rows.min(), columns - columns.min()]) == list(values)


@pytest.mark.parametrize(
    ("places", "size", "expected"),
    [
        # Of patches in one square the first counts; off the grid the nearest square.
        ([(1, 1), (51, 1), (53, 1), (74, 1), (77, 1), (None, None)], None, [[0, 1, 4]]),
        ([(-256, 0), (0, 512), (256, 512)], (256, 512), [[0, -1, -1], [-1, 1, 2]]),
    ],
)
def test_squares_by_hand(places, size, expected):
    sources = [Source("", PatchFacts("", None, x, y), "slide", size) for x, y in places]
    numbers = np.arange(len(places))
    slide = Slide("slide", sources, np.array(places, float), numbers.astype("f4"), Metadata())
    assert slide.place(numbers, -1).tolist() == expected
    pictures = np.arange(len(places) * 12).reshape(-1, 2, 2, 3)
    grid = np.array(expected)
    assert (slide.place(pictures, 255)[grid >= 0] == pictures[grid[grid >= 0]]).all()


# --- Pictures -------------------------------------------------------------------------------------

CELLS = [(0, 0), (1, 0), (2, 0), (0, 1), (1, 1)]
PROBABILITY = [0.1, 0.9, 0.2, 0.7, 0.5]
TISSUE = np.full((20, 30, 3), 200, np.uint8)


def slide(*, labels=(0, 1, 1, 0, -1), skipped=((2, 1),), **others):
    """Two rows of three squares: five patches, the last square glass."""
    return make_slide(CELLS, PROBABILITY, labels=labels, skipped=skipped, **others)


def legend(figure):
    return [text.get_text() for each in figure.legends for text in each.get_texts()]


def test_all_maps_are_drawn_and_each_square_has_the_colour_of_its_outcome(tmp_path, drawn):
    maps.draw(tmp_path, "x", slide(), TISSUE)
    names = [f"x_{what}.png" for what in ("errors", "heatmap", "tissue")]
    assert sorted(path.name for path in tmp_path.iterdir()) == names
    assert legend(drawn["x_errors"]) == [
        "no tissue, skipped: 1",
        "malignant, predicted malignant: 1",
        "benign, predicted benign: 1",
        "malignant, predicted benign: 1",
        "benign, predicted malignant: 1",
        "class not known: 1",
    ]
    (image,) = (each for each in drawn["x_errors"].axes[0].images if each.get_cmap().N == 5)
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


def test_metrics_are_those_of_the_patches_and_null_where_not_defined():
    both = slide_metrics(slide())
    assert both["confusion_matrix"] == {"tn": 1, "fp": 1, "fn": 1, "tp": 1}
    assert (both["patches"], both["prevalence"], both["roc_auc"]) == (4, 0.5, 0.75)
    benign = slide_metrics(slide(labels=(0, 0, 0, -1, -1)))
    assert (benign["sensitivity"], benign["roc_auc"]) == (None, None)
    assert benign["specificity"] == 2 / 3


def test_the_heatmap_has_colour_bar_scale_title_and_legend(tmp_path, drawn):
    maps.draw(tmp_path, "x", slide(), TISSUE)
    axes, bar = drawn["x_heatmap"].axes
    assert bar.get_ylabel() == "probability of class 1, malignant"
    assert bar.get_ylim() == (0, 1)
    (threshold,) = (line for line in bar.lines if line.get_color() == "red")
    assert list(threshold.get_ydata()) == [0.5, 0.5]
    assert "patches 5, predicted malignant 3" in axes.get_title()
    assert legend(drawn["x_heatmap"]) == ["no tissue, skipped: 1"]
    colours = next(image for image in axes.images if image.get_cmap().name == "viridis")
    shown = colours.get_array().filled(np.nan)
    assert shown == pytest.approx(np.array([[0.1, 0.9, 0.2], [0.7, 0.5, np.nan]]), nan_ok=True)
    # A patch is 200 micrometres wide, so the slide is 600: a scale of 100 fits in a quarter.
    assert colours.get_extent() == [0, 600, 400, 0]
    (scale,) = (each for each in axes.artists if hasattr(each, "txt_label"))
    assert scale.txt_label.get_text() == "100 µm"


def test_what_is_not_known_is_not_drawn(tmp_path, drawn):
    unknown = slide(labels=[-1] * 5, skipped=(), frame=Frame(micrometres=None))
    maps.draw(tmp_path, "x", unknown, TISSUE)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["x_heatmap.png", "x_tissue.png"]
    heatmap = drawn["x_heatmap"]
    assert not [each for each in heatmap.axes[0].artists if hasattr(each, "txt_label")]
    assert legend(heatmap) == ["no patch: 1"]


@pytest.mark.parametrize("sample", [True, False])
def test_the_notice_stands_on_every_map_of_the_sample_and_fits(tmp_path, drawn, sample):
    any_name = "$\\frac \N{CJK UNIFIED IDEOGRAPH-75C5}\udcff\n<b>" * 9
    synthetic = slide(name=any_name, metadata=Metadata(sample=sample))
    maps.draw(tmp_path, "x", synthetic, TISSUE)
    assert len(drawn) == 3
    for figure in drawn.values():
        notices = [text for text in figure.texts if text.get_text() == SAMPLE_NOTICE]
        assert len(notices) == sample
        for box in (notice.get_window_extent() for notice in notices):
            assert 0 <= box.x0 < box.x1 <= figure.bbox.width


def test_file_names_by_hand():
    taken: set[str] = set()
    names = ["8863", "a/b", "a b", "A_B", "../../etc", "", "-x", "Müller 病", "\udcff", "病" * 80]
    expected = ["8863", "a_b", "a_b-2", "A_B-3", "_.._etc", "unnamed", "x", "Müller_病", "_"]
    assert [safe_name(name, taken) for name in names] == [*expected, "病" * 26]


@given(st.lists(st.text(max_size=200)))
def test_file_names_are_safe_and_apart(names):
    taken: set[str] = set()
    made = [safe_name(name, taken) for name in names]
    assert len({name.lower() for name in made}) == len(names)
    for name in made:
        assert 0 < len(name) < 120
        assert not name.startswith((".", "-"))
        assert not set(name) & set('/\\:*?"<>|\0\n\r\t ')
