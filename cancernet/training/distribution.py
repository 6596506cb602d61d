"""What training runs on: the CPU, every GPU of the machine, or several workers.

TensorFlow's MultiWorkerMirroredStrategy carries several workers. A broken connection, or else
missing heartbeats, tell it that one is gone, and fail what waits for it. Everyone must come to
every collective operation here, in the same order: they wait for each other.
"""

from __future__ import annotations

import faulthandler
import functools
import json
import os
import signal
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from cancernet.cli import InputError
from cancernet.recipe import Recipe
from cancernet.training.callbacks import StopOnCtrlC
from cancernet.training.run import Run
from cancernet.training.workers import Workers

START_SECONDS = 75.0  # How long the workers that are there wait for the others.
JOIN_SECONDS = 30  # How long TensorFlow may then take to join them.
# TensorFlow's ten seconds of silence take a worker for dead that is merely busy.
HEARTBEAT_SECONDS = 60

# The first GPUs with units for float16 products (NVIDIA's "compute capability" of Volta, 2017).
HALF_PRECISION_CAPABILITY = (7, 0)


def set_seed(seed: int, *, deterministic: bool) -> None:
    """Fixes all random numbers and, if wanted, has TensorFlow round the same in every run."""
    keras.utils.set_random_seed(seed)
    if deterministic:
        tf.config.experimental.enable_op_determinism()


def strategy(workers: Workers, inputs: Mapping[str, Any]) -> tf.distribute.Strategy:
    """Gives the strategy under which to build and train, and says which it is.

    Args:
        workers: Who trains together; no other operation of TensorFlow may come before they join.
        inputs: What this worker would train with, which has to be the same on all.

    Raises:
        InputError: Workers have not come in time, cannot be joined, or differ in their inputs.
    """
    if workers.count > 1:
        joined = _join(workers)
        everyones = exchange(workers, joined, json.dumps(dict(inputs)).encode())
        workers.refuse_differences([json.loads(its) for its in everyones])
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
    """Says whether to compute in float16 and float32 mixed.

    Args:
        precision: "float32", "mixed", or "auto": mixed where every GPU has the units for it.
    """
    if precision != "auto":
        return precision == "mixed"
    gpus = tf.config.list_physical_devices("GPU")
    capabilities = [
        tf.config.experimental.get_device_details(gpu).get("compute_capability", (0, 0))
        for gpu in gpus
    ]
    return bool(gpus) and min(capabilities) >= HALF_PRECISION_CAPABILITY


def begin(model: keras.Model, run: Run, workers: Workers, *, patches: int, recipe: Recipe) -> None:
    """Makes a model's `fit` work on all devices, from where the chief's run is.

    Args:
        model: Built and compiled under the strategy.
        run: Gets the chief's history.
        workers: Who trains together.
        patches: How many the training split has.
        recipe: Its patches per step are those over all workers.
    """
    if recipe.batch_size > patches:
        run.notes.append(
            f"BATCH_SIZE is {recipe.batch_size}, more than the {patches} training patches: an "
            "epoch is one step"
        )
    strategy = model.distribute_strategy
    if workers.count > 1:
        with strategy.scope():
            model.optimizer.build(model.trainable_variables)
        copy_from_chief(workers, strategy, [*model.variables, *model.optimizer.variables])
        _move_seeds(strategy, [v for v in model.variables if v.name == "seed_generator_state"])
        state = json.dumps([run.rows, run.epochs]).encode()
        run.rows, run.epochs = json.loads(exchange(workers, strategy, state)[0])
        # Keras' own fails there: it reduces the metrics of a step, scalars, over their first axis
        # (keras issue 20585). Ours takes the same steps and calls the same callbacks.
        model.fit = _Fit(model, patches, recipe.batch_size)
        run.notes.append(
            f"trained on {workers.count} workers, each normalizing its own share of a batch"
        )
    elif strategy.num_replicas_in_sync > 1:
        # Otherwise `fit` makes the metrics with the first batch, and fails on uneven shares of it.
        model.test_on_batch(np.zeros((1, *model.input_shape[1:])), np.array([[1, 0]]))


def predict(model: keras.Model, batches: tf.data.Dataset) -> NDArray[np.float32]:
    """Computes the probability of class 1, shape (patches,), in their order.

    Of several workers, each that calls this scores all patches itself.
    """
    if not isinstance(model.distribute_strategy, tf.distribute.MultiWorkerMirroredStrategy):
        return model.predict(batches, verbose=0)[:, 1]
    return np.concatenate([_forward(model)(images).numpy() for images in batches])


@functools.lru_cache(maxsize=1)  # Traced once, used in each epoch.
def _forward(model: keras.Model) -> Callable[[tf.Tensor], tf.Tensor]:
    return tf.function(lambda images: model(images, training=False)[:, 1])


def lost(workers: Workers) -> Callable[[tf.errors.OpError], InputError | None]:
    """Makes what tells of TensorFlow's errors whether a worker is gone, and which."""

    def of_worker(error: tf.errors.OpError) -> InputError | None:
        kinds = (tf.errors.UnavailableError, tf.errors.DeadlineExceededError)
        gone = isinstance(error, kinds) or "Collective ops is aborted" in error.message
        return workers.lost(error.message) if gone and workers.count > 1 else None

    return of_worker


def exchange(workers: Workers, strategy: tf.distribute.Strategy, data: bytes) -> list[bytes]:
    """Gives everyone's bytes, of any length, by rank."""
    devices = strategy.num_replicas_in_sync // workers.count

    def gather(values: NDArray[np.int32]) -> NDArray[np.int32]:
        def of_device(context: tf.distribute.experimental.ValueContext) -> tf.Tensor:
            first = context.replica_id_in_sync_group % devices == 0
            # Not a constant, which may be one that is kept on no machine in particular.
            return tf.identity(values if first else values[:0])

        spread = strategy.experimental_distribute_values_from_function(of_device)
        return strategy.gather(spread, axis=0).numpy()

    ends = np.cumsum(gather(np.array([len(data) + 1], np.int32)))  # No worker's may be empty.
    everything = gather(np.frombuffer(data + b"\0", np.uint8).astype(np.int32)).astype(np.uint8)
    return [part[:-1].tobytes() for part in np.split(everything, ends[:-1])]


def copy_from_chief(
    workers: Workers, strategy: tf.distribute.Strategy, variables: Sequence[keras.Variable]
) -> None:
    """Gives everyone's variables the values of the chief's."""
    arrays = [np.asarray(variable.numpy()) for variable in variables]
    own = b"".join(array.tobytes() for array in arrays) if workers.is_chief else b""
    data = exchange(workers, strategy, own)[0]
    for variable, array in zip(variables, arrays, strict=True):
        its, data = data[: array.nbytes], data[array.nbytes :]
        variable.assign(np.frombuffer(its, array.dtype).reshape(array.shape))


def _move_seeds(strategy: tf.distribute.Strategy, states: Sequence[keras.Variable]) -> None:
    """Adds the number of each device to its dropout's first seeds, so that the chief's stay.

    Otherwise the first patch of every share would lose the same cells, and so on. What the chief
    saves are its own seeds, from which all others follow again.
    """

    def of_device() -> None:
        number = tf.distribute.get_replica_context().replica_id_in_sync_group
        for state in states:
            state.assign(state.value + tf.cast(tf.stack([number, 0]), state.dtype))

    tf.function(lambda: strategy.run(of_device), autograph=False)()


def _join(workers: Workers) -> tf.distribute.Strategy:
    """Waits for all workers and joins them."""
    workers.wait(START_SECONDS)
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

    TensorFlow has no public way to do so. Where its private one is gone, its own times hold.
    """
    try:
        from tensorflow.compiler.xla.tsl.protobuf import coordination_config_pb2
        from tensorflow.python.eager import context
    except ImportError:
        return
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


class _Fit:
    """Takes the place of `model.fit` on several workers."""

    def __init__(self, model: keras.Model, patches: int, batch_size: int) -> None:
        self._model = model
        self._patches = patches
        self._batch_size = batch_size

    def __call__(
        self,
        batches: tf.data.Dataset,
        *,
        epochs: int,
        initial_epoch: int,
        steps_per_epoch: int,
        class_weight: dict[int, float] | None,
        callbacks: list[keras.callbacks.Callback],
        **_: Any,
    ) -> None:
        """Trains as Keras' `fit` does, on this worker's share of every batch."""
        model = self._model
        weights = [class_weight.get(label, 1.0) if class_weight else 1.0 for label in (0, 1)]
        step = make_step(model, weights)
        pressed = next(each.pressed for each in callbacks if isinstance(each, StopOnCtrlC))
        called = keras.callbacks.CallbackList(
            callbacks, model=model, epochs=epochs, steps=steps_per_epoch
        )
        shares = iter(batches)
        model.stop_training = False
        called.on_train_begin()
        for epoch in range(initial_epoch, epochs):
            sums, logs = np.zeros(3), {}
            called.on_epoch_begin(epoch)
            for number in range(steps_per_epoch):
                called.on_train_batch_begin(number)
                done = number * self._batch_size
                last = number == steps_per_epoch - 1
                whole = self._patches - done if last else self._batch_size
                stop, *of_step = step(*next(shares), whole, pressed.is_set())
                sums += of_step
                logs = {"loss": sums[0] / sums[2], "accuracy": sums[1] / sums[2]}
                called.on_train_batch_end(number, logs | {"pressed": bool(stop)})
                if model.stop_training:
                    break
            with model.distribute_strategy.scope():  # As in `fit`, which is in it all the while.
                called.on_epoch_end(epoch, logs)
            if model.stop_training:
                break
        called.on_train_end()


def make_step(
    model: keras.Model, class_weights: Sequence[float]
) -> Callable[..., tuple[float, ...]]:
    """Makes the function that takes a training step on all workers.

    Args:
        model: Built and compiled under the strategy, the same on all workers.
        class_weights: By class.

    Returns:
        A function of this worker's images and targets, how many patches the whole batch has, and
        whether to stop. It tells, over all workers: how many want to stop, the weighted loss
        summed up, the patches that are right, all patches.
    """
    strategy = model.distribute_strategy
    replicas = strategy.num_replicas_in_sync

    def of_replica(images: tf.Tensor, targets: tf.Tensor, stop: tf.Tensor, whole: int) -> tf.Tensor:
        count = tf.cast(tf.shape(images)[0], tf.float32)
        weights = tf.linalg.matvec(targets, tf.constant(class_weights, tf.float32))
        with tf.GradientTape() as tape:
            predicted = model(images, training=True)
            loss = model.compute_loss(images, targets, predicted, weights, training=True)
            # Keras' is the mean over the share, divided by the replicas. The sum over all replicas
            # is to be the mean over the whole batch, of which the shares may differ in size.
            loss *= count * replicas / whole
            scaled = model.optimizer.scale_loss(loss)
        gradients = tape.gradient(scaled, model.trainable_variables)
        model.optimizer.apply_gradients(zip(gradients, model.trainable_variables, strict=True))
        right = tf.argmax(predicted, axis=1) == tf.argmax(targets, axis=1)
        own = [stop, loss * whole, tf.reduce_sum(tf.cast(right, tf.float32)), count]
        return tf.distribute.get_replica_context().all_reduce("SUM", tf.stack(own))

    # `whole` is a number of Python's, so that a graph is traced for each size of the whole batch:
    # on all workers at the same steps, which their exchange of gradients relies on.
    @tf.function
    def of_worker(images: Any, targets: Any, stop: Any, whole: int) -> tf.Tensor:
        return strategy.run(of_replica, (images, targets, stop, whole))

    def step(images: tf.Tensor, targets: tf.Tensor, whole: int, stop: bool) -> tuple[float, ...]:
        size = -(-whole // replicas)  # As tf.distribute shares out a batch.

        def spread(values: tf.Tensor) -> Any:
            parts = iter(range(0, whole, size))
            return strategy.experimental_distribute_values_from_function(
                lambda _: values[(first := next(parts)) : first + size]
            )

        wishes = strategy.experimental_distribute_values_from_function(
            lambda _: tf.identity(tf.cast(stop, tf.float32))
        )
        summed = of_worker(spread(images), spread(targets), wishes, whole)
        return tuple(map(float, strategy.experimental_local_results(summed)[0].numpy()))

    return step
