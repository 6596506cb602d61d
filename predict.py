"""Script 3: a trained model on patches, folders of patches, large images and whole slides.

    python predict.py datasets/idc/testing          every patch of a folder
    python predict.py slide.svs --output maps       a whole slide, cut into patches
    python predict.py patch.png --explain           with what speaks for malignant

Results go to stdout as CSV, maps to --output, all else to stderr.
"""

import argparse
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from cancernet import cli, config, files, settings

MANY = 10  # Files left out whose reasons are counted at the end.


def parse_arguments() -> argparse.Namespace:
    """Reads the command line; what is not given comes from the configuration."""
    parser = argparse.ArgumentParser(
        description="Predict with a trained model: CSV on stdout, maps of the slides in --output."
    )
    add = parser.add_argument
    add(
        "paths",
        nargs="+",
        metavar="PATH",
        help="a patch, a folder, a large image, a whole slide; or a pattern",
    )
    model = "a .keras or .h5 file (default: that of train_model.py, else the bundled one)"
    add("--model", type=Path, metavar="FILE", help=model)
    maps = f"where maps go (default: {config.OUTPUT_PATH}/predictions)"
    add("--output", dest="maps", type=Path, metavar="DIR", help=maps)
    mpp = "micrometres per pixel of slides and large images (default: as stated; 4 for an image)"
    add("--mpp", type=settings.option("--mpp", settings.ABOVE_0), metavar="N", help=mpp)
    symmetries = "score each patch by the mean over its eight mirror images and turns: slower"
    add("--symmetries", action="store_true", help=symmetries)
    explain = "draw what speaks for malignant in the first patches, by Grad-CAM"
    add("--explain", action="store_true", help=explain)
    add("--csv", type=Path, metavar="FILE", help="where the rows go (default: stdout)")
    add("--again", action="store_true", help="score slides again that an earlier run has done")
    return parser.parse_args()


def say(*lines: str) -> None:
    """Tells what is no result: stdout is for the CSV alone."""
    print(*lines, sep="\n", file=sys.stderr, flush=True)


@contextmanager
def open_csv(path: Path | None) -> Iterator[Callable[[Iterable[Sequence[object]]], None]]:
    """Opens stdout, or a file that is there whole or not at all; yields what writes rows to it."""
    as_text: Any = {"encoding": "utf-8", "errors": "backslashreplace", "newline": ""}
    with ExitStack() as opened:
        if path:
            beside = opened.enter_context(files.replacing(path.resolve()))  # Not a link.
            stream = opened.enter_context(beside.open("w", **as_text))
        else:
            stream = sys.stdout
            stream.reconfigure(**as_text)  # type: ignore[union-attr]

        def write(rows: Iterable[Sequence[object]]) -> None:
            files.write_rows(stream, rows)
            stream.flush()

        yield write


def predict(predictor: Any, atlas: Any, found: Any, options: settings.Settings) -> list[bool]:
    """Writes a row per patch, and draws; tells of each patch whether it is predicted malignant."""
    from cancernet.prediction.done import Done
    from cancernet.prediction.inputs import nothing_usable
    from cancernet.prediction.scored import HEADER, in_context

    limits = {name: vars(options)[name] for name in ("mpp", "min_side", "max_pixels")}
    made_with = limits | {"symmetries": options.symmetries}
    done = Done(
        atlas.folder / "done", predictor.path, again=options.again or options.explain, **made_with
    )
    with open_csv(options.csv) as write:
        write([HEADER])
        # 1. Patches
        patches = predictor.score_files(found.patches, found.images)
        malignant = []

        # 2. Larger images, cut into patches one after the other
        for slide in predictor.score_images(found.images, found.problems, done, **limits):
            if not slide.name:  # Patches in other files than training reads.
                patches += slide.rows
                continue
            write(row.row for row in slide.rows)
            malignant += [row.malignant for row in slide.rows]
            atlas.draw(slide)

        # 3. The slides that patches of all kinds of files make up, and what speaks for malignant
        patches = in_context(patches, predictor.metadata.context)
        write(patch.row for patch in patches)
        malignant += [patch.malignant for patch in patches]
        atlas.draw_patches(patches)
        atlas.close()
        atlas.explain()
        if not malignant and found.problems:
            raise nothing_usable(found.problems)
    return malignant


def report(malignant: Sequence[bool], atlas: Any, problems: Sequence[Any]) -> None:
    """Says how many patches were scored, where maps are, and which files were left out."""
    share = f" ({sum(malignant) / len(malignant):.1%})" if malignant else ""
    say(f"Patches: {len(malignant):,}, predicted malignant: {sum(malignant):,}{share}")
    if atlas.taken:
        first = ", see predictions.html first" if atlas.album.slides else ""
        say(f"Maps: {atlas.folder}{first}")
    for file, reason in problems:
        say(f"Left out: {file}: {reason}")
    if len(problems) >= MANY:
        reasons = Counter(reason.partition(":")[0] for _, reason in problems)
        counts = ", ".join(f"{reason}: {count:,}" for reason, count in reasons.most_common())
        say(f"Left out in all: {len(problems):,} files ({counts})")


def main() -> None:
    """Predicts."""
    options = settings.read(config, parse_arguments(), script="predict")
    from cancernet.prediction import inputs, model

    # What is named, and the model: what can be refused at once is.
    if options.csv:
        files.check_copy(options.csv, option="--csv", begins=b"file")
    found = inputs.find(options.paths, max_pixels=options.max_pixels)
    trained = options.output / "cancernet.keras"
    saved = model.read(model.find(options.model, [trained, model.BUNDLED]))

    cli.prepare_tensorflow()
    from cancernet.data.failures import explained
    from cancernet.prediction.atlas import Atlas
    from cancernet.prediction.predictor import Predictor

    predictor = Predictor(
        saved,
        batch_size=options.batch_size,
        average_symmetries=options.symmetries,
        keep_examples=options.explain,
    )
    say(*model.describe(saved, average_symmetries=options.symmetries))
    atlas = Atlas(options.maps or options.output / "predictions", predictor)
    if found.drawable or options.explain:
        atlas.open()

    with explained([], batch_size=options.batch_size):
        malignant = predict(predictor, atlas, found, options)
    report(malignant, atlas, found.problems)
    if found.problems:
        sys.exit(cli.PARTLY_DONE)


if __name__ == "__main__":
    cli.run(main)
