"""Kills training at random moments, resumes it each time, and compares with a run never stopped.

    python tests/kill_training.py --kills 100

Needs no data set: it draws random patches. Not for Windows, which knows no SIGKILL.
"""

import argparse
import csv
import json
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np

PROJECT = Path(__file__).parents[1]
BATCH_SIZE = 16
PATIENTS, PATCHES = range(20001, 20013), 16  # Of each patient, half of each class.


def build(folder: Path) -> None:
    """Makes a data set of noise, darker where malignant, so that there is something to learn."""
    generator = np.random.default_rng(7)
    for patient in PATIENTS:
        for number in range(PATCHES):
            label = number % 2
            pixels = generator.integers(0, 200, (50, 50, 3), dtype=np.uint8) + 50 * (1 - label)
            name = f"{patient}_idx5_x{50 * number + 1}_y1_class{label}.png"
            path = folder / "datasets/original" / str(patient) / str(label) / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(cv2.imencode(".png", pixels.astype(np.uint8))[1].tobytes())
    command = [sys.executable, str(PROJECT / "build_dataset.py")]
    subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL)


def train(folder: Path, output: str, *, epochs: int, resume: bool = False) -> subprocess.Popen[str]:
    """Starts train_model.py."""
    command = [sys.executable, str(PROJECT / "train_model.py"), "--output", output]
    command += ["--epochs", str(epochs), "--batch-size", str(BATCH_SIZE)]
    return subprocess.Popen(
        command + ["--resume"] * resume,
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finish(process: subprocess.Popen[str]) -> None:
    """Waits for a run that must succeed."""
    text, errors = process.communicate()
    if process.returncode != 0:
        sys.exit(f"train_model.py ended with {process.returncode}:\n{text}\n{errors or ''}")


def history(run: Path) -> list[dict[str, str]]:
    """Reads history.csv but for the seconds."""
    with (run / "history.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    return [{name: value for name, value in row.items() if name != "seconds"} for row in rows]


def finished_epochs(run: Path) -> int:
    """Counts the epochs in a checkpoint; none where there is no checkpoint."""
    try:
        with np.load(run / "checkpoint/state.npz") as state:
            return len(json.loads(str(state["about"]))["rows"])
    except FileNotFoundError:
        return 0


def differences(first: Path, second: Path) -> list[str]:
    """Names what two runs differ in: weights array by array, history, predictions, metadata."""
    import keras

    both = (first, second)
    arrays = [keras.models.load_model(run / "cancernet.keras").get_weights() for run in both]
    found = [
        f"weights {number}"
        for number, (one, other) in enumerate(zip(*arrays, strict=True))
        if one.tobytes() != other.tobytes()
    ]
    facts: dict[str, Callable[[Path], Any]] = {
        "history.csv": history,
        "predictions.csv": lambda run: (run / "predictions.csv").read_bytes(),
        "cancernet.json": lambda run: (
            json.loads((run / "cancernet.json").read_text()) | {"sha256": ""}
        ),
        "files": lambda run: {path.name for path in run.iterdir()},
    }
    return found + [name for name, read in facts.items() if read(first) != read(second)]


def kill(process: subprocess.Popen[str], moments: random.Random) -> None:
    """Kills a run: in its start-up, or some time after it has finished none, one or two epochs."""
    epochs = moments.choice((-1, 0, 1, 1, 2))
    delay = moments.uniform(0, 4) if epochs < 0 else moments.uniform(0, 1.5)
    assert process.stdout is not None
    while epochs >= 0 and (line := process.stdout.readline()):
        if line.startswith(("epoch", "Going on", "Validation")):
            epochs -= 1
    time.sleep(delay)
    process.kill()
    process.communicate()


def kill_and_compare(folder: Path, *, kills: int, seed: int) -> tuple[list[int], list[str]]:
    """Trains once unbroken and once killed again and again, in a folder with a data set in it.

    Returns:
        How many epochs were in the checkpoint after each kill, and what differs in the end.
    """
    epochs = kills  # A kill costs about an epoch of progress, so that most come before the end.
    finish(train(folder, "unbroken", epochs=epochs))
    moments, logged = random.Random(seed), []
    for _ in range(kills):
        kill(train(folder, "killed", epochs=epochs, resume=True), moments)
        logged.append(finished_epochs(folder / "killed"))
    if logged[-1] or not (folder / "killed/metrics.json").exists():  # Else it is finished.
        finish(train(folder, "killed", epochs=epochs, resume=True))
    return logged, differences(folder / "unbroken", folder / "killed")


def main() -> None:
    """Kills as often as asked."""
    parser = argparse.ArgumentParser(description="Kill training, resume, compare.")
    parser.add_argument("--kills", type=int, default=100, metavar="N")
    parser.add_argument("--seed", type=int, default=1, metavar="N")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        build(Path(folder))
        epochs, found = kill_and_compare(Path(folder), kills=arguments.kills, seed=arguments.seed)
    print(f"{len(epochs)} kills, with {epochs} epochs in the checkpoint.")
    print(f"Different from the unbroken run: {', '.join(found) or 'nothing'}.")
    sys.exit(bool(found))


if __name__ == "__main__":
    main()
