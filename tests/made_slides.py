"""Made-up slides with what a model says of them."""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
from made_up import CONTEXT

from cancernet.data.patch import PatchFacts
from cancernet.prediction.inputs import Source
from cancernet.prediction.model import Metadata
from cancernet.prediction.scored import Slide


def with_metadata(network: Path, folder: Path, **changes: Any) -> Path:
    """Copies a network into a folder, with metadata beside it."""
    path = folder / "cancernet.keras"
    path.write_bytes(network.read_bytes())
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    content = {"sha256": digest, "threshold": 0.5, "recalibration": None, "sample": False}
    path.with_suffix(".json").write_text(json.dumps(content | changes))
    return path


def make_slide(
    cells: Any,
    probability: Any,
    *,
    name: str = "8863",
    labels: Any = None,
    skipped: Any = (),
    metadata: Metadata | None = None,
    **others: Any,
) -> Slide:
    """A slide of patches in cells, column and row each, of 50 pixels, and of skipped ones."""
    known = [None] * len(cells) if labels is None else [None if n < 0 else n for n in labels]
    sources = [
        Source(f"p/{label}/<i>{n}.png", PatchFacts("", label, None, None), name)
        for n, label in enumerate(known)
    ]
    places, glass = (50 * np.reshape(np.asarray(each, float), (-1, 2)) for each in (cells, skipped))
    values = np.asarray(probability, np.float32)
    return Slide(name, sources, places, values, metadata or Metadata(), skipped=glass, **others)


def make_noise(
    name: str = "slide.svs",
    *,
    rows: int = 8,
    columns: int = 12,
    files: bool = False,
    sample: bool = False,
) -> Slide:
    """A slide in context, patches in most cells, skipped ones in its first row, and holes in both.

    It was cut from an image, or made of `files` of known classes.
    """
    rng = np.random.default_rng(rows)
    glass = np.zeros((rows, columns), bool)
    glass[0] = rng.random(columns) < 0.8
    patches = np.argwhere(~glass & (rng.random(glass.shape) < 0.8))[:, ::-1]
    pictures = rng.integers(100, 256, (len(patches) + glass.sum(), 1, 1, 3), np.uint8)
    return make_slide(
        patches,
        rng.random(len(patches)),
        name=name,
        labels=rng.integers(0, 2, len(patches)) if files else None,
        skipped=np.argwhere(glass)[:, ::-1],
        metadata=Metadata(sample=sample, context=CONTEXT),
        pictures=None if files else pictures.repeat(10, axis=1).repeat(10, axis=2),
    )
