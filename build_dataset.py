"""Script 1: sorts the original images into training, validation and testing.

    python build_dataset.py                  from datasets/original into datasets/idc
    python build_dataset.py --sample         from a synthetic sample, to try things out
    python build_dataset.py --download       from the public data set, fetched from Kaggle

`cancernet/config.py` decides what no option says.
"""

import argparse
from pathlib import Path

from cancernet import cli, config, settings


def parse_arguments() -> argparse.Namespace:
    """Reads the command line; what is not given comes from the configuration."""
    parser = argparse.ArgumentParser(
        description="Sort the original images into training, validation and testing."
    )
    source = parser.add_mutually_exclusive_group()
    add = settings.adder(source, config)
    add("--original", "ORIG_INPUT_DATASET", "DIR", "the images, as <patient>/<class>/<file>")
    source.add_argument("--sample", action="store_true", help="draw a synthetic sample and use it")
    source.add_argument("--download", action="store_true", help="fetch the public data set first")
    add = settings.adder(parser, config)
    add("--dataset", "BASE_PATH", "DIR", "where the data set goes")
    add("--layout", "LAYOUT", "WORDS", "which folder is the patient, as patient/slide/class/file")
    add("--split", "SPLIT_BY", "WAY", "what is kept together: image, patient or published")
    add("--seed", "SEED", "N", "same seed, same split")
    return parser.parse_args()


def open_originals(options: settings.Settings) -> Path:
    """Finds the originals, or makes them first: draws the sample, fetches the public data set."""
    from cancernet import files
    from cancernet.data import building, originals, sample

    folder = Path(options.sample_path) if options.sample else options.original
    # First make sure that 1.6 GB are not fetched for nothing.
    building.check_replaceable(options.dataset, original=folder, sample=options.sample)
    if options.download:
        return originals.download()
    if options.sample:
        files.lock_for_writing(folder, option="SAMPLE_PATH")
        print(f"Drawing the sample in {folder} ...", flush=True)
        sample.draw_sample(folder, seed=options.seed)
    return folder


def main() -> None:
    """Builds the data set."""
    options = settings.read(config, parse_arguments(), script="build")
    if options.sample:
        print(cli.SAMPLE_NOTICE)
    # These take a second to import: after the command line has been read.
    from cancernet import files
    from cancernet.data import building, originals, patients, sample, splitting, summary
    from cancernet.data.patch import LAYOUT, Layout

    # 1. Originals: every file is used, or left out for a reason
    files.lock_for_writing(options.dataset)
    original = open_originals(options)
    layout = Layout(options.layout)
    patches, exclusions = originals.examine(
        original, layout, min_side=options.min_side, max_pixels=options.max_pixels
    )
    synthetic = any(patch.patient in sample.SAMPLE_PATIENTS for patch in patches)
    if synthetic and not options.sample:
        print(cli.SAMPLE_NOTICE)
    building.check_replaceable(options.dataset, original=original, sample=synthetic)

    # 2. Split: who the patients are, and each patch to training, validation or testing
    patches = patients.settle(patches, layout, method=options.split_by)
    split_of = splitting.assign_splits(
        patches,
        method=options.split_by,
        train_split=options.train_split,
        val_split=options.val_split,
        seed=options.seed,
    )
    rows = building.plan(patches, split_of, options.split_folders)

    # 3. Data set: files copied, no overlap proved, and the older set replaced
    about = {"method": options.split_by, "seed": options.seed, "fractions": None}
    if options.split_by != "published":  # Whose lists follow no fractions.
        about["fractions"] = splitting.split_fractions(options.train_split, options.val_split)
    about["sample"] = synthetic
    if layout.text != LAYOUT.text:
        about["layout"] = layout.text
    data = building.build(options.dataset, rows, exclusions, original=original, about=about)

    # 4. Summary
    print(*summary.lines(data, patches), sep="\n")
    print(f"Data set: {options.dataset}")


if __name__ == "__main__":
    cli.run(main)
