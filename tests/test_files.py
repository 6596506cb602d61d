"""A stop at any moment leaves whole files and loses no older run."""

import csv
import io
import os
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cancernet.cli import InputError
from cancernet.files import begin_run, finish_run, replacing, write_rows


def contents(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text(encoding="utf-8") for path in folder.iterdir()}


def write(folder: Path, **texts: str) -> None:
    """Writes files named in the keywords, "_" for "."."""
    folder.mkdir(exist_ok=True)
    for name, text in texts.items():
        (folder / name.replace("_", ".")).write_text(text, encoding="utf-8")


# --- One file ------------------------------------------------------------------------------------


def test_new_content_takes_the_place_of_the_old(tmp_path):
    write(tmp_path, plot_png="old")
    with replacing(tmp_path / "plot.png") as beside:
        beside.write_text("new", encoding="utf-8")
        assert (tmp_path / "plot.png").read_text(encoding="utf-8") == "old"
        assert beside.suffix == ".png"  # Keras tells a model's format by the suffix.
    assert contents(tmp_path) == {"plot.png": "new"}


@pytest.mark.parametrize("stop", [ValueError, KeyboardInterrupt])
def test_a_stop_while_writing_leaves_the_old_file_alone(tmp_path, stop):
    write(tmp_path, plot_png="old")

    def write_half():
        with replacing(tmp_path / "plot.png") as beside:
            beside.write_text("ne", encoding="utf-8")
            raise stop

    with pytest.raises(stop):
        write_half()
    assert contents(tmp_path) == {"plot.png": "old"}


@given(st.lists(st.lists(st.text(st.characters(exclude_categories=["Cs"])), min_size=2)))
def test_rows_read_back_whatever_their_text(rows):
    file = io.StringIO(newline="")
    write_rows(file, rows)
    file.seek(0)
    assert list(csv.reader(file, strict=True)) == rows


# --- A run ---------------------------------------------------------------------------------------


def test_first_run_writes_in_the_output_itself(tmp_path):
    output = tmp_path / "deep" / "output"
    run = begin_run(output)
    assert run == output
    assert contents(output) == {}
    write(run, history_csv="1", metrics_json="1")
    finish_run(run, output)
    assert contents(output) == {"history.csv": "1", "metrics.json": "1"}


def test_a_finished_run_stays_whole_until_the_next_is_finished(tmp_path):
    output = tmp_path / "output"
    write(output, history_csv="1", metrics_json="1", notes_txt="the user's own")
    before = contents(output)
    run = begin_run(output)
    assert run != output
    assert run.parent == output.parent  # On the same disk, as a rename needs.
    write(run, history_csv="2", plot_png="2", metrics_json="2")
    assert contents(output) == before

    finish_run(run, output)
    assert contents(output) == {
        "history.csv": "2",
        "metrics.json": "2",
        "notes.txt": "the user's own",
        "plot.png": "2",
    }
    assert not run.exists()


def test_metrics_are_put_in_place_last(tmp_path, monkeypatch):
    output = tmp_path / "output"
    write(output, metrics_json="1")
    run = begin_run(output)
    write(run, cancernet_keras="2", history_csv="2", metrics_json="2", zebra_png="2")
    moved: list[str] = []
    replace = Path.replace

    def recorded(path, target):
        moved.append(path.name)
        return replace(path, target)

    monkeypatch.setattr(Path, "replace", recorded)
    finish_run(run, output)
    assert len(moved) == 4
    assert moved[-1] == "metrics.json"


@pytest.mark.parametrize("older_run", [True, False])
def test_an_unfinished_run_is_refused_and_left_alone(tmp_path, older_run):
    output = tmp_path / "output"
    if older_run:
        write(output, metrics_json="1")
    run = begin_run(output)
    write(run, history_csv="2")
    with pytest.raises(InputError, match=r"unfinished run.*--output.*delete") as refused:
        begin_run(output)
    assert str(run) in str(refused.value)
    assert contents(run) == {"history.csv": "2"}


def test_a_run_stopped_before_its_first_epoch_is_no_obstacle(tmp_path):
    output = tmp_path / "output"
    write(output, metrics_json="1")
    assert begin_run(output) == begin_run(output)


def test_the_working_directory_can_be_the_output(tmp_path, monkeypatch):
    output = tmp_path / "output"
    write(output, metrics_json="1")
    monkeypatch.chdir(output)
    run = begin_run(Path())
    write(run, history_csv="2", metrics_json="2")
    assert contents(output) == {"metrics.json": "1"}
    finish_run(run, Path())
    assert contents(output) == {"history.csv": "2", "metrics.json": "2"}


def test_a_run_that_a_stop_left_half_in_place_is_not_mixed_with_the_next(tmp_path):
    output = tmp_path / "output"
    write(output, history_csv="1", metrics_json="1")
    run = begin_run(output)
    write(run, plot_png="2", metrics_json="2")  # history.csv was moved before the stop.
    run = begin_run(output)
    write(run, history_csv="3")
    # The third run is stopped: the next must not take the second one's metrics for its own.
    assert "metrics.json" not in contents(run)


def test_an_output_that_is_a_file_is_refused_by_the_file_system(tmp_path):
    write(tmp_path, output_txt="the user's own")
    with pytest.raises(OSError, match=r"output\.txt"):
        begin_run(tmp_path / "output.txt")
    assert contents(tmp_path) == {"output.txt": "the user's own"}


@pytest.mark.skipif(
    sys.platform == "win32" or os.getuid() == 0,
    reason="a directory's mode does not keep root or Windows from writing",
)
def test_an_output_that_cannot_be_written_to_is_found_before_the_training(tmp_path):
    output = tmp_path / "output"
    output.mkdir(mode=0o555)
    with pytest.raises(PermissionError):
        begin_run(output)
    assert contents(output) == {}
