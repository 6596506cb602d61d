"""The commands under benchmarks/: folds, tables, the bundled model's card, and that they run."""

import importlib
import re
import shutil
import sys
from collections import Counter
from pathlib import Path
from types import ModuleType

import kill_training
import made_up
import numpy as np
import pytest
from conftest import PROJECT, read_csv, read_json, run_well

from cancernet import cli, config, files
from cancernet.data.dataset import Dataset
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


ROWS = made_up.make_rows({str(patient): 3 + patient % 7 for patient in range(40)})


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


def test_folds_share_no_patient_and_test_every_patch_once(recipes: ModuleType) -> None:
    tested: Counter[str] = Counter()
    for splits in recipes.make_folds(ROWS, PROJECT, folds=5, seed=1):
        patients = [set(split.patients) for split in splits.values()]
        assert sum(map(len, patients)) == len(set.union(*patients)) == 40
        assert sum(map(len, splits.values())) == len(ROWS)
        assert all(set(split.labels) == {0, 1} for split in splits.values())
        tested.update(row.source for row in splits["testing"].rows)
    assert tested == {row.source: 1 for row in ROWS}


def test_the_published_testing_patients_take_no_part(recipes: ModuleType) -> None:
    apart, trained = (
        next(name for name, facts in read_published().items() if facts.split == split)
        for split in ("testing", "training")
    )
    rows = made_up.make_rows(dict.fromkeys((apart, trained, "another"), 3))
    kept = recipes.development_rows(made_up.make_data(rows))
    assert {row.patient for row in kept} == {trained, "another"}
    with pytest.raises(cli.InputError, match="synthetic sample"):  # It decides nothing.
        recipes.development_rows(made_up.make_data(rows, sample=True))


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
        (split, f"{split}{slide}", x * 50 + 1, y * 50 + 1, int(x > 9), probability)
        for split in ("validation", "testing")
        for slide in range(2)
        for x in range(20)
        for y in range(20)
        for probability in [1 / (1 + np.exp(-rng.normal(1.0 if x > 9 else -1.0, 2)))]
    ]
    folder = recipes.folder_of("long", recipes.BASELINE, 1, 0)
    folder.mkdir(parents=True)
    columns = ("split", "patient", "x", "y", "label", "probability")
    files.write_csv(folder / "predictions.csv", columns, rows)
    context.main()
    lines = capsys.readouterr().out.splitlines()
    of_slide = next(line for line in lines if line.startswith("| testing0"))
    *_, alone, inside, alone_accuracy, inside_accuracy = map(float, of_slide.split("|")[4:-1])
    assert alone < 0.85 < 0.95 < inside
    assert alone_accuracy < inside_accuracy
    assert "'more', 'groups': 2, 'patches': 400, 'sensitivity': 0." in lines[-1]


# --- Finished runs --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a small data set, and a run of each recipe, in folders of its name."""
    folder = tmp_path_factory.mktemp("finished")
    kill_training.build(folder)
    for recipe in ("published", "tuned"):
        options = ("--recipe", recipe, "--output", recipe, "--epochs", "2")
        run_well("train_model.py", *options, cwd=folder)
    return folder


@pytest.mark.parametrize("name", ["published", "tuned"])
def test_a_fold_is_trained_as_train_model_does(
    recipes: ModuleType, finished: Path, name: str
) -> None:
    training = importlib.import_module("training")
    splits = Dataset.open(finished / "datasets/idc").splits
    trained, network = training.train(recipes.candidate(name, epochs=2), splits, seed=config.SEED)
    for row, line in zip(trained.rows, read_csv(finished / name / "history.csv"), strict=True):
        of_script = {key: float(text) for key, text in line.items()}
        compared = {key: row[key] for key in of_script}
        assert compared == pytest.approx(of_script | {"seconds": row["seconds"]}, rel=1e-5)
    for averaged in (False, True):
        probabilities = training.score(network, splits, averaged=averaged)
        found = training.measure(splits, probabilities)
        assert found.keys() == set(recipes.METRICS)
        assert all(0 <= value <= 1 for value in found.values())


def test_scoring_is_timed_by_turns(finished: Path) -> None:
    printed = run_well("benchmarks/speed.py", "scoring", "--rounds", "1", cwd=finished)
    row = r"^\| (.+) \| ([\d,]+) \(([\d,]+) to ([\d,]+)\) \| ([\d.]+) \| [\d,]+ \|$"
    rows = re.findall(row, printed, re.MULTILINE)
    assert [name for name, *_ in rows] == ["published", "published, oneDNN kernels on", "ours"]
    assert rows[0][-1] == "1.00"
    assert all(median == low == high for _, median, low, high, _ in rows)  # One round.


def test_two_runs_stand_side_by_side(finished: Path) -> None:
    printed = run_well("benchmarks/split_comparison.py", "published", "tuned", cwd=finished)
    lines = printed.splitlines()
    assert lines[0] == "| testing, 95 % interval | `patient` split | `patient` split | difference |"
    assert len({line.count("|") for line in lines}) == 1
    one, two = (read_json(finished / name / "metrics.json") for name in ("published", "tuned"))
    areas = [each["testing"]["roc_auc"] for each in (one, two)]
    assert f"| ROC AUC | {areas[0]:.3f} | {areas[1]:.3f} | {areas[1] - areas[0]:+.3f} |" in lines
    colour = f"{one['baselines']['colour']['roc_auc']:.3f}"
    assert f"| without a network, colours alone: ROC AUC | {colour} | {colour} | +0.000 |" in lines
    assert "| without a network, knowing the patient alone: ROC AUC | - | - |  |" in lines


def test_the_model_card_tells_whose_metrics_and_which_network(
    finished: Path, tmp_path: Path, recipes: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = importlib.import_module("bundle_model")
    bundled = tmp_path / "cancernet-idc.keras"
    monkeypatch.setattr(model, "BUNDLED", bundled)
    output = Path(shutil.copytree(finished / "tuned", tmp_path / "run"))
    monkeypatch.setattr(sys, "argv", ["bundle_model.py", str(output)])
    for place, message in ((output, "split published; it is of 'patient'"), (tmp_path, "finished")):
        with pytest.raises(cli.InputError, match=message):
            bundle.read_run(place)

    metrics = read_json(output / "metrics.json")
    metrics["split"]["method"] = "published"
    metrics["testing"] = None
    files.write_json(output / "metrics.json", metrics)
    bundle.main()
    assert bundled.read_bytes() == (output / "cancernet.keras").read_bytes()
    metadata = read_json(bundled.with_suffix(".json"))
    assert metadata == read_json(output / "cancernet.json")
    text = bundled.with_name("README.md").read_text(encoding="utf-8")
    area = f"{metrics['validation']['roc_auc']:.3f}"
    for told in (f"`{metadata['sha256']}`", f"| ROC AUC | {area} | - |", "| RECIPE | tuned |"):
        assert told in text
    trained, validated = (metrics["split"]["splits"][name] for name in ("training", "validation"))
    assert f"Trained on {trained['patients']} patients. The other {validated['patients']}" in text
