"""What stands in report.html, read without a browser."""

import base64
import json
import re
from copy import deepcopy
from dataclasses import replace
from html import unescape

import cv2
import made_up
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cancernet.cli import SAMPLE_NOTICE
from cancernet.data.originals import Exclusion
from cancernet.evaluation import page
from cancernet.evaluation.context import Scores
from cancernet.evaluation.page import rounded
from cancernet.evaluation.scorecard import pick

# Enough patients for intervals.
SIZES = {str(10253 + number): 24 for number in range(10)} | {"anna": 7}
ROWS = made_up.make_rows(SIZES, without_place=("anna",))
PROBABILITIES = made_up.make_probabilities(ROWS)
DATA = made_up.make_data(ROWS)
SHOWN = {"in_context": None, "prevalence": 0.5}


def metrics_of(data=DATA, probabilities=PROBABILITIES, **settings):
    return made_up.make_metrics(data, {data.judged.name: probabilities}, **settings)


@pytest.fixture
def write(tmp_path):
    def written(data=DATA, probabilities=PROBABILITIES, metrics=None):
        return made_up.write_page(tmp_path, data, probabilities, metrics).read_text("utf-8")

    return written


def embedded(text):
    (found,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', text, re.S)
    return json.loads(found)


def shown(text):
    """The words of the page, without its tags, style and scripts."""
    text = re.sub(r"<(script|style)\b.*?</\1>", "", text, flags=re.S)
    return re.sub(r"\s+", " ", unescape(re.sub(r"<[^>]+>", " ", text)))


def test_metrics_stand_there_with_their_intervals(write):
    testing = metrics_of()["testing"]
    words = shown(write())

    def cell(metrics, *names):
        value, (low, high) = pick(metrics, *names)
        return f"{rounded(value)} {rounded(low)} to {rounded(high)}"

    swapped = f"sensitivity {rounded(testing['at_0.5']['specificity'], 4)}, "  # As published.
    expected = [f"Sensitivity at 0.5 {cell(testing, 'at_0.5', 'sensitivity')}", swapped]
    for name in ("at_0.5", "at_validation_threshold"):
        counts = testing[name]["confusion_matrix"]
        expected.append(f"truly benign {counts['tn']} true negatives {counts['fp']} false")
        expected.append(f"truly malignant {counts['fn']} false negatives {counts['tp']} true")
    # In context beside the same patches alone; all but the seven without a place.
    expected.append("The same 240 testing patches of 10 patients: those with neighbours")
    both = [cell(testing[kind], "roc_auc") for kind in ("alone", "in_context")]
    expected.append(" ".join(["ROC AUC", *both]))
    for row in testing["foci"]:
        size, groups, patches, *found = row.values()
        shares = [rounded(share) if patches else "-" for share in found]
        expected.append(f"{size} {groups} {patches} {' '.join(shares)}")
    expected += ["Context smooths away small foci", "wrong at 0.5, by the patch alone,"]
    assert [text for text in expected if text not in words] == []


def lead(difference, interval=None):
    difference = difference and {"roc_auc": difference[0], "ci95": interval}
    return {"roc_auc": 0.6, "ci95": None, "network_lead": difference}


SHARED = ["Patients are shared between the splits (2 of them)", "The splits share patients"]
DISJOINT = ["The splits are disjoint.", "never seen"]
WEIGHTED = ["with class weights", "weighs the rarer class more", "Class weights in training"]
IN_CONTEXT = ["Context smooths away small foci", "of the patch alone in context", "context's own"]


@pytest.mark.parametrize(
    ("where", "value", "there", "gone"),
    [
        ("baselines colour", lead([0.2]), ["ranks better than the colours alone."], []),
        ("baselines colour", lead([0.2], [-0.1, 0.3]), ["holds 0: it may be no better."], []),
        ("baselines colour", lead([0.0]), ["does not rank better than the colours alone."], []),
        ("baselines colour", lead(None), ["of the colours 0.600 not defined"], ["No baseline in"]),
        ("split overlap", {"patients": 2, "files": 0, "contents": 0}, SHARED, DISJOINT),
        ("config CLASS_WEIGHTS", False, ["no class weights"], WEIGHTED),
        ("testing in_context", None, ["There is none here : see the notes"], IN_CONTEXT),
        ("sample", True, [SAMPLE_NOTICE], []),
        ("notes", ["why it is so"], ["Notes of this run why it is so."], []),
    ],
)
def test_the_page_tells_the_run_as_it_was(write, where, value, there, gone):
    metrics = deepcopy(metrics_of())
    before = shown(write(metrics=metrics))
    assert "Not a medical device" in before
    assert "SYNTHETIC" not in before
    *path, last = where.split()
    part = metrics
    for name in path:
        part = part[name]
    part[last] = value
    after = shown(write(metrics=metrics))
    assert [(words in before, words in after) for words in there] == [(False, True)] * len(there)
    assert [(words in before, words in after) for words in gone] == [(True, False)] * len(gone)


def test_what_is_not_defined_is_said_and_breaks_nothing(write):
    rows = [replace(row, label=1) for row in made_up.make_rows({"1": 5})]  # One class, one patient.
    data, scores = made_up.make_data(rows), np.full(5, 0.2, np.float32)
    words = shown(write(data, scores, metrics_of(data, scores)))
    for expected in (
        "ROC AUC not defined",
        "PPV share of those predicted malignant that are not defined",
        "No 95 % intervals",
        "No intervals in this run",
    ):
        assert expected in words
    assert "Baselines Classifier" not in words


def test_metrics_are_rounded_as_the_script_rounds():  # (0.0625).toFixed(3) is "0.063" as well.
    values = {0.0625: "0.063", -0.0625: "-0.063", 0.9995: "1.000", 1: "1.000", None: "not defined"}
    assert {value: rounded(value) for value in values} == values


def test_files_left_out_are_counted_and_the_network_file_is_named(write, tmp_path):
    left_out = [Exclusion(f"{number}.png", "too small", "") for number in range(1200)]
    metadata = {"sha256": "0a1b", "height": 48, "width": 32, "channels": 3, "recipe": "tuned"}
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "cancernet.json").write_text(json.dumps(metadata))
    rows = made_up.make_rows(SIZES, split="validation")  # Without testing this one is shown.
    text = write(made_up.make_data(rows, exclusions=left_out))
    assert sum(len(slide["labels"]) for slide in embedded(text)["slides"]) == len(rows)
    words = shown(text)
    assert "The testing split is empty" in words
    assert f"Files found {1200 + len(ROWS):,} Left out 1,200 too small: 1,200 Used" in words
    assert "SHA-256 0a1b Input 48 x 32 pixels (height x width), 3 channels Recipe tuned" in words


def test_names_that_look_like_tags_show_as_text(write):
    rows = made_up.make_rows({"1": 5, made_up.HOSTILE: 7}, without_place=(made_up.HOSTILE,))
    data = made_up.make_data(rows, exclusions=[Exclusion("a", made_up.HOSTILE, "")])
    scores = made_up.make_probabilities(rows)
    text = write(data, scores, metrics_of(data, scores, notes=[made_up.HOSTILE]))
    assert not re.search("<script>alert|<!--|<b>", text)
    assert text.count("<script") == text.count("</script>") == 2
    assert shown(text).count(made_up.HOSTILE) >= 3
    hostile = {slide["name"]: files(slide) for slide in embedded(text)["slides"]}[made_up.HOSTILE]
    assert hostile == [row.file for row in rows if row.patient == made_up.HOSTILE]


def decode(text, kind="<f4"):
    return np.frombuffer(base64.b64decode(text), dtype=kind)


def files(slide):
    return [slide["folder"] + file for file in slide["files"]]


@given(st.permutations(range(len(ROWS))))
def test_the_script_gets_every_patch_with_its_own_numbers(order):
    split = made_up.make_data([ROWS[index] for index in order]).testing
    kinds = Scores.of(DATA.testing, PROBABILITIES, made_up.DECISION)
    data = page.embedded(split, kinds[list(order)], SHOWN)
    for kind, values in vars(kinds).items():
        found: dict[str, float] = {}
        for slide in data["slides"]:
            found |= zip(files(slide), decode(slide[kind]), strict=True)
        assert np.array_equal([found[row.file] for row in ROWS], values, equal_nan=True)


@pytest.mark.parametrize(
    ("places", "expected"),
    [
        ([(101, 51), (51, 151)], [(1, 0), (0, 2)]),
        ([(1, 1), (51, 51), (None, None)], [(0, 0), (1, 1), (0, 3)]),
        ([(None, None)] * 5, [(0, 0), (1, 0), (2, 0), (0, 1), (1, 1)]),
        ([(0, 0), (50 * 1999, 0), (10**30, 0)], [(0, 0), (999, 0), (0, 2)]),  # No such slide.
    ],
)
def test_patches_stand_where_they_lie_and_others_in_rows_below(places, expected):
    rows = [replace(ROWS[0], x=x, y=y) for x, y in places]
    split = made_up.make_data(rows).testing
    (slide,) = page.embedded(split, Scores(*np.zeros((3, 5))), SHOWN)["slides"]
    found = (decode(slide[name], "<u2").tolist() for name in ("columns", "rows"))
    assert list(zip(*found, strict=True)) == expected


def test_the_gallery_has_the_most_confident_errors_first(write, tmp_path):
    rows = [made_up.make_row("1", number, label=number % 2) for number in range(8)]
    probabilities = np.array([0.9, 0.4, 0.5, 0.1, 0.2, 0.5, 0.6, 0.8], dtype=np.float32)
    kinds = page.confident_errors(made_up.make_data(rows).testing, probabilities)
    found = [(words, [rows.index(row) for row, *_ in errors]) for words, errors in kinds]
    assert found == [
        ("Benign, predicted malignant: 3 of 3", [0, 6, 2]),
        ("Malignant, predicted benign: 2 of 2", [3, 1]),
    ]
    assert kinds[1][1][0][1] == float(probabilities[3])
    data = made_up.make_data(made_up.make_rows({"1": 100}))
    wrong = np.where(data.testing.labels, 0.25, 0.75).astype(np.float32)
    write(data, wrong)
    pixels = np.full((40, 3000, 3), (0, 0, 255), np.uint8)
    cv2.imwrite(str(tmp_path / "data" / data.testing.rows[0].file), pixels)
    (tmp_path / "data" / data.testing.rows[1].file).write_bytes(b"no picture")
    text = write(data, wrong)
    assert (text.count('alt="Patch of patient'), text.count(">unreadable<")) == (23, 1)
    pictures = re.findall(r'src="data:image/png;base64,([^"]+)" alt="Patch', text)
    large = cv2.imdecode(decode(pictures[0], np.uint8), cv2.IMREAD_COLOR)
    assert large is not None
    assert (large.shape, large[0, 0].tolist()) == ((1, 100, 3), [0, 0, 255])
