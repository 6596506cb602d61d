"""Script 3: a trained model on patches, folders of patches, large images and whole slides.

    python predict.py datasets/idc/testing          every patch of a folder
    python predict.py slide.svs --output maps       a whole slide, cut into patches
    python predict.py patch.png --explain           with what speaks for malignant

Results go to stdout as CSV, maps to --output, all else to stderr.
"""

from __future__ import annotations

import argparse
import csv
import sys
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

from cancernet import cli, config

if TYPE_CHECKING:  # What takes seconds to import waits until the command line has been read.
    from cancernet.prediction.atlas import Atlas
    from cancernet.prediction.inference import Example, Scored, ScoredImage
    from cancernet.prediction.inputs import Found, Problem
    from cancernet.prediction.models import Card, TrainedModel


def parse_arguments() -> argparse.Namespace:
    """Reads the command line; what is not given comes from the configuration."""
    parser = argparse.ArgumentParser(
        description="Predict with a trained model: CSV on stdout, maps of the slides in --output."
    )
    parser.add_argument(
        "paths",
        nargs="+",
        metavar="PATH",
        help="a patch, a folder of patches, a large image, a whole slide",
    )
    parser.add_argument(
        "--model",
        type=Path,
        metavar="FILE",
        help="a .keras file (default: that of train_model.py, else the one that comes along)",
    )
    parser.add_argument(
        "--output",
        type=Path,
        default=Path(config.OUTPUT_PATH) / "predictions",
        metavar="DIR",
        help="where maps go (default: %(default)s)",
    )
    parser.add_argument(
        "--mpp",
        type=cli.positive_number,
        metavar="N",
        help="micrometres a pixel of all slides and large images named "
        "(default: what a slide states; 4, as in the data set, for an image)",
    )
    parser.add_argument(
        "--symmetries",
        action="store_true",
        help="score each patch by the mean over its eight mirror images and turns: slower",
    )
    parser.add_argument(
        "--explain",
        action="store_true",
        help="draw what speaks for malignant in the first patches, by Grad-CAM",
    )
    return parser.parse_args()


def say(text: str) -> None:
    """Tells what is no result: stdout is for the CSV alone."""
    print(text, file=sys.stderr, flush=True)


def describe_model(path: Path, card: Card | None, *, symmetries: bool) -> None:
    """Says which model is used, and how, and what is not known of it."""
    say(f"Model: {path}, threshold {card.threshold if card else 0.5:.6g}.")
    if symmetries:
        say(
            "Each patch gets the mean over its eight mirror images and turns. Threshold and "
            "recalibration are those made without."
        )
    if card is None:
        say(
            f"Notice: there is no {path.with_suffix('.json').name} beside it, so the threshold is "
            "0.5 and calibrated probabilities are the network's own."
        )
    elif card.sample:
        say(cli.SAMPLE_NOTICE)


def write_rows(rows: Sequence[Sequence[object]]) -> None:
    """Writes rows of the CSV to stdout."""
    csv.writer(sys.stdout, lineterminator="\n").writerows(rows)
    sys.stdout.flush()


def score_image(
    model: TrainedModel, file: str, arguments: argparse.Namespace, atlas: Atlas
) -> ScoredImage:
    """Cuts one larger image up, scores its tiles, writes their rows and draws it."""
    from cancernet.data import patches
    from cancernet.prediction import inference, maps, slides, tiles

    opened = slides.open_picture(Path(file), mpp=arguments.mpp, max_pixels=config.MAX_PIXELS)
    with closing(opened) as picture:
        side = maps.picture_side(*tiles.grid_size(picture, min_side=config.MIN_SIDE))
        image = inference.score_image(
            model,
            file,
            picture,
            facts=patches.read_facts(Path(file)),
            min_side=config.MIN_SIDE,
            batch_size=config.BATCH_SIZE,
            picture_side=side,
            keep_examples=arguments.explain,
        )
    write_rows([inference.csv_row(row) for row in image.scored])
    say(f"{file}: patches {len(image.scored):,}, background skipped {len(image.background):,}")
    atlas.draw_image(file, image, side=side)
    return image


def score(
    model: TrainedModel, found: Found, arguments: argparse.Namespace, atlas: Atlas
) -> tuple[list[Scored], list[Example], list[Problem]]:
    """Scores what was found, writes the rows and draws; gives examples to explain if wanted."""
    from cancernet.data.patches import ExcludedError
    from cancernet.prediction import inference, inputs

    scored, problems = inference.score_files(model, found.patches, batch_size=config.BATCH_SIZE)
    write_rows([inference.csv_row(row) for row in scored])
    atlas.draw_patients(scored)
    examples = inference.example_files(model, scored) if arguments.explain else []
    for file in found.images:
        try:
            image = score_image(model, file, arguments, atlas)
        except ExcludedError as excluded:
            problems.append(inputs.Problem.of(file, excluded))
            continue
        scored += image.scored
        examples += image.examples
    return scored, examples, problems


def summarise(scored: Sequence[Scored], problems: Sequence[Problem], *, maps: Path | None) -> None:
    """Says what was done, where the maps are and what was left out."""
    called = sum(row.malignant for row in scored)
    share = f" ({called / len(scored):.1%})" if scored else ""
    say(f"Patches: {len(scored):,}, called malignant: {called:,}{share}")
    if maps:
        say(f"Maps: {maps}")
    for problem in problems:
        say(f"Left out: {problem.file}: {problem.reason}")


def main() -> None:
    """Predicts."""
    arguments = parse_arguments()
    from cancernet.prediction import inputs, models

    # 1. What is named, and the model: what can be refused at once is
    files, closed_folders = inputs.list_files(arguments.paths)
    model_file = models.find_model(
        arguments.model, (Path(config.OUTPUT_PATH) / "cancernet.keras", models.SHIPPED)
    )
    models.check_model(model_file)
    card = models.read_card(model_file)
    found = inputs.examine(files, max_pixels=config.MAX_PIXELS)
    problems = closed_folders + found.problems
    if not found.patches and not found.images:
        raise inputs.nothing_usable(problems)

    # 2. The network
    cli.prepare_tensorflow()
    from cancernet import failures
    from cancernet.prediction import inference
    from cancernet.prediction.atlas import Atlas

    model = models.open_model(model_file, card, average_symmetries=arguments.symmetries)
    describe_model(model_file, card, symmetries=arguments.symmetries)
    atlas = Atlas(arguments.output, threshold=model.threshold, sample=model.sample)
    if found.images or found.with_position or arguments.explain:
        atlas.open()

    # 3. Patches, and the slides that they make up; then larger images, one after the other
    sys.stdout.reconfigure(  # type: ignore[union-attr]
        encoding="utf-8", errors="backslashreplace", newline=""
    )
    write_rows([inference.HEADER])
    with failures.explained([], batch_size=config.BATCH_SIZE):
        scored, examples, unreadable = score(model, found, arguments, atlas)
        problems += unreadable

        # 4. Explanation and summary
        if examples:
            atlas.explain(model, examples)
    if not scored and problems:
        raise inputs.nothing_usable(problems)
    summarise(scored, problems, maps=arguments.output if atlas.drawn else None)
    if problems:
        sys.exit(cli.PARTLY_DONE)


if __name__ == "__main__":
    cli.run(main)
