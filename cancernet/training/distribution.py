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
from collections.abc import Callable
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

    Args:
        model: Built and compiled under the strategy, the same on all workers.
        run: Gets notes on what is not as on one device.
        workers: Who trains together.
        recipe: Its patches per step are those over all workers.
        patches: How many the training split has.
    """
    run.restore(model)
    if recipe.batch_size > patches:
        run.notes.append(
            f"BATCH_SIZE is {recipe.batch_size}, more than the {patches} training patches: an "
            "epoch is one step"
        )
    if workers.count > 1:
        with model.distribute_strategy.scope():
            model.optimizer.build(model.trainable_variables)
        _move_seeds(model)
        # Keras' own fails there: it reduces the metrics of a step, scalars, over their first axis
        # (keras issue 20585). Ours takes the same steps and calls the same callbacks.
        model.fit = functools.partial(_fit, model, run, (patches, recipe.batch_size))
        run.notes.append(
            f"trained on {workers.count} workers, each normalizing its own share of a batch"
        )
    elif model.distribute_strategy.num_replicas_in_sync > 1:
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


def lost(workers: Workers, error: tf.errors.OpError) -> InputError | None:
    """Tells of an error of TensorFlow whether a worker is gone, and which."""
    kinds = (tf.errors.UnavailableError, tf.errors.DeadlineExceededError)
    gone = isinstance(error, kinds) or "Collective ops is aborted" in error.message
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


def _move_seeds(model: keras.Model) -> None:
    """Adds the number of each device to its dropout's first seeds, so that the chief's stay.

    Otherwise the first patch of every share would lose the same cells, and so on. What the chief
    saves are its own seeds, from which all others follow again.
    """
    states = [v for v in model.variables if v.name == "seed_generator_state"]

    def of_device() -> None:
        number = tf.distribute.get_replica_context().replica_id_in_sync_group
        for state in states:
            state.assign(state.value + tf.cast(tf.stack([number, 0]), state.dtype))

    tf.function(lambda: model.distribute_strategy.run(of_device), autograph=False)()


def _fit(
    model: keras.Model, run: Run, sizes: tuple[int, int], batches: tf.data.Dataset, **how: Any
) -> None:
    """Trains as Keras' `fit` does, and by its arguments, on this worker's share of every batch.

    `sizes` are the patches of an epoch and, over all workers, per step.
    """
    patches, batch_size = sizes
    steps = how["steps_per_epoch"]
    step = _make_step(model, how["class_weight"] or {})
    called = keras.callbacks.CallbackList(
        how["callbacks"], model=model, epochs=how["epochs"], steps=steps
    )
    shares = iter(batches)
    model.stop_training = False
    called.on_train_begin()
    for epoch in range(how["initial_epoch"], how["epochs"]):
        sums, logs = np.zeros(3), {}
        called.on_epoch_begin(epoch)
        for number in range(steps):
            called.on_train_batch_begin(number)
            whole = patches - number * batch_size if number == steps - 1 else batch_size
            stop, *of_step = step(*next(shares), whole, run.pressed.is_set())
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


def _make_step(
    model: keras.Model, class_weight: dict[int, float]
) -> Callable[..., NDArray[np.float32]]:
    """Makes the function that takes a training step on all workers.

    Returns:
        A function of this worker's images and targets, how many patches the whole batch has, and
        whether to stop. It tells, over all workers: how many want to stop, the weighted loss
        summed up, the patches that are right, all patches.
    """
    strategy = model.distribute_strategy
    replicas = strategy.num_replicas_in_sync
    by_class = [class_weight.get(label, 1.0) for label in (0, 1)]

    def of_replica(images: tf.Tensor, targets: tf.Tensor, stop: tf.Tensor, whole: int) -> tf.Tensor:
        count = tf.cast(tf.shape(images)[0], tf.float32)
        weights = tf.linalg.matvec(targets, tf.constant(by_class, tf.float32))
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

    def step(images: tf.Tensor, targets: tf.Tensor, whole: int, stop: bool) -> NDArray[np.float32]:
        size = -(-whole // replicas)  # As tf.distribute shares out a batch.
        distribute = strategy.experimental_distribute_values_from_function

        def spread(values: tf.Tensor) -> Any:
            parts = iter(range(0, whole, size))
            return distribute(lambda _: values[(first := next(parts)) : first + size])

        wishes = distribute(lambda _: tf.identity(tf.cast(stop, tf.float32)))
        summed = of_worker(spread(images), spread(targets), wishes, whole)
        return strategy.experimental_local_results(summed)[0].numpy()

    return step
