"""A slide's predictions as GeoJSON, in the form that QuPath imports by drag and drop.

QuPath's coordinates are pixels of the slide's finest level, from its upper left corner. A feature
says by `objectType` what it becomes, and bears `classification`, `measurements`, and `isLocked`
(QuPath's documentation, "Exporting annotations"; measurements are an object since version 0.4).
"""

import json
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import shapely

from cancernet.evaluation.metrics import shortest
from cancernet.files import replacing
from cancernet.prediction.scored import Slide
from cancernet.prediction.slides import Frame

# Red, green, blue, told apart by every kind of eye: Okabe & Ito (2008), "Color Universal Design".
MALIGNANT = {"name": "malignant", "color": [213, 94, 0]}
BENIGN = {"name": "benign", "color": [86, 180, 233]}

# The same slide gives the same file: each object's identifier is derived from its name.
NAMESPACE = uuid.uuid5(uuid.NAMESPACE_URL, "cancernet/predictions")

# Geometry, object type, name, classification and measurements.
Feature = tuple[dict[str, Any], str, str, dict[str, Any], dict[str, float]]


def write(path: Path, slide: Slide) -> dict[str, float]:
    """Writes a detection per tile, an annotation round the malignant; returns their `extent`."""
    outline = outline_of(slide)
    size = extent(outline, slide.frame)
    features = [
        {
            "type": "Feature",
            # Not by the tile's name: two patches may share a place.
            "id": str(uuid.uuid5(NAMESPACE, f"{slide.name}/{number}")),
            "geometry": geometry,
            "properties": {
                "objectType": kind,
                "name": name,
                "classification": classification,
                "isLocked": True,
                "measurements": measurements,
            },
        }
        for number, (geometry, kind, name, classification, measurements) in enumerate(
            [*_detections(slide), *_annotation(slide, outline, size)]
        )
    ]
    content = {"type": "FeatureCollection", "features": features}
    with replacing(path) as beside:
        beside.write_text(json.dumps(content, separators=(",", ":")), encoding="utf-8")
    return size


def outline_of(slide: Slide) -> shapely.MultiPolygon:
    """Merges what is predicted malignant into polygons with holes, in pixels."""
    malignant = slide.edges[slide.placed & slide.predicted]
    merged = shapely.union_all(shapely.box(*malignant.T))
    return shapely.MultiPolygon(getattr(merged, "geoms", [merged] if merged.area else []))


def extent(outline: shapely.MultiPolygon, frame: Frame) -> dict[str, float]:
    """Measures an outline, to the nearest tile; nothing where the scale is unknown.

    The largest focus is the connected area with the largest smallest circle around it, whose
    diameter it is.
    """
    if frame.micrometres is None:
        return {}
    scale = frame.micrometres / np.array(frame.scale) / 1000
    outline = shapely.transform(outline, lambda points: points * scale)
    radii = shapely.minimum_bounding_radius(shapely.get_parts(outline))
    return {
        "malignant_area_mm2": float(outline.area),
        "largest_focus_mm": float(2 * radii.max(initial=0)),
    }


def _detections(slide: Slide) -> Iterator[Feature]:
    columns = {"probability": slide.probability, "calibrated": slide.calibrated}
    columns["in context"] = slide.in_context
    edges, predicted = slide.edges.round(2), slide.predicted
    for index in np.flatnonzero(slide.placed):
        left, upper, right, lower = edges[index].tolist()
        corners = [[left, upper], [right, upper], [right, lower], [left, lower], [left, upper]]
        values = {
            name: float(shortest(values[index]))
            for name, values in columns.items()
            if np.isfinite(values[index])
        }
        kind = MALIGNANT if predicted[index] else BENIGN
        geometry = {"type": "Polygon", "coordinates": [corners]}
        yield geometry, "detection", f"x={left:g}, y={upper:g}", kind, values


def _annotation(
    slide: Slide, outline: shapely.MultiPolygon, size: Mapping[str, float]
) -> Iterator[Feature]:
    if outline.is_empty:
        return
    # QuPath refuses a MultiPolygon of a single polygon.
    shape = outline if len(outline.geoms) > 1 else outline.geoms[0]
    names = {"malignant_area_mm2": "area mm^2", "largest_focus_mm": "largest focus mm"}
    measurements = {names[name]: round(value, 4) for name, value in size.items()}
    geometry = json.loads(shapely.to_geojson(shapely.set_precision(shape, 0.01)))
    yield geometry, "annotation", f"Predicted malignant{slide.how}", MALIGNANT, measurements
