"""A run: the output directory while training lasts, and what it takes to go on after any stop.

While it trains, a run writes one file, `<output>/checkpoint/state.npz`; what an older run left in
the output directory is replaced at the end, and the file deleted. The checkpoint holds the
history, the weights, the optimizer's slots and step, and the state of the dropout layers'
generators after an epoch, and the weights of the best epoch until then. The order of the patches
and their warps follow from the seed and the epoch alone.
"""

from __future__ import annotations

import csv
import hashlib
import json
import shutil
import time
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from cancernet import files
from cancernet.cli import InputError
from cancernet.evaluation.calibration import Decision

if TYPE_CHECKING:  # What can be refused is refused before TensorFlow is loaded.
    import keras

STATE, HISTORY = "checkpoint/state.npz", "history.csv"
MODEL, METADATA = "cancernet.keras", "cancernet.json"
CTRL_C = "Ctrl-C"


class Run:
    """How far training has come, and where its state is kept."""

    def __init__(
        self, output: Path | None, *, epochs: int, inputs: Mapping[str, Any] | None = None
    ) -> None:
        """Makes a run of which nothing is trained yet, to be resumed with the same inputs alone.

        Without an output directory it keeps all in memory, as a worker does that is not the chief.
        """
        self.output = output and output.resolve()
        self.epochs = epochs
        self.inputs: dict[str, Any] = json.loads(json.dumps(inputs or {}))  # As it is stored.
        self.rows: list[dict[str, float]] = []  # One a finished epoch, as in history.csv.
        self.best_weights: list[NDArray[Any]] = []  # By ROC AUC on validation.
        self.mean: list[NDArray[Any]] = []  # Of the weights over epochs, where it is needed.
        self.stopped = ""  # Why training ended before its last epoch.
        self.notes: list[str] = []  # What the reader of the report has to know.
        self._state: dict[str, list[NDArray[Any]]] = {}  # Of model and optimizer, to be restored.
        self._plot: Path | None = None

    def open(self, *, resume: bool = False, plot: Path | None = None) -> None:
        """Begins in the output directory, or resumes; a copy of plot.png goes to `plot` in the end.

        Raises:
            InputError: An unfinished run is there and `resume` is false; or `take` refuses it.
            OSError: A directory cannot be made or written to.
        """
        if not self.output:
            return
        files.lock_for_writing(self.output, option="--output")
        self.output.mkdir(parents=True, exist_ok=True)
        files.try_writing(self.output)
        if (self.output / STATE).exists():
            if not resume:
                raise InputError(
                    f"{self.output} holds an unfinished run. Go on with it by --resume, name "
                    "another --output, or delete it."
                )
            self.take(self.output / STATE)
        elif resume and (self.output / METADATA).exists():
            self._take_finished()
        if plot:
            files.check_copy(plot, option="--plot")
            self._plot = plot

    @property
    def epoch(self) -> int:
        """How many epochs are finished."""
        return len(self.rows)

    def checkpoint(self) -> bytes:
        """Gives what other workers need to go on from here: nothing at the beginning."""
        return (self.output / STATE).read_bytes() if self.output and self.rows else b""

    def take(self, checkpoint: Path | BinaryIO) -> None:
        """Takes over a checkpoint.

        Raises:
            InputError: It is damaged, or of a run that was begun with other inputs.
        """
        try:
            with np.load(checkpoint, allow_pickle=False) as content:
                arrays = dict(sorted(content.items()))
            about = json.loads(str(arrays.pop("about")))
        except (ValueError, EOFError, KeyError, zipfile.BadZipFile) as error:
            raise InputError(
                f"{checkpoint} is damaged ({error}), so there is nothing to go on from. Delete it "
                "and train anew."
            ) from error
        self._refuse_others(about["inputs"])
        self.rows = about["rows"]
        for name, array in arrays.items():
            self._state.setdefault(name.partition("-")[0], []).append(array)
        self.best_weights, self.mean = (self._state.pop(kind, []) for kind in ("best", "mean"))

    def _take_finished(self) -> None:
        """Takes over a finished run, to be tested and reported anew."""
        assert self.output is not None
        trained_with = files.read_json(self.output / METADATA).get("trained_with")
        if trained_with is None:  # It was stopped, and somebody has deleted its checkpoint.
            return
        self._refuse_others(trained_with)
        with (self.output / HISTORY).open(newline="", encoding="utf-8") as file:
            lines = list(csv.DictReader(file))
        self.rows = [{name: json.loads(text) for name, text in line.items()} for line in lines]
        self.epochs = self.epoch
        self._write({})

    def _refuse_others(self, then: Mapping[str, Any]) -> None:
        if differing := differences(then, self.inputs, "{} was {}, is {}"):
            why = " The number of epochs is part of the learning rate's decay at every step."
            raise InputError(
                f"--resume goes on with what the run was begun with, but {differing}."
                f"{why if 'EPOCHS was' in differing else ''} "
                "Set it back, or begin another run with another --output."
            )

    def restore(self, model: keras.Model) -> None:
        """Puts a model, built and compiled as the run's was, back to where its run was."""
        if not self._state:
            if self.rows and self.output:  # A finished run.
                from keras.models import load_model

                saved = load_model(self.output / MODEL, compile=False)
                self.best_weights = saved.get_weights()
            return
        print(f"Going on after epoch {self.epoch}.", flush=True)
        with model.distribute_strategy.scope():
            model.optimizer.build(model.trainable_variables)
        for kind, variables in _variables(model).items():
            for variable, value in zip(variables, self._state[kind], strict=True):
                variable.assign(value)
        self._state = {}

    def save(self, model: keras.Model, row: dict[str, float], *, began: float) -> None:
        """Writes the state after the epoch just finished, and its row, to which it adds seconds."""
        row["seconds"] = time.perf_counter() - began
        self.rows.append(row)
        if not self.output:
            return
        self._write(_variables(model) | {"best": self.best_weights, "mean": self.mean})
        row["seconds"] = time.perf_counter() - began  # With the checkpoint.

    def _write(self, state: Mapping[str, Sequence[Any]]) -> None:
        assert self.output is not None
        arrays = {
            f"{kind}-{number:04}": np.asarray(variable)
            for kind, variables in state.items()
            for number, variable in enumerate(variables)
        }
        about = np.array(json.dumps({"inputs": self.inputs, "rows": self.rows}))
        path = self.output / STATE
        path.parent.mkdir(exist_ok=True)
        with files.replacing(path) as beside:
            np.savez(beside, allow_pickle=False, about=about, **arrays)

    def stop(self, model: keras.Model, reason: str) -> None:
        """Ends training after the step that is done, and notes why."""
        self.stopped = self.stopped or reason
        model.stop_training = True

    def ended(self) -> list[str]:
        """Gives the notes for the report, how training ended among them.

        Raises:
            InputError: The loss was NaN or infinite before the first epoch was finished.
            KeyboardInterrupt: Ctrl-C came before that.
        """
        if not self.stopped:
            return self.notes
        after = f"after {self.epoch} of {self.epochs} epochs"
        if self.stopped == CTRL_C:
            if not self.rows:
                raise KeyboardInterrupt
            return [*self.notes, f"stopped {after}"]
        if not self.rows:
            raise InputError(
                f"Training went wrong before an epoch was finished: {self.stopped}. Lower "
                "LEARNING_RATE in cancernet/config.py; if that is no cure, check the data set."
            )
        wrong = f"TRAINING WENT WRONG and stopped {after}: {self.stopped}"
        cure = "All is of the best epoch before; lower LEARNING_RATE for a whole run"
        return [*self.notes, f"{wrong}. {cure}"]

    @contextmanager
    def finish(
        self, network: keras.Model, decision: Decision, recipe: str, sample: bool
    ) -> Iterator[Path]:
        """Puts what a run leaves, all together, in the place of an older run's files.

        Takes the network of the best epoch, of stock layers; yields a folder with model, metadata
        and history in it, to write the report into.
        """
        assert self.output is not None
        state = self.output / STATE
        folder = state.with_name("report")
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        files.write_csv(folder / HISTORY, self.rows[0], [row.values() for row in self.rows])
        network.save(folder / MODEL)
        is_finished = self.stopped != CTRL_C  # After a loss that is NaN nothing is left to train.
        metadata = {
            "sha256": hashlib.sha256((folder / MODEL).read_bytes()).hexdigest(),
            **dict(zip(("height", "width", "channels"), network.input_shape[1:], strict=True)),
            **asdict(decision),
            "recipe": recipe,
            "sample": sample,
            **({"trained_with": self.inputs} if is_finished else {}),
        }
        files.write_json(folder / METADATA, metadata)
        yield folder
        for path in folder.iterdir():
            path.replace(self.output / path.name)
        shutil.rmtree(state.parent if is_finished else folder)
        if self._plot:
            files.copy(self.output / "plot.png", self._plot)


def differences(first: Mapping[str, Any], second: Mapping[str, Any], words: str) -> str:
    """Words each name at which two mappings differ, with both values."""
    return "; ".join(
        words.format(name, repr(first.get(name)), repr(second.get(name)))
        for name in sorted(first.keys() | second.keys())
        if first.get(name) != second.get(name)
    )


def _variables(model: keras.Model) -> dict[str, list[Any]]:
    return {"model": model.variables, "optimizer": model.optimizer.variables}
