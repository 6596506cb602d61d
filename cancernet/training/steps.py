"""Training steps of our own, for machines that train together: Keras' `fit` fails there.

(keras issue 20585: the metrics of a step come back one a replica.) A step is what `fit` does in
one, and the same callbacks are called.
"""

import threading
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from cancernet.training.team import Team


class Patches(NamedTuple):
    """How the training split is parted."""

    total: int
    batch_size: int  # Over all machines.
    steps: int  # Of an epoch; the last one takes the rest, be it more or less than a batch.

    def of_step(self, number: int) -> int:
        """Counts the patches of a step over all machines."""
        last = number == self.steps - 1
        return self.total - number * self.batch_size if last else self.batch_size


def fit(
    model: keras.Model,
    batches: tf.data.Dataset,
    team: Team,
    patches: Patches,
    *,
    initial_epoch: int,
    epochs: int,
    class_weight: dict[int, float] | None,
    callbacks: list[keras.callbacks.Callback],
    pressed: threading.Event,
    agreed: threading.Event,
) -> None:
    """Trains as `model.fit` does, on this machine's share of every batch.

    Args:
        model: Built and compiled under the team's strategy, the same on all machines.
        batches: Images and one-hot labels of this machine's shares.
        team: The machines.
        patches: Of the whole training split.
        initial_epoch: The epoch to start with, counted from 0.
        epochs: The epoch to stop before.
        class_weight: Of each class; None for 1.
        callbacks: As for `model.fit`; they get the loss and accuracy of all machines.
        pressed: Whether Ctrl-C was pressed on this machine.
        agreed: Set on all machines after the step in which it was pressed on one.
    """
    step = make_step(
        model, team, [class_weight.get(label, 1.0) if class_weight else 1.0 for label in (0, 1)]
    )
    called = keras.callbacks.CallbackList(
        callbacks, model=model, epochs=epochs, steps=patches.steps
    )
    shares = iter(batches)
    called.on_train_begin()
    for epoch in range(initial_epoch, epochs):
        sums, logs = np.zeros(3), {}
        called.on_epoch_begin(epoch)
        for number in range(patches.steps):
            called.on_train_batch_begin(number)
            images, targets = next(shares)
            whole = patches.of_step(number)
            stop, *of_step = step(images, targets, whole, pressed.is_set())
            sums += of_step
            logs = {"loss": sums[0] / sums[2], "accuracy": sums[1] / sums[2]}
            if stop:
                agreed.set()
            called.on_train_batch_end(number, logs)
        with team.strategy.scope():  # As in `fit`, which is in it all the while.
            called.on_epoch_end(epoch, logs)
    called.on_train_end()


def make_step(
    model: keras.Model, team: Team, class_weights: Sequence[float]
) -> Callable[..., tuple[float, ...]]:
    """Makes the function that takes a step on all machines.

    Args:
        model: As for `fit`.
        team: The machines.
        class_weights: By class.

    Returns:
        A function of this machine's images and targets, how many patches the whole batch has, and
        whether to stop. It tells, over all machines: how many want to stop, the weighted loss
        summed up, the patches that are right, all patches.
    """
    strategy, replicas = team.strategy, team.replicas

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
    # on all machines at the same steps, which their exchange of gradients relies on.
    @tf.function
    def of_machine(images: Any, targets: Any, stop: Any, whole: int) -> tf.Tensor:
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
        summed = of_machine(spread(images), spread(targets), wishes, whole)
        return tuple(map(float, strategy.experimental_local_results(summed)[0].numpy()))

    return step
