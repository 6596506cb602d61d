"""Slides that an earlier run has scored by the same model with the same options."""

import hashlib
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from cancernet.files import replacing
from cancernet.prediction.model import Metadata
from cancernet.prediction.scored import Slide, of_image
from cancernet.prediction.slides import Frame

FORM = 2  # Of the files; one of another form is not read.
COLUMNS = ("places", "probability", "skipped", "pictures")


class Done:
    """A folder with a file per slide, so that many slides go on after a stop."""

    def __init__(self, folder: Path, model: Path, *, again: bool = False, **options: Any) -> None:
        """Takes all that probabilities depend on; with `again` nothing is read, only kept."""
        self._folder, self._again = folder, again
        self._made_with = [FORM, hashlib.sha256(model.read_bytes()).hexdigest(), options]

    def _key(self, file: str) -> str:
        stat = Path(file).stat()  # A slide's gigabytes would take minutes to hash.
        return json.dumps([*self._made_with, stat.st_size, stat.st_mtime_ns], sort_keys=True)

    def _path(self, file: str) -> Path:
        name = str(Path(file).resolve()).encode(errors="surrogateescape")
        return self._folder / f"{hashlib.sha256(name).hexdigest()[:16]}.npz"

    def load(self, file: str, metadata: Metadata) -> Slide | None:
        """Reads a slide, None where it is not done; its model's metadata may be other ones now."""
        if self._again:
            return None
        try:
            with self._path(file).open("rb") as opened, np.load(opened) as saved:
                if str(saved["key"]) != self._key(file):
                    return None
                columns = {name: saved[name] for name in COLUMNS}
                identity, frame = json.loads(str(saved["facts"]))
                return of_image(file, metadata, frame=Frame(**frame), identity=identity, **columns)
        except Exception:  # There is none, or it is damaged: the slide is scored.
            return None

    def save(self, file: str, slide: Slide) -> None:
        """Writes what `load` reads."""
        self._folder.mkdir(parents=True, exist_ok=True)
        facts = json.dumps([slide.identity, asdict(slide.frame)])
        columns = {name: getattr(slide, name) for name in COLUMNS}
        with replacing(self._path(file)) as beside, beside.open("wb") as target:
            np.savez_compressed(target, key=self._key(file), facts=facts, **columns)
