"""What happens while the network is fitted: epochs scored and kept, progress, early ends."""

from __future__ import annotations

import math
import signal
import sys
import threading
import time
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray
from tqdm import tqdm

from cancernet.evaluation import metrics
from cancernet.recipe import Recipe
from cancernet.training.distribution import on_any_worker, predict
from cancernet.training.fused import reestimate
from cancernet.training.run import CTRL_C, Run

MINUTE = 60.0  # Seconds between two lines on a long epoch.


class Validate(keras.callbacks.Callback):
    """Scores every finished epoch on validation, logs it, and keeps what is best and needed next.

    Where the recipe says so, what is scored and kept are means of the weights over epochs, which
    rank patients never seen more evenly than those of one epoch do (P. Izmailov et al. 2018,
    Averaging weights leads to wider optima and better generalization, UAI).

    The best epoch is the one with the highest validation ROC AUC. It measures the ranking alone,
    which is what training improves from patient to patient; loss and accuracy also move with the
    class weights and with each slide's stain, which a threshold and a recalibration can mend later.

    A loss that is NaN or infinite ends training within the epoch: the weights are NaN, too, or will
    be. (Keras' own TerminateOnNaN would end the epoch as if it were finished and to be scored.)
    """

    def __init__(
        self,
        run: Run,
        recipe: Recipe,
        batches: tf.data.Dataset,
        labels: NDArray[np.integer],
        reestimation: NDArray[np.float32] | None = None,
    ) -> None:
        """Takes the validation split's images and labels, and the run that keeps what comes of it.

        Before each scoring batch normalization is re-estimated by `reestimation`, training patches
        as float32 in [0, 1]; None leaves it the moving mean and variance.
        """
        super().__init__()
        self._run, self._batches, self._labels = run, batches, labels
        self._learning_rates, self._reestimation = recipe.learning_rates(), reestimation
        self._averaging = recipe.averaging

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Starts the clock."""
        self._began = time.perf_counter()

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Looks at the mean loss of the epoch so far, which one such step spoils."""
        if not math.isfinite(loss := logs["loss"]):
            where = f"at step {batch + 1} of epoch {self._run.epoch + 1}"
            self._run.stop(self.model, f"the loss became {loss} {where}")

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Scores, logs and saves; an epoch that was not finished is dropped."""
        run = self._run
        if run.stopped:
            return
        own = self.model.get_weights()
        if self._averaging > 1:
            share = max(1 / (epoch + 1), 1 / self._averaging)
            both = zip(run.mean or own, own, strict=True)
            run.mean = [mean + share * (latest - mean) for mean, latest in both]
            self.model.set_weights(run.mean)
        if self._reestimation is not None:
            reestimate(self.model, self._reestimation)
        probabilities = predict(self.model, self._batches)
        area = metrics.roc_auc(self._labels, probabilities)
        if area is None:
            why = "since a class is missing or the probabilities are NaN or infinite"
            run.stop(self.model, f"epoch {epoch + 1} has no ROC AUC on validation, {why}")
            return
        if all(area > row["val_roc_auc"] for row in run.rows):
            run.best_weights = self.model.get_weights()
        self.model.set_weights(own)
        optimizer = getattr(self.model.optimizer, "inner_optimizer", self.model.optimizer)
        rates = metrics.confusion(self._labels, probabilities, threshold=0.5).rates()
        row = {
            "epoch": epoch + 1,
            "loss": logs["loss"],
            "accuracy": logs["accuracy"],
            "val_loss": metrics.cross_entropy(self._labels, probabilities),
            "val_accuracy": rates["accuracy"],
            "val_roc_auc": area,
            "learning_rate": float(self._learning_rates(int(optimizer.iterations.numpy()) - 1)),
        }
        run.save(self.model, row, began=self._began)
        if run.output:
            print(
                f"epoch {epoch + 1:>3}/{run.epochs}  loss {row['loss']:.4f}  "
                f"val_loss {row['val_loss']:.4f}  val_accuracy {row['val_accuracy']:.4f}  "
                f"val_roc_auc {area:.4f}  {row['seconds']:.0f} s",
                flush=True,
            )


class StopOnCtrlC(keras.callbacks.Callback):
    """Ends training after the step in which Ctrl-C was pressed; a second one stops at once.

    Never while an epoch is saved. Signals reach the main thread alone: elsewhere nothing changes.
    """

    def __init__(self, run: Run) -> None:
        """Takes the run, which notes that it was stopped."""
        super().__init__()
        self._run, self._pressed = run, False
        self._before: Any = None

    def on_train_begin(self, logs: Any = None) -> None:
        """Listens for Ctrl-C."""

        def note(_signal: int, _frame: object) -> None:
            self._pressed = True
            signal.signal(signal.SIGINT, signal.default_int_handler)

        if threading.current_thread() is threading.main_thread():
            self._before = signal.signal(signal.SIGINT, note)

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Ends training; on several workers, where it was pressed on any of them."""
        if on_any_worker(self.model, self._pressed):
            self._run.stop(self.model, CTRL_C)

    def on_train_end(self, logs: Any = None) -> None:
        """Lets Ctrl-C be what it was."""
        if self._before is not None:
            signal.signal(signal.SIGINT, self._before)


class Progress(keras.callbacks.Callback):
    """A bar over the steps of an epoch, on stderr; a line a minute where that is no terminal."""

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Shows an empty bar."""
        self._what, self._told = f"Epoch {epoch + 1}", time.monotonic()
        total = self.params["steps"]
        self._bar = tqdm(total=total, desc=self._what, disable=None, leave=False)

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Moves the bar by a step, or says how far the epoch is."""
        self._bar.update()
        if self._bar.disable and time.monotonic() - self._told >= MINUTE:
            self._told = time.monotonic()
            steps = f"{batch + 1:,} of {self.params['steps']:,}"
            print(f"{self._what}: step {steps}", file=sys.stderr, flush=True)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Takes the bar away."""
        self._bar.close()
