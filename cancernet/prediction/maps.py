"""A slide with what the network says of it: probabilities, tissue, errors, metrics.

A grid has one cell per square of a patch. Row 0 is the slide's upper edge, column 0 its left one.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.patches import Patch as Swatch
from mpl_toolkits.axes_grid1.anchored_artists import AnchoredSizeBar
from numpy.typing import ArrayLike, NDArray

from cancernet.cli import SAMPLE_NOTICE
from cancernet.data.patch import PATCH_SIDE
from cancernet.evaluation import metrics
from cancernet.files import replacing
from cancernet.prediction.slides import PIXEL

# A slide of 20 x 20 cm; positions in names that stray further apart would fill the memory.
MOST_SQUARES = 1_000_000

SQUARE = PATCH_SIDE * PIXEL  # Micrometres per side of a patch.

# Longest side of a slide on a figure, in inches.
LONGEST, DPI = 7, 120

# One colour each, told apart by every kind of eye: Okabe & Ito (2008), "Color Universal Design".
OUTCOMES = (
    ("malignant, predicted malignant", "#0072B2"),
    ("benign, predicted benign", "#56B4E9"),
    ("malignant, predicted benign", "#D55E00"),
    ("benign, predicted malignant", "#F0E442"),
    ("class not known", "#999999"),
)
GLASS, NOTHING = "#D9D9D9", "#FFFFFF"


class Grid:
    """The smallest grid, of `shape` (rows, columns), that holds all patches of a slide.

    `row` and `column` are each patch's place in it, counted from 0; `first` are the indices of the
    patches that are shown: of those that share a square, the first.
    """

    def __init__(
        self, x: ArrayLike, y: ArrayLike, step: tuple[int, int] = (PATCH_SIDE, PATCH_SIDE)
    ) -> None:
        """Finds the square, or the nearest one, of patches with left edges x and upper edges y.

        All are in pixels, like `step`, from one patch to the next. More than MOST_SQUARES squares
        are a ValueError.
        """
        self.column, self.row = (
            (np.asarray(edges) - np.min(edges) + each // 2) // max(1, each)
            for edges, each in zip((x, y), step, strict=True)
        )
        self.shape = rows, columns = int(self.row.max()) + 1, int(self.column.max()) + 1
        if rows * columns > MOST_SQUARES:
            raise ValueError(
                f"the positions span {columns:,} x {rows:,} squares, over {MOST_SQUARES:,} in all"
            )
        self.first = np.unique(self.row * columns + self.column, return_index=True)[1]

    def place(self, values: NDArray[Any], missing: Any) -> NDArray[Any]:
        """Puts one value per patch that is shown into its square.

        Returns:
            The dtype of `values`, shape (rows, columns, ...).
        """
        grid = np.full((*self.shape, *values.shape[1:]), missing, values.dtype)
        grid[self.row[self.first], self.column[self.first]] = values[self.first]
        return grid


@dataclass(frozen=True)
class SlideMap:
    """A slide's grids, shape (rows, columns)."""

    name: str  # The patient, a slide of theirs, or the image.
    probability: NDArray[np.float32]  # Of class 1, in context where it is; NaN where none.
    malignant: NDArray[np.bool_]  # True where a patch is predicted malignant, likewise.
    background: NDArray[np.bool_]  # True where a square was skipped, having no tissue.
    label: NDArray[np.int8]  # 0 or 1, -1 where unknown.
    tissue: NDArray[np.uint8]  # The reassembled slide, shape (rows * side, columns * side, 3).
    threshold: float  # A patch is predicted malignant from this probability on.
    in_context: bool  # Whether that is a probability in context.
    sample: bool  # Whether model or patches are synthetic, which every figure then says.
    to_scale: bool = True  # Whether a square's side is known to be 200 micrometres.

    @property
    def scored(self) -> NDArray[np.bool_]:
        """True where a patch has a probability."""
        return np.isfinite(self.probability)


def draw(folder: Path, name: str, slide: SlideMap) -> None:
    """Draws the maps of one slide and, where classes are known, its errors.

    The file names begin with `name`; older maps of the same name are replaced, one by one.
    """
    _save(folder / f"{name}_heatmap.png", slide, _heatmap)
    _save(folder / f"{name}_tissue.png", slide, _tissue)
    if np.any(slide.scored & (slide.label >= 0)):
        _save(folder / f"{name}_errors.png", slide, _errors)


def slide_metrics(
    labels: NDArray[np.integer], probabilities: NDArray[np.float32], *, threshold: float
) -> dict[str, Any]:
    """Makes the metrics of one slide's patches of known class, named as in metrics.json."""
    outcome = metrics.confusion(labels, probabilities, threshold=threshold)
    return {
        "patches": len(labels),
        "prevalence": float(np.mean(labels == 1)),
        "threshold": threshold,
        "confusion_matrix": asdict(outcome),
        **{name: getattr(outcome, name) for name in metrics.METRICS},
        "roc_auc": metrics.roc_auc(labels, probabilities),
    }


def _save(
    path: Path, slide: SlideMap, drawing: Callable[[Axes, SlideMap], tuple[str, list[Swatch]]]
) -> None:
    """Makes a figure in the slide's proportions, has it drawn on, and saves it."""
    rows, columns = slide.probability.shape
    inches = LONGEST / max(rows, columns)
    # Never narrower than the notice, nor lower than a colour bar with its label.
    figure = Figure(
        figsize=(max(columns * inches, 4.5) + 2, max(rows * inches, 3) + 1.6), layout="constrained"
    )
    axes = figure.subplots()
    text, handles = drawing(axes, slide)
    shown = slide.name.encode("ascii", "replace").decode()  # What every font has.
    axes.set_title(f"{shown[:40]}: {text}", fontsize=10, parse_math=False)
    # Below the slide there is room for the scale.
    axes.set(xlim=(0, columns * SQUARE), xticks=(), yticks=())
    axes.set_ylim((rows + 0.08 * max(rows, columns)) * SQUARE, 0)
    for spine in axes.spines.values():
        spine.set_color("0.7")
    if slide.to_scale:
        _add_scale(axes, columns * SQUARE)
    if handles:
        figure.legend(handles=handles, loc="outside lower center", ncols=2, frameon=False)
    if slide.sample:
        figure.suptitle(SAMPLE_NOTICE, color="red", fontsize=8)
    # Laid out here, since savefig would draw everything twice for it.
    layout = figure.get_layout_engine()
    assert layout is not None
    layout.execute(figure)
    figure.set_layout_engine(None)
    with replacing(path) as beside:
        # Half the time for a file a tenth larger.
        figure.savefig(beside, format="png", dpi=DPI, pil_kwargs={"compress_level": 3})


def _add_scale(axes: Axes, width: float) -> None:
    """Draws a bar of a round length, a tenth to a quarter of the slide's width."""
    lengths = (10000, 5000, 2000, 1000, 500, 200, 100)
    length = next((each for each in lengths if each <= width / 4), 50)
    text = f"{length // 1000} mm" if length >= 1000 else f"{length} µm"
    style = {"sep": 3, "frameon": False, "size_vertical": width / 200}
    axes.add_artist(AnchoredSizeBar(axes.transData, length, text, "lower right", **style))


def _show(axes: Axes, slide: SlideMap, picture: NDArray[Any], **style: Any) -> AxesImage:
    """Shows a picture or, with squares as they are, a grid over the whole slide."""
    rows, columns = slide.probability.shape
    style["interpolation"] = "nearest" if picture.shape[:2] == (rows, columns) else None
    return axes.imshow(picture, extent=(0, columns * SQUARE, rows * SQUARE, 0), **style)


def _show_faded(axes: Axes, slide: SlideMap) -> list[Swatch]:
    """Shows the tissue in pale grey, glass and gaps flat, as ground for colours."""
    faded = 255 - (255 - slide.tissue.mean(axis=2)) * 0.8
    _show(axes, slide, faded, cmap="gray", vmin=0, vmax=255)
    handles = []
    for what, where, colour in (
        ("no tissue, skipped", slide.background, GLASS),
        ("no patch", ~slide.background & ~slide.scored, NOTHING),
    ):
        if where.any():
            _show(axes, slide, np.where(where, 0.0, np.nan), cmap=ListedColormap([colour]))
            handles.append(_swatch(what, where, colour))
    return handles


def _swatch(what: str, where: NDArray[np.bool_], colour: str) -> Swatch:
    return Swatch(facecolor=colour, edgecolor="0.7", label=f"{what}: {np.sum(where):,}")


def _heatmap(axes: Axes, slide: SlideMap) -> tuple[str, list[Swatch]]:
    handles = _show_faded(axes, slide)
    style = {"cmap": "viridis", "vmin": 0, "vmax": 1, "alpha": 0.65}
    image = _show(axes, slide, slide.probability, **style)
    assert axes.figure is not None
    bar = axes.figure.colorbar(image, ax=axes, shrink=0.9)
    where = ", in context" * slide.in_context
    bar.set_label(f"probability of class 1, malignant{where}")
    bar.ax.axhline(slide.threshold, color="red", linewidth=2)
    counts = f"{np.sum(slide.scored):,}, predicted malignant {np.sum(slide.malignant):,}"
    rule = f"probability at least {slide.threshold:.3g}, the red line{where}"
    return f"patches {counts}\n({rule})", handles


def _tissue(axes: Axes, slide: SlideMap) -> tuple[str, list[Swatch]]:
    _show(axes, slide, slide.tissue)
    return "the slide, reassembled", []


def _errors(axes: Axes, slide: SlideMap) -> tuple[str, list[Swatch]]:
    handles = _show_faded(axes, slide)
    right = slide.malignant == (slide.label == 1)
    conditions = [
        slide.scored & (slide.label == label) & (right == expected)
        for label, expected in ((1, True), (0, True), (1, False), (0, False))
    ]
    conditions.append(slide.scored & (slide.label < 0))
    outcome = np.select(conditions, list(range(len(OUTCOMES))), default=np.nan)
    colours = ListedColormap([colour for _, colour in OUTCOMES])
    limits = {"vmin": -0.5, "vmax": len(OUTCOMES) - 0.5}
    _show(axes, slide, outcome, cmap=colours, **limits, alpha=0.75)
    for (what, colour), where in zip(OUTCOMES, conditions, strict=True):
        if where.any():
            handles.append(_swatch(what, where, colour))
    where = ", in context" * slide.in_context
    return f"right and wrong at threshold {slide.threshold:.3g}{where}", handles
