"""Slides that an earlier run has scored by the same model with the same options."""

import hashlib
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from cancernet.files import replacing
from cancernet.prediction.scored import Slide
from cancernet.prediction.slides import Frame

FORM = 1  # Of the files; one of another form is not read.


class Done:
    """A folder with a file per slide, so that many slides go on after a stop."""

    def __init__(self, folder: Path, model: Path, *, again: bool = False, **options: Any) -> None:
        """Takes the folder, which need not exist, and all that probabilities depend on.

        With `again` nothing is read, but what is scored is kept.
        """
        self._folder, self._again = folder, again
        self._made_with = [FORM, hashlib.sha256(model.read_bytes()).hexdigest(), options]

    def _key(self, file: str) -> str:
        stat = Path(file).stat()  # A slide's gigabytes would take minutes to hash.
        return json.dumps([*self._made_with, stat.st_size, stat.st_mtime_ns], sort_keys=True)

    def _path(self, file: str) -> Path:
        name = str(Path(file).resolve()).encode(errors="surrogateescape")
        return self._folder / f"{hashlib.sha256(name).hexdigest()[:16]}.npz"

    def load(self, file: str) -> tuple[Slide, dict[str, Any]] | None:
        """Reads a slide, without rows, and what these are made of; None where it is not done."""
        if self._again:
            return None
        try:
            with self._path(file).open("rb") as opened, np.load(opened) as saved:
                if str(saved["key"]) != self._key(file):
                    return None
                frame: dict[str, Any] = {
                    name: tuple(value) if isinstance(value, list) else value
                    for name, value in json.loads(str(saved["frame"])).items()
                }
                skipped = [(x, y) for x, y in saved["skipped"].tolist()]
                slide = Slide(
                    Path(file).stem,
                    skipped=skipped,
                    pictures=list(saved["pictures"]),
                    frame=Frame(**frame),
                    identity=str(saved["identity"]) or None,
                )
                return slide, {name: saved[name] for name in ("places", "probability")}
        except Exception:  # There is none, or it is damaged: the slide is scored.
            return None

    def save(self, file: str, slide: Slide) -> None:
        """Writes what `load` reads."""
        self._folder.mkdir(parents=True, exist_ok=True)
        facts = [row.source.facts for row in slide.rows]
        with replacing(self._path(file)) as beside, beside.open("wb") as target:
            np.savez_compressed(
                target,
                key=self._key(file),
                identity=slide.identity or "",
                frame=json.dumps(asdict(slide.frame)),
                places=np.array([(each.x, each.y) for each in facts], np.int64).reshape(-1, 2),
                probability=np.array([row.probability for row in slide.rows], np.float32),
                skipped=np.array(slide.skipped, np.int64).reshape(-1, 2),
                pictures=np.array(slide.pictures, np.uint8),
            )
