"""A run: the output directory while training lasts, and what it takes to go on after any stop.

While it trains, a run writes to `<output>/checkpoint` alone; what an older run left in the output
directory is replaced at the end, file by file. A checkpoint holds the weights, the optimizer's
slots and step, and the state of the dropout layers' generators after an epoch, and the weights of
the best epoch until then. The order of the patches and their warps follow from the seed and the
epoch alone.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import shutil
import threading
import time
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cancernet import files
from cancernet.cli import InputError
from cancernet.evaluation.calibration import Decision

if TYPE_CHECKING:  # What can be refused is refused before TensorFlow is loaded.
    import keras

CHECKPOINTS, HISTORY, METRICS = "checkpoint", "history.csv", "metrics.json"
MODEL, METADATA = "cancernet.keras", "cancernet.json"
KEPT = 2  # Of the checkpoints: until an epoch's row is written, that of the one before counts.
CTRL_C = "Ctrl-C"

State = dict[str, list[NDArray[Any]]]  # Arrays by what they belong to: "model", "optimizer".
Rows = list[dict[str, float]]


class Run:
    """How far training has come, and where its state is kept."""

    def __init__(
        self, output: Path | None, *, epochs: int, inputs: Mapping[str, Any] | None = None
    ) -> None:
        """Makes a run of which nothing is trained yet, to be resumed with the same inputs alone.

        Without an output directory it keeps all in memory, as a worker does that is not the chief.
        """
        self.output = output and output.resolve()
        self.epochs = self.planned = epochs  # The first gets less where the loss becomes NaN.
        self.inputs = dict(inputs or {})
        self.rows: Rows = []  # One a finished epoch, with the columns of history.csv.
        self.best_weights: list[NDArray[Any]] = []  # By ROC AUC on validation.
        self.stopped = ""  # Why training ended before its last epoch.
        self.pressed = threading.Event()  # Ctrl-C, in training.
        self.notes: list[str] = []  # What the reader of the report has to know.
        self._state: State = {}  # What `restore` gives to the model.
        self._plot: Path | None = None
        self._is_known = False  # Whether it was finished when it was opened.

    def open(self, *, resume: bool = False, plot: Path | None = None) -> None:
        """Begins in the output directory, or resumes; a copy of plot.png goes to `plot` in the end.

        Raises:
            InputError: An unfinished run is there and `resume` is false; or it was begun with other
                inputs, which are named.
            OSError: A directory cannot be made or written to.
        """
        if not self.output:
            return
        files.lock_for_writing(self.output, option="--output")
        self.output.mkdir(parents=True, exist_ok=True)
        files.try_writing(self.output)
        if resume:
            if not self._read_checkpoint():
                self._read_finished()
        elif (self.output / CHECKPOINTS / HISTORY).exists() or (
            (self.output / HISTORY).exists() and not (self.output / METRICS).exists()
        ):
            raise InputError(
                f"{self.output} holds an unfinished run. Go on with it by --resume, name another "
                "--output, or delete it."
            )
        if plot:
            files.check_copy(plot, option="--plot")
            self._plot = plot

    @property
    def epoch(self) -> int:
        """How many epochs are finished."""
        return len(self.rows)

    def pack(self) -> bytes:
        """Packs what other workers need to go on from here."""
        return _pack(self._state, {"rows": self.rows, "epochs": self.epochs})

    def unpack(self, data: bytes) -> None:
        """Takes over the chief's run."""
        if found := _unpack(data):
            self._state, about = found
            self.rows, self.epochs = about["rows"], about["epochs"]

    def restore(self, model: keras.Model) -> None:
        """Puts a model, built and compiled as the run's was, back to where its run was."""
        if self.rows:
            print(f"Going on after epoch {self.epoch}.", flush=True)
        if not self._state:  # A new run, or a finished one.
            return
        with model.distribute_strategy.scope():
            model.optimizer.build(model.trainable_variables)
        for kind, variables in _variables(model).items():
            for variable, value in zip(variables, self._state[kind], strict=True):
                variable.assign(value)
        self._state = {}

    def save(self, model: keras.Model, row: dict[str, float], *, began: float) -> None:
        """Writes the state after the epoch just finished, and its row, to which it adds seconds."""
        self.rows.append(row)
        if not self.output:
            row["seconds"] = time.perf_counter() - began
            return
        state = {
            kind: [np.asarray(variable.numpy()) for variable in variables]
            for kind, variables in _variables(model).items()
        }
        folder = self.output / CHECKPOINTS
        if self.epoch == 1:  # What a stop in an earlier run's first epoch has left.
            shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(exist_ok=True)
        with files.replacing(folder / f"epoch-{self.epoch:06}.npz") as beside:
            beside.write_bytes(_pack(state | {"best": self.best_weights}, {"inputs": self.inputs}))
        row["seconds"] = time.perf_counter() - began
        _write_history(folder / HISTORY, self.rows)
        for path in sorted(folder.glob("epoch-*.npz"), reverse=True)[KEPT:]:
            path.unlink()

    def stop(self, reason: str, *, diverged: bool = False) -> None:
        """Notes why training ends now; after a loss that is NaN nothing is left to train."""
        self.stopped = reason
        if diverged and self.rows:
            self.epochs = self.epoch

    def ended(self) -> list[str]:
        """Gives the notes for the report, how training ended among them.

        Raises:
            InputError: The loss was NaN or infinite before the first epoch was finished.
            KeyboardInterrupt: Ctrl-C came before that.
        """
        after = f"after {self.epoch} of {self.planned} epochs"
        if self.stopped == CTRL_C:
            if not self.rows:
                raise KeyboardInterrupt
            return [*self.notes, f"stopped {after}"]
        if self.stopped and not self.rows:
            raise InputError(
                f"Training went wrong before an epoch was finished: {self.stopped}. Lower "
                "LEARNING_RATE in cancernet/config.py; if that is no cure, check the data set."
            )
        if self.stopped:
            wrong = f"TRAINING WENT WRONG and stopped {after}: {self.stopped}"
            cure = "All is of the best epoch before; lower LEARNING_RATE for a whole run"
            return [*self.notes, f"{wrong}. {cure}"]
        return self.notes

    def load_best(self, model: keras.Model) -> None:
        """Gives a model the weights of the best epoch."""
        if not self.best_weights and self.output:  # A finished run has them in its model alone.
            from keras.models import load_model

            self.best_weights = load_model(self.output / MODEL, compile=False).get_weights()
        model.set_weights(self.best_weights)

    @contextmanager
    def finish(
        self, network: keras.Model, decision: Decision, recipe: str, sample: bool
    ) -> Iterator[Path]:
        """Puts what a run leaves, all together, in the place of an older run's files.

        Takes the network of the best epoch, of stock layers; yields a folder with model, metadata
        and history in it, to write the report into.
        """
        assert self.output is not None
        folder = self.output / CHECKPOINTS / "report"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        _write_history(folder / HISTORY, self.rows)
        if self._is_known:  # Saved anew it would have another date in it, and another hash.
            shutil.copyfile(self.output / MODEL, folder / MODEL)
        else:
            network.save(folder / MODEL)
        metadata = {
            "sha256": hashlib.sha256((folder / MODEL).read_bytes()).hexdigest(),
            **dict(zip(("height", "width", "channels"), network.input_shape[1:], strict=True)),
            **asdict(decision),
            "recipe": recipe,
            "sample": sample,
        }
        if self.epoch == self.epochs:  # Such a run can be reported anew, but not gone on with.
            metadata["trained_with"] = self.inputs
        files.write_json(folder / METADATA, metadata)
        yield folder
        for path in sorted(folder.iterdir(), key=lambda path: path.name == METRICS):
            path.replace(self.output / path.name)
        if self.epoch == self.epochs:
            shutil.rmtree(self.output / CHECKPOINTS)
        else:
            folder.rmdir()
        if self._plot:
            files.copy(self.output / "plot.png", self._plot)

    def _read_checkpoint(self) -> bool:
        """Reads the newest whole checkpoint whose epoch is in the history."""
        folder = (self.output or Path()) / CHECKPOINTS
        rows = _read_history(folder / HISTORY)
        for path in sorted(folder.glob("epoch-*.npz"), reverse=True):
            epoch = int(path.stem.removeprefix("epoch-"))
            if epoch <= len(rows) and (found := _unpack(path.read_bytes())):
                self._state, about = found
                self._refuse_other_inputs(about["inputs"])
                self.rows, self.best_weights = rows[:epoch], self._state.pop("best")
                return True
        return False

    def _read_finished(self) -> None:
        """Reads a run that was trained to its end, and whose checkpoints are gone."""
        output = self.output or Path()
        rows = _read_history(output / HISTORY)
        try:
            trained_with = files.read_json(output / METADATA)["trained_with"]
        except (OSError, ValueError, KeyError):
            return
        if rows and (output / MODEL).is_file():
            self._refuse_other_inputs(trained_with)
            self.rows, self.epochs, self._is_known = rows, len(rows), True

    def _refuse_other_inputs(self, then: Mapping[str, Any]) -> None:
        if differing := differences(then, self.inputs, "{} was {}, is {}"):
            why = " The number of epochs is part of the learning rate's decay at every step."
            raise InputError(
                f"--resume goes on with what the run was begun with, but {differing}."
                f"{why if 'EPOCHS was' in differing else ''} "
                "Set it back, or begin another run with another --output."
            )


def differences(first: Mapping[str, Any], second: Mapping[str, Any], words: str) -> str:
    """Words each name at which two mappings differ, with both values."""
    return "; ".join(
        words.format(name, repr(first.get(name)), repr(second.get(name)))
        for name in sorted(first.keys() | second.keys())
        if first.get(name) != second.get(name)
    )


def _variables(model: keras.Model) -> dict[str, list[keras.Variable]]:
    return {"model": model.variables, "optimizer": model.optimizer.variables}


def _read_history(path: Path) -> Rows:
    """Reads the rows of a history; none where there is no such file."""
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = [
                {name: float(value) for name, value in row.items()} for row in csv.DictReader(file)
            ]
    except (OSError, ValueError):
        return []
    return [row | {"epoch": int(row["epoch"])} for row in rows]


def _write_history(path: Path, rows: Rows) -> None:
    files.write_csv(path, list(rows[0]), [list(row.values()) for row in rows])


def _pack(state: State, about: Mapping[str, Any]) -> bytes:
    """Packs arrays and a text as NumPy's archive, which has a check sum of each."""
    arrays = {
        f"{kind}-{number:04}": array
        for kind, its in state.items()
        for number, array in enumerate(its)
    }
    archive = io.BytesIO()
    np.savez(archive, allow_pickle=False, about=np.array(json.dumps(about)), **arrays)
    return archive.getvalue()


def _unpack(data: bytes) -> tuple[State, dict[str, Any]] | None:
    """Reads what `_pack` made; None where it is torn."""
    state: State = {}
    with suppress(ValueError, EOFError, zipfile.BadZipFile):
        content = np.load(io.BytesIO(data), allow_pickle=False)
        for name in sorted(set(content.files) - {"about"}):
            state.setdefault(name.partition("-")[0], []).append(content[name])
        return state, json.loads(str(content["about"]))
    return None
