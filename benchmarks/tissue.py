"""Counts the real patches that predict.py would skip as no tissue.

python benchmarks/tissue.py --data datasets/idc
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
from cancernet import cli, config
from cancernet.data.dataset import Dataset
from cancernet.data.patch import read_pixels
from cancernet.prediction.slides import is_background


def main() -> None:
    """Prints how many."""
    parser = argparse.ArgumentParser(description="Count what would be skipped as no tissue.")
    parser.add_argument("--data", type=Path, default=config.BASE_PATH, metavar="DIR")
    data = Dataset.open(parser.parse_args().data)
    rows = [row for split in data.splits.values() for row in split.rows]
    skipped = [row for row in rows if is_background(read_pixels(data.folder / row.file))]
    malignant = sum(row.label for row in skipped)
    print(f"{len(rows):,} patches, {len(skipped):,} skipped, {malignant:,} of these malignant.")


if __name__ == "__main__":
    cli.run(main)
