"""Made-up patches for the tests, the real ones where they are present, and what many tests do."""

import csv
import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from matplotlib.figure import Figure

from cancernet import config, recipe
from cancernet.data.dataset import Row, Split
from cancernet.recipe import Recipe

PROJECT = Path(__file__).parents[1]
REAL_PATCHES = PROJECT.parent / "shared" / "idc" / "original"

WritePatch = Callable[..., Path]


def recipe_of(**changes: Any) -> Recipe:
    """The published recipe as the project comes, with some values changed."""
    return replace(recipe.published(vars(config)), **changes)


def make_split(files: Sequence[Path], labels: Sequence[int]) -> Split:
    """A training split of patches anywhere."""
    rows = [
        Row("training", label, "patient", None, None, "", str(file), 0, "")
        for file, label in zip(files, labels, strict=True)
    ]
    return Split("training", Path(), rows)


def run(script: str | Path, *options: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Runs a script as a user does."""
    return subprocess.run(
        [sys.executable, str(PROJECT / script), *map(str, options)],
        cwd=cwd,
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=600,
    )


def run_well(script: str | Path, *options: str | Path, cwd: Path) -> str:
    """Runs a script that ends well: what it prints."""
    result = run(script, *options, cwd=cwd)
    assert result.returncode == 0, result.stderr
    return result.stdout


def assert_refused(result: subprocess.CompletedProcess[str], *words: str) -> None:
    """One message, with these words in it, and exit code 2."""
    assert result.returncode == 2, result.stderr
    assert "Traceback" not in result.stderr
    for word in words:
        assert word in result.stderr


def read_csv(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def read_json(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8"))


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below a folder, by its path with forward slashes."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.fixture
def write_patch() -> WritePatch:
    """Writes a random patch, another one with each call."""
    generator = np.random.default_rng(7)

    def write(path: Path, *, width: int = 50, height: int = 50) -> Path:
        pixels = generator.integers(0, 256, (height, width, 3), dtype=np.uint8)
        encoded, data = cv2.imencode(path.suffix, pixels)
        assert encoded
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data.tobytes())
        return path

    return write


@pytest.fixture
def originals(tmp_path: Path, write_patch: WritePatch) -> Path:
    """Twelve patients of four benign and two malignant patches each, as the download has them."""
    for patient in range(20001, 20013):
        for index in range(6):
            label = int(index >= 4)
            name = f"{patient}_idx5_x{50 * index + 1}_y51_class{label}.png"
            write_patch(tmp_path / "original" / str(patient) / str(label) / name)
    return tmp_path / "original"


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> dict[str, Figure]:
    """The figures that were saved, by their file's name without its ending."""
    figures: dict[str, Figure] = {}
    savefig = Figure.savefig

    def recorded(figure: Figure, path: Path, **settings: Any) -> None:
        figures[path.stem.removeprefix(".new-")] = figure
        savefig(figure, path, **settings)

    monkeypatch.setattr(Figure, "savefig", recorded)
    return figures


@pytest.fixture(scope="session")
def real_patches() -> Path:
    """The directory of real patches; without it the test is skipped."""
    if not REAL_PATCHES.is_dir():
        pytest.skip("the real patches are not here")
    return REAL_PATCHES
