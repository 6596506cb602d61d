"""Lays testing metrics of two runs side by side, as a Markdown table.

    python benchmarks/split_comparison.py output_patient output_image

The runs are output directories of train_model.py, on data sets built with `--split patient` and
`--split image`, say. The last column is the second run's metric less the first one's.
"""

import argparse
import sys
from collections.abc import Iterator, Mapping
from functools import reduce
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))
from cancernet import cli, files

# What is compared, and where it stands in metrics.json.
TESTING: dict[str, tuple[str, ...]] = {
    f"{at}: {name}".replace("_", " "): (at, name)
    for at in ("at_0.5", "at_validation_threshold")
    for name in ("accuracy", "sensitivity", "specificity", "balanced_accuracy")
} | {
    "ROC AUC": ("roc_auc",),
    "expected calibration error, raw": ("calibration", "raw", "ece"),
    "expected calibration error, recalibrated": ("calibration", "recalibrated", "ece"),
}
BASELINES = {"colours alone": "colour", "knowing the patient alone": "patient_identity"}


def find(metrics: Mapping[str, Any] | None, *keys: str) -> Any:
    """Looks a metric up by its keys, one in the other; None where there is none."""
    return reduce(lambda found, key: found and found.get(key), keys, metrics)


def cell(metrics: Mapping[str, Any] | None, *keys: str) -> str:
    """Writes a metric with its interval."""
    value, ends = find(metrics, *keys), find(metrics, "ci95", *keys)
    interval = f" ({ends[0]:.3f} to {ends[1]:.3f})" if ends else ""
    return "-" if value is None else f"{value:.3f}{interval}"


def table(*runs: dict[str, Any]) -> Iterator[str]:
    """Yields the lines of the table of two runs."""

    def row(name: str, metrics: list[Any], *keys: str) -> str:
        values = [find(each, *keys) for each in metrics]
        difference = "" if None in values else f"{values[1] - values[0]:+.3f}"
        cells = (cell(each, *keys) for each in metrics)
        return f"| {name} | {' | '.join(cells)} | {difference} |"

    first, second = (run["split"]["method"] for run in runs)
    yield f"| testing, 95 % interval | `{first}` split | `{second}` split | difference |"
    yield "|---|---|---|---|"
    testing = [run["testing"] for run in runs]
    for name in ("patients", "patches"):
        yield f"| {name} | {' | '.join(f'{find(each, name) or 0:,}' for each in testing)} | |"
    for name, keys in TESTING.items():
        yield row(name, testing, *keys)
    for name, key in BASELINES.items():
        baselines = [find(run, "baselines", key) for run in runs]
        yield row(f"without a network, {name}: ROC AUC", baselines, "roc_auc")


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description="Lay testing metrics of two runs side by side.")
    parser.add_argument("runs", nargs=2, type=Path, metavar="OUTPUT", help="a run's directory")
    runs = [files.read_json(output / "metrics.json") for output in parser.parse_args().runs]
    if any(run["sample"] for run in runs):
        print(f"{cli.SAMPLE_NOTICE}\n")
    print(*table(*runs), sep="\n")


if __name__ == "__main__":
    cli.run(main)
