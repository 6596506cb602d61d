"""The layers of the code: who may import whom, and what stays light to load."""

import ast
import subprocess
import sys
from pathlib import Path

from conftest import PROJECT

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
    """What a module imports, as a.b.c."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
    return names


def test_imports_between_packages_lead_one_way() -> None:
    for path in (PROJECT / "cancernet").rglob("*.py"):
        names = imported(path)
        assert "cancernet.config" not in names, path  # Only the scripts import it.
        if path.parent.name in LAYERS:
            allowed = LAYERS[path.parent.name] | {path.parent.name}
            ours = {name.split(".")[1] for name in names if name.startswith("cancernet.")}
            assert ours & LAYERS.keys() <= allowed, path


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
    paths = [*(PROJECT / "cancernet").rglob("*.py"), *PROJECT.glob("*.py")]
    found = {name.split(".")[0] for path in paths for name in imported(path)}
    found -= {"cancernet", "mpl_toolkits", *sys.stdlib_module_names}  # A part of matplotlib.
    lines = (PROJECT / "requirements.txt").read_text().split()
    assert {line.split("==")[0] for line in lines} == {
        *(packages.get(name, name) for name in found),
        "openslide-bin",  # The library itself.
    }
    assert all("==" in line for line in lines)
