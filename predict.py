"""Script 3: a trained model on patches, folders of patches, large images and whole slides.

    python predict.py datasets/idc/testing          every patch of a folder
    python predict.py slide.svs --output maps       a whole slide, cut into patches
    python predict.py patch.png --explain           with what speaks for malignant

Results go to stdout as CSV, maps to --output, all else to stderr.
"""

import argparse
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from cancernet import cli, config, files, settings


def parse_arguments() -> argparse.Namespace:
    """Reads the command line; what is not given comes from the configuration."""
    parser = argparse.ArgumentParser(
        description="Predict with a trained model: CSV on stdout, maps of the slides in --output."
    )
    add = parser.add_argument
    add("paths", nargs="+", metavar="PATH", help="a patch, a folder, a large image, a whole slide")
    model = "a .keras file (default: that of train_model.py, else the bundled one)"
    add("--model", type=Path, metavar="FILE", help=model)
    maps = f"where maps go (default: {config.OUTPUT_PATH}/predictions)"
    add("--output", dest="maps", type=Path, metavar="DIR", help=maps)
    mpp = "micrometres per pixel of slides and large images (default: as stated; 4 for an image)"
    add("--mpp", type=settings.option("--mpp", settings.ABOVE_0), metavar="N", help=mpp)
    symmetries = "score each patch by the mean over its eight mirror images and turns: slower"
    add("--symmetries", action="store_true", help=symmetries)
    explain = "draw what speaks for malignant in the first patches, by Grad-CAM"
    add("--explain", action="store_true", help=explain)
    return parser.parse_args()


def say(*lines: str) -> None:
    """Tells what is no result: stdout is for the CSV alone."""
    print(*lines, sep="\n", file=sys.stderr, flush=True)


def say_counts(malignant: Sequence[bool]) -> None:
    """Says how many patches were scored, and how many of them are predicted malignant."""
    share = f" ({sum(malignant) / len(malignant):.1%})" if malignant else ""
    say(f"Patches: {len(malignant):,}, predicted malignant: {sum(malignant):,}{share}")


def write_rows(rows: Iterable[Sequence[object]]) -> None:
    """Writes rows of the CSV to stdout."""
    files.write_rows(sys.stdout, rows)
    sys.stdout.flush()


def main() -> None:
    """Predicts."""
    options = settings.read(config, parse_arguments(), script="predict")
    from cancernet.data.patch import ExcludedError
    from cancernet.prediction import inputs, model

    # 1. What is named, and the model: what can be refused at once is
    paths, problems = inputs.list_files(options.paths)
    model_file = model.find(options.model, [options.output / "cancernet.keras", model.BUNDLED])
    saved = model.read(model_file)
    found = inputs.examine(paths, max_pixels=options.max_pixels)
    problems += found.problems
    if not found.patches and not found.images:
        raise inputs.nothing_usable(problems)

    # 2. The network
    cli.prepare_tensorflow()
    from cancernet.data.failures import explained
    from cancernet.prediction.atlas import Atlas
    from cancernet.prediction.predictor import HEADER, Predictor

    predictor = Predictor(
        saved,
        batch_size=options.batch_size,
        average_symmetries=options.symmetries,
        keep_examples=options.explain,
    )
    say(*model.describe(saved, average_symmetries=options.symmetries))
    atlas = Atlas(options.maps or options.output / "predictions", predictor)
    if found.images or found.with_position or options.explain:
        atlas.open()

    # A file name that is no text is escaped.
    sys.stdout.reconfigure(  # type: ignore[union-attr]
        encoding="utf-8", errors="backslashreplace", newline=""
    )
    write_rows([HEADER])
    with explained([], batch_size=options.batch_size):
        # 3. Patches, and the slides that they make up
        scored, undecodable = predictor.score_files(found.patches)
        problems += undecodable
        write_rows(patch.row for patch in scored)
        atlas.draw_patients(scored)

        # 4. Larger images, cut into patches one after the other
        limits = {name: vars(options)[name] for name in ("mpp", "min_side", "max_pixels")}
        for file in found.images:
            try:
                image = predictor.score_image(file, **limits)
            except ExcludedError as excluded:
                problems.append(inputs.Problem(file, str(excluded)))
                continue
            write_rows(tile.row for tile in image.scored)
            counts = f"{len(image.scored):,}, background skipped {len(image.background):,}"
            say(f"{file}: patches {counts}")
            atlas.draw_image(file, image)
            scored += image.scored

        # 5. Explanation and summary
        if predictor.examples:
            atlas.explain()
    if not scored and problems:
        raise inputs.nothing_usable(problems)
    say_counts([patch.malignant for patch in scored])
    if atlas.taken:
        say(f"Maps: {atlas.folder}")
    if problems:
        say(*(f"Left out: {problem.file}: {problem.reason}" for problem in problems))
        sys.exit(cli.PARTLY_DONE)


if __name__ == "__main__":
    cli.run(main)
