"""What machines that train together do as one: join, tell each other things, score, step.

TensorFlow's MultiWorkerMirroredStrategy carries it all. A broken connection, or else missing
heartbeats, tell it that a machine is gone, and fail what waits for it. Everyone must come to every
call here, in the same order: they wait for each other.
"""

import faulthandler
import json
import signal
import threading
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray
from tensorflow.compiler.xla.tsl.protobuf import coordination_config_pb2
from tensorflow.python.eager import context

from cancernet.cli import InputError
from cancernet.training.machines import Machines, refuse_differences

START_SECONDS = 75.0  # How long the machines that are there wait for the others.
JOIN_SECONDS = 30  # How long TensorFlow may then take to join them.
# TensorFlow's ten seconds of silence take a machine for dead that is merely busy.
HEARTBEAT_SECONDS = 60

Item = TypeVar("Item")


class Team:
    """The machines, joined.

    Attributes:
        machines: Who they are.
        strategy: Under which to build and train.
        replicas: Devices over all machines, each of which takes its share of every batch.
    """

    def __init__(self, machines: Machines, strategy: tf.distribute.Strategy) -> None:
        """Takes what `join` made."""
        self.machines = machines
        self.strategy = strategy
        self.replicas: int = strategy.num_replicas_in_sync
        self._forward: tuple[keras.Model, Any] | None = None  # Traced once, used each epoch.

    def exchange(self, data: bytes) -> list[bytes]:
        """Gives everyone's bytes, of any length, by rank."""
        rank, count = self.machines.rank, len(self.machines.addresses)
        own_length = np.zeros(count, np.int64)
        own_length[rank] = len(data)
        lengths = self._sum(own_length)
        words = -(-lengths // 8)
        ends = np.cumsum(words)
        own = np.zeros(ends[-1], np.int64)
        padded = data.ljust(words[rank] * 8, b"\0")
        own[ends[rank] - words[rank] : ends[rank]] = np.frombuffer(padded, np.int64)
        everything = self._sum(own) if ends[-1] else own
        return [
            everything[end - size : end].tobytes()[:length]
            for end, size, length in zip(ends, words, lengths, strict=True)
        ]

    def from_chief(self, data: bytes) -> bytes:
        """Gives the chief's bytes; what the others hand in is not looked at."""
        return self.exchange(data if self.machines.is_chief else b"")[0]

    def _sum(self, values: NDArray[np.int64]) -> NDArray[np.int64]:
        """Adds up whole numbers over the machines, the same shape on each."""
        devices = self.replicas // len(self.machines.addresses)

        def of_device(context: tf.distribute.experimental.ValueContext) -> tf.Tensor:
            first = context.replica_id_in_sync_group % devices == 0
            # Not a constant, which may be one that is kept on no machine in particular.
            return tf.identity(values if first else np.zeros_like(values))

        spread = self.strategy.experimental_distribute_values_from_function(of_device)
        return self.strategy.reduce("SUM", spread, axis=None).numpy()

    def compare(self, inputs: Mapping[str, Any]) -> None:
        """Refuses to train where a machine's configuration, data set or packages differ.

        Raises:
            InputError: On every machine, naming those that differ, and in what.
        """
        everyones = self.exchange(json.dumps(dict(inputs)).encode())
        refuse_differences(self.machines, [json.loads(its) for its in everyones])

    def begin(self, model: keras.Model, rows: list[dict[str, float]]) -> list[dict[str, float]]:
        """Puts everyone's network and optimizer where the chief's are; dropout differs, though.

        Args:
            model: Built and compiled under the strategy.
            rows: The chief's log, which may be one to go on with.

        Returns:
            The chief's log.
        """
        with self.strategy.scope():
            model.optimizer.build(model.trainable_variables)
        self.copy([*model.variables, *model.optimizer.variables])
        # Otherwise the first patch of every share would lose the same cells, and so on. What the
        # chief saves are its own seeds, from which all others follow again.
        self._move_seeds([v for v in model.variables if v.name == "seed_generator_state"])
        return json.loads(self.from_chief(json.dumps(rows).encode()))

    def copy(self, variables: Sequence[keras.Variable]) -> None:
        """Gives everyone's variables the values of the chief's."""
        arrays = [np.asarray(variable.numpy()) for variable in variables]
        data = self.from_chief(b"".join(array.tobytes() for array in arrays))
        for variable, array in zip(variables, arrays, strict=True):
            own, data = data[: array.nbytes], data[array.nbytes :]
            variable.assign(np.frombuffer(own, array.dtype).reshape(array.shape))

    def _move_seeds(self, states: Sequence[keras.Variable]) -> None:
        """Adds the number of each device to its first seeds, so that the chief's stay."""

        def of_device() -> None:
            number = tf.distribute.get_replica_context().replica_id_in_sync_group
            for state in states:
                state.assign(state.value + tf.cast(tf.stack([number, 0]), state.dtype))

        tf.function(lambda: self.strategy.run(of_device), autograph=False)()

    def share(self, items: Sequence[Item], *, batch_size: int) -> Sequence[Item]:
        """Gives the items that this machine scores: whole batches, so that all are as on one."""
        rank, count = self.machines.rank, len(self.machines.addresses)
        batches = -(-len(items) // batch_size)
        first, end = (batches * number // count * batch_size for number in (rank, rank + 1))
        return items[first:end]

    def predict(self, model: keras.Model, batches: tf.data.Dataset | None) -> np.ndarray:
        """Computes the probabilities of a split, each machine those of its share of the patches.

        Args:
            model: The same on all machines.
            batches: Images of this machine's share; None where it has none.

        Returns:
            Of class 1, float32 in [0, 1], in the order of all patches.
        """
        if self._forward is None or self._forward[0] is not model:
            self._forward = (model, tf.function(lambda images: model(images, training=False)[:, 1]))
        own = [self._forward[1](images).numpy() for images in batches or ()]
        everyones = self.exchange(np.concatenate([np.zeros(0, np.float32), *own]).tobytes())
        return np.frombuffer(b"".join(everyones), np.float32)


def join(machines: Machines) -> Team:
    """Waits for all machines and joins them; no other operation of TensorFlow may come before.

    Raises:
        InputError: Some have not come in time, and are named; or they cannot be joined.
    """
    machines.wait(START_SECONDS)
    # Python stands still in there, with all its threads; this one is C's, and the last resort.
    faulthandler.dump_traceback_later(JOIN_SECONDS + 10, exit=True)
    try:
        _settle_waiting(machines)
        return Team(machines, tf.distribute.MultiWorkerMirroredStrategy())
    except tf.errors.OpError as error:
        raise InputError(
            f"TensorFlow could not join the machines of TF_CONFIG ({error.message}): expected that "
            "each can reach the others. Look for one that ended, a port in use or a firewall."
        ) from error
    finally:
        faulthandler.cancel_dump_traceback_later()
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, signal.SIG_DFL)  # TensorFlow would swallow it.


def _settle_waiting(machines: Machines) -> None:
    """Configures the service that watches the machines as the strategy would, but for the times.

    TensorFlow has no public way to do so.
    """
    jobs = [kind for kind, _ in machines.tasks]
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
