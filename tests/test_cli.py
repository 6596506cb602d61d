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
    command = [sys.executable, "-c", program]
    return subprocess.run(
        command, cwd=PROJECT, env=plain | environment, capture_output=True, text=True
    )


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
    assert (done.returncode, done.stdout) == (code, "")
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == (1 if message else 0)


def test_faults_of_the_program_are_not_hidden():
    assert "Traceback" in run_script("raise RuntimeError('a fault')").stderr


def test_names_that_the_terminal_cannot_show_do_not_end_the_run():
    done = run_script(r"print('gew\u00e4chs-\udcff.png')", PYTHONIOENCODING="ascii")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "gew\\xe4chs-\\udcff.png\n"


def test_keras_runs_on_tensorflow_and_says_no_more_than_asked(tmp_path):
    (tmp_path / "keras.json").write_text(
        '{"floatx": "float16", "epsilon": 0.1, "image_data_format": "channels_first"}'
    )
    main = "cli.prepare_tensorflow(); from keras import backend, config as c; "
    main += "print(backend.backend(), c.floatx(), c.epsilon(), c.image_data_format())"
    done = run_script(main, KERAS_HOME=str(tmp_path), KERAS_BACKEND="jax")
    assert (done.stdout, done.stderr) == ("tensorflow float32 1e-07 channels_last\n", "")
    done = run_script(main, KERAS_HOME=str(tmp_path), TF_CPP_MIN_LOG_LEVEL="0")
    assert done.stderr  # Such as what the processor could do.


def test_results_come_in_order_without_a_bar_and_errors_are_raised_here(capsys):
    def invert(number):
        if number == 1:
            time.sleep(0.1)  # The first task is the last to be done.
        return 1 / number

    count = 3 * cli.FILES_PER_TASK + 7
    found = cli.map_files(invert, range(1, count), what="Numbers")
    assert list(found) == [1 / number for number in range(1, count)]
    with pytest.raises(ZeroDivisionError):
        list(cli.map_files(invert, range(-count, 1), what="Numbers"))
    assert list(cli.map_files(invert, [], what="Numbers")) == []
    assert capsys.readouterr() == ("", "")


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
