"""The walls of the house: who may import whom, and what stays light to load."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import PROJECT

SCRIPTS = ("build_dataset.py", "train_model.py", "predict.py")

# Each room may import those of lower floors only, and nothing of its own floor: so no circles.
FLOORS = (
    {"console"},
    {"recipes"},
    {
        "machines",
        "patches",
        "splitting",
        "files",
        "locks",
        "download",
        "sample",
        "augmentation",
        "cancernet",
        "fused",
        "symmetries",
        "normalization",
        "devices",
    },
    {"originals", "evaluation", "pipeline", "checkpoint", "heatmap", "slides", "explain", "team"},
    {"dataset", "summary", "epochs", "steps", "calibration", "inputs", "maps", "tiles", "failures"},
    {"building", "bootstrap", "screen", "plots", "models", "training"},
    {"scorecard", "inference"},
    {"baselines", "atlas", "page"},
    {"report"},
)
WITHOUT_TENSORFLOW = (
    *("locks", "patches", "splitting", "originals", "dataset", "building", "plots", "page"),
    *("evaluation", "calibration", "bootstrap", "scorecard", "baselines", "report", "screen"),
    *("heatmap", "slides", "tiles", "inputs", "models", "maps", "recipes", "machines"),
)


def rooms_imported(path: Path) -> set[str]:
    rooms: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module == "cancernet":
            rooms |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("cancernet."):
            rooms.add(str(node.module).split(".")[1])
        elif isinstance(node, ast.Import):
            rooms |= {n.name.split(".")[1] for n in node.names if n.name.startswith("cancernet.")}
    return rooms


def test_every_room_stands_on_a_floor() -> None:
    rooms = {path.stem for path in (PROJECT / "cancernet").glob("*.py")}
    assert rooms - {"__init__", "config"} == set().union(*FLOORS)


@pytest.mark.parametrize("floor", range(len(FLOORS)))
def test_imports_lead_downstairs_only(floor: int) -> None:
    below: set[str] = set().union(*FLOORS[:floor])
    for room in FLOORS[floor]:
        assert rooms_imported(PROJECT / "cancernet" / f"{room}.py") <= below, room


def test_only_scripts_import_the_configuration() -> None:
    for room in (PROJECT / "cancernet").glob("*.py"):
        assert "config" not in rooms_imported(room), room.name


def test_scripts_read_like_a_contents_page() -> None:
    for script in SCRIPTS:
        tree = ast.parse((PROJECT / script).read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef):
                assert (node.end_lineno or 0) - node.lineno < 60, f"{script}: {node.name}"


def test_rooms_that_need_no_tensorflow_do_not_load_it() -> None:
    code = f"""
import importlib, sys
for room in {WITHOUT_TENSORFLOW}:
    importlib.import_module("cancernet." + room)
    assert "tensorflow" not in sys.modules and "keras" not in sys.modules, room
"""
    subprocess.run([sys.executable, "-c", code], cwd=PROJECT, check=True)


def test_requirements_are_what_the_code_imports() -> None:
    packages = {
        "cv2": "opencv-python-headless",
        "openslide": "openslide-python",
        "PIL": "pillow",
        "sklearn": "scikit-learn",
    }
    imported = set()
    for path in [*(PROJECT / "cancernet").glob("*.py"), *(PROJECT / name for name in SCRIPTS)]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                imported |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                imported.add(node.module.split(".")[0])
    imported -= {"mpl_toolkits"}  # A part of matplotlib.
    needed = {packages.get(name, name) for name in imported - sys.stdlib_module_names}
    lines = (PROJECT / "requirements.txt").read_text().split()
    slides = {
        line.split("==")[0] for line in (PROJECT / "requirements-slides.txt").read_text().split()
    }
    assert slides == {"openslide-python", "openslide-bin"}  # Imported where a slide is opened.
    assert {line.split("==")[0] for line in lines} == needed - {"cancernet", "openslide-python"}
    assert all("==" in line for line in lines)
