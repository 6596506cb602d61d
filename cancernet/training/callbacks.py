"""What happens while the network is fitted: epochs scored and kept, progress, early ends."""

from __future__ import annotations

import math
import signal
import sys
import threading
import time
from collections.abc import Mapping
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

    The best epoch is the one with the highest validation ROC AUC. It measures the ranking alone,
    which is what training improves from patient to patient; loss and accuracy also move with the
    class weights and with each slide's stain, which a threshold and a recalibration can mend later.
    """

    def __init__(
        self,
        run: Run,
        recipe: Recipe,
        batches: tf.data.Dataset,
        labels: NDArray[np.integer],
        reestimation: NDArray[np.float32] | None = None,
    ) -> None:
        """Takes what to score, and where to keep it.

        Args:
            run: Gets the epoch's row, its checkpoint and, if it is the best so far, its weights.
            recipe: Knows the learning rate of each step.
            batches: Images of the validation split, as `pipeline.scoring_batches` makes them.
            labels: Their labels, both classes among them.
            reestimation: Training patches to re-estimate batch normalization by before each
                scoring; None to score with the moving mean and variance.
        """
        super().__init__()
        self._run, self._batches, self._labels = run, batches, labels
        self._learning_rates, self._reestimation = recipe.learning_rates(), reestimation

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Starts the clock."""
        self._began = time.perf_counter()

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Scores, logs and saves; an epoch that was not finished is dropped."""
        run = self._run
        if run.stopped:
            return
        own = self.model.get_weights()
        if self._reestimation is not None:
            reestimate(self.model, self._reestimation)
        probabilities = predict(self.model, self._batches)
        area = metrics.roc_auc(self._labels, probabilities)
        if area is None:
            run.stop(
                f"epoch {epoch + 1} has no ROC AUC on validation, since a class is missing or the "
                "probabilities are NaN or infinite",
                diverged=True,
            )
            self.model.stop_training = True
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
        self._run = run
        self._before: Any = None

    def on_train_begin(self, logs: Any = None) -> None:
        """Listens for Ctrl-C."""

        def note(_signal: int, _frame: object) -> None:
            self._run.pressed.set()
            signal.signal(signal.SIGINT, signal.default_int_handler)

        if threading.current_thread() is threading.main_thread():
            self._before = signal.signal(signal.SIGINT, note)

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Ends training; on several workers, where it was pressed on any of them."""
        run = self._run
        if on_any_worker(self.model, run.pressed.is_set()) and not run.stopped:
            run.stop(CTRL_C)
            self.model.stop_training = True

    def on_train_end(self, logs: Any = None) -> None:
        """Lets Ctrl-C be what it was."""
        if self._before is not None:
            signal.signal(signal.SIGINT, self._before)


class StopOnNaN(keras.callbacks.Callback):
    """Stops training within the epoch at a loss that is NaN or infinite.

    Nothing better comes after it: the weights are NaN, too, or will be. (Keras' own TerminateOnNaN
    would end the epoch as if it were finished, and it would be scored and logged.)
    """

    def __init__(self, run: Run) -> None:
        """Takes the run, which notes why it was stopped."""
        super().__init__()
        self._run = run

    def on_train_batch_end(self, batch: int, logs: Mapping[str, float] | None = None) -> None:
        """Looks at the mean loss of the epoch so far, which one such step spoils."""
        run, loss = self._run, (logs or {}).get("loss", 0.0)
        if not math.isfinite(loss) and not run.stopped:
            where = f"at step {batch + 1} of epoch {run.epoch + 1}"
            run.stop(f"the loss became {loss} {where}", diverged=True)
            self.model.stop_training = True


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
