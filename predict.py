"""Script 3: a trained model on patches, folders of patches, large images and whole slides.

    python predict.py datasets/idc/testing          every patch of a folder
    python predict.py slide.svs --output maps       a whole slide, cut into patches
    python predict.py patch.png --explain           with what speaks for malignant

Results go to stdout as CSV, maps to --output, all else to stderr.
"""

import argparse
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

from cancernet import cli, config, files, settings

MANY = 10  # Files left out whose reasons are counted at the end.


def parse_arguments() -> argparse.Namespace:
    """Reads the command line; what is not given comes from the configuration."""
    parser = argparse.ArgumentParser(
        description="Predict with a trained model: CSV on stdout, maps of the slides in --output."
    )
    add = parser.add_argument
    named = "a patch, a folder, a large image, a whole slide; or a pattern"
    add("paths", nargs="+", metavar="PATH", help=named)
    model = "a .keras or .h5 file (default: that of train_model.py, else the bundled one)"
    add("--model", type=Path, metavar="FILE", help=model)
    maps = f"where maps go (default: {config.OUTPUT_PATH}/predictions)"
    add("--output", dest="maps", type=Path, metavar="DIR", help=maps)
    mpp = "micrometres per pixel of slides and large images (default: as stated; 4 for an image)"
    add("--mpp", type=settings.ABOVE_0.read, metavar="N", help=mpp)
    symmetries = "score each patch by the mean over its eight mirror images and turns: slower"
    add("--symmetries", action="store_true", help=symmetries)
    explain = "draw what speaks for malignant in the first patches, by Grad-CAM"
    add("--explain", action="store_true", help=explain)
    add("--csv", type=Path, metavar="FILE", help="where the rows go (default: stdout)")
    add("--again", action="store_true", help="score slides again that an earlier run has done")
    return parser.parse_args()


@contextmanager
def open_csv(path: Path | None) -> Iterator[TextIO]:
    """Opens stdout, or a file that is there whole or not at all."""
    as_text: Any = {"encoding": "utf-8", "errors": "backslashreplace", "newline": ""}
    if path is None:
        sys.stdout.reconfigure(**as_text)  # type: ignore[union-attr]
        yield sys.stdout
        return
    target = path.resolve()  # A link stays one.
    with files.replacing(target) as beside, beside.open("w", **as_text) as file:
        yield file


def predict(predictor: Any, atlas: Any, named: Sequence[str], options: Any) -> None:
    """Writes a row per patch, and draws."""
    from cancernet.prediction.done import Done
    from cancernet.prediction.inputs import nothing_usable
    from cancernet.prediction.scored import HEADER, group

    limits = {name: vars(options)[name] for name in ("mpp", "min_side", "max_pixels")}
    made_with = limits | {"symmetries": options.symmetries}
    again = options.again or options.explain
    done = Done(atlas.folder / "done", predictor.path, again=again, **made_with)
    with open_csv(options.csv) as file:
        files.write_rows(file, [HEADER])
        # 1. Files: larger images are cut into patches one after the other
        for slide in predictor.score(named, done, **limits):
            files.write_rows(file, slide.rows())
            file.flush()
            atlas.draw(slide)

        # 2. The slides that patches from files of their own make up
        slides = group(predictor.patches, predictor.metadata)
        rows = {row[0]: row for slide in slides for row in slide.rows()}
        files.write_rows(file, (rows[patch] for patch in predictor.patches))
        file.flush()
        atlas.draw_patches(slides)

        # 3. The page, and what speaks for malignant
        atlas.close()
        if not atlas.patches and predictor.problems:
            raise nothing_usable(predictor.problems)


def report(atlas: Any, problems: Sequence[Any]) -> Iterator[str]:
    """Says how many patches were scored, where maps are, and which files were left out."""
    share = f" ({atlas.malignant / atlas.patches:.1%})" if atlas.patches else ""
    yield f"Patches: {atlas.patches:,}, predicted malignant: {atlas.malignant:,}{share}"
    if atlas.taken:
        yield f"Maps: {atlas.folder}{', see predictions.html first' if atlas.shown else ''}"
    for file, reason in problems:
        yield f"Left out: {file}: {reason}"
    if len(problems) >= MANY:
        reasons = Counter(reason.partition(":")[0] for _, reason in problems)
        counts = ", ".join(f"{reason}: {count:,}" for reason, count in reasons.most_common())
        yield f"Left out in all: {len(problems):,} files ({counts})"


def main() -> None:
    """Predicts."""
    options = settings.read(config, parse_arguments(), script="predict")
    from cancernet.prediction import inputs, model

    # What is named, and the model: what can be refused at once is.
    if options.csv:
        files.check_copy(options.csv, option="--csv", begins=b"file")
    named, closed = inputs.find(options.paths)
    trained = options.output / "cancernet.keras"
    saved = model.read(model.find(options.model, [trained, model.BUNDLED]))

    cli.prepare_tensorflow()
    from cancernet.data.pipeline import explained
    from cancernet.prediction.atlas import Atlas
    from cancernet.prediction.predictor import Predictor, note

    predictor = Predictor(
        saved,
        batch_size=options.batch_size,
        average_symmetries=options.symmetries,
        keep_examples=options.explain,
    )
    predictor.problems += closed
    note(*model.describe(saved, average_symmetries=options.symmetries))
    atlas = Atlas(options.maps or options.output / "predictions", predictor)
    # Where a patient or a slide is known there will be something to draw.
    if options.maps or options.explain or any(inputs.read_source(file).slide for file in named):
        atlas.open()

    with explained([], batch_size=options.batch_size):
        predict(predictor, atlas, named, options)
    note(*report(atlas, predictor.problems))
    if predictor.problems:
        sys.exit(cli.PARTLY_DONE)


if __name__ == "__main__":
    cli.run(main)
