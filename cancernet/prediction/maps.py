"""A patient's slide with what the network says of it: probabilities, tissue, errors, figures."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Patch as Swatch
from mpl_toolkits.axes_grid1.anchored_artists import AnchoredSizeBar
from numpy.typing import NDArray

from cancernet.cli import SAMPLE_NOTICE
from cancernet.data.patches import PATCH_SIDE
from cancernet.evaluation import evaluation
from cancernet.files import replacing
from cancernet.prediction.slides import PIXEL

SQUARE = PATCH_SIDE * PIXEL  # Micrometres a side of a patch.

# Longest side of a slide on a figure, in inches, and of the reassembled one, in pixels: a little
# more than are shown.
LONGEST, DPI = 7, 120
PICTURE = 1000

# One colour each, told apart by every kind of eye: Okabe & Ito (2008), "Color Universal Design".
OUTCOMES = (
    ("malignant, called malignant", "#0072B2"),
    ("benign, called benign", "#56B4E9"),
    ("malignant, called benign", "#D55E00"),
    ("benign, called malignant", "#F0E442"),
    ("class not known", "#999999"),
)
GLASS, NOTHING = "#D9D9D9", "#FFFFFF"


@dataclass(frozen=True)
class SlideMap:
    """A slide's grids; see `heatmap`.

    Attributes:
        name: The patient's number, or the name of the image.
        probability: Of class 1, float32, NaN where there is none, shape (rows, columns).
        background: True where a square was skipped as glass, shape (rows, columns).
        label: 0 or 1, -1 where unknown, shape (rows, columns).
        tissue: The reassembled slide: uint8, shape (rows * side, columns * side, 3).
        threshold: A patch is called malignant from this probability on.
        sample: Whether model or patches are synthetic, which every figure then says.
    """

    name: str
    probability: NDArray[np.float32]
    background: NDArray[np.bool_]
    label: NDArray[np.int8]
    tissue: NDArray[np.uint8]
    threshold: float
    sample: bool


def picture_side(rows: int, columns: int) -> int:
    """Chooses the pixels a square of the reassembled slide, so that its size stays bounded."""
    return max(1, min(PATCH_SIDE, PICTURE // max(rows, columns)))


def draw(folder: Path, name: str, slide: SlideMap) -> dict[str, Any] | None:
    """Draws the maps of one slide and, where classes are known, its errors and figures.

    Args:
        folder: Where they go; those of the same name are replaced, one by one.
        name: What the file names begin with.
        slide: What to draw.

    Returns:
        What <name>_figures.json holds, or None where no class is known.
    """
    _save(folder / f"{name}_heatmap.png", slide, _heatmap)
    _save(folder / f"{name}_tissue.png", slide, _tissue)
    known = np.isfinite(slide.probability) & (slide.label >= 0)
    if not known.any():
        return None
    _save(folder / f"{name}_errors.png", slide, _errors)
    figures = slide_figures(slide)
    with replacing(folder / f"{name}_figures.json") as beside:
        beside.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    return figures


def slide_figures(slide: SlideMap) -> dict[str, Any]:
    """Makes the figures of one slide's patches of known class, named as in metrics.json."""
    known = np.isfinite(slide.probability) & (slide.label >= 0)
    labels, probabilities = slide.label[known], slide.probability[known]
    outcome = evaluation.confusion(labels, probabilities, threshold=slide.threshold)
    return {
        "patient": slide.name,
        "sample": slide.sample,
        "patches": len(labels),
        "prevalence": float(np.mean(labels == 1)),
        "threshold": slide.threshold,
        "confusion_matrix": asdict(outcome),
        **{name: getattr(outcome, name) for name in evaluation.FIGURES},
        "roc_auc": evaluation.roc_auc(labels, probabilities),
    }


def _save(path: Path, slide: SlideMap, drawing: Any) -> None:
    """Makes a figure in the slide's proportions, has it drawn on, and saves it."""
    rows, columns = slide.probability.shape
    inches = LONGEST / max(rows, columns)
    # Never narrower than the notice, nor lower than a colour bar with its label.
    figure = Figure(
        figsize=(max(columns * inches, 4.5) + 2, max(rows * inches, 3) + 1.6), layout="constrained"
    )
    axes = figure.subplots()
    handles = drawing(axes, slide)
    # Below the slide there is room for the scale.
    axes.set(xlim=(0, columns * SQUARE), xticks=(), yticks=())
    axes.set_ylim((rows + 0.08 * max(rows, columns)) * SQUARE, 0)
    for spine in axes.spines.values():
        spine.set_color("0.7")
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
    length = next(
        (each for each in (10000, 5000, 2000, 1000, 500, 200, 100) if each <= width / 4), 50
    )
    text = f"{length // 1000} mm" if length >= 1000 else f"{length} µm"
    bar = AnchoredSizeBar(
        axes.transData,
        length,
        text,
        "lower right",
        sep=3,
        frameon=False,
        size_vertical=width / 200,
    )
    axes.add_artist(bar)


def _title(axes: Axes, slide: SlideMap, text: str) -> None:
    shown = slide.name.encode("ascii", "replace").decode()  # What every font has.
    axes.set_title(f"{shown[:40]}: {text}", fontsize=10, parse_math=False)


def _extent(slide: SlideMap) -> tuple[float, float, float, float]:
    rows, columns = slide.probability.shape
    return (0, columns * SQUARE, rows * SQUARE, 0)


def _show_faded(axes: Axes, slide: SlideMap) -> list[Swatch]:
    """Shows the tissue in pale grey, glass and gaps flat, as ground for colours."""
    grey = slide.tissue.mean(axis=2)
    axes.imshow(255 - (255 - grey) * 0.8, cmap="gray", vmin=0, vmax=255, extent=_extent(slide))
    missing = ~slide.background & np.isnan(slide.probability)
    flat = np.select([slide.background, missing], [0, 1], default=np.nan)
    handles = []
    for value, (what, where, colour) in enumerate(
        (
            ("background, skipped", slide.background, GLASS),
            ("no patch", missing, NOTHING),
        )
    ):
        if where.any():
            axes.imshow(
                np.where(flat == value, 0.0, np.nan),
                cmap=ListedColormap([colour]),
                extent=_extent(slide),
                interpolation="nearest",
            )
            handles.append(_swatch(colour, f"{what}: {np.sum(where):,}"))
    return handles


def _swatch(colour: str, label: str) -> Swatch:
    return Swatch(facecolor=colour, edgecolor="0.7", label=label)


def _heatmap(axes: Axes, slide: SlideMap) -> list[Swatch]:
    handles = _show_faded(axes, slide)
    image = axes.imshow(
        slide.probability,
        cmap="viridis",
        vmin=0,
        vmax=1,
        alpha=0.65,
        extent=_extent(slide),
        interpolation="nearest",
    )
    assert axes.figure is not None
    bar = axes.figure.colorbar(image, ax=axes, shrink=0.9)
    bar.set_label("probability of class 1, malignant")
    bar.ax.axhline(slide.threshold, color="red", linewidth=2)
    scored = np.isfinite(slide.probability)
    called = int(np.sum(slide.probability[scored] >= slide.threshold))
    _title(
        axes,
        slide,
        f"patches {np.sum(scored):,}, called malignant {called:,}\n"
        f"(probability at least {slide.threshold:.3g}, the red line)",
    )
    return handles


def _tissue(axes: Axes, slide: SlideMap) -> list[Swatch]:
    axes.imshow(slide.tissue, extent=_extent(slide))
    _title(axes, slide, "the slide, reassembled")
    return []


def _errors(axes: Axes, slide: SlideMap) -> list[Swatch]:
    handles = _show_faded(axes, slide)
    called = slide.probability >= slide.threshold
    scored = np.isfinite(slide.probability)
    conditions = [
        scored & (slide.label == 1) & called,
        scored & (slide.label == 0) & ~called,
        scored & (slide.label == 1) & ~called,
        scored & (slide.label == 0) & called,
        scored & (slide.label < 0),
    ]
    outcome = np.select(conditions, list(range(len(OUTCOMES))), default=-1).astype(float)
    axes.imshow(
        np.where(outcome < 0, np.nan, outcome),
        cmap=ListedColormap([colour for _, colour in OUTCOMES]),
        vmin=-0.5,
        vmax=len(OUTCOMES) - 0.5,
        alpha=0.75,
        extent=_extent(slide),
        interpolation="nearest",
    )
    for (what, colour), where in zip(OUTCOMES, conditions, strict=True):
        if where.any():
            handles.append(_swatch(colour, f"{what}: {np.sum(where):,}"))
    _title(axes, slide, f"right and wrong at threshold {slide.threshold:.3g}")
    return handles
