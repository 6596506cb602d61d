"""Patches back to their places on the slide: positions in, grids out. NumPy alone.

The square of a patch is 50 x 50 pixels of the slide; a grid has one cell a square. Row 0 is the
slide's upper edge, column 0 its left one.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cancernet.data.patches import PATCH_SIDE

# A slide of 20 x 20 cm; positions in names that stray further apart would fill the memory.
MOST_SQUARES = 1_000_000

WHITE = 255

Positions = Sequence[int] | NDArray[np.integer[Any]]


class Layout(NamedTuple):
    """The smallest grid that holds all patches of a slide.

    Attributes:
        left: x of its left edge, in pixels of the slide.
        top: y of its upper edge, in pixels of the slide.
        rows: Squares from top to bottom.
        columns: Squares from left to right.
    """

    left: int
    top: int
    rows: int
    columns: int


def lay_out(x: Positions, y: Positions) -> Layout:
    """Finds the smallest grid that holds patches at these positions.

    Args:
        x: Left edges, in pixels of the slide.
        y: Upper edges, in pixels of the slide.

    Raises:
        ValueError: There is no patch, or the grid would have more than MOST_SQUARES squares.
    """
    if len(x) == 0:
        raise ValueError("no patch has a position")
    left, top = int(np.min(x)), int(np.min(y))
    columns = (int(np.max(x)) - left + PATCH_SIDE // 2) // PATCH_SIDE + 1
    rows = (int(np.max(y)) - top + PATCH_SIDE // 2) // PATCH_SIDE + 1
    if rows * columns > MOST_SQUARES:
        raise ValueError(
            f"the positions span {columns:,} x {rows:,} squares, over {MOST_SQUARES:,} in all"
        )
    return Layout(left, top, rows, columns)


def squares(layout: Layout, x: Positions, y: Positions) -> tuple[NDArray[np.intp], ...]:
    """Tells the row and the column of each position's square, the nearest where it is off grid."""
    row = (np.asarray(y, np.intp) - layout.top + PATCH_SIDE // 2) // PATCH_SIDE
    column = (np.asarray(x, np.intp) - layout.left + PATCH_SIDE // 2) // PATCH_SIDE
    return row, column


def shared(layout: Layout, x: Positions, y: Positions) -> int:
    """Counts the patches whose square an earlier patch has already."""
    return len(x) - len(set(zip(*squares(layout, x, y), strict=True)))


def place(
    layout: Layout, x: Positions, y: Positions, values: NDArray[Any], *, missing: Any
) -> NDArray[Any]:
    """Puts one value a patch into its square; of patches that share a square, the first counts.

    Args:
        layout: The grid.
        x: Left edges, in pixels of the slide.
        y: Upper edges, in pixels of the slide.
        values: Shape (patches,).
        missing: The value of a square without a patch.

    Returns:
        The dtype of `values`, shape (rows, columns).
    """
    grid = np.full((layout.rows, layout.columns), missing, values.dtype)
    rows, columns = squares(layout, x, y)
    for index in reversed(range(len(values))):
        grid[rows[index], columns[index]] = values[index]
    return grid


def mosaic(
    layout: Layout, x: Positions, y: Positions, tiles: Sequence[NDArray[np.uint8]], *, side: int
) -> NDArray[np.uint8]:
    """Puts pictures of the patches back together; white where there is none.

    Args:
        layout: The grid.
        x: Left edges, in pixels of the slide.
        y: Upper edges, in pixels of the slide.
        tiles: Red, green and blue, at most `side` pixels a side; smaller ones, from a slide's right
            or lower edge, fill the upper left of their square.
        side: Pixels of the picture a square.

    Returns:
        Shape (rows * side, columns * side, 3).
    """
    picture = np.full((layout.rows * side, layout.columns * side, 3), WHITE, np.uint8)
    for row, column, tile in reversed(list(zip(*squares(layout, x, y), tiles, strict=True))):
        height, width = tile.shape[:2]
        top, left = row * side, column * side
        picture[top : top + height, left : left + width] = tile
    return picture
