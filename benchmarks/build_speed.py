"""Times building the data set, ours with every check against the published plain copy, by turns.

    python benchmarks/build_speed.py                              on 16,000 synthetic patches
    python benchmarks/build_speed.py --data datasets/original

Each run is a whole process and builds into a directory that is not there yet; all originals are
read once before, so that they come from memory for both.
"""

import argparse
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
import inputs
import published
from imutils import paths

from cancernet import cli

BUILD = """
import runpy, sys
from cancernet import config
config.COPY_MODE = {mode!r}
sys.argv = ["build_dataset.py", "--original", {original!r}, "--dataset", {dataset!r}]
runpy.run_path({script!r}, run_name="__main__")
"""


def command(variant: str, original: Path, dataset: Path) -> list[str]:
    """The command line of one build."""
    if variant == "published":
        return [sys.executable, published.__file__, str(original), str(dataset)]
    script = Path(__file__).parents[1] / "build_dataset.py"
    code = BUILD.format(
        mode=variant, original=str(original), dataset=str(dataset), script=str(script)
    )
    return [sys.executable, "-c", code]


def main() -> None:
    """Compares."""
    parser = argparse.ArgumentParser(description="Time the build, ours against the published one.")
    parser.add_argument("--data", type=Path, metavar="DIR", help="originals to build from")
    parser.add_argument("--rounds", type=cli.positive_integer, default=5, metavar="N")
    parser.add_argument("--patches", type=cli.positive_integer, default=16_000, metavar="N")
    arguments = parser.parse_args()
    names = {
        "published": "published plain copy, no checks",
        "copy": "ours, every check, copies",
        "hardlink": "ours, every check, hard links",
    }
    with tempfile.TemporaryDirectory() as folder:
        original, source = arguments.data, str(arguments.data)
        if not original:
            original, source = Path(folder) / "original", "SYNTHETIC SAMPLE, drawn by a program"
            inputs.draw_patches(original, arguments.patches)
        files = list(paths.list_images(str(original)))
        for file in files:
            Path(file).read_bytes()
        seconds: dict[str, list[float]] = {variant: [] for variant in names}
        for _ in range(arguments.rounds):
            for variant, taken in seconds.items():
                dataset = Path(folder) / "dataset"
                began = time.perf_counter()
                subprocess.run(
                    command(variant, original, dataset),
                    cwd=Path(__file__).parents[1],
                    check=True,
                    stdout=subprocess.DEVNULL,
                )
                taken.append(time.perf_counter() - began)
                shutil.rmtree(dataset)
    print(f"Build, {len(files):,} files, {source}:\n")
    print("| what | files/s, median (lowest to highest) | ratio |\n|---|---:|---:|")
    for variant, name in names.items():
        rates = [len(files) / taken for taken in seconds[variant]]
        pairs = zip(seconds["published"], seconds[variant], strict=True)
        ratio = statistics.median(theirs / ours for theirs, ours in pairs)
        spread = f"{min(rates):,.0f} to {max(rates):,.0f}"
        print(f"| {name} | {statistics.median(rates):,.0f} ({spread}) | {ratio:.2f} |")


if __name__ == "__main__":
    cli.run(main)
