"""What stands in report.html, read without a browser."""

import base64
import json
import re
from dataclasses import replace
from html import unescape
from html.parser import HTMLParser

import cv2
import made_up
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cancernet.cli import SAMPLE_NOTICE
from cancernet.data.originals import Exclusion
from cancernet.evaluation import page

ROWS = made_up.make_rows({"10253": 30, "10254": 24, "anna": 7}, without_place=("anna",))
PROBABILITIES = made_up.make_probabilities(ROWS)


@pytest.fixture
def write(tmp_path):
    def written(rows=ROWS, probabilities=PROBABILITIES, **settings):
        return made_up.write_page(tmp_path, rows, probabilities, **settings).read_text("utf-8")

    return written


def embedded(text):
    (found,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', text, re.S)
    return json.loads(found)


def shown(text):
    """The words of the page, without its tags, style and scripts."""
    text = re.sub(r"<(script|style)\b.*?</\1>", "", text, flags=re.S)
    return re.sub(r"\s+", " ", unescape(re.sub(r"<[^>]+>", " ", text)))


# --- Figures -------------------------------------------------------------------------------------


def test_figures_stand_there_with_their_intervals(write):
    metrics = made_up.make_metrics(ROWS, PROBABILITIES)
    words = shown(write())
    half = metrics["testing"]["at_0.5"]
    assert f"Sensitivity at 0.5 {page.figure(half['sensitivity'])} 0.123 to 0.988" in words
    assert f"ROC AUC {page.figure(metrics['testing']['roc_auc'])} 0.765 to 0.877" in words
    for name in ("at_0.5", "at_validation_threshold"):
        counts = metrics["testing"][name]["confusion_matrix"]
        assert f"truly benign {counts['tn']} true negatives {counts['fp']} false" in words
        assert f"truly malignant {counts['fn']} false negatives {counts['tp']} true" in words
    assert "ranks better than the colours alone" in words


def test_swapped_figures_are_named_once_as_a_footnote(write):
    half = made_up.make_metrics(ROWS, PROBABILITIES)["testing"]["at_0.5"]
    swapped = f"sensitivity {page.figure(half['specificity'], 4)}, "
    swapped += f"specificity {page.figure(half['sensitivity'], 4)}"
    assert half["specificity"] != half["sensitivity"]
    assert shown(write()).count(swapped) == 1


@pytest.mark.parametrize(
    ("lead", "verdict"),
    [
        ({"roc_auc": 0.2, "ci95": [0.1, 0.3]}, "ranks better than the colours alone."),
        ({"roc_auc": 0.2, "ci95": None}, "ranks better than the colours alone."),
        ({"roc_auc": 0.2, "ci95": [-0.1, 0.3]}, "its lead holds 0: it may be no better."),
        ({"roc_auc": 0.0, "ci95": None}, "does not rank better than the colours alone."),
    ],
)
def test_the_lead_over_the_colours_is_put_in_words(write, lead, verdict):
    metrics = made_up.make_metrics(ROWS, PROBABILITIES)
    metrics["baselines"]["colour"]["network_lead"] = lead
    assert verdict in shown(write(metrics=metrics))


@pytest.mark.parametrize(
    ("balance", "words"),
    [
        ("weights", "with class weights, random warps and sgd"),
        ("none", "with no class weights, random warps and sgd"),
        ("patients", "with patients drawn alike, random warps and sgd"),
    ],
)
def test_the_recipe_is_told_as_it_was(write, balance, words):
    metrics = made_up.make_metrics(ROWS, PROBABILITIES)
    metrics["config"] |= {"BALANCE": balance, "OPTIMIZER": "sgd"}
    metrics["testing"]["calibration"]["recalibrated"] = dict.fromkeys(
        ("brier", "ece", "slope", "intercept"), 0.5
    )
    text = shown(write(metrics=metrics))
    assert words in text
    weighted = balance == "weights"
    assert ("Training weighs the rarer class more" in text) == weighted
    assert ("Class weights in training" in text) == weighted


@pytest.mark.parametrize("gone", ["absent", "null"])
def test_what_a_run_has_not_is_said_and_breaks_nothing(write, gone):
    metrics = made_up.make_metrics(ROWS, PROBABILITIES, notes=["why it is so"])
    optional = ("at_validation_threshold", "brier", "calibration", "ci95", "per_patient")
    for split in ("testing", "validation"):
        figures = metrics[split].copy()
        for name in optional:
            figures = {key: value for key, value in figures.items() if key != name}
            if gone == "null":
                figures[name] = None
        figures["roc_auc"] = figures["at_0.5"]["ppv"] = None
        metrics[split] = figures
    metrics["baselines"] = {"colour": None, "patient_identity": None}
    if gone == "absent":
        del metrics["baselines"]
    words = shown(write(metrics=metrics))
    assert "ROC AUC not defined" in words
    assert re.search(r"PPV share of those called malignant that are not defined", words)
    assert "No 95 % intervals" in words
    assert "No intervals in this run" in words
    assert "why it is so." in words
    assert "has no validation threshold" in words
    assert "What simpler means reach" not in words
    assert "No baseline in this run." in words


def test_without_testing_patches_the_validation_split_is_shown(write):
    rows = [replace(row, split="validation") for row in ROWS]
    metrics = made_up.make_metrics(rows, PROBABILITIES, testing=None)
    text = write(rows, metrics=metrics, split="validation")
    assert "The testing split is empty" in shown(text)
    assert "Numbers of validation patches" in shown(text)
    assert len(embedded(text)["labels"]) == len(rows)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0625, "0.063"),
        (-0.0625, "-0.063"),
        (0.9995, "1.000"),
        (1, "1.000"),
        (None, "not defined"),
    ],
)
def test_figures_are_rounded_as_the_script_rounds(value, text):
    assert page.figure(value) == text  # JavaScript: (0.0625).toFixed(3) is "0.063".


@pytest.mark.parametrize("sample", [True, False])
def test_the_sample_is_named_on_its_page_alone(write, sample):
    words = shown(write(metrics=made_up.make_metrics(ROWS, PROBABILITIES, sample=sample)))
    assert (SAMPLE_NOTICE in words) is sample
    assert ("SYNTHETIC" in words) is sample
    assert "Not a medical device" in words


def test_a_split_that_shares_patients_is_called_so(write):
    metrics = made_up.make_metrics(ROWS, PROBABILITIES)
    assert "The splits are disjoint." in shown(write(metrics=metrics))
    metrics["split"]["method"] = "image"
    metrics["split"]["overlap"]["patients"] = 2
    words = shown(write(metrics=metrics))
    assert "Patients are shared between the splits (2 of them)" in words
    assert "disjoint." not in words
    assert "never seen" not in words


def test_files_left_out_are_counted_by_reason(write):
    left_out = [Exclusion(f"{number}.png", "too small", "") for number in range(1200)]
    words = shown(write(exclusions=(*left_out, Exclusion("x.png", "not an image", ""))))
    assert (
        f"Files found {1201 + len(ROWS):,} Left out 1,201 too small: 1,200 not an image: 1" in words
    )


# --- Names are data ------------------------------------------------------------------------------


def test_names_that_look_like_tags_show_as_text(write):
    rows = [
        replace(row, patient=made_up.HOSTILE, file=f"testing/{row.label}/{number}<b>&amp;.png")
        if row.patient == "anna"
        else row
        for number, row in enumerate(ROWS)
    ]
    metrics = made_up.make_metrics(rows, PROBABILITIES, notes=[made_up.HOSTILE])
    text = write(rows, metrics=metrics, exclusions=(Exclusion("a", made_up.HOSTILE, ""),))
    assert "<script>alert" not in text
    assert "<!--" not in text
    assert "<b>" not in text
    assert text.count("<script") == text.count("</script>") == 2
    assert shown(text).count(made_up.HOSTILE) >= 3
    (patient,) = [each for each in embedded(text)["patients"] if each["name"] == made_up.HOSTILE]
    assert patient["names"] == [
        row.file.rsplit("/", 1)[1] for row in rows if row.patient == made_up.HOSTILE
    ]


class Links(HTMLParser):
    def __init__(self):
        super().__init__()
        self.loaded, self.tags = [], []

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        of_tag = dict(attributes)
        self.loaded += [
            of_tag[name] for name in ("src", "srcset", "data", "poster") if name in of_tag
        ]
        if tag != "a" and "href" in of_tag:
            self.loaded.append(of_tag["href"])


def test_the_page_loads_nothing(write):
    text = write()
    links = Links()
    links.feed(text)
    assert "img" in links.tags
    assert all(address.startswith("data:") for address in links.loaded)
    assert "default-src 'none'" in text
    style = text.split("<style>")[1].split("</style>")[0]
    assert "url(" not in style
    assert "@import" not in style


# --- What the script reads -----------------------------------------------------------------------


def decode(text):
    return np.frombuffer(base64.b64decode(text), dtype="<f4")


def files(data):
    """Each patch's file, put together as the page's script does."""
    labels = iter(data["labels"])
    for patient in data["patients"]:
        for index, (x, y) in enumerate(zip(patient["x"], patient["y"], strict=True)):
            label = next(labels)
            derived = f"{patient['name']}_idx5_x{x}_y{y}_class{label}.png"
            name = patient["names"][index] if patient["names"] else derived
            yield f"{data['folder']}/{label}/{name}"


@given(st.permutations(range(len(ROWS))))
def test_the_script_gets_every_patch_with_its_own_numbers(order):
    rows = [ROWS[index] for index in order]
    probabilities = PROBABILITIES[list(order)]
    data = page.embedded(rows, probabilities, probabilities / 2, figures={"prevalence": 0.5})
    found = list(zip(files(data), decode(data["probabilities"]), strict=True))
    assert sorted(found) == sorted(zip((row.file for row in ROWS), PROBABILITIES, strict=True))
    assert np.array_equal(decode(data["calibrated"]), decode(data["probabilities"]) / 2)
    names = {patient["name"]: patient["names"] for patient in data["patients"]}
    assert names["10253"] is None
    assert names["anna"] is not None


@pytest.mark.parametrize("step", [50, 25, 512])
def test_neighbours_lie_as_far_apart_as_most_do(step):
    rows = [replace(ROWS[0], x=step * number + 7, y=1) for number in (0, 1, 2, 3, 9)]
    data = page.embedded(rows, PROBABILITIES[:5], PROBABILITIES[:5], figures={"prevalence": 0.5})
    assert data["patients"][0]["pitch"] == step


def test_the_page_of_a_whole_data_set_stays_below_5_mb(tmp_path, monkeypatch):
    noise = np.random.default_rng(1).integers(0, 256, (100, 100, 3), dtype=np.uint8)
    cv2.imwrite(str(tmp_path / "noise.png"), noise)  # The largest that a thumbnail can be.
    monkeypatch.setattr(page, "_thumbnail", lambda _: page._data_uri(tmp_path / "noise.png"))
    rows = made_up.make_rows({str(10000 + number): 983 for number in range(56)})
    assert len(rows) > 55_000
    run = tmp_path / "run"
    run.mkdir()
    for name in page.PICTURES:
        (run / f"{name}.png").write_bytes(bytes(100_000))
    probabilities = made_up.make_probabilities(rows)
    page.write_page(
        run,
        metrics=made_up.make_metrics(rows, probabilities),
        history=[{"epoch": 1, "val_roc_auc": 0.8}],
        splits={"training": [], "validation": [], "testing": rows},
        probabilities={"testing": probabilities},
        calibrated={"testing": probabilities},
        exclusions=[],
        dataset=tmp_path,
    )
    assert 1_000_000 < (run / "report.html").stat().st_size < 5_000_000


# --- Gallery -------------------------------------------------------------------------------------


def test_the_gallery_has_the_most_confident_errors_first(tmp_path):
    rows = [made_up.make_row("1", number, label=number % 2) for number in range(8)]
    probabilities = np.array([0.9, 0.4, 0.5, 0.1, 0.2, 0.5, 0.6, 0.8], dtype=np.float32)
    made_up.write_page(tmp_path, rows, probabilities)
    alarms, misses = page.confident_errors(rows, probabilities, tmp_path / "data")
    assert alarms[0] == "Benign, called malignant: 3 of 3"
    assert [error["row"] for error in alarms[1]] == [rows[0], rows[6], rows[2]]
    assert misses[0] == "Malignant, called benign: 2 of 2"
    assert [error["row"] for error in misses[1]] == [rows[3], rows[1]]
    assert misses[1][0]["probability"] == pytest.approx(0.1)


def test_the_gallery_is_bounded(write):
    rows = made_up.make_rows({"1": 100})
    wrong = np.array([0.25 if row.label else 0.75 for row in rows], dtype=np.float32)
    text = write(rows, wrong)
    assert text.count('alt="Patch of patient') == 2 * page.ERRORS_SHOWN == 24
    assert f"12 of {sum(row.label for row in rows)}" in shown(text)


def test_pictures_of_the_gallery_are_small_whatever_the_patch(tmp_path):
    cv2.imwrite(str(tmp_path / "large.png"), np.zeros((40, 3000, 3), np.uint8))
    uri = page._thumbnail(tmp_path / "large.png") or ""
    picture = cv2.imdecode(
        np.frombuffer(base64.b64decode(uri.split(",")[1]), np.uint8), cv2.IMREAD_COLOR
    )
    assert picture is not None
    assert picture.shape == (1, 100, 3)
    for content in (b"no picture", b""):
        (tmp_path / "broken.png").write_bytes(content)
        assert page._thumbnail(tmp_path / "broken.png") is None
    assert page._thumbnail(tmp_path / "gone.png") is None


def test_the_page_takes_the_place_of_an_older_one(write, tmp_path):
    first = write()
    (tmp_path / "run" / "report.html").write_text("old", encoding="utf-8")
    assert write() == first
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["report.html"]
