"""What training runs on: the CPU, every GPU of the machine, or several workers.

TensorFlow's MultiWorkerMirroredStrategy carries several workers. A broken connection, or else
missing heartbeats, tell it that one is gone, and fail what waits for it.
"""

from __future__ import annotations

import faulthandler
import functools
import os
import signal
import threading
from collections.abc import Callable, Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from cancernet.cli import InputError
from cancernet.recipe import Recipe
from cancernet.training.run import Run
from cancernet.training.workers import Workers

JOIN_SECONDS = 30  # How long TensorFlow may take to join workers that have met.
# TensorFlow's ten seconds of silence take a worker for dead that is merely busy.
HEARTBEAT_SECONDS = 60

# The first GPUs with units for float16 products (NVIDIA's "compute capability" of Volta, 2017).
HALF_PRECISION_CAPABILITY = (7, 0)


def set_seed(seed: int, *, deterministic: bool) -> None:
    """Fixes all random numbers and, if wanted, has TensorFlow round the same in every run."""
    keras.utils.set_random_seed(seed)
    if deterministic:
        tf.config.experimental.enable_op_determinism()


def strategy(workers: Workers, run: Run) -> tf.distribute.Strategy:
    """Gives the strategy under which to build and train, and says which it is.

    Several workers meet and join first; no other operation of TensorFlow may come before.

    Raises:
        InputError: Workers have not come in time, cannot be joined, or differ in their inputs.
    """
    if workers.count > 1:
        workers.meet(run)
        joined = _join(workers)
        chief = "" if workers.is_chief else f"; {workers.names([0])} alone writes output"
        print(f"Training on {workers.count} workers{chief}", flush=True)
        return joined
    gpus = tf.config.list_logical_devices("GPU")
    if len(gpus) > 1:
        print(f"Training on {len(gpus)} GPUs", flush=True)
        return tf.distribute.MirroredStrategy([gpu.name for gpu in gpus])
    print("Training on " + ("the GPU" if gpus else f"the CPU, {os.cpu_count()} cores"), flush=True)
    return tf.distribute.get_strategy()


def mixed_precision(precision: str) -> bool:
    """Says whether to compute in float16 and float32 mixed; "auto": if all GPUs have the units."""
    if precision != "auto":
        return precision == "mixed"
    gpus = tf.config.list_physical_devices("GPU")
    details = [tf.config.experimental.get_device_details(gpu) for gpu in gpus]
    capabilities = [each.get("compute_capability", (0, 0)) for each in details]
    return bool(gpus) and min(capabilities) >= HALF_PRECISION_CAPABILITY


def begin(model: keras.Model, run: Run, workers: Workers, recipe: Recipe, patches: int) -> None:
    """Puts a model back to where its run was, and makes its `fit` work on all devices.

    The model was built and compiled under the strategy; `patches` are those of the training split.
    """
    run.restore(model)
    if recipe.batch_size > patches:
        run.notes.append(
            f"BATCH_SIZE is {recipe.batch_size}, more than the {patches} training patches: an "
            "epoch is one step"
        )
    strategy = model.distribute_strategy
    if strategy.num_replicas_in_sync > 1:
        # Otherwise `fit` makes optimizer and metrics with the first batch, and fails on uneven
        # shares of it.
        one = np.zeros((1, *model.input_shape[1:]), np.float32)
        with strategy.scope():
            model.optimizer.build(model.trainable_variables)
            model._symbolic_build(data_batch=(one, np.ones((1, 2)), np.ones(1)))
    if workers.count > 1:
        _adapt(model)
        run.notes.append(
            f"trained on {workers.count} workers, each normalizing its own share of a batch"
        )


def predict(model: keras.Model, batches: tf.data.Dataset) -> NDArray[np.float32]:
    """Computes the probability of class 1, shape (patches,), in their order.

    Of several workers, each that calls this scores all patches itself.
    """
    if not _is_of_workers(model):
        return model.predict(batches, verbose=0)[:, 1]
    return np.concatenate([_forward(model)(images).numpy() for images in batches])


@functools.lru_cache(maxsize=1)  # Traced once, used in each epoch.
def _forward(model: keras.Model) -> Callable[[tf.Tensor], tf.Tensor]:
    return tf.function(lambda images: model(images, training=False)[:, 1])


def on_any_worker(model: keras.Model, wish: bool) -> bool:
    """Tells whether any worker has a wish; all of them have to ask at the same step."""
    if not _is_of_workers(model):
        return wish
    strategy = model.distribute_strategy
    wishes = strategy.experimental_distribute_values_from_function(
        lambda _: tf.constant(wish, tf.float32)
    )
    return bool(strategy.reduce("SUM", wishes, axis=None))


def lost(workers: Workers, error: tf.errors.OpError) -> InputError | None:
    """Tells of an error of TensorFlow whether a worker is gone, and which."""
    gone = isinstance(error, tf.errors.UnavailableError | tf.errors.DeadlineExceededError)
    gone = gone or "Collective ops is aborted" in error.message
    return workers.lost(error.message) if gone and workers.count > 1 else None


# --- Several workers -----------------------------------------------------------------------------


def _join(workers: Workers) -> tf.distribute.Strategy:
    """Joins workers that have met just now."""
    # Python stands still in there, with all its threads; this one is C's, and the last resort.
    faulthandler.dump_traceback_later(JOIN_SECONDS + 10, exit=True)
    try:
        _set_heartbeat(workers)
        return tf.distribute.MultiWorkerMirroredStrategy()
    except tf.errors.OpError as error:
        raise InputError(
            f"TensorFlow could not join the machines of TF_CONFIG ({error.message}): expected that "
            "each can reach the others. Look for one that ended, a port in use or a firewall."
        ) from error
    finally:
        faulthandler.cancel_dump_traceback_later()
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, signal.SIG_DFL)  # TensorFlow would swallow it.


def _set_heartbeat(workers: Workers) -> None:
    """Configures the service that watches the workers as the strategy would, but for the times.

    TensorFlow has no public way to do so.
    """
    from tensorflow.compiler.xla.tsl.protobuf import coordination_config_pb2
    from tensorflow.python.eager import context

    jobs = [kind for kind, _ in workers.tasks]
    context.context().configure_coordination_service(
        service_type="standalone",
        service_leader=f"/job:{jobs[0]}/replica:0/task:0",
        cluster_register_timeout_in_ms=JOIN_SECONDS * 1000,
        heartbeat_timeout_in_ms=HEARTBEAT_SECONDS * 1000,
        coordinated_jobs=[
            coordination_config_pb2.CoordinatedJob(name=kind, num_tasks=jobs.count(kind))
            for kind in dict.fromkeys(jobs)
        ],
    )


def _adapt(model: keras.Model) -> None:
    """Makes Keras' `fit` work on several workers, each with batches of its own shard."""
    strategy, train_step, fit = model.distribute_strategy, model.train_step, model.fit

    # Keras reduces the metrics of a step, which are scalars, over their first axis (keras issue
    # 20585). And it looks at a first batch in a way that only works on one machine.
    model.train_step = lambda batch: {name: its[None] for name, its in train_step(batch).items()}
    model._maybe_symbolic_build = lambda iterator: None

    def fit_shares(
        batches: tf.data.Dataset, *, class_weight: Mapping[int, float] | None, **how: Any
    ) -> None:
        shares = _shares(batches, class_weight or {}, devices=len(strategy.extended.worker_devices))
        fit(strategy.distribute_datasets_from_function(lambda _: shares), **how)

    model.fit = fit_shares


def _shares(
    batches: tf.data.Dataset, class_weight: Mapping[int, float], *, devices: int
) -> tf.data.Dataset:
    """Parts each batch of a worker among its devices, and gives each patch its class's weight."""
    by_class = [class_weight.get(label, 1.0) for label in (0, 1)]

    def part(images: tf.Tensor, targets: tf.Tensor) -> tf.data.Dataset:
        arrays = (images, targets, tf.linalg.matvec(targets, by_class))
        count = tf.shape(images, tf.int64)[0]

        def of_device(number: tf.Tensor) -> tuple[tf.Tensor, ...]:
            first, end = number * count // devices, (number + 1) * count // devices
            return tuple(array[first:end] for array in arrays)

        return tf.data.Dataset.range(devices).map(of_device)

    # Without an end, so that the workers need not tell each other at each step that there is more.
    return batches.flat_map(part).prefetch(tf.data.AUTOTUNE).repeat()


def _is_of_workers(model: keras.Model) -> bool:
    return isinstance(model.distribute_strategy, tf.distribute.MultiWorkerMirroredStrategy)
