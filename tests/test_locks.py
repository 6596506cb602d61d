"""Who may work with a directory at the same time, and what a killed process leaves of it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import PROJECT
from test_building import build
from test_scripts import BUILD, TRAIN, assert_refused, run

from cancernet import locks
from cancernet.cli import InputError

HOLD = """
import sys, time
from pathlib import Path
from cancernet import locks
getattr(locks, sys.argv[1])(Path(sys.argv[2]))
print("held", flush=True)
time.sleep(600)
"""


def hold(kind: str, directory: Path) -> subprocess.Popen[str]:
    """Starts another process that holds a lock until it is killed."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, kind, str(directory)],
        cwd=PROJECT,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def kill(process: subprocess.Popen[str]) -> None:
    process.kill()  # SIGKILL; TerminateProcess on Windows.
    process.communicate()


def test_trainings_share_what_a_build_needs_alone(tmp_path: Path) -> None:
    dataset = tmp_path / "deep" / "idc"
    one = locks.share(dataset)
    other = locks.share(dataset)
    one()
    with pytest.raises(InputError, match=r"in use by another .*--dataset"):
        locks.build(dataset)
    other()
    alone = locks.build(dataset)
    with pytest.raises(InputError, match=r"being built by another .*--dataset"):
        locks.share(dataset)
    with pytest.raises(InputError, match="in use by another"):
        locks.build(dataset)
    alone()
    locks.share(dataset)()
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


@pytest.mark.parametrize("kind", ["share", "build"])
def test_a_killed_process_holds_nothing(tmp_path: Path, kind: str) -> None:
    dataset = tmp_path / "idc"
    process = hold(kind, dataset)
    try:
        with pytest.raises(InputError):
            locks.build(dataset)
    finally:
        kill(process)
    locks.build(dataset)()
    assert list(tmp_path.iterdir()) == []  # The killed one's files are gone as well.


def test_a_link_is_locked_as_what_it_leads_to(tmp_path: Path) -> None:
    (tmp_path / "disk" / "idc").mkdir(parents=True)
    try:
        (tmp_path / "link").symlink_to(tmp_path / "disk" / "idc")
    except OSError:
        pytest.skip("links need a right on Windows")
    release = locks.build(tmp_path / "link")
    with pytest.raises(InputError):
        locks.share(tmp_path / "disk" / "idc")
    release()


def test_more_trainings_than_slots_are_refused(tmp_path: Path) -> None:
    releases = [locks.share(tmp_path / "idc") for _ in range(locks.SLOTS)]
    with pytest.raises(InputError, match=f"{locks.SLOTS} trainings"):
        locks.share(tmp_path / "idc")
    for release in releases:
        release()


def test_the_second_script_says_so_and_stops(originals: Path, tmp_path: Path) -> None:
    build(originals, tmp_path / "idc")
    data = ("--dataset", tmp_path / "idc")
    before = (tmp_path / "idc/manifest.csv").read_bytes()

    training = hold("share", tmp_path / "idc")
    refused = run(BUILD, "--original", originals, *data, cwd=tmp_path)
    kill(training)
    assert_refused(refused, "in use by another", "--dataset")

    building = hold("build", tmp_path / "idc")
    for script in (BUILD, TRAIN):
        assert_refused(run(script, *data, cwd=tmp_path), "another build_dataset.py", "--dataset")
    kill(building)

    writing = hold("write", tmp_path / "output")
    refused = run(TRAIN, *data, "--output", tmp_path / "output", cwd=tmp_path)
    kill(writing)
    assert_refused(refused, "in use by another", "--output")
    assert (tmp_path / "idc/manifest.csv").read_bytes() == before
    assert not (tmp_path / "output").exists()


def test_a_disk_that_is_read_only_does_not_stop_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(30, "Read-only file system")

    (tmp_path / "output").mkdir()
    monkeypatch.setattr(locks.FileLock, "acquire", refuse)
    locks.share(tmp_path / "idc")()
    assert "cannot be locked ([Errno 30] Read-only" in capsys.readouterr().err
    locks.write(tmp_path / "output")()
    assert "another training" in capsys.readouterr().err
    with pytest.raises(OSError, match="Read-only"):
        locks.build(tmp_path / "idc")  # It could not put a set there.
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(OSError, match="Read-only"):
        locks.write(tmp_path / "output")
