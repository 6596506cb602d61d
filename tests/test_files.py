"""Whole files and folders whatever stops the writing, and locks on who works with a folder."""

import contextlib
import csv
import io
import math
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import PROJECT
from hypothesis import given
from hypothesis import strategies as st

from cancernet import files
from cancernet.cli import InputError
from cancernet.files import lock_for_reading, lock_for_writing, replacing, replacing_folder


def contents(folder: Path) -> dict[str, str]:
    """The texts of all files below a folder."""
    return {
        path.relative_to(folder).as_posix(): path.read_text(encoding="utf-8")
        for path in folder.rglob("*")
        if path.is_file()
    }


# --- Files ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("stopped", [False, True])
@pytest.mark.parametrize("way", [replacing, replacing_folder])
def test_new_content_takes_the_place_of_the_old_once_it_is_whole(tmp_path, way, stopped) -> None:
    old = tmp_path / "old.png"
    if way is replacing_folder:
        replace(old, "old")
        (old / "more").write_text("old")
    else:
        old.write_text("old")
    before = contents(tmp_path)
    with contextlib.suppress(KeyboardInterrupt), way(old) as beside:
        assert way is replacing_folder or beside.suffix == ".png"  # By which Keras tells a format.
        (beside / "file" if beside.is_dir() else beside).write_text("new")
        assert before.items() <= contents(tmp_path).items()
        if stopped:
            raise KeyboardInterrupt
    file = "old.png/file" if way is replacing_folder else "old.png"
    assert contents(tmp_path) == (before if stopped else {file: "new"})


@given(st.lists(st.lists(st.text(st.characters(codec="utf-8")), min_size=2)))
def test_rows_read_back_whatever_their_text(rows: list[list[str]]) -> None:
    file = io.StringIO(newline="")
    files.write_rows(file, rows)
    file.seek(0)
    assert list(csv.reader(file, strict=True)) == rows


def test_lists_and_json_are_written_whole(tmp_path: Path) -> None:
    files.write_csv(tmp_path / "a.csv", ["name", "x"], [("caf\udce9", None), ("a, b", 1)])
    files.write_json(tmp_path / "a.json", {"a": 1})
    assert contents(tmp_path) == {
        "a.csv": 'name,x\ncaf\\udce9,\n"a, b",1\n',
        "a.json": '{\n  "a": 1\n}\n',
    }
    assert files.read_json(tmp_path / "a.json") == {"a": 1}
    with pytest.raises(ValueError, match="not JSON compliant"):
        files.write_json(tmp_path / "a.json", math.nan)


# --- Folders -------------------------------------------------------------------------------------


def replace(folder: Path, text: str) -> None:
    with replacing_folder(folder) as new:
        (new / "file").write_text(text)


@pytest.mark.skipif(sys.platform == "win32", reason="links need a right on Windows")
def test_a_folder_behind_a_link_is_replaced_and_locked(tmp_path: Path) -> None:
    folder = tmp_path / "disk" / "idc"
    replace(folder, "1")
    (tmp_path / "link").symlink_to(folder)
    replace(tmp_path / "link", "2")
    assert (tmp_path / "link").is_symlink()
    assert contents(folder) == {"file": "2"}
    release = lock_for_writing(tmp_path / "link")
    with pytest.raises(InputError):
        lock_for_reading(folder)
    release()


@pytest.mark.parametrize("new_there", [True, False])
def test_a_swap_stopped_between_its_renames_is_finished(tmp_path: Path, new_there: bool) -> None:
    folder = tmp_path / "idc"
    new, old = files.swap_places(folder)
    replace(old, "old")
    if new_there:  # Else someone took it away.
        replace(new, "new")
    files.finish_swap(folder)
    assert contents(tmp_path) == {"idc/file": "new" if new_there else "old"}
    assert not old.exists()


def test_finishing_leaves_alone_what_is_being_filled(tmp_path: Path) -> None:
    folder = tmp_path / "idc"
    replace(folder, "1")
    with replacing_folder(folder) as new:
        (new / "file").write_text("half")
        files.finish_swap(folder)
        assert contents(tmp_path) == {"idc/file": "1", f"{new.name}/file": "half"}


def test_a_whole_disk_is_refused() -> None:
    for way in (files.swap_places, lock_for_writing, lock_for_reading):
        with pytest.raises(InputError, match="whole disk"):
            way(Path("/"))


# --- Locks ---------------------------------------------------------------------------------------


def test_readers_share_what_a_writer_needs_alone(tmp_path: Path) -> None:
    folder = tmp_path / "idc"
    readers = [lock_for_reading(folder) for _ in range(5)]
    for release in readers:
        with pytest.raises(InputError, match=r"in use by another .*--output"):
            lock_for_writing(folder, option="--output")
        release()
    release = lock_for_writing(folder)
    with pytest.raises(InputError, match=r"being built by another .*--dataset"):
        lock_for_reading(folder)
    with pytest.raises(InputError, match="in use by another"):
        lock_for_writing(folder)
    release()
    lock_for_reading(folder)()
    lock_for_reading(tmp_path / "misspelt" / "idc")()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("way", ["lock_for_reading", "lock_for_writing"])
def test_a_killed_process_holds_nothing(tmp_path: Path, way: str) -> None:
    code = f"""
import pathlib, time
from cancernet import files
files.{way}(pathlib.Path({str(tmp_path / "idc")!r}))
print("held", flush=True)
time.sleep(600)
"""
    command = [sys.executable, "-c", code]
    process = subprocess.Popen(command, cwd=PROJECT, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        with pytest.raises(InputError):
            lock_for_writing(tmp_path / "idc")
    finally:
        process.kill()  # SIGKILL; TerminateProcess on Windows.
        process.communicate()
    lock_for_writing(tmp_path / "idc")()
    assert list(tmp_path.iterdir()) == []  # The killed one's file is gone as well.


def test_a_disk_without_locks_is_said_and_no_obstacle(tmp_path, monkeypatch, capsys) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(files, "ReadWriteLock", refuse)
    lock_for_reading(tmp_path / "idc")()
    assert "cannot be locked ([Errno 30] Read-only" in capsys.readouterr().err
    lock_for_writing(tmp_path / "output")()
    assert "let no other process write" in capsys.readouterr().err
    monkeypatch.setattr(Path, "touch", refuse)
    with pytest.raises(OSError, match="Read-only"):
        lock_for_writing(tmp_path / "output")
