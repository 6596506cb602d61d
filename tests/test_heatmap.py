"""Positions to grids, by hand and by property."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cancernet.prediction import heatmap
from cancernet.prediction.heatmap import Layout

POSITIONS = st.lists(
    st.tuples(st.integers(0, 20), st.integers(0, 20)), min_size=1, max_size=40, unique=True
)


def test_a_small_slide_by_hand():
    x, y = [101, 151, 101], [51, 51, 151]  # As IDC's names have them.
    layout = heatmap.lay_out(x, y)
    assert layout == Layout(left=101, top=51, rows=3, columns=2)
    grid = heatmap.place(layout, x, y, np.array([0.1, 0.2, 0.3]), missing=np.nan)
    np.testing.assert_array_equal(grid, [[0.1, 0.2], [np.nan, np.nan], [0.3, np.nan]])


@given(POSITIONS, st.integers(0, 10_000), st.integers(0, 10_000))
def test_every_patch_gets_its_own_square_wherever_the_slide_begins(squares, left, top):
    columns, rows = np.array(squares).T
    x, y = left + 50 * columns, top + 50 * rows
    values = np.arange(len(squares))
    layout = heatmap.lay_out(x, y)
    grid = heatmap.place(layout, x, y, values, missing=-1)
    assert grid.shape == (np.ptp(rows) + 1, np.ptp(columns) + 1)
    assert sorted(grid[grid >= 0]) == list(values)
    assert list(grid[rows - rows.min(), columns - columns.min()]) == list(values)
    assert heatmap.shared(layout, x, y) == 0


@given(POSITIONS, st.randoms())
def test_order_does_not_matter(squares, random):
    shuffled = random.sample(squares, len(squares))
    grids = []
    for each in (squares, shuffled):
        x, y = 50 * np.array(each).T + 1
        values = np.array([100 * column + row for column, row in each])
        grids.append(heatmap.place(heatmap.lay_out(x, y), x, y, values, missing=-1))
    np.testing.assert_array_equal(grids[0], grids[1])


def test_of_two_patches_in_a_square_the_first_counts_and_it_is_told():
    x, y = [1, 51, 53], [1, 1, 1]
    layout = heatmap.lay_out(x, y)
    assert heatmap.shared(layout, x, y) == 1
    assert heatmap.place(layout, x, y, np.array([7, 8, 9]), missing=0).tolist() == [[7, 8]]


def test_positions_off_the_grid_go_to_the_nearest_square():
    layout = heatmap.lay_out([1, 74, 77], [1, 1, 1])
    rows, columns = heatmap.squares(layout, [1, 74, 77], [1, 1, 1])
    assert (rows.tolist(), columns.tolist()) == ([0, 0, 0], [0, 1, 2])


def test_the_tissue_is_put_together_and_small_patches_stay_upper_left():
    black = np.zeros((4, 4, 3), np.uint8)
    edge = np.full((4, 2, 3), 9, np.uint8)
    x, y = [1, 101], [1, 1]
    picture = heatmap.mosaic(heatmap.lay_out(x, y), x, y, [black, edge], side=4)
    assert picture.shape == (4, 12, 3)
    assert picture[0, :, 0].tolist() == [0] * 4 + [255] * 4 + [9] * 2 + [255] * 2


def test_what_makes_no_map_is_said():
    with pytest.raises(ValueError, match="no patch has a position"):
        heatmap.lay_out([], [])
    with pytest.raises(ValueError, match=r"20,000,001 x 20,000,001 squares"):
        heatmap.lay_out([1, 10**9], [1, 10**9])
