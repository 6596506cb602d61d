"""Who the patients are: settled before the split, and refused where the folders leave it open."""

import re
import unicodedata
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import takewhile

from cancernet.cli import InputError
from cancernet.data.originals import Patch
from cancernet.data.patch import LABELS, LAYOUT, Layout, layout_options

# What the folders of a split are called, without numbers and separators.
SPLIT_NAME = re.compile(
    r"(x|data|dataset|images|patches)?(?P<kind>train|val|dev|test|holdout|eval|fold|split)"
    r"(ings?|id|idation|uation)?(set|data|daten|dataset|images|patches|split|(?<=fold)[a-z])?"
)
NAMES_TOO = {"val", "dev"}  # People are called so.
# Slides of The Cancer Genome Atlas are named TCGA, site, patient, and more.
SLIDE_NAME = re.compile(
    r"(?P<patient>tcga-\w\w-\w{4}(?=-)|.+?(?=([-_ .]"
    r"(slide|scan|section|block|wsi|roi|region|left|right)[-_ .]?[0-9]*[a-z]?)+$)).*",
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
    # Among the separators are dashes and what has no width.
    words = " ".join(re.split(r"[\s_.\-\u00ad\u200b-\u2015\ufeff]+", folded)).strip()
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
    if problem := _levels(own, layout) or _splits(source_of, layout):
        return problem
    if source_of and LABELS.keys() >= source_of.keys():
        names = " and ".join(map(repr, sorted(source_of)))
        return (
            f"The patients' folders are called {names}, as in {own[0].source!r}. If that is the "
            "class, and the folder below it the patient, take --layout class/patient/file, "
            f"{SAY_IT}; else rename them."
        )
    return _slides_side_by_side(sorted(source_of), layout)


def _splits(source_of: Mapping[str, str], layout: Layout) -> str | None:
    """Finds folders such as "train" and "test" where the patient is expected."""
    kinds = {}
    for name in sorted(source_of):
        if match := SPLIT_NAME.fullmatch(re.sub(r"[\W\d_]", "", alike(name))):
            kinds[name] = match["kind"]
    found, names = set(kinds.values()), list(kinds)
    # A patient may be called "test 1", if no other is called "train 1".
    numbered = len(found) == 1 and re.search(r"\d", names[0]) and not found & {"fold", "split"}
    if found <= NAMES_TOO or numbered:
        return None
    folders, file = layout.text.replace("patient", "split").rsplit("/", maxsplit=1)
    return (
        "Folders with names of splits stand where the patient is expected: "
        f"{', '.join(map(repr, names[:SHOWN]))}, as in {source_of[names[0]]!r}. The split is made "
        "here, of whole patients: lay the files out as <patient>/<class>/<file>, or, where their "
        f"names begin with the patient, take --layout {folders}/patient_{file}, {SAY_IT}. Rename "
        "a patient who is called so. Where the patients are unknown, there is --split image "
        "alone, whose metrics flatter."
    )


def _slides_side_by_side(names: Sequence[str], layout: Layout) -> str | None:
    """Finds folders such as "anna_slide1" and "anna_slide2" beside others."""
    slides: dict[str, list[re.Match[str]]] = defaultdict(list)
    for name in names:
        if match := SLIDE_NAME.fullmatch(name):
            slides[alike(match["patient"])].append(match)
    several = next((each for each in slides.values() if len(each) > 1), None)
    if several is None or len(several) == len(names):
        return None
    (first, patient), second = several[0].group(0, "patient"), several[1][0]
    between = first[len(patient)]
    before, _, after = layout.text.rpartition("patient")
    # Parts of a patient's name that other folders give are joined by "_".
    parts = patient.count(between) + 1 - (before.count("patient") if between == "_" else 0)
    option = before + between.join(["patient"] * parts + ["slide"]) + after
    return (
        f"The patients' folders {first!r} and {second!r} look like slides of one patient, "
        f'{patient!r}. If so, take --layout "{option}", {SAY_IT}; else rename them.'
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
