"""Takes a finished run's network as the one that comes along, and writes its model card.

COMMANDS below make it anew. The published split's testing patients train and validate nothing;
where they are present, the card has their figures, too.
"""

import argparse
import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))
from cancernet import cli
from cancernet.files import CARD_FILE, LAST_FILE, MODEL_FILE, replacing
from cancernet.prediction import models

CARD = models.SHIPPED.with_name("README.md")
COMMANDS = """python build_dataset.py --split published
python train_model.py --recipe tuned --output output_shipped
python benchmarks/ship_model.py output_shipped"""

# What of a split's figures the card tells, and the interval of each.
TOLD = {
    "ROC AUC": ("roc_auc",),
    "sensitivity": ("at_validation_threshold", "sensitivity"),
    "specificity": ("at_validation_threshold", "specificity"),
    "balanced accuracy": ("at_validation_threshold", "balanced_accuracy"),
    "expected calibration error, raw": ("calibration", "raw", "ece"),
    "expected calibration error, recalibrated": ("calibration", "recalibrated", "ece"),
}


def read_run(output: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Reads the card and the figures of a run.

    Raises:
        cli.InputError: It is not finished, or not of real patches split as published.
    """
    try:
        card, metrics = (
            json.loads((output / name).read_text(encoding="utf-8"))
            for name in (CARD_FILE, LAST_FILE)
        )
    except OSError as error:
        raise cli.InputError(f"{output} is no finished run: {error}.") from error
    found = metrics["split"]["method"]
    if metrics["sample"] or found != "published" or "trained_with" not in card:
        raise cli.InputError(
            f"{output} is of {'the synthetic sample' if metrics['sample'] else 'real patches'}, "
            f"split by {found!r}: expected a finished run on real patches, --split published."
        )
    return card, metrics


def find(figures: Mapping[str, Any] | None, keys: tuple[str, ...]) -> Any:
    """Looks a figure up, or its interval; None where there is none."""
    found: Any = figures
    for key in keys:
        found = found.get(key) if isinstance(found, Mapping) else None
    return found


def figure_lines(metrics: Mapping[str, Any]) -> Iterator[str]:
    """Writes the figures of each split that was scored, as a table."""
    yield "| 95 % interval over patients | validation | testing |"
    yield "|---|---|---|"
    splits = [metrics["validation"], metrics["testing"]]
    for name in ("patients", "patches"):
        yield f"| {name} | {' | '.join(f'{each[name]:,}' if each else '-' for each in splits)} |"
    for name, keys in TOLD.items():
        cells = []
        for figures in splits:
            value, ends = find(figures, keys), find(figures, ("ci95", *keys))
            interval = f" ({ends[0]:.3f} to {ends[1]:.3f})" if ends else ""
            cells.append("-" if value is None else f"{value:.3f}{interval}")
        yield f"| {name} | {' | '.join(cells)} |"


def card_text(card: Mapping[str, Any], metrics: Mapping[str, Any]) -> str:
    """Writes the model card."""
    counts = metrics["split"]["splits"]
    used = [counts["training"], counts["validation"]]
    patients, patches = (sum(each[name] for each in used) for name in ("patients", "patches"))
    values = "\n".join(f"| {name} | {value} |" for name, value in card["trained_with"].items())
    return f"""# Model card: cancernet-idc

CancerNet for patches of 50 x 50 pixels, 4 micrometres a pixel, of breast tissue stained with
haematoxylin and eosin: the probability that a patch holds invasive ductal carcinoma (class 1).
Its input is the patch at 48 x 48 pixels, RGB from 0 to 1, as `predict.py` reads it.

**Not for diagnosis.** It is for learning and research. No pathologist has looked at what it says,
and no figure here is of a clinic's patients.

- File: `{models.SHIPPED.name}`, loads with plain Keras, without its optimizer; sha256
  `{card["sha256"]}`.
- Data: {patches:,} patches of {patients} patients, what `build_dataset.py` uses of the patches that
  were at hand of the public IDC data set (A. Cruz-Roa et al. 2014, Proc. SPIE 9041; A. Janowczyk
  and A. Madabhushi 2016, J. Pathol. Inform. 7:29), distributed on Kaggle as
  paultimothymooney/breast-histopathology-images, there marked CC0 1.0.
- Trained on {used[0]["patients"]} patients. The other {used[1]["patients"]} chose the best epoch,
  the threshold ({card["threshold"]:.4g}) and the recalibration: their own figures are too good.
  What to expect on patients never seen is in the project's README, by cross-validation.
- Threshold and recalibration are in `{models.SHIPPED.with_suffix(".json").name}`.
- Made with seed {card["trained_with"]["SEED"]} by

```sh
{COMMANDS}
```

Run again on one machine that gives the same weights to the bit. The file holds its date, so that
its hash is another.

Figures at the threshold, of each split's own patients:

{chr(10).join(figure_lines(metrics))}

Limits: one hospital group's slides, one scanner, one stain; labels drawn around regions, not cells;
another stain, scanner or magnification moves the probabilities, and the threshold with them; the
figures are of patches, not of patients.

| trained with | value |
|---|---|
{values}
"""


def main() -> None:
    """Copies the network and writes both cards."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("output", type=Path, help="output directory of a finished run")
    output = parser.parse_args().output
    card, metrics = read_run(output)
    models.SHIPPED.parent.mkdir(exist_ok=True)
    with replacing(models.SHIPPED) as beside:
        beside.write_bytes((output / MODEL_FILE).read_bytes())
    with replacing(models.SHIPPED.with_suffix(".json")) as beside:
        beside.write_text(json.dumps(card, indent=2) + "\n", encoding="utf-8")
    with replacing(CARD) as beside:
        beside.write_text(card_text(card, metrics), encoding="utf-8")
    models.check_model(models.SHIPPED)
    assert models.read_card(models.SHIPPED) is not None
    print(*figure_lines(metrics), sep="\n")
    print(f"\nModel and cards: {models.SHIPPED.parent}")


if __name__ == "__main__":
    cli.run(main)
