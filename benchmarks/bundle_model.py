"""Takes a finished run's network as the bundled model, and writes its metadata and model card.

The commands in model_card.md make it anew. The published split's testing patients train and
validate nothing; where they are present, the card has their metrics, too.
"""

import argparse
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))
from split_comparison import TESTING, cell, find

from cancernet import cli, files
from cancernet.prediction import model

# What of a split's metrics the card tells.
AT = "at validation threshold: "
TOLD = (
    "ROC AUC",
    *(f"{AT}{name}" for name in ("sensitivity", "specificity", "balanced accuracy")),
    *(f"expected calibration error, {name}" for name in ("raw", "recalibrated")),
)


def read_run(output: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Reads the metadata and the metrics of a run.

    Raises:
        cli.InputError: It is not finished, or not of real patches split as published.
    """
    try:
        metadata, metrics = (
            files.read_json(output / f"{n}.json") for n in ("cancernet", "metrics")
        )
    except OSError as error:
        raise cli.InputError(f"{output} is no finished run: {error}.") from error
    method = "sample" if metrics["sample"] else metrics["split"]["method"]
    if method != "published" or "trained_with" not in metadata:
        raise cli.InputError(
            f"{output}: expected a finished run on real patches, --split published; it is of "
            f"{method!r}, or unfinished."
        )
    return metadata, metrics


def metric_lines(metrics: Mapping[str, Any]) -> Iterator[str]:
    """Writes the metrics of each split that was scored, as a table."""
    yield "| 95 % interval over patients | validation | testing |"
    yield "|---|---|---|"
    splits = [metrics["validation"], metrics["testing"]]
    for name in ("patients", "patches"):
        yield f"| {name} | {' | '.join(f'{each[name]:,}' if each else '-' for each in splits)} |"
    for name in TOLD:
        cells = (cell(each, *TESTING[name]) for each in splits)
        yield f"| {name.removeprefix(AT)} | {' | '.join(cells)} |"
    for kind, text in (("alone", "patches with neighbours, alone"), ("in_context", "in context")):
        of_kind = [find(each, kind) for each in splits]
        for name in ("ROC AUC", f"{AT}balanced accuracy"):
            cells = (cell(each, *TESTING[name]) for each in of_kind)
            yield f"| {text}: {name.removeprefix(AT)} | {' | '.join(cells)} |"


def write_card(metadata: Mapping[str, Any], metrics: Mapping[str, Any]) -> str:
    """Writes the model card."""
    training, validation = (metrics["split"]["splits"][name] for name in ("training", "validation"))
    trained_with = metadata["trained_with"]
    card = Path(__file__).with_name("model_card.md").read_text(encoding="utf-8")
    return card.format(
        file=model.BUNDLED.name,
        sha256=metadata["sha256"],
        patches=training["patches"] + validation["patches"],
        patients=training["patients"] + validation["patients"],
        trained=training["patients"],
        validated=validation["patients"],
        threshold=metadata["threshold"],
        metadata=model.BUNDLED.with_suffix(".json").name,
        seed=trained_with["SEED"],
        metrics="\n".join(metric_lines(metrics)),
        values="\n".join(f"| {name} | {value} |" for name, value in trained_with.items()),
    )


def main() -> None:
    """Copies the network and writes metadata and card."""
    parser = argparse.ArgumentParser(description="Take a finished run as the bundled model.")
    parser.add_argument("output", type=Path, help="output directory of a finished run")
    output = parser.parse_args().output
    metadata, metrics = read_run(output)
    files.copy(output / "cancernet.keras", model.BUNDLED)
    files.write_json(model.BUNDLED.with_suffix(".json"), metadata)
    with files.replacing(model.BUNDLED.with_name("README.md")) as beside:
        beside.write_text(write_card(metadata, metrics), encoding="utf-8")
    model.read(model.BUNDLED)
    print(*metric_lines(metrics), sep="\n")
    print(f"\nModel, metadata and model card: {model.BUNDLED.parent}")


if __name__ == "__main__":
    cli.run(main)
