"""The commands under benchmarks/, on made-up runs."""

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import PROJECT
from test_report import PROBABILITIES, metrics_of, without_testing

from cancernet.evaluation import report


def run(script: str, *options: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(PROJECT / "benchmarks" / script), *map(str, options)],
        capture_output=True,
        text=True,
        encoding="utf-8",
    )


def write_run(path: Path, metrics: dict) -> Path:
    path.mkdir()
    report.write_metrics(path, metrics)
    return path


def test_two_runs_stand_side_by_side(tmp_path: Path) -> None:
    rival = {split: 1 - values for split, values in PROBABILITIES.items()}
    first = metrics_of()
    better = PROBABILITIES | {"testing": PROBABILITIES["testing"][[0, 0, 4, 4, 4]]}
    second = metrics_of(
        probabilities=better, baselines={"colour": rival, "patient_identity": None}, sample=True
    )
    second["testing"]["ci95"] = {"at_0.5": {"sensitivity": [0.5, 1.0]}, "roc_auc": [0.25, 1.0]}
    second["split"]["method"] = "image"
    done = run(
        "split_comparison.py",
        write_run(tmp_path / "one", first),
        write_run(tmp_path / "two", second),
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("SYNTHETIC SAMPLE")
    lines = done.stdout.splitlines()
    assert "| testing, 95 % interval | `patient` split | `image` split | difference |" in lines
    assert "| patches | 5 | 5 | |" in lines
    assert "| at 0.5: sensitivity | 0.667 | 1.000 (0.500 to 1.000) | +0.333 |" in lines
    assert "| roc auc | 0.667 | 1.000 (0.250 to 1.000) | +0.333 |" in lines
    assert any(
        re.match(r"\| calibration: recalibrated: ece \| 0\.\d{3} \|", line) for line in lines
    )
    assert len({line.count("|") for line in lines if line.startswith("|")}) == 1


def test_a_run_that_cannot_be_compared_is_one_message(tmp_path: Path) -> None:
    untested = write_run(tmp_path / "untested", metrics_of(*without_testing()))
    for output, word in ((untested, "testing split"), (tmp_path / "none", "Found no")):
        done = run("split_comparison.py", output, output)
        assert done.returncode == 2
        assert word in done.stderr
        assert "Traceback" not in done.stderr


def test_the_bootstrap_is_timed() -> None:
    done = run("bootstrap_time.py", "--patches", 200, "--patients", 12, "--resamples", 100)
    assert re.fullmatch(r"200 patches of 12 patients, 100 resamples: [\d.]+ s\n", done.stdout)


def test_an_epoch_of_each_recipe_is_timed(tmp_path: Path, originals: Path) -> None:
    options = ("--original", originals, "--dataset", tmp_path / "idc")
    built = run("../build_dataset.py", *options)
    assert built.returncode == 0, built.stderr
    done = run("recipe_time.py", "--data", tmp_path / "idc", "--rounds", 1)
    assert done.returncode == 0, done.stderr
    row = r"^\| (\w+) \| [\d,]+ \(.* \| ([\d.]+) \| [\d,]+ \|$"
    published, tuned = re.findall(row, done.stdout, re.MULTILINE)
    assert published == ("published", "1.00")
    assert tuned[0] == "tuned"


def test_the_time_on_several_machines_is_worked_out_by_hand(monkeypatch) -> None:
    monkeypatch.syspath_prepend(str(PROJECT / "benchmarks"))
    spec = importlib.util.spec_from_file_location("several", PROJECT / "benchmarks/machines.py")
    assert spec is not None
    assert spec.loader is not None
    several = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(several)
    monkeypatch.setattr(several, "PATCHES", 1_001)  # 11 steps of 100.
    way = {"speed": 50.0, "network": 1e6, "size": 4_000_000, "fixed": 0.5}
    # 2 s of computing a step; on four machines half a second, and 0.5 + 2 * 3/4 * 4 s besides.
    assert several.seconds_an_epoch(1, 100, **way) == pytest.approx(11 * 2)
    assert several.seconds_an_epoch(4, 100, **way) == pytest.approx(11 * (0.5 + 0.5 + 6))
    lines = several.table(50.0, 4_000_000, 0.5)
    assert len({line.count("|") for line in lines}) == 1
    assert len(lines) == 2 + len(several.KINDS) * len(several.BATCH_SIZES)
