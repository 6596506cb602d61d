"""Checkpoints: what a run needs to go on, after any stop, as if it had never been stopped.

A checkpoint holds the weights, the optimizer's slots and step, and the state of the dropout layers'
generators after an epoch, and the log and the best network until then. The order of the patches and
their warps follow from the seed and the epoch alone.
"""

import csv
import hashlib
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from cancernet.cli import InputError
from cancernet.files import CARD_FILE, CHECKPOINTS, HISTORY_FILE, replacing

# The last one, and the one before it in case that the last one is damaged.
KEPT = 2

HASH_LENGTH = 64  # Of SHA-256 in hexadecimal, which stands before the archive.

Arrays = list[NDArray[Any]]
Rows = list[dict[str, float]]


@dataclass(frozen=True)
class Progress:
    """How far a run has come.

    Attributes:
        rows: One a finished epoch, with the columns of history.csv.
        best_weights: Of the best epoch; None where that is on disk and nothing is left to train.
    """

    rows: Rows
    best_weights: Arrays | None


class Checkpoints:
    """The checkpoints of a run."""

    def __init__(self, run: Path, inputs: Mapping[str, Any]) -> None:
        """Takes the run's directory, and what the run depends on, such as its configuration.

        Args:
            run: Directory of the run.
            inputs: Texts and numbers. A checkpoint is good for a run with the same ones alone.
        """
        self._run = run
        self._inputs = dict(inputs)

    def save(self, model: keras.Model, progress: Progress) -> None:
        """Writes the checkpoint of the epoch just finished; deletes those before the last two."""
        groups = {
            "model": [variable.numpy() for variable in model.variables],
            "optimizer": [variable.numpy() for variable in model.optimizer.variables],
            "best": progress.best_weights or [],
        }
        arrays = {
            f"{group}-{number:04}": np.asarray(value)
            for group, values in groups.items()
            for number, value in enumerate(values)
        }
        folder = self._run / CHECKPOINTS
        folder.mkdir(exist_ok=True)
        with replacing(folder / f"epoch-{len(progress.rows):06}.npz") as beside:
            _write(beside, arrays, {"inputs": self._inputs, "rows": progress.rows})
        for path in self._newest_first()[KEPT:]:
            path.unlink()

    def restore(self, model: keras.Model) -> Progress | None:
        """Puts a network back to where its run was.

        Args:
            model: Built and compiled as the run's was.

        Returns:
            How far the run has come; None where it has no whole checkpoint and is not finished.

        Raises:
            InputError: The run was begun with other inputs, which are named.
        """
        for path in self._newest_first():
            if (found := _read(path)) is not None:
                arrays, about = found
                _refuse_other_inputs(about["inputs"], self._inputs)
                with model.distribute_strategy.scope():
                    model.optimizer.build(model.trainable_variables)
                _assign(model.variables, arrays["model"])
                _assign(model.optimizer.variables, arrays["optimizer"])
                return Progress(about["rows"], arrays["best"])
        return self._finished()

    def _finished(self) -> Progress | None:
        """Reads the log of a run that was trained to its end, and whose checkpoints are gone."""
        try:
            card = json.loads((self._run / CARD_FILE).read_text(encoding="utf-8"))
            with (self._run / HISTORY_FILE).open(newline="", encoding="utf-8") as file:
                rows = [
                    {name: float(value) for name, value in row.items()}
                    for row in csv.DictReader(file)
                ]
        except (OSError, ValueError):
            return None
        if "trained_with" not in card:
            return None
        _refuse_other_inputs(card["trained_with"], self._inputs)
        return Progress([row | {"epoch": int(row["epoch"])} for row in rows], None)

    def _newest_first(self) -> list[Path]:
        return sorted((self._run / CHECKPOINTS).glob("epoch-*.npz"), reverse=True)


def _assign(variables: Sequence[keras.Variable], values: Arrays) -> None:
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)


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
