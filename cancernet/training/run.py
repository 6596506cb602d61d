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
from collections.abc import Callable, Mapping
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

# The last one, and the one before it in case that the last one is damaged.
KEPT = 2

HASH_LENGTH = 64  # Of SHA-256 in hexadecimal, which stands before the archive.

Arrays = list[NDArray[Any]]
Rows = list[dict[str, float]]


class Run:
    """How far training has come, and where its state is kept.

    Attributes:
        epochs: How many are trained when it ends; fewer than `planned` where the loss became NaN.
        planned: How many the recipe has.
        rows: One a finished epoch, with the columns of history.csv.
        best_weights: Of the epoch with the highest ROC AUC on validation.
        stopped: Why training ended before its last epoch; empty where it did not.
        notes: What the reader of the report has to know.
    """

    def __init__(
        self, output: Path | None, *, epochs: int, inputs: Mapping[str, Any] | None = None
    ) -> None:
        """Begins a run.

        Args:
            output: The output directory; None keeps all in memory, as a worker does that is not
                the chief.
            epochs: How many there are to train.
            inputs: What the weights depend on: a run is resumed with the same alone.
        """
        self.output = output
        self.epochs = self.planned = epochs
        self.inputs = dict(inputs or {})
        self.rows: Rows = []
        self.best_weights: Arrays = []
        self.stopped = ""
        self.notes: list[str] = []
        self._state: dict[str, Arrays] = {}
        self._is_known = False  # Whether it was finished when it was opened.

    @classmethod
    def open(cls, output: Path, *, epochs: int, inputs: Mapping[str, Any], resume: bool) -> Run:
        """Begins a run in an output directory, or goes on with the one that is there.

        Raises:
            InputError: An unfinished run is there and `resume` is false; or it was begun with other
                inputs, which are named.
            OSError: The directory cannot be made or written to.
        """
        output = output.resolve()
        files.lock_for_writing(output, option="--output")
        output.mkdir(parents=True, exist_ok=True)
        files.try_writing(output)
        run = cls(output, epochs=epochs, inputs=inputs)
        if resume:
            if not run._read_checkpoint():
                run._read_finished()
        elif (output / CHECKPOINTS / HISTORY).exists() or (
            (output / HISTORY).exists() and not (output / METRICS).exists()
        ):
            raise InputError(
                f"{output} holds an unfinished run. Go on with it by --resume, name another "
                "--output, or delete it."
            )
        return run

    @property
    def epoch(self) -> int:
        """How many epochs are finished."""
        return len(self.rows)

    def stop(self, reason: str, *, diverged: bool = False) -> None:
        """Notes why training ends now; after a loss that is no number nothing is left to train."""
        self.stopped = reason
        if diverged and self.rows:
            self.epochs = self.epoch

    def restore(self, model: keras.Model) -> None:
        """Puts a model, built and compiled as the run's was, back to where its run was."""
        if not self.rows:
            return
        print(f"Going on after epoch {self.epoch}.", flush=True)
        if not self._state:  # A finished run.
            return
        with model.distribute_strategy.scope():
            model.optimizer.build(model.trainable_variables)
        for variables, kind in (
            (model.variables, "model"),
            (model.optimizer.variables, "optimizer"),
        ):
            for variable, value in zip(variables, self._state[kind], strict=True):
                variable.assign(value)
        self._state = {}

    def load_best(self, model: keras.Model) -> None:
        """Gives a model the weights of the best epoch."""
        if not self.best_weights and self.output:  # A finished run has them in its model alone.
            from keras.models import load_model

            self.best_weights = load_model(self.output / MODEL, compile=False).get_weights()
        model.set_weights(self.best_weights)

    def save(self, model: keras.Model) -> None:
        """Writes the checkpoint of the epoch just finished, but for its row of the history."""
        if self.output is None:
            return
        groups = {
            "model": [variable.numpy() for variable in model.variables],
            "optimizer": [variable.numpy() for variable in model.optimizer.variables],
            "best": self.best_weights,
        }
        arrays = {
            f"{group}-{number:04}": np.asarray(value)
            for group, values in groups.items()
            for number, value in enumerate(values)
        }
        folder = self.output / CHECKPOINTS
        if self.epoch == 1:  # What a stop in an earlier run's first epoch has left.
            shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(exist_ok=True)
        with files.replacing(folder / f"epoch-{self.epoch:06}.npz") as beside:
            _write(beside, arrays, {"inputs": self.inputs})

    def write_history(self) -> None:
        """Adds the row of the epoch just finished: from now on its checkpoint counts."""
        if self.output is None:
            return
        folder = self.output / CHECKPOINTS
        _write_history(folder / HISTORY, self.rows)
        for path in sorted(folder.glob("epoch-*.npz"), reverse=True)[KEPT:]:
            path.unlink()

    def finish(
        self,
        network: keras.Model,
        decision: Decision,
        *,
        recipe: str,
        sample: bool,
        write_report: Callable[[Path], None],
    ) -> None:
        """Writes what a run leaves and puts it in the place of an older run's files.

        Args:
            network: The best epoch's, of stock layers.
            decision: Threshold and recalibration.
            recipe: The name of the one that it was trained by.
            sample: Whether it was trained on synthetic patches.
            write_report: Writes all other files into a folder that has model and history already.
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
        height, width, channels = _image_shape(network)
        metadata = {
            "sha256": hashlib.sha256((folder / MODEL).read_bytes()).hexdigest(),
            "height": height,
            "width": width,
            "channels": channels,
            **asdict(decision),
            "recipe": recipe,
            "sample": sample,
        }
        if self.epoch == self.epochs:  # Such a run can be reported anew, but not gone on with.
            metadata["trained_with"] = self.inputs
        files.write_json(folder / METADATA, metadata)
        write_report(folder)
        for path in sorted(folder.iterdir(), key=lambda path: path.name == METRICS):
            path.replace(self.output / path.name)
        if self.epoch == self.epochs:
            shutil.rmtree(self.output / CHECKPOINTS)
        else:
            folder.rmdir()

    def _read_checkpoint(self) -> bool:
        """Reads the newest whole checkpoint whose epoch is in the history."""
        folder = (self.output or Path()) / CHECKPOINTS
        rows = _read_history(folder / HISTORY)
        for path in sorted(folder.glob("epoch-*.npz"), reverse=True):
            epoch = int(path.stem.removeprefix("epoch-"))
            if epoch <= len(rows) and (found := _read(path)) is not None:
                self._state, about = found
                _refuse_other_inputs(about["inputs"], self.inputs)
                self.rows, self.best_weights = rows[:epoch], self._state.pop("best")
                return True
        return False

    def _read_finished(self) -> bool:
        """Reads a run that was trained to its end, and whose checkpoints are gone."""
        output = self.output or Path()
        try:
            metadata = json.loads((output / METADATA).read_text(encoding="utf-8"))
            trained_with = metadata["trained_with"]
        except (OSError, ValueError, KeyError):
            return False
        rows = _read_history(output / HISTORY)
        if not rows or not (output / MODEL).is_file():
            return False
        _refuse_other_inputs(trained_with, self.inputs)
        self.rows, self.epochs, self._is_known = rows, len(rows), True
        return True


def _image_shape(network: keras.Model) -> tuple[int, ...]:
    """Gives height, width and channels of what a network takes."""
    shape = network.input_shape[1:]
    first = any(getattr(layer, "data_format", "") == "channels_first" for layer in network.layers)
    return (shape[1], shape[2], shape[0]) if first else shape


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


def _write(path: Path, arrays: Mapping[str, NDArray[Any]], about: Mapping[str, Any]) -> None:
    """Writes an archive of arrays and a text, behind its own hash."""
    archive = io.BytesIO()
    np.savez(archive, allow_pickle=False, about=np.array(json.dumps(about)), **arrays)
    data = archive.getvalue()
    path.write_bytes(hashlib.sha256(data).hexdigest().encode() + data)


def _read(path: Path) -> tuple[dict[str, Arrays], dict[str, Any]] | None:
    """Reads a checkpoint; None where it is torn, or otherwise not what was written."""
    data = path.read_bytes()
    digest, archive = data[:HASH_LENGTH], data[HASH_LENGTH:]
    if hashlib.sha256(archive).hexdigest().encode() != digest:
        return None
    groups: dict[str, Arrays] = {"model": [], "optimizer": [], "best": []}
    with np.load(io.BytesIO(archive), allow_pickle=False) as content:
        about = json.loads(str(content["about"]))
        for name in sorted(content.files):
            if name != "about":
                groups[name.partition("-")[0]].append(content[name])
    return groups, about


def _refuse_other_inputs(then: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    differing = [
        name for name in sorted(then.keys() | now.keys()) if then.get(name) != now.get(name)
    ]
    if not differing:
        return
    changes = "; ".join(
        f"{name} was {then.get(name)!r}, is {now.get(name)!r}" for name in differing
    )
    why = ""
    if "EPOCHS" in differing:
        why = " The number of epochs is part of the learning rate's decay at every step."
    raise InputError(
        f"--resume goes on with what the run was begun with, but {changes}.{why} "
        "Set it back, or begin another run with another --output."
    )
