"""Whole files and folders whatever stops the writing, and locks on who works with a folder."""

import contextlib
import csv
import io
import math
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import PROJECT, contents
from hypothesis import given
from hypothesis import strategies as st

from cancernet import files
from cancernet.cli import InputError
from cancernet.files import lock_for_reading, lock_for_writing, replacing, replacing_folder


def replace(folder: Path, text: str) -> None:
    with replacing_folder(folder) as new:
        (new / "file").write_text(text)


@pytest.mark.parametrize("stopped", [False, True])
def test_a_new_file_takes_the_place_of_the_old_once_it_is_whole(tmp_path, stopped) -> None:
    old = tmp_path / "old.png"
    old.write_text("old")
    with contextlib.suppress(KeyboardInterrupt), replacing(old) as beside:
        assert beside.suffix == ".png"  # By which Keras tells a format.
        beside.write_text("new")
        assert old.read_text() == "old"
        if stopped:
            raise KeyboardInterrupt
    assert contents(tmp_path) == {"old.png": b"old" if stopped else b"new"}


@pytest.mark.parametrize("stopped", [False, True])
def test_a_new_folder_takes_the_place_of_the_old_once_it_is_whole(tmp_path, stopped) -> None:
    old = tmp_path / "idc"
    replace(old, "old")
    (old / "more").write_text("old")
    before = contents(tmp_path)
    with contextlib.suppress(KeyboardInterrupt), replacing_folder(old) as new:
        (new / "file").write_text("new")
        files.finish_swap(old)  # By another process: what is being filled is left alone.
        assert contents(tmp_path) == before | {f"{new.name}/file": b"new"}
        if stopped:
            raise KeyboardInterrupt
    assert contents(tmp_path) == (before if stopped else {"idc/file": b"new"})


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
        "a.csv": b'name,x\ncaf\\udce9,\n"a, b",1\n',
        "a.json": b'{\n  "a": 1\n}\n',
    }
    with pytest.raises(ValueError, match="not JSON compliant"):
        files.write_json(tmp_path / "a.json", math.nan)


@pytest.mark.skipif(sys.platform == "win32", reason="links need a right on Windows")
def test_a_folder_behind_a_link_is_replaced_and_locked(tmp_path: Path) -> None:
    folder = tmp_path / "disk" / "idc"
    replace(folder, "1")
    (tmp_path / "link").symlink_to(folder)
    replace(tmp_path / "link", "2")
    assert (tmp_path / "link").is_symlink()
    assert contents(folder) == {"file": b"2"}
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
    assert contents(tmp_path) == {"idc/file": b"new" if new_there else b"old"}
    assert not old.exists()


def test_readers_share_what_a_writer_needs_alone(tmp_path: Path) -> None:
    folder = tmp_path / "idc"
    readers = [lock_for_reading(folder) for _ in range(3)]
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
