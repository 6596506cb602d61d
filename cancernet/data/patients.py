"""Who the patients are: settled before the split, and refused where the folders leave it open."""

import re
import unicodedata
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

from cancernet.cli import InputError
from cancernet.data.patch import LAYOUT, OTHER_LAYOUTS, Layout, Patch

# What the folders of a split are called, without numbers and separators.
SPLIT_NAME = re.compile(
    r"(x|data|dataset|images|patches)?(?P<kind>train|val|dev|test|holdout|eval|fold|split)"
    r"(ings?|id|idation|uation)?(set|data|daten|dataset|images|patches|split|(?<=fold)[a-z])?"
)
# Slides of The Cancer Genome Atlas are named TCGA, site, patient, and more.
SLIDE_NAME = re.compile(
    r"(?P<patient>tcga-\w\w-\w{4}(?=-)|.+?(?=([-_ .]"
    r"(slide|scan|section|block|wsi|roi|region|left|right)[-_ .]?[0-9]*[a-z]?)+$)).*",
    re.IGNORECASE,
)
SHOWN = 5


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
    problem = _levels(own, layout) or _splits(source_of) or _slides(source_of)
    return problem and (
        f"{problem} {OTHER_LAYOUTS} Or rename the folders. Where the patients are unknown, there "
        "is --split image alone, whose metrics flatter."
    )


def _levels(own: Sequence[Patch], layout: Layout) -> str | None:
    places = {alike(f"/{layout.read(patch.source)[2]}"): patch.source for patch in own}
    if not layout.text.startswith("patient/") or len(places) < 2:
        return None
    one, other, *_ = places.values()
    return f"The patients' folders do not lie side by side, as in {one!r} and {other!r}."


def _splits(source_of: Mapping[str, str]) -> str | None:
    """Finds folders such as "train" and "test" where the patient is expected."""
    kinds: dict[str, list[str]] = defaultdict(list)
    for name in sorted(source_of):
        if match := SPLIT_NAME.fullmatch(re.sub(r"[\W\d_]", "", alike(name))):
            kinds[match["kind"]].append(name)
    if len(kinds) < 2 and kinds.keys().isdisjoint({"fold", "split"}):
        return None  # A patient may be called "test 1".
    names = [of_kind[0] for of_kind in kinds.values()]
    return (
        f"Folders with names of splits stand where the patient is expected: {names}, as in "
        f"{source_of[names[0]]!r}. The split is made here, of whole patients."
    )


def _slides(names: Collection[str]) -> str | None:
    """Finds folders such as "anna_slide1" and "anna_slide2" beside others."""
    slides: dict[str, list[str]] = defaultdict(list)
    for name in sorted(names):
        if match := SLIDE_NAME.fullmatch(name):
            slides[alike(match["patient"])].append(name)
    for of_patient in slides.values():
        if 1 < len(of_patient) < len(names):
            return f"The patients' folders {of_patient} look like slides of one patient."
    return None
