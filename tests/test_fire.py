"""What happens to laptops: kill -9, a full disk, a disk that may not be written to."""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import PROJECT, assert_refused, contents, run, run_well
from test_building import build

BUILD, TRAIN = "build_dataset.py", "train_model.py"
KILLS = os.environ.get("CANCERNET_KILLS", "40")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="Windows has neither os.fork nor SIGKILL")
def test_a_killed_build_leaves_a_whole_set() -> None:
    survived = run_well("tests/kill_builds.py", KILLS, cwd=PROJECT)
    assert "between the two renames" in survived
    assert survived.split()[-2:] == ["all", KILLS]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 1.5 MB, which one of the data sets here fits on, but not two."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1500k", "tmpfs", str(disk)]
    if sys.platform != "linux" or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("mounting a small disk takes root on Linux")
    yield disk
    subprocess.run(["umount", "--lazy", str(disk)], check=True)


def test_a_full_disk_costs_nothing_that_was_there(
    originals: Path, small_disk: Path, tmp_path: Path
) -> None:
    data = ("--dataset", small_disk / "idc")
    run_well(BUILD, "--original", originals, *data, cwd=tmp_path)
    before = contents(small_disk / "idc")
    (small_disk / "filler").write_bytes(bytes(400_000))
    full = run(BUILD, "--original", originals, *data, "--seed", "1", cwd=tmp_path)
    assert_refused(full, "No space left", "free space")
    assert len(full.stderr.splitlines()) == 1
    assert {path.name for path in small_disk.iterdir()} == {"idc", "filler"}
    assert contents(small_disk / "idc") == before

    output = small_disk / "output"
    output.mkdir()
    (output / "metrics.json").write_text("an older run")
    full = run(TRAIN, *data, "--output", output, "--epochs", "1", cwd=tmp_path)
    assert_refused(full, "No space left", "free space")
    assert {path.name for path in output.iterdir()} <= {"metrics.json", "checkpoint"}
    assert (output / "metrics.json").read_text() == "an older run"


# Imports before root drops its rights, since Python itself may be closed to other users.
WITHOUT_RIGHTS = """
import os, sys
from pathlib import Path
import email.parser, imutils.paths, multiprocessing.dummy, tqdm
from cancernet import files, settings
from cancernet.data import building, dataset, originals, sample, summary
from cancernet.evaluation import report
from cancernet.training import run, workers
code = Path(sys.argv[1]).read_text(encoding="utf-8")
if os.geteuid() == 0:
    nobody = 65534  # The user without rights on Linux.
    os.setgroups([])
    os.setgid(nobody)
    os.setuid(nobody)
sys.argv = sys.argv[1:]
exec(compile(code, "script", "exec"), {"__name__": "__main__"})
"""


def run_without_rights(*command: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Runs a script as a user that owns nothing."""
    program = [sys.executable, "-c", WITHOUT_RIGHTS, *map(str, command)]
    plain = os.environ | {"PYTHONPATH": str(PROJECT)}
    return subprocess.run(program, cwd=cwd, capture_output=True, text=True, env=plain)


@pytest.fixture
def closed(originals: Path) -> Iterator[Path]:
    """A directory with originals, a data set and a run that anyone may read, nobody write to."""
    if os.name != "posix":
        pytest.skip("a directory's mode does not keep anyone from writing on Windows")
    folder = Path(tempfile.mkdtemp())  # Not in pytest's directory, which other users cannot enter.
    shutil.copytree(originals, folder / "original")
    build(folder / "original", folder / "idc")
    (folder / "output").mkdir()
    (folder / "output" / "metrics.json").write_text("an older run")
    folders = [folder, *(path for path in folder.rglob("*") if path.is_dir())]
    for each in folders:
        each.chmod(0o555)
    yield folder
    for each in folders:
        each.chmod(0o755)
    shutil.rmtree(folder)


def test_no_right_to_write_is_one_message_and_costs_nothing(closed: Path) -> None:
    before = contents(closed)
    build_it = (PROJECT / BUILD, "--original", closed / "original", "--dataset")
    train = (PROJECT / TRAIN, "--dataset", closed / "idc", "--output")
    for command, targets in ((build_it, ("idc", "new", "deep/new")), (train, ("output", "new"))):
        for target in targets:
            refused = run_without_rights(*command, closed / target, cwd=closed)
            assert_refused(refused, "Permission denied", closed.name, "permissions")
            *notes, _ = refused.stderr.splitlines()
            # A data set that may only be read can be trained on.
            assert len(notes) == (command is train)
            assert all(f"Note: {closed / 'idc'} cannot be locked (" in note for note in notes)
    assert contents(closed) == before
