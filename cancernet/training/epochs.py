"""What is done at the end of each epoch and step: scored, logged, saved, and stopped if need be."""

import csv
import hashlib
import json
import math
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray
from tqdm import tqdm

from cancernet.evaluation import evaluation
from cancernet.files import HISTORY_FILE, LAST_FILE, MODEL_FILE, replacing
from cancernet.training import normalization
from cancernet.training.checkpoint import Checkpoints, Progress
from cancernet.training.fused import predict


class DivergedError(Exception):
    """Training that ran into numbers that are none; the text says where."""


def save_network(model: keras.Model, path: Path, *, recipe: str, sample: bool) -> None:
    """Saves a network, and beside it as JSON what belongs to it, with its hash.

    Args:
        model: Made of stock Keras layers only, so that it loads without this package.
        path: File ending in ".keras".
        recipe: The name of the one it was trained by.
        sample: Whether it was trained on synthetic patches.
    """
    with replacing(path) as beside:
        model.save(beside)
        sha256 = hashlib.sha256(beside.read_bytes()).hexdigest()
    card = {
        "sha256": sha256,
        "image_size": list(model.input_shape[1:]),
        "threshold": 0.5,
        "recalibration": None,
        "recipe": recipe,
        "sample": sample,
    }
    with replacing(path.with_suffix(".json")) as beside:
        beside.write_text(json.dumps(card, indent=2) + "\n", encoding="utf-8")


@contextmanager
def as_scored(model: keras.Model, settling: NDArray | None) -> Iterator[None]:
    """Gives a network for a while what it is scored with, where that is not what it trains with.

    That is the moving average of its weights, where its optimizer has one, and mean and variance
    of batch normalization computed of `settling`, where there are such patches.
    """
    own = model.get_weights()
    model.optimizer.finalize_variable_values(model.trainable_variables)
    if settling is not None:
        normalization.settle(model, settling)
    try:
        yield
    finally:
        model.set_weights(own)


class EpochLog(keras.callbacks.Callback):
    """Scores every finished epoch on validation, logs it and keeps the network of the best one.

    The best epoch is the one with the highest validation ROC AUC. It measures the ranking alone,
    which is what training improves from patient to patient; loss and accuracy also move with the
    class weights and with each slide's stain, which a threshold and a recalibration can mend later.

    Attributes:
        rows: One a finished epoch, with the columns of history.csv.
        interrupted: Whether Ctrl-C left epochs to train.
    """

    def __init__(
        self,
        validation: tf.data.Dataset | None,
        labels: Sequence[int],
        *,
        run: Path | None,
        sample: bool,
        recipe: str = "published",
        settling: NDArray | None = None,
        network: keras.Model | None = None,
        checkpoints: Checkpoints | None = None,
        predict: Callable[[keras.Model, tf.data.Dataset | None], np.ndarray] = predict,
    ) -> None:
        """Takes what to score, and where to write.

        Args:
            validation: Batches of images, as `pipeline.scoring_batches` makes them; on several
                machines those of this one's share, or None.
            labels: Their labels, both classes among them.
            run: Directory for history.csv, cancernet.keras and cancernet.json; None to keep the
                log, and write and print nothing.
            sample: Whether the patches are synthetic, which cancernet.json then says.
            recipe: The name of the one trained by, which cancernet.json says, too.
            settling: Training patches of which mean and variance of batch normalization are
                computed before each scoring; None to score with the moving ones.
            network: What to save, with the weights of the trained one; by default that one itself.
            checkpoints: Where to save what it takes to go on after a stop.
            predict: Computes the probabilities of the validation patches.
        """
        super().__init__()
        self.rows: list[dict[str, float]] = []
        self.interrupted = False
        self._validation = validation
        self._labels = np.asarray(labels)
        self._run = run
        self._sample = sample
        self._recipe = recipe
        self._settling = settling
        self._network = network
        self._checkpoints = checkpoints
        self._predict = predict
        self._best_weights: list[np.ndarray] | None = None
        self._began = 0.0

    def resume(self, model: keras.Model) -> None:
        """Puts log, network and files back to the last epoch of a stopped run, if it finished one.

        Raises:
            InputError: The run was begun with other inputs, which are named.
        """
        progress = self._checkpoints.restore(model) if self._checkpoints else None
        if progress is None or self._run is None:
            return
        self.rows, self._best_weights = progress.rows, progress.best_weights
        print(f"Going on after epoch {len(self.rows)}.", flush=True)
        if self._best_weights is not None:
            # What a run ended by Ctrl-C has reported does not hold any more; and the stop may have
            # come when the network of a later epoch was saved, but not yet its checkpoint.
            (self._run / LAST_FILE).unlink(missing_ok=True)
            self._network = self._network or keras.models.clone_model(model)
            self._save_best(self._run, self._network)
            self._write_history(self._run)

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Starts the clock."""
        self._began = time.perf_counter()

    def on_epoch_end(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:
        """Scores, saves and logs."""
        assert logs is not None
        with as_scored(self.model, self._settling):
            probabilities = self._predict(self.model, self._validation)
            auc = evaluation.roc_auc(self._labels, probabilities)
            accuracy = evaluation.confusion(self._labels, probabilities, threshold=0.5).accuracy
            if auc is None or accuracy is None:
                raise DivergedError(
                    f"epoch {epoch + 1} has no ROC AUC on validation, since a class is missing or "
                    "the probabilities are no numbers"
                )
            if all(auc > row["val_roc_auc"] for row in self.rows):
                self._best_weights = self.model.get_weights()
                if self._run:
                    self._save_best(self._run, self.model)
        optimizer = getattr(self.model.optimizer, "inner_optimizer", self.model.optimizer)
        row = {
            "epoch": epoch + 1,
            "loss": logs["loss"],
            "accuracy": logs["accuracy"],
            "val_loss": evaluation.cross_entropy(self._labels, probabilities),
            "val_accuracy": accuracy,
            "val_roc_auc": auc,
            "learning_rate": float(optimizer._learning_rate(optimizer.iterations - 1)),
            "seconds": time.perf_counter() - self._began,
        }
        self.rows.append(row)
        if self._run is None:
            return
        if self._checkpoints:
            self._checkpoints.save(self.model, Progress(self.rows, self._best_weights))
            row["seconds"] = time.perf_counter() - self._began
        self._write_history(self._run)
        print(
            f"epoch {epoch + 1:>3}/{self.params['epochs']}  loss {row['loss']:.4f}  "
            f"val_loss {row['val_loss']:.4f}  val_accuracy {row['val_accuracy']:.4f}  "
            f"val_roc_auc {auc:.4f}  {row['seconds']:.0f} s",
            flush=True,
        )

    def _save_best(self, run: Path, model: keras.Model) -> None:
        assert self._best_weights is not None
        network = self._network or model
        network.set_weights(self._best_weights)
        path = run / MODEL_FILE
        save_network(network, path, recipe=self._recipe, sample=self._sample)

    def _write_history(self, run: Path) -> None:
        with (
            replacing(run / HISTORY_FILE) as beside,
            beside.open("w", newline="", encoding="utf-8") as file,
        ):
            writer = csv.DictWriter(file, fieldnames=list(self.rows[0]), lineterminator="\n")
            writer.writeheader()
            writer.writerows(self.rows)


class StopAtNoNumber(keras.callbacks.Callback):
    """Stops training within the epoch at a loss that is infinite or no number.

    Nothing better comes after it: the weights are no numbers either, or will be. (Keras' own
    TerminateOnNaN would end the epoch as if it were finished, and it would be scored and logged.)
    """

    _epoch = 0

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Remembers which epoch it is."""
        self._epoch = epoch

    def on_train_batch_end(self, batch: int, logs: Mapping[str, float] | None = None) -> None:
        """Looks at the mean loss of the epoch so far, which one such step spoils."""
        loss = (logs or {}).get("loss", 0.0)
        if not math.isfinite(loss):
            raise DivergedError(
                f"the loss became {loss} at step {batch + 1} of epoch {self._epoch + 1}"
            )


class ProgressBar(keras.callbacks.Callback):
    """A progress bar over the steps of an epoch, on stderr, silent when that is no terminal."""

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Shows an empty bar."""
        self._bar = tqdm(
            total=self.params["steps"], desc=f"Epoch {epoch + 1}", disable=None, leave=False
        )

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Moves the bar by a step."""
        self._bar.update()

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Takes the bar away."""
        self._bar.close()


class StopAtCtrlC(keras.callbacks.Callback):
    """Ends training after the step in which Ctrl-C was pressed, never while an epoch is saved."""

    def __init__(self, pressed: threading.Event) -> None:
        """Takes what says that it was pressed."""
        super().__init__()
        self._pressed = pressed

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Raises what Ctrl-C raises."""
        if self._pressed.is_set():
            raise KeyboardInterrupt
