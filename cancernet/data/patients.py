"""Who the patients are: settled before the split, and refused where the folders leave it open."""

import re
import unicodedata
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from itertools import takewhile

from cancernet.cli import InputError
from cancernet.data.originals import Patch
from cancernet.data.patch import LABELS, LAYOUT, Layout, layout_options

# What the folders of a split are called, without numbers and spaces.
SPLIT_NAME = re.compile(
    r"(train|training|val|valid|validation|dev|test|testing|holdout|eval|evaluation|fold|split)"
    r"(set|data|dataset|images|patches|split)?"
)
SLIDE_NAME = re.compile(
    r"(?P<patient>.+)[-_ .](slide|scan|section|block|wsi|roi|region|left|right)[-_ .]?[0-9]*",
    re.IGNORECASE,
)
SHOWN = 5
SAY_IT = "or change LAYOUT in cancernet/config.py"


def settle(patches: Sequence[Patch], layout: Layout, *, method: str) -> list[Patch]:
    """Gives the patches with one spelling for each patient, after saying which are merged.

    An InputError where the folders leave open who the patient is; only a note for the image split.
    """
    if problem := doubt(patches, layout):
        if method != "image":
            raise InputError(problem)
        print(f"Note: {problem}")
    spellings: dict[str, set[str]] = defaultdict(set)
    for patch in patches:
        spellings[alike(patch.patient)].add(patch.patient)
    several = sorted(sorted(names) for names in spellings.values() if len(names) > 1)
    if several:
        shown = "; ".join(" and ".join(map(ascii, names)) for names in several[:SHOWN])
        more = "; ..." if several[SHOWN:] else ""
        print(f"{len(several)} patients are spelt in several ways, taken for one: {shown}{more}.")
    first_of = {name: names[0] for names in several for name in names}
    return [
        replace(patch, patient=first_of[patch.patient]) if patch.patient in first_of else patch
        for patch in patches
    ]


def alike(name: str) -> str:
    """A name without what tells no two patients apart: case, Unicode form, separators, 7 or 007."""
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold())
    words = " ".join(re.split(r"[\s_.-]+", folded)).strip()
    return re.sub(r"(?<!\d)0+(?=\d)", "", words) or name


def described(patches: Sequence[Patch], layout: str) -> str:
    """Says by what patients are told apart, with an example."""
    folder = "the folder two levels up" if layout == LAYOUT.text else f"the layout {layout}"
    example: dict[str, str] = {}  # By the way in which the patient is known.
    for patch in patches:
        example.setdefault(folder if patch.x is None else "the file names", patch.patient)
    ways = (f"{way}, e.g. {patient!r}" for way, patient in sorted(example.items()))
    return f"patients by {' and by '.join(ways)}"


def doubt(patches: Sequence[Patch], layout: Layout) -> str | None:
    """Says why the folders leave open who the patient is, and the ways out; None if they do not."""
    own = [patch for patch in patches if patch.x is None]  # An IDC name tells the patient.
    source_of = {patch.patient: patch.source for patch in own}
    kinds = {name: re.sub(r"[\d ]", "", alike(name)) for name in sorted(source_of)}
    splits = [name for name, kind in kinds.items() if SPLIT_NAME.fullmatch(kind)]
    # A patient may be called "test 1", if no other is called "train 1".
    one_kind = len({kinds[name] for name in splits}) == 1 and re.search(r"\d", splits[0])
    if splits and (not one_kind or kinds[splits[0]] in ("fold", "split")):
        return (
            f"Folders with names of splits stand where the patient is expected: "
            f"{', '.join(map(repr, splits[:SHOWN]))}, as in {source_of[splits[0]]!r}. The split is "
            "made here, of whole patients: lay the files out as <patient>/<class>/<file>, or, "
            "where their names begin with the patient, take --layout split/class/patient_file, "
            f"{SAY_IT}. Where the patients are unknown, there is --split image alone, whose "
            "metrics flatter."
        )
    if source_of and LABELS.keys() >= source_of.keys():
        source = own[0].source
        return (
            f"The patients' folders are called {' and '.join(map(repr, kinds))}, as in {source!r}. "
            "If that is the class, and the folder below it the patient, take --layout "
            f"class/patient/file, {SAY_IT}; else rename them."
        )
    return _slides_side_by_side(list(kinds)) or _levels(own, layout)


def _slides_side_by_side(names: Sequence[str]) -> str | None:
    """Finds folders such as "anna_slide1" and "anna_slide2" beside those of others."""
    slides: dict[str, list[str]] = defaultdict(list)
    for name in names:
        if match := SLIDE_NAME.fullmatch(name):
            slides[alike(match["patient"])].append(name)
    several = next((each for each in slides.values() if len(each) > 1), None)
    if several is None or len(slides) == 1:
        return None
    return (
        f"The patients' folders {several[0]!r} and {several[1]!r} look like slides of one patient. "
        "If so, take --layout patient_slide/class/file, with what stands between the two in the "
        f"place of _, {SAY_IT}; else rename them."
    )


def _levels(own: Sequence[Patch], layout: Layout) -> str | None:
    """Asks which of several folders is the patient, where they do not lie side by side."""
    first, *rest = layout.text.split("/")
    places = {alike(f"/{'/'.join(layout.above(p.source))}"): p.source for p in own}
    if first != "patient" or len(places) < 2:
        return None
    above = {source: layout.above(source) for source in places.values()}
    shared = len([*takewhile(lambda each: len(set(each)) == 1, zip(*above.values(), strict=False))])
    source = max(above, key=lambda source: len(above[source]))
    other = next(each for each in above if each != source)
    levels = source.split("/")[shared : len(above[source]) + 1]
    together = "/".join(["patient"] * len(levels) + rest)
    return (
        f"The patients' folders do not lie side by side, as in {other!r} and {source!r}: which "
        f"folder is the patient? Take {layout_options(levels, rest)}, or --layout {together} if it "
        f"is {'_'.join(levels)!r}, {SAY_IT}."
    )
