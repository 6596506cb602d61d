"""The layers of the code: who may import whom, and what stays light to load."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import PROJECT

SCRIPTS = ("build_dataset.py", "train_model.py", "predict.py")

# Each package may import those before it only; `training` and `prediction` not each other.
LAYERS = {
    "data": set(),
    "evaluation": {"data"},
    "training": {"data", "evaluation"},
    "prediction": {"data", "evaluation"},
}
WITHOUT_TENSORFLOW = (
    *("cli", "files", "recipe", "settings"),
    *(f"data.{name}" for name in ("patch", "splitting", "originals", "dataset", "building")),
    *(f"evaluation.{name}" for name in ("context", "baselines", "plots", "report")),
    *(f"prediction.{name}" for name in ("inputs", "model", "scored", "maps", "page")),
    *("training.run", "training.workers"),
)


def imported(path: Path) -> set[str]:
    """What a module imports of this project, as a.b.c."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("cancernet"):
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names if alias.name.startswith("cancernet")}
    return names


@pytest.mark.parametrize("package", LAYERS)
def test_imports_between_packages_lead_one_way(package: str) -> None:
    allowed = LAYERS[package] | {package}
    for path in (PROJECT / "cancernet" / package).glob("*.py"):
        packages = {name.split(".")[1] for name in imported(path)} & LAYERS.keys()
        assert packages <= allowed, path.name


def test_only_scripts_import_the_configuration() -> None:
    for path in (PROJECT / "cancernet").rglob("*.py"):
        assert "cancernet.config" not in imported(path), path.name


def test_modules_that_need_no_tensorflow_do_not_load_it() -> None:
    code = f"""
import importlib, sys
for module in {WITHOUT_TENSORFLOW}:
    importlib.import_module("cancernet." + module)
    assert "tensorflow" not in sys.modules and "keras" not in sys.modules, module
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
    for path in [*(PROJECT / "cancernet").rglob("*.py"), *(PROJECT / name for name in SCRIPTS)]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                imported |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                imported.add(node.module.split(".")[0])
    imported -= {"mpl_toolkits"}  # A part of matplotlib.
    needed = {packages.get(name, name) for name in imported - sys.stdlib_module_names}
    lines = (PROJECT / "requirements.txt").read_text().split()
    assert {line.split("==")[0] for line in lines} == {
        *(needed - {"cancernet"}),
        "openslide-bin",  # The library itself.
    }
    assert all("==" in line for line in lines)
