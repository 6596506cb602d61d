"""Counts the real patches that predict.py would skip as no tissue, by slide.

python benchmarks/tissue.py --data datasets/idc
"""

import argparse
import sys
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
from cancernet import cli, config
from cancernet.data.dataset import Dataset, Row
from cancernet.data.patch import read_pixels
from cancernet.prediction.slides import is_background


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description="Count what would be skipped as no tissue.")
    parser.add_argument("--data", type=Path, default=config.BASE_PATH, metavar="DIR")
    data = Dataset.open(parser.parse_args().data)
    rows = [row for split in data.splits.values() for row in split.rows]

    def skips(row: Row) -> bool:
        return is_background(read_pixels(data.folder / row.file))

    found = zip(rows, cli.map_files(skips, rows, what="Reading"), strict=True)
    skipped = [row for row, is_skipped in found if is_skipped]
    patches = Counter(row.patient for row in rows)
    print("| patient | patches | skipped | of these malignant |\n|---|---:|---:|---:|")
    for patient, number in Counter(row.patient for row in skipped).most_common(5):
        malignant = sum(row.label for row in skipped if row.patient == patient)
        print(f"| {patient} | {patches[patient]:,} | {number:,} | {malignant:,} |")
    malignant = sum(row.label for row in skipped)
    print(f"| all {len(patches):,} | {len(rows):,} | {len(skipped):,} | {malignant:,} |")


if __name__ == "__main__":
    cli.run(main)
