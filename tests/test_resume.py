"""Real training, killed and resumed; and what --resume says where it cannot."""

import json
import sys
from pathlib import Path

import kill_training
import pytest
from conftest import assert_refused, read_json, run

KILLS = 10


@pytest.mark.skipif(sys.platform == "win32", reason="a process cannot be killed unawares there")
def test_killed_training_ends_as_if_it_had_never_been_stopped(tmp_path: Path) -> None:
    kill_training.build(tmp_path)
    logged, differing = kill_training.kill_and_compare(tmp_path, kills=KILLS, seed=3)
    assert len(logged) == KILLS
    assert len(set(logged)) > 2, logged  # The kills came at different stages.
    assert differing == []
    # A finished run is reported anew, and still refuses what it was not trained with.
    written = ("metrics.json", "report.html", "predictions.csv")
    before = {name: (tmp_path / "killed" / name).read_bytes() for name in written}
    for name in written:
        (tmp_path / "killed" / name).unlink()
    train = ("train_model.py", "--output", "killed", "--resume")
    assert_refused(run(*train, "--epochs", "99", cwd=tmp_path), "EPOCHS was")
    kill_training.finish(kill_training.train(tmp_path, "killed", epochs=KILLS, resume=True))
    assert (tmp_path / "killed/predictions.csv").read_bytes() == before["predictions.csv"]
    then, now = json.loads(before["metrics.json"]), read_json(tmp_path / "killed/metrics.json")
    assert now | {"seconds": then["seconds"]} == then
