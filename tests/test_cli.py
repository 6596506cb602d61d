"""Exit codes, and the work in threads."""

import os
import subprocess
import sys
import time

import pytest
from conftest import PROJECT

from cancernet import cli


def run_script(main: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Runs a script whose main function has this body."""
    program = f"from cancernet import cli\ndef main():\n    {main}\ncli.run(main)"
    # Other tests may have set in this process how much TensorFlow says.
    plain = {name: text for name, text in os.environ.items() if name != "TF_CPP_MIN_LOG_LEVEL"}
    return subprocess.run(
        [sys.executable, "-c", program],
        cwd=PROJECT,
        env=plain | environment,
        capture_output=True,
        text=True,
        check=False,
    )


# --- Exit codes ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("main", "code", "message"),
    [
        ("pass", 0, ""),
        ("raise cli.InputError('Found no data. Make some.')", 2, "Found no data. Make some."),
        ("open('no/such/file')", 2, "no/such/file"),
        ("raise PermissionError(13, 'Permission denied', 'output')", 2, "output"),
        ("raise KeyboardInterrupt", 130, "Stopped."),
        ("raise SystemExit(2)", 2, ""),
    ],
)
def test_outcome_decides_the_exit_code_and_one_message(main, code, message):
    done = run_script(main)
    assert done.returncode == code
    assert done.stdout == ""
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == (1 if message else 0)
    assert "Traceback" not in done.stderr


def test_faults_of_the_program_are_not_hidden():
    assert "Traceback" in run_script("raise RuntimeError('a fault')").stderr


def test_names_that_the_terminal_cannot_show_do_not_end_the_run():
    done = run_script(r"print('gew\u00e4chs-\udcff.png')", PYTHONIOENCODING="ascii")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "gew\\xe4chs-\\udcff.png\n"


# --- TensorFlow's environment --------------------------------------------------------------------


def test_keras_runs_on_tensorflow_and_says_no_more_than_asked(tmp_path):
    (tmp_path / "keras.json").write_text(
        '{"floatx": "float16", "epsilon": 0.1, "image_data_format": "channels_first"}'
    )
    main = "cli.prepare_tensorflow(); from keras import backend, config; "
    main += (
        "print(backend.backend(), config.floatx(), config.epsilon(), config.image_data_format())"
    )
    done = run_script(main, KERAS_HOME=str(tmp_path), KERAS_BACKEND="jax")
    assert (done.stdout, done.stderr) == ("tensorflow float32 1e-07 channels_last\n", "")
    done = run_script(main, KERAS_HOME=str(tmp_path), TF_CPP_MIN_LOG_LEVEL="0")
    assert done.stderr  # Such as what the processor could do.


# --- Threads -------------------------------------------------------------------------------------

COUNT = 3 * cli.FILES_PER_TASK + 7


@pytest.mark.parametrize("count", [0, 1, cli.FILES_PER_TASK, COUNT])
def test_results_come_in_the_order_of_the_items_and_no_bar_without_a_terminal(count, capsys):
    def square(number):
        if number == 0:
            time.sleep(0.1)  # The first task is the last to be done.
        return number * number

    found = cli.map_files(square, range(count), what="Squares")
    assert list(found) == [number * number for number in range(count)]
    assert capsys.readouterr() == ("", "")


def test_an_error_in_a_thread_is_raised_here():
    def work(number):
        if number == COUNT - 1:
            raise OSError(f"file {number}")
        return number

    with pytest.raises(OSError, match=f"file {COUNT - 1}"):
        list(cli.map_files(work, range(COUNT), what="Files"))


def test_nothing_more_is_begun_after_a_stop():
    done: list[int] = []

    def work(number):
        time.sleep(0.001)
        done.append(number)

    tasks = 20 * (os.cpu_count() or 1)
    results = cli.map_files(work, range(tasks * cli.FILES_PER_TASK), what="Files")
    next(results)
    results.close()  # type: ignore[attr-defined]
    after_stop = len(done)
    assert after_stop < tasks * cli.FILES_PER_TASK / 2
    time.sleep(0.1)
    assert len(done) == after_stop
