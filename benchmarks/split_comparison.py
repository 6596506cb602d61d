"""Lays the testing figures of two runs side by side, as a Markdown table.

    python benchmarks/split_comparison.py output_patient output_image

The runs are output directories of train_model.py, on data sets built with `--split patient` and
`--split image`, say. The last column is the second run's figure less the first one's.
"""

import argparse
import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from cancernet import cli

# What is no figure to compare.
OTHER = ("patients", "patches", "confusion_matrix", "threshold", "per_patient", "ci95", "split")


def read_run(output: Path) -> dict[str, Any]:
    """Reads what a run found.

    Raises:
        cli.InputError: There is no finished run, or it has no testing split.
    """
    path = output / "metrics.json"
    if not path.is_file():
        raise cli.InputError(f"Found no {path}. Name the --output of a finished run.")
    metrics = json.loads(path.read_text(encoding="utf-8"))
    if not metrics["testing"]:
        raise cli.InputError(f"{path} has no testing split. Compare runs that have one.")
    return metrics


def flat(
    figures: Mapping[str, Any], intervals: Mapping[str, Any] | None, name: str = ""
) -> Iterator[tuple[str, float | None, list[float] | None]]:
    """Yields the name, value and interval of each figure, however deep it stands."""
    for key, value in figures.items():
        if key in OTHER:
            continue
        own = (intervals or {}).get(key)
        label = key.replace("_", " ")
        if isinstance(value, dict):
            yield from flat(value, own, f"{name}{label}: ")
        else:
            yield f"{name}{label}", value, own


def all_figures(metrics: Mapping[str, Any]) -> dict[str, tuple[float | None, list[float] | None]]:
    """Lists the figures of testing, and the ROC AUC of each baseline."""
    testing = metrics["testing"]
    found = {name: (value, ends) for name, value, ends in flat(testing, testing["ci95"])}
    for name, figures in metrics["baselines"].items():
        label = f"without a network, {name.replace('_', ' ')}: roc auc"
        ends = (figures or {}).get("ci95") or {}
        found[label] = (figures["roc_auc"], ends.get("roc_auc")) if figures else (None, None)
    return found


def cell(value: float | None, ends: list[float] | None) -> str:
    """Writes a figure with its interval."""
    if value is None:
        return "not defined"
    return f"{value:.3f}" + (f" ({ends[0]:.3f} to {ends[1]:.3f})" if ends else "")


def table(runs: list[dict[str, Any]]) -> Iterator[str]:
    """Writes the lines of the table."""
    methods = [run["split"]["method"] for run in runs]
    columns = [all_figures(run) for run in runs]
    yield f"| testing, 95 % interval | `{methods[0]}` split | `{methods[1]}` split | difference |"
    yield "|---|---|---|---|"
    for name in ("patients", "patches"):
        counts = " | ".join(f"{run['testing'][name]:,}" for run in runs)
        yield f"| {name} | {counts} | |"
    for name in columns[0]:
        cells = [column.get(name, (None, None)) for column in columns]
        first, second = (value for value, _ in cells)
        difference = "" if first is None or second is None else f"{second - first:+.3f}"
        yield f"| {name} | {' | '.join(cell(*each) for each in cells)} | {difference} |"


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("first", type=Path, help="output directory of a run")
    parser.add_argument("second", type=Path, help="output directory of the run to compare with it")
    arguments = parser.parse_args()
    runs = [read_run(arguments.first), read_run(arguments.second)]
    if any(run["sample"] for run in runs):
        print(f"{cli.SAMPLE_NOTICE}\n")
    print(*table(runs), sep="\n")


if __name__ == "__main__":
    cli.run(main)
