"""Maps of a slide with what a model says of it: probabilities, tissue, errors."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.patches import Patch as Swatch
from mpl_toolkits.axes_grid1.anchored_artists import AnchoredSizeBar
from numpy.typing import NDArray

from cancernet.cli import SAMPLE_NOTICE
from cancernet.data.patch import PATCH_SIDE
from cancernet.files import replacing
from cancernet.prediction.scored import Slide
from cancernet.prediction.slides import PIXEL

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

# Draws on the axes of a slide with its tissue; gives a title, and what the colours mean.
Drawing = Callable[[Axes, Slide, NDArray[np.uint8]], tuple[str, list[Swatch]]]


def draw(folder: Path, name: str, slide: Slide, tissue: NDArray[np.uint8]) -> None:
    """Draws the maps of a slide over its tissue and, where classes are known, its errors.

    The tissue is as `reassemble` makes it. File names begin with `name`; older maps are replaced.
    """
    _save(folder / f"{name}_heatmap.png", slide, tissue, _heatmap)
    _save(folder / f"{name}_tissue.png", slide, tissue, _tissue)
    if np.any(slide.placed & (slide.labels >= 0)):
        _save(folder / f"{name}_errors.png", slide, tissue, _errors)


def _save(path: Path, slide: Slide, tissue: NDArray[np.uint8], drawing: Drawing) -> None:
    rows, columns = slide.shape
    inches = LONGEST / max(rows, columns)
    # Never narrower than the notice, nor lower than a colour bar with its label.
    size = max(columns * inches, 4.5) + 2, max(rows * inches, 3) + 1.6
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots()
    text, handles = drawing(axes, slide, tissue)
    shown = slide.name.encode("ascii", "replace").decode()  # What every font has.
    axes.set_title(f"{shown[:40]}: {text}", fontsize=10, parse_math=False)
    # Below the slide there is room for the scale.
    axes.set(xlim=(0, columns * SQUARE), xticks=(), yticks=())
    axes.set_ylim((rows + 0.08 * max(rows, columns)) * SQUARE, 0)
    for spine in axes.spines.values():
        spine.set_color("0.7")
    if slide.frame.micrometres:
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
    # Of a round length, a tenth to a quarter of the slide's width.
    lengths = (10000, 5000, 2000, 1000, 500, 200, 100)
    length = next((each for each in lengths if each <= width / 4), 50)
    text = f"{length // 1000} mm" if length >= 1000 else f"{length} µm"
    style = {"sep": 3, "frameon": False, "size_vertical": width / 200}
    axes.add_artist(AnchoredSizeBar(axes.transData, length, text, "lower right", **style))


def _show(axes: Axes, slide: Slide, picture: NDArray[Any], **style: Any) -> AxesImage:
    """Shows a picture or, with squares as they are, a grid over the whole slide."""
    rows, columns = slide.shape
    style["interpolation"] = "nearest" if picture.shape[:2] == (rows, columns) else None
    return axes.imshow(picture, extent=(0, columns * SQUARE, rows * SQUARE, 0), **style)


def _show_faded(axes: Axes, slide: Slide, tissue: NDArray[np.uint8]) -> list[Swatch]:
    """Shows the tissue in pale grey, glass and gaps flat, as ground for colours."""
    faded = 255 - (255 - tissue.mean(axis=2)) * 0.8
    _show(axes, slide, faded, cmap="gray", vmin=0, vmax=255)
    handles = []
    for what, where, colour in (
        ("no tissue, skipped", slide.background, GLASS),
        ("no patch", ~slide.taken, NOTHING),
    ):
        if where.any():
            _show(axes, slide, np.where(where, 0.0, np.nan), cmap=ListedColormap([colour]))
            handles.append(_swatch(what, where, colour))
    return handles


def _swatch(what: str, where: NDArray[np.bool_], colour: str) -> Swatch:
    return Swatch(facecolor=colour, edgecolor="0.7", label=f"{what}: {np.sum(where):,}")


def _heatmap(axes: Axes, slide: Slide, tissue: NDArray[np.uint8]) -> tuple[str, list[Swatch]]:
    handles = _show_faded(axes, slide, tissue)
    style = {"cmap": "viridis", "vmin": 0, "vmax": 1, "alpha": 0.65}
    probability = slide.place(slide.shown, np.nan)
    image = _show(axes, slide, probability, **style)
    assert axes.figure is not None
    bar = axes.figure.colorbar(image, ax=axes, shrink=0.9)
    bar.set_label(f"probability of class 1, malignant{slide.how}")
    bar.ax.axhline(slide.threshold, color="red", linewidth=2)
    number, malignant = np.isfinite(probability).sum(), slide.place(slide.predicted, False).sum()
    counts = f"{number:,}, predicted malignant {malignant:,}"
    rule = f"probability at least {slide.threshold:.3g}, the red line{slide.how}"
    return f"patches {counts}\n({rule})", handles


def _tissue(axes: Axes, slide: Slide, tissue: NDArray[np.uint8]) -> tuple[str, list[Swatch]]:
    _show(axes, slide, tissue)
    return "the slide, reassembled", []


def _errors(axes: Axes, slide: Slide, tissue: NDArray[np.uint8]) -> tuple[str, list[Swatch]]:
    handles = _show_faded(axes, slide, tissue)
    labels, predicted = slide.labels, slide.predicted
    outcomes = [(labels == 1) & predicted, (labels == 0) & ~predicted]
    outcomes += [(labels == 1) & ~predicted, (labels == 0) & predicted, labels < 0]
    outcome = slide.place(np.argmax(outcomes, axis=0).astype(float), np.nan)
    colours = ListedColormap([colour for _, colour in OUTCOMES])
    limits = {"vmin": -0.5, "vmax": len(OUTCOMES) - 0.5}
    _show(axes, slide, outcome, cmap=colours, **limits, alpha=0.75)
    for number, (what, colour) in enumerate(OUTCOMES):
        if np.any(outcome == number):
            handles.append(_swatch(what, outcome == number, colour))
    return f"right and wrong at threshold {slide.threshold:.3g}{slide.how}", handles
