"""A slide's predictions as GeoJSON, in the form that QuPath imports by drag and drop.

QuPath's coordinates are pixels of the slide's finest level, from its upper left corner. A feature
says by `objectType` what it becomes, and bears `classification`, `measurements`, and `isLocked`
(QuPath's documentation, "Exporting annotations"; measurements are an object since version 0.4).
"""

import json
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray

from cancernet.evaluation.metrics import shortest
from cancernet.files import replacing

# Red, green, blue, told apart by every kind of eye: Okabe & Ito (2008), "Color Universal Design".
MALIGNANT = {"name": "malignant", "color": [213, 94, 0]}
BENIGN = {"name": "benign", "color": [86, 180, 233]}

# The same slide gives the same file: each object's identifier is derived from its name.
NAMESPACE = uuid.uuid5(uuid.NAMESPACE_URL, "cancernet/predictions")


@dataclass(frozen=True)
class Tiles:
    """The scored tiles of one slide, in pixels of its finest level.

    Attributes:
        edges: Left, upper, right and lower edge of each, shape (tiles, 4). Neighbours share theirs.
        malignant: Whether each is predicted malignant, shape (tiles,).
        measurements: By name, a value per tile; NaN where it has none.
        micrometres: Per pixel of the finest level, along x and along y; None where unknown.
    """

    edges: NDArray[np.float64]
    malignant: NDArray[np.bool_]
    measurements: Mapping[str, NDArray[np.floating[Any]]]
    micrometres: tuple[float, float] | None

    @cached_property
    def outline(self) -> shapely.MultiPolygon:
        """What is predicted malignant, merged into polygons with holes."""
        merged = shapely.union_all(shapely.box(*self.edges[self.malignant].T))
        return shapely.MultiPolygon(getattr(merged, "geoms", [merged] if merged.area else []))

    def extent(self) -> dict[str, float]:
        """Measures what is predicted malignant, to the nearest tile.

        Returns:
            "malignant_area_mm2", and "largest_focus_mm": the diameter of the smallest circle round
            the connected area that is largest in this. Nothing where the scale is unknown.
        """
        if self.micrometres is None:
            return {}
        scale = np.array(self.micrometres) / 1000
        outline = shapely.transform(self.outline, lambda points: points * scale)
        radii = shapely.minimum_bounding_radius(shapely.get_parts(outline))
        return {
            "malignant_area_mm2": float(outline.area),
            "largest_focus_mm": float(2 * radii.max(initial=0)),
        }


def write(path: Path, slide: str, tiles: Tiles, *, about: str) -> None:
    """Writes a FeatureCollection: a detection per tile, and an annotation round the malignant.

    Args:
        path: File to write.
        slide: Its name, from which the objects' identifiers are derived.
        tiles: What was scored.
        about: Begins the annotation's name, such as "Predicted malignant".
    """
    features = [
        # Not by the tile's name: two patches may share a place.
        {"type": "Feature", "id": str(uuid.uuid5(NAMESPACE, f"{slide}/{number}")), **feature}
        for number, feature in enumerate([*_detections(tiles), *_annotation(tiles, about)])
    ]
    content = {"type": "FeatureCollection", "features": features}
    with replacing(path) as beside:
        beside.write_text(json.dumps(content, separators=(",", ":")), encoding="utf-8")


def _detections(tiles: Tiles) -> Iterator[dict[str, Any]]:
    for index, (left, upper, right, lower) in enumerate(tiles.edges.round(2).tolist()):
        corners = [[left, upper], [right, upper], [right, lower], [left, lower], [left, upper]]
        values = {
            name: float(shortest(values[index]))
            for name, values in tiles.measurements.items()
            if np.isfinite(values[index])
        }
        kind = MALIGNANT if tiles.malignant[index] else BENIGN
        geometry = {"type": "Polygon", "coordinates": [corners]}
        name = f"x={left:g}, y={upper:g}"
        yield _feature(geometry, "detection", name, kind, values)


def _annotation(tiles: Tiles, about: str) -> Iterator[dict[str, Any]]:
    outline = tiles.outline
    if outline.is_empty:
        return
    # QuPath refuses a MultiPolygon of a single polygon.
    shape = outline if len(outline.geoms) > 1 else outline.geoms[0]
    names = {"malignant_area_mm2": "area mm^2", "largest_focus_mm": "largest focus mm"}
    measurements = {names[name]: round(value, 4) for name, value in tiles.extent().items()}
    geometry = json.loads(shapely.to_geojson(shapely.set_precision(shape, 0.01)))
    yield _feature(geometry, "annotation", about, MALIGNANT, measurements)


def _feature(
    geometry: Mapping[str, Any],
    kind: str,
    name: str,
    classification: Mapping[str, Any],
    measurements: Mapping[str, float],
) -> dict[str, Any]:
    return {
        "geometry": geometry,
        "properties": {
            "objectType": kind,
            "name": name,
            "classification": classification,
            "isLocked": True,
            "measurements": measurements,
        },
    }
