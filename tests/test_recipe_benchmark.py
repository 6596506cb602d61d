"""The comparison of recipes: who is in which fold, which rows count, and what the table says."""

import importlib
import json
import sys
from collections import Counter
from dataclasses import replace
from types import ModuleType

import cv2
import pytest
from conftest import PROJECT
from test_report import BUILD, metrics_of

from cancernet import cli
from cancernet.data.dataset import Row
from cancernet.data.patches import read_pixels
from cancernet.data.splitting import read_published
from cancernet.prediction import models


@pytest.fixture
def benchmark(tmp_path, monkeypatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(PROJECT / "benchmarks"))
    module = importlib.import_module("recipes")
    monkeypatch.setattr(module, "ROWS", tmp_path / "rows.csv")
    return module


@pytest.mark.parametrize("stage", ["screen", "final"])
def test_the_readme_has_the_tables_of_the_rows_that_come_along(benchmark, monkeypatch, stage):
    monkeypatch.setattr(benchmark, "ROWS", PROJECT / "benchmarks" / "recipes.csv")
    table = "\n".join(benchmark.table(stage))
    assert "| tuned |" in table
    assert table in (PROJECT / "README.md").read_text(encoding="utf-8")


def row_of(patient: str, label: int, number: int) -> Row:
    name = f"{patient}_{number}.png"
    return Row("training", label, patient, None, None, name, name, 1, "")


def rows_of(patients: int) -> list[Row]:
    return [
        row_of(str(patient), int(number % 3 == 0), number)
        for patient in range(patients)
        for number in range(3 + patient % 7)
    ]


@pytest.mark.parametrize("seed", [1, 2])
def test_folds_share_no_patient_and_test_every_patch_once(benchmark, seed):
    rows = rows_of(40)
    tested: Counter[str] = Counter()
    for splits in benchmark.make_folds(rows, folds=5, seed=seed):
        patients = [{row.patient for row in part} for part in splits.values()]
        assert not any(
            patients[first] & patients[second] for first, second in ((0, 1), (0, 2), (1, 2))
        )
        assert sum(map(len, splits.values())) == len(rows)
        assert all({row.label for row in part} == {0, 1} for part in splits.values())
        tested.update(row.source for row in splits["testing"])
    assert tested == {row.source: 1 for row in rows}


def test_the_published_testing_patients_take_no_part(benchmark, monkeypatch):
    published = read_published()
    apart = next(name for name, facts in published.items() if facts.split == "testing")
    trained = next(name for name, facts in published.items() if facts.split == "training")
    rows = [row_of(name, 0, 1) for name in (apart, trained, "another")]
    splits = {"training": rows[:1], "testing": rows[1:]}
    monkeypatch.setattr(
        benchmark.dataset, "open_dataset", lambda folder: (splits, {"sample": False})
    )
    assert benchmark.development_rows("any") == rows[1:]


def test_the_synthetic_sample_decides_nothing(benchmark, monkeypatch):
    monkeypatch.setattr(benchmark.dataset, "open_dataset", lambda folder: ({}, {"sample": True}))
    with pytest.raises(cli.InputError, match="synthetic sample"):
        benchmark.development_rows("any")


def finish(benchmark, candidate: str, fold: int, auc: float, *, recipe: str | None = None) -> None:
    known = benchmark.candidates(benchmark.STAGES["screen"].epochs)
    key = {
        "stage": "screen",
        "candidate": candidate,
        "recipe": recipe or benchmark.fingerprint(known[candidate]),
        "fold": fold,
        "seed": 1,
        "scoring": "plain",
    }
    benchmark.write_rows([key | dict.fromkeys(benchmark.FIGURES, 0.5) | {"roc_auc": auc}])


def test_a_gain_is_the_difference_run_by_run(benchmark):
    # The folds differ by far more than the recipes do: 0.01 and 0.03, so 0.02 with error 0.01.
    for fold, (published, adamw) in enumerate(((0.7, 0.71), (0.9, 0.93))):
        finish(benchmark, "published", fold, published)
        finish(benchmark, "adamw", fold, adamw)
    finish(benchmark, "adamw", 2, 0.1, recipe="that of old")
    lines = list(benchmark.table("screen"))
    assert any(line.startswith("| published | 2 | 0.800 ± 0.141 |") for line in lines)
    assert any(line.startswith("| adamw | 2 | 0.820 ± 0.156 (+0.020 ± 0.010) |") for line in lines)
    assert not list(benchmark.table("final"))


def test_a_finished_run_is_not_run_again(benchmark, monkeypatch, capsys):
    finish(benchmark, "published", 0, 0.75)
    ran = []

    def run(recipe, splits, **_):
        ran.append(recipe)
        yield dict.fromkeys(benchmark.FIGURES, 0.5) | {"scoring": "plain"}

    monkeypatch.setattr(benchmark, "run", run)
    benchmark.run_stage("screen", ["published"], rows_of(30), PROJECT)
    assert len(ran) == benchmark.STAGES["screen"].folds - 1
    benchmark.run_stage("screen", ["published"], rows_of(30), PROJECT)
    assert len(ran) == benchmark.STAGES["screen"].folds - 1
    assert "fold 2 of 3, published: ROC AUC 0.5000" in capsys.readouterr().err


def test_every_candidate_is_another_recipe(benchmark):
    known = benchmark.candidates(8)
    prints = {benchmark.fingerprint(recipe) for recipe in known.values()}
    assert len(prints) == len(known)
    assert {recipe.epochs for name, recipe in known.items() if name != "twice the epochs"} == {8}


def test_normalised_patches_have_mean_and_deviation_made_alike(benchmark, tmp_path, write_patch):
    row = replace(row_of("10253", 0, 1), file="training/0/dark.png")
    path = write_patch(tmp_path / row.file)
    dark = read_pixels(path) // 4 + 10
    path.write_bytes(cv2.imencode(".png", dark[..., ::-1])[1].tobytes())
    benchmark.inputs.normalise([row], tmp_path, tmp_path / "normalised")
    found = read_pixels(tmp_path / "normalised" / row.file).astype(float)
    assert found.mean(axis=(0, 1)) == pytest.approx([128] * 3, abs=0.5)
    assert found.std(axis=(0, 1)) == pytest.approx([48] * 3, abs=0.5)
    # Red stays red: what was the darkest pixel of a colour is it still.
    assert found[..., 0].argmin() == dark[..., 0].argmin()


def test_an_unknown_recipe_is_refused(benchmark, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["recipes.py", "--final", "published", "best"])
    with pytest.raises(SystemExit) as ended:
        cli.run(benchmark.main)
    assert ended.value.code == 2
    assert "best" in capsys.readouterr().err


# --- The model that comes along ------------------------------------------------------------------


def write_run(folder, metrics, *, finished=True):
    folder.mkdir()
    (folder / "cancernet.keras").write_bytes(b"a network")
    trained = {"trained_with": {"SEED": 42, "RECIPE": "tuned"}} if finished else {}
    card = {"sha256": "abc", "threshold": 0.25, "recalibration": None, "sample": False} | trained
    (folder / "cancernet.json").write_text(json.dumps(card))
    (folder / "metrics.json").write_text(json.dumps(metrics))
    return folder


def metrics_as_published(**changes):
    metrics = metrics_of(**changes)
    splits = {
        "training": {"patients": 9, "patches": 1_090},
        "validation": {"patients": 3, "patches": 7},
    }
    metrics["split"] = BUILD | {"method": "published", "splits": splits}
    return metrics


def test_the_card_tells_whose_figures_and_which_network(benchmark, tmp_path, monkeypatch):
    ship = importlib.import_module("ship_model")
    shipped = tmp_path / "weights" / "cancernet-idc.keras"
    monkeypatch.setattr(models, "SHIPPED", shipped)
    monkeypatch.setattr(ship, "CARD", shipped.with_name("README.md"))
    monkeypatch.setattr(models, "check_model", lambda path: None)
    monkeypatch.setattr(models, "read_card", lambda path: path)
    metrics = metrics_as_published()
    output = write_run(tmp_path / "run", metrics)
    monkeypatch.setattr(sys, "argv", ["ship_model.py", str(output)])
    ship.main()
    assert shipped.read_bytes() == b"a network"
    text = shipped.with_name("README.md").read_text(encoding="utf-8")
    assert "1,097 patches of 12 patients, what `build_dataset.py` uses" in text
    assert "Trained on 9 patients. The other 3 chose" in text
    for told in ("`abc`", "0.25", "Not for diagnosis", "CC0 1.0", "| RECIPE | tuned |"):
        assert told in text
    auc = metrics["testing"]["roc_auc"]
    assert any(
        line.startswith("| ROC AUC |") and f"{auc:.3f}" in line for line in text.splitlines()
    )
    assert json.loads(shipped.with_suffix(".json").read_text())["threshold"] == 0.25


@pytest.mark.parametrize(
    ("sample", "finished", "method"),
    [(True, True, "published"), (False, False, "published"), (False, True, "patient")],
)
def test_no_other_run_is_shipped(benchmark, tmp_path, sample, finished, method):
    ship = importlib.import_module("ship_model")
    metrics = metrics_as_published(sample=sample)
    metrics["split"]["method"] = method
    metrics["sample"] = sample
    output = write_run(tmp_path / "run", metrics, finished=finished)
    with pytest.raises(cli.InputError, match="expected a finished run on real patches"):
        ship.read_run(output)
    with pytest.raises(cli.InputError, match="no finished run"):
        ship.read_run(tmp_path)
