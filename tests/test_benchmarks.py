"""The commands under benchmarks/: folds, tables, the bundled model's card, and that they run."""

import csv
import importlib
import json
import re
import sys
from collections import Counter
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from conftest import PROJECT, run

from cancernet import cli, config, files
from cancernet.data.dataset import Dataset, Row, Split
from cancernet.data.splitting import read_published
from cancernet.prediction import model


@pytest.fixture
def recipes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """benchmarks/recipes.py with no finished run yet."""
    monkeypatch.syspath_prepend(str(PROJECT / "benchmarks"))
    module = importlib.import_module("recipes")
    monkeypatch.setattr(module, "ROWS", tmp_path / "rows.csv")
    monkeypatch.setattr(module, "FOLDS", tmp_path / "folds")
    return module


def row_of(patient: str, label: int = 0, number: int = 1) -> Row:
    name = f"{patient}_{number}.png"
    return Row("training", label, patient, None, None, name, name, 1, "")


def dataset_of(rows: list[Row], *, sample: bool = False) -> Dataset:
    one, two, three = (Split(name, PROJECT, rows[start::3]) for start, name in enumerate("abc"))
    return Dataset(PROJECT, one, two, three, {"sample": sample}, [])


ROWS = [
    row_of(str(patient), int(number % 3 == 0), number)
    for patient in range(40)
    for number in range(3 + patient % 7)
]


def test_the_page_has_the_tables_of_all_rows_in_the_repository(
    recipes: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(recipes, "ROWS", PROJECT / "benchmarks" / "recipes.csv")
    page = recipes.PAGE.read_text(encoding="utf-8")
    runs = re.findall(r"^\| [^|]+ \| (\d+) \|", page, re.MULTILINE)
    assert sum(map(int, runs)) == len(recipes.read_rows())
    monkeypatch.setattr(recipes, "PAGE", tmp_path / "page.md")
    tables, last, rest = page.partition("<!-- end of long -->")
    damaged = re.sub(r"(?<= \| )0\.\d+", "?", tables) + last + rest
    recipes.PAGE.write_text(damaged, encoding="utf-8")
    recipes.write_page()
    assert recipes.PAGE.read_text(encoding="utf-8") == page


@pytest.mark.parametrize("seed", [1, 2])
def test_folds_share_no_patient_and_test_every_patch_once(recipes: ModuleType, seed: int) -> None:
    tested: Counter[str] = Counter()
    for splits in recipes.make_folds(ROWS, PROJECT, folds=5, seed=seed):
        patients = [set(split.patients) for split in splits.values()]
        assert sum(map(len, patients)) == len(set.union(*patients)) == 40
        assert sum(map(len, splits.values())) == len(ROWS)
        assert all(set(split.labels) == {0, 1} for split in splits.values())
        tested.update(row.source for row in splits["testing"].rows)
    assert tested == {row.source: 1 for row in ROWS}


def test_the_published_testing_patients_take_no_part(recipes: ModuleType) -> None:
    published = read_published()
    apart = next(name for name, facts in published.items() if facts.split == "testing")
    trained = next(name for name, facts in published.items() if facts.split == "training")
    rows = [row_of(name) for name in (apart, trained, "another")]
    assert recipes.development_rows(dataset_of(rows)) == rows[1:]
    with pytest.raises(cli.InputError, match="synthetic sample"):  # It decides nothing.
        recipes.development_rows(dataset_of(rows, sample=True))


def test_a_candidate_is_a_recipe_with_values_changed(recipes: ModuleType) -> None:
    tuned = recipes.candidate("tuned", epochs=8)
    changed = recipes.candidate("tuned, dropout=0.25, transpose=False, epochs=3", epochs=8)
    assert (tuned.epochs, tuned.dropout, tuned.augmentation.transpose) == (8, 0.0, True)
    assert (changed.epochs, changed.dropout, changed.augmentation.transpose) == (3, 0.25, False)
    assert recipes.fingerprint(tuned) != recipes.fingerprint(changed)
    for name in ("best", "tuned, momentum=0.9", "tuned, dropout", "tuned, dropout=a"):
        with pytest.raises(cli.InputError, match="no candidate"):
            recipes.candidate(name, epochs=1)


def finish(recipes: ModuleType, tried: str, fold: int, auc: float, fingerprint: str = "") -> None:
    if not fingerprint and not recipes.has_ended(tried):
        fingerprint = recipes.fingerprint(recipes.candidate(tried, epochs=8))
    key = dict(zip(recipes.KEY, ("screen", tried, fingerprint, fold, 1, "plain"), strict=True))
    recipes.add_rows([key | dict.fromkeys(recipes.METRICS, 0.5) | {"roc_auc": auc}])


def test_a_gain_is_the_difference_run_by_run(recipes: ModuleType) -> None:
    # The folds differ by far more than the recipes do: 0.01 and 0.03, so 0.02 with error 0.01.
    for fold, (published, changed) in enumerate(((0.7, 0.71), (0.9, 0.93))):
        finish(recipes, "published", fold, published)
        finish(recipes, "published, dropout=0.5", fold, changed)
        finish(recipes, "published, AdamW", fold, changed)
    finish(recipes, "published, dropout=0.5", 2, 0.1, "that of old")
    lines = "\n".join(recipes.table("screen"))
    assert "\n| published | 2 | 0.800 ± 0.141 |" in lines
    for name in ("published, dropout=0.5", "published, AdamW"):
        assert f"\n| {name} | 2 | 0.820 ± 0.156 (+0.020 ± 0.010) |" in lines


def test_a_finished_run_is_not_run_again(
    recipes: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    finish(recipes, "published", 0, 0.75)
    ran = []

    def run_candidate(recipe: Any, splits: Any, **_: object) -> Any:
        ran.append(recipe)
        yield dict.fromkeys(recipes.METRICS, 0.5) | {"scoring": "plain"}

    monkeypatch.setattr(recipes, "run_candidate", run_candidate)
    for _ in range(2):
        recipes.run_stage("screen", ["published"], dataset_of(ROWS))
        assert len(ran) == recipes.STAGES["screen"].folds - 1
    assert "fold 2 of 3, published: ROC AUC 0.5000" in capsys.readouterr().err


def test_context_helps_where_neighbours_are_alike(
    recipes: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    context = importlib.import_module("context")
    monkeypatch.setattr(context, "FOLDS", recipes.FOLDS)
    monkeypatch.setattr(sys, "argv", ["context.py"])
    with pytest.raises(cli.InputError, match="no finished fold"):
        context.main()
    rng = np.random.default_rng(1)
    rows = [  # Two slides per split: malignant on the right, each patch seen through noise.
        (split, "", f"{split}{slide}", x * 50 + 1, y * 50 + 1, int(x > 9), probability)
        for split in ("validation", "testing")
        for slide in range(2)
        for x in range(20)
        for y in range(20)
        for probability in [1 / (1 + np.exp(-rng.normal(1.0 if x > 9 else -1.0, 2)))]
    ]
    columns = ("split", "file", "patient", "x", "y", "label", "probability")
    folder = recipes.folder_of("long", "tuned", 1, 0)
    folder.mkdir(parents=True)
    files.write_csv(folder / "predictions.csv", columns, rows)
    context.main()
    lines = capsys.readouterr().out.splitlines()
    of_slide = next(line for line in lines if line.startswith("| testing0"))
    *_, alone, inside, alone_accuracy, inside_accuracy = map(float, of_slide.split("|")[4:-1])
    assert alone < 0.85 < 0.95 < inside
    assert alone_accuracy < inside_accuracy
    assert any(line.startswith("| more | 2 | 400 |") for line in lines)


@pytest.fixture
def small(tmp_path: Path, originals: Path) -> Path:
    done = run("build_dataset.py", "--original", originals, "--dataset", "idc", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    return tmp_path / "idc"


@pytest.mark.parametrize("name", ["published", "tuned"])
def test_a_fold_is_trained_as_train_model_does(recipes: ModuleType, small: Path, name: str) -> None:
    options = ("--dataset", small, "--output", "run", "--recipe", name, "--epochs", "2")
    done = run("train_model.py", *options, cwd=small.parent)
    assert done.returncode == 0, done.stderr
    with (small.parent / "run" / "history.csv").open(newline="", encoding="utf-8") as file:
        expected = [{key: float(text) for key, text in row.items()} for row in csv.DictReader(file)]
    training = importlib.import_module("training")
    splits = Dataset.open(small).splits
    trained, network = training.train(recipes.candidate(name, epochs=2), splits, seed=config.SEED)
    for row, of_script in zip(trained.rows, expected, strict=True):
        compared = {key: row[key] for key in of_script}
        assert compared == pytest.approx(of_script | {"seconds": row["seconds"]}, rel=1e-5)
    for averaged in (False, True):
        probabilities = training.score(network, splits, averaged=averaged)
        found = training.measure(splits, probabilities)
        assert found.keys() == set(recipes.METRICS)
        assert all(0 <= value <= 1 for value in found.values())


def test_scoring_is_timed_by_turns(small: Path, tmp_path: Path) -> None:
    options = ("scoring", "--data", small, "--rounds", "1")
    done = run("benchmarks/speed.py", *options, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    row = r"^\| (.+) \| ([\d,]+) \(([\d,]+) to ([\d,]+)\) \| ([\d.]+) \| [\d,]+ \|$"
    rows = re.findall(row, done.stdout, re.MULTILINE)
    assert [name for name, *_ in rows] == ["published", "published, oneDNN kernels on", "ours"]
    assert rows[0][-1] == "1.00"
    assert all(median == low == high for _, median, low, high, _ in rows)  # One round.


def write_run(output: Path, *, method: str = "published", **changes: Any) -> Path:
    """Writes what train_model.py leaves, as far as the benchmarks read it."""
    of_split: dict[str, Any] = {"patients": 3, "patches": 1_097, "ci95": None}
    of_split |= {"prevalence": 0.5, "roc_auc": 0.875, "average_precision": 0.8, "brier": 0.2}
    of_split |= {"calibration": {"raw": {"ece": 0.125}, "recalibrated": {"ece": 0.0625}}}
    for at in ("at_0.5", "at_validation_threshold"):
        names = ("accuracy", "sensitivity", "specificity", "balanced_accuracy", "mcc")
        of_split[at] = dict.fromkeys(names, 0.75)
    metrics: dict[str, Any] = {"sample": False, "testing": of_split, "validation": of_split}
    metrics["baselines"] = {"colour": of_split, "patient_identity": None}
    training = {"patients": 9, "patches": 1_090}
    metrics["split"] = {"method": method, "splits": {"training": training, "validation": of_split}}
    metadata = {"sha256": "abc", "threshold": 0.25, "trained_with": {"SEED": 42, "RECIPE": "tuned"}}
    output.mkdir()
    (output / "cancernet.keras").write_bytes(b"a network")
    (output / "cancernet.json").write_text(json.dumps(metadata))
    (output / "metrics.json").write_text(json.dumps(metrics | changes))
    return output


def test_two_runs_stand_side_by_side(tmp_path: Path) -> None:
    write_run(tmp_path / "one", method="patient")
    second = write_run(tmp_path / "two", method="image", sample=True) / "metrics.json"
    metrics = json.loads(second.read_text())
    metrics["testing"] |= {"roc_auc": 1.0, "ci95": {"roc_auc": [0.25, 1.0]}}
    second.write_text(json.dumps(metrics))
    done = run("benchmarks/split_comparison.py", "one", "two", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    notice, _, *lines = done.stdout.splitlines()
    assert notice == cli.SAMPLE_NOTICE
    assert lines[0].startswith("| testing, 95 % interval | `patient` split | `image` split |")
    assert "| patches | 1,097 | 1,097 | |" in lines
    assert "| at 0.5: sensitivity | 0.750 | 0.750 | +0.000 |" in lines
    assert "| ROC AUC | 0.875 | 1.000 (0.250 to 1.000) | +0.125 |" in lines
    assert "| without a network, knowing the patient alone: ROC AUC | - | - |  |" in lines
    assert len({line.count("|") for line in lines}) == 1
    write_run(tmp_path / "untested", testing=None)
    for output, word in (("untested", "testing split"), ("none", "Found no")):
        done = run("benchmarks/split_comparison.py", "one", output, cwd=tmp_path)
        assert done.returncode == cli.BAD_INPUT
        assert done.stderr.startswith("error: ")
        assert word in done.stderr


def test_the_model_card_tells_whose_metrics_and_which_network(
    tmp_path: Path, recipes: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = importlib.import_module("bundle_model")
    bundled = tmp_path / "cancernet-idc.keras"
    monkeypatch.setattr(model, "BUNDLED", bundled)
    monkeypatch.setattr(model, "read", lambda path: None)  # It is no network.
    output = write_run(tmp_path / "run", testing=None)
    monkeypatch.setattr(sys, "argv", ["bundle_model.py", str(output)])
    bundle.main()
    assert bundled.read_bytes() == b"a network"
    assert json.loads(bundled.with_suffix(".json").read_text())["threshold"] == 0.25
    text = bundled.with_name("README.md").read_text(encoding="utf-8")
    assert "2,187 patches of 12 patients, what `build_dataset.py` uses" in text
    assert "Trained on 9 patients. The other 3 chose" in text
    for told in (
        "`abc`",
        "(0.25)",
        "| ROC AUC | 0.875 | - |",
        "| RECIPE | tuned |",
        "Not for diagnosis",
        "CC0 1.0",
    ):
        assert told in text


def test_no_other_run_is_bundled(tmp_path: Path, recipes: ModuleType) -> None:
    bundle = importlib.import_module("bundle_model")
    sample = write_run(tmp_path / "sample", sample=True)
    other = write_run(tmp_path / "other", method="patient")
    unfinished = write_run(tmp_path / "unfinished")
    (unfinished / "cancernet.json").write_text(json.dumps({"sha256": "abc", "threshold": 0.25}))
    for output in (sample, other, unfinished):
        with pytest.raises(cli.InputError, match="expected a finished run on real patches"):
            bundle.read_run(output)
    with pytest.raises(cli.InputError, match="no finished run"):
        bundle.read_run(tmp_path)
