"""Script 1: sorts the original images into training, validation and testing.

    python build_dataset.py                  from datasets/original into datasets/idc
    python build_dataset.py --sample         from a synthetic sample, to try things out
    python build_dataset.py --download       from the public data set, fetched from Kaggle

`cancernet/config.py` decides what no option says.
"""

import argparse
from pathlib import Path

from cancernet import cli, config
from cancernet.data import splitting


def parse_arguments() -> argparse.Namespace:
    """Reads the command line; what is not given comes from the configuration."""
    parser = argparse.ArgumentParser(
        description="Sort the original images into training, validation and testing."
    )
    source = parser.add_mutually_exclusive_group()
    source.add_argument(
        "--original",
        type=Path,
        default=cli.configured_path("ORIG_INPUT_DATASET", config.ORIG_INPUT_DATASET),
        metavar="DIR",
        help="where the images are, as <patient>/<class>/<file> (default: %(default)s)",
    )
    source.add_argument("--sample", action="store_true", help="draw a synthetic sample and use it")
    source.add_argument("--download", action="store_true", help="fetch the public data set first")
    parser.add_argument(
        "--dataset",
        type=Path,
        default=cli.configured_path("BASE_PATH", config.BASE_PATH),
        metavar="DIR",
        help="where the data set goes (default: %(default)s)",
    )
    parser.add_argument(
        "--split",
        choices=splitting.METHODS,
        default=config.SPLIT_BY,
        help="what is kept together (default: %(default)s)",
    )
    parser.add_argument(
        "--seed",
        type=cli.seed,
        default=str(config.SEED),  # Text, so that it is checked as the command line is.
        metavar="N",
        help="same seed, same split (default: %(default)s)",
    )
    return parser.parse_args()


def open_originals(arguments: argparse.Namespace) -> Path:
    """Finds the originals, or makes the sample or fetches the public data set first."""
    from cancernet import locks
    from cancernet.data import building, download, sample

    if arguments.download:
        return download.fetch()
    folder = arguments.original
    if arguments.sample:
        folder = cli.configured_path("SAMPLE_PATH", config.SAMPLE_PATH)
    building.check_replaceable(arguments.dataset, original=folder, sample=arguments.sample)
    if not arguments.sample:
        return folder
    locks.alone(folder, option="SAMPLE_PATH")
    print(f"Drawing the sample in {folder} ...", flush=True)
    sample.draw_sample(folder, seed=arguments.seed)
    return folder


def main() -> None:
    """Builds the data set."""
    arguments = parse_arguments()
    if arguments.sample:
        print(cli.SAMPLE_NOTICE)
    # These take a second to import: after the command line has been read.
    from cancernet import locks
    from cancernet.data import building, dataset, originals, sample, summary

    # 1. Originals
    folders = building.split_folders(
        config.BASE_PATH, (config.TRAIN_PATH, config.VAL_PATH, config.TEST_PATH)
    )
    fractions = splitting.split_fractions(config.TRAIN_SPLIT, config.VAL_SPLIT)
    splitting.check_method(arguments.split)
    building.check_copy_mode(config.COPY_MODE)
    locks.build(arguments.dataset)
    dataset.settle(arguments.dataset)
    original = open_originals(arguments)
    patches, exclusions = originals.examine(
        original, min_side=config.MIN_SIDE, max_pixels=config.MAX_PIXELS
    )
    synthetic = any(patch.patient in sample.SAMPLE_PATIENTS for patch in patches)
    if synthetic and not arguments.sample:
        print(cli.SAMPLE_NOTICE)
    building.check_replaceable(arguments.dataset, original=original, sample=synthetic)

    # 2. Split
    split_of = splitting.assign_splits(
        patches,
        method=arguments.split,
        train_split=config.TRAIN_SPLIT,
        val_split=config.VAL_SPLIT,
        seed=arguments.seed,
    )
    planned = building.plan(patches, split_of, folders)

    # 3. Copies, proof, and into place
    with building.new_set(arguments.dataset):
        rows, gone = building.stage(
            original, arguments.dataset, planned, copy_mode=config.COPY_MODE
        )
        build = dataset.describe(
            rows,
            method=arguments.split,
            seed=arguments.seed,
            fractions=fractions,
            sample=synthetic,
        )
        building.swap(arguments.dataset, rows, exclusions + gone, build)

    # 4. Report
    print(*summary.report(build, patches, exclusions, splitting.read_published()), sep="\n")
    print(f"Data set: {arguments.dataset}")


if __name__ == "__main__":
    cli.run(main)
