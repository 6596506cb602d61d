"""Who trains together: what TF_CONFIG says, and how they meet. Loads without TensorFlow.

TF_CONFIG is the variable that Slurm scripts, Kubeflow and Ray Train set for TensorFlow.
"""

import io
import json
import re
import socket
import time
from collections.abc import Iterable, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from typing import Any

from cancernet.cli import InputError
from cancernet.training.run import Run, differences

VARIABLE = "TF_CONFIG"
TYPES = ("chief", "worker")  # In this order they are counted; the first one is the chief.

START_SECONDS = 75.0  # How long the first who comes waits for the others.
ANSWER_SECONDS = 5.0  # How long a worker that is there may take to accept a connection.
SEND_SECONDS = 60.0  # How long the state of a run may take to be sent.
LOOK_SECONDS = 0.5  # How often to look whether the chief is there.

EXPECTED = (
    'as in {"cluster": {"worker": ["host0:2222", "host1:2222"]}, "task": {"type": "worker", '
    '"index": 0}}, with an index and an address of its own for each process. Set it so, or unset '
    "it to train on one machine."
)


@dataclass(frozen=True)
class Workers:
    """The processes that train together, one a machine, and which of them this one is."""

    rank: int = 0  # Of this process; 0 is the chief, who alone writes output.
    tasks: tuple[tuple[str, int], ...] = ()  # What TF_CONFIG calls each, as ("worker", 0), by rank.
    addresses: tuple[str, ...] = ()  # Host and port of each, by rank; none where it trains alone.

    @property
    def count(self) -> int:
        """How many there are, this one among them."""
        return max(1, len(self.addresses))

    @property
    def is_chief(self) -> bool:
        """Whether this one writes what there is to write."""
        return self.rank == 0

    def names(self, ranks: Iterable[int]) -> str:
        """Names workers for a message, such as "worker 1 (host1:2222)"."""
        tasks = [(*self.tasks[rank], self.addresses[rank]) for rank in ranks]
        return ", ".join(f"{kind} {index} ({address})" for kind, index, address in tasks)

    def meet(self, run: Run) -> None:
        """Waits for all workers, compares what they train with, and hands out the chief's run.

        TensorFlow itself would wait without end, deaf to Ctrl-C, and name nobody.

        Raises:
            InputError: On all workers, naming who did not come or differs from the chief.
        """
        deadline = time.monotonic() + START_SECONDS
        way = self._receive if self.is_chief else self._call_chief
        if problem := way(run, deadline):
            raise InputError(problem)

    def _call_chief(self, run: Run, deadline: float) -> str:
        """Waits for the chief's answer: a problem or, where there is none, its checkpoint."""
        while (left := deadline - time.monotonic()) > 0:
            hello = json.dumps({"rank": self.rank, "left": left, "inputs": run.inputs})
            with (
                suppress(OSError),
                socket.create_connection(_place(self.addresses[0]), ANSWER_SECONDS) as connection,
                connection.makefile("rwb") as stream,
            ):
                connection.settimeout(left + SEND_SECONDS)
                stream.write(hello.encode() + b"\n")
                stream.flush()
                answer, checkpoint = stream.readline(), stream.read()
                if checkpoint:
                    run.take(io.BytesIO(checkpoint))
                if answer:  # Else the chief is gone again.
                    return json.loads(answer)
            time.sleep(LOOK_SECONDS)
        return self._absent([0])

    def _receive(self, run: Run, deadline: float) -> str:
        """Is called by the other workers, and answers them all at once."""
        came: dict[int, socket.socket] = {}
        inputs = {0: run.inputs}
        with ExitStack() as opened, _listen(self.addresses[0]) as server:
            while len(inputs) < self.count and (left := deadline - time.monotonic()) > 0:
                server.settimeout(left)
                # Whoever else connects, be it to see whether somebody is there, says no JSON.
                with suppress(OSError, ValueError):
                    connection = opened.enter_context(server.accept()[0])
                    connection.settimeout(ANSWER_SECONDS)
                    with connection.makefile("rb") as stream:
                        hello = json.loads(stream.readline())
                    came[hello["rank"]], inputs[hello["rank"]] = connection, hello["inputs"]
                    deadline = min(deadline, time.monotonic() + hello["left"])
            absent = [rank for rank in range(self.count) if rank not in inputs]
            problem = self._absent(absent) if absent else self._differences(inputs)
            answer = json.dumps(problem).encode() + b"\n" + (b"" if problem else run.checkpoint())
            for connection in came.values():
                with suppress(OSError):
                    connection.settimeout(SEND_SECONDS)
                    connection.sendall(answer)
        return problem

    def _absent(self, ranks: Iterable[int]) -> str:
        return (
            f"{self.names(ranks)} did not come within {START_SECONDS:.0f} seconds. Start the same "
            f"command on every machine that {VARIABLE} names; what one that ended printed says why."
        )

    def _differences(self, inputs: Mapping[int, Mapping[str, Any]]) -> str:
        """Names each worker that differs from the chief in what it trains with, and in what."""
        problems = [
            f"On {self.names([rank])} {differing}. "
            for rank, its in sorted(inputs.items())
            if (differing := differences(its, inputs[0], "{} is {}, the chief's is {}"))
        ]
        way_on = (
            "Workers train together with the same configuration, data set and packages alone: make "
            f"them those of the chief, {self.names([0])}."
        )
        return "".join([*problems, way_on]) if problems else ""

    def lost(self, reason: str) -> InputError:
        """Makes the message on workers that died or were cut off: those that do not answer.

        Where all do, those that TensorFlow's reason names.
        """
        others = [rank for rank in range(self.count) if rank != self.rank]
        task = "/job:{}/replica:0/task:{}\\b"
        gone = [rank for rank in others if not _answers(self.addresses[rank])] or [
            rank for rank in others if re.search(task.format(*self.tasks[rank]), reason)
        ]
        have = "have" if len(gone) > 1 else "has"
        return InputError(
            f"{self.names(gone) or 'Another worker'} {have} ended or cannot be reached "
            "any more; what it printed last may say why. Once that is mended, start the command "
            "with --resume on every machine: it goes on after the last finished epoch."
        )


def find(environment: Mapping[str, str]) -> Workers:
    """Reads TF_CONFIG of an environment: this process alone where it names no more than one.

    Raises:
        InputError: It cannot be used, or this process's port is taken.
    """
    text = environment.get(VARIABLE, "").strip() or "{}"
    try:
        workers = _parse(json.loads(text))
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise InputError(f"{VARIABLE} is {text} ({error}): expected {EXPECTED}") from error
    if workers.count > 1:
        _listen(workers.addresses[workers.rank]).close()
    return workers


def _parse(content: Any) -> Workers:
    cluster = content.get("cluster") or {}
    if unknown := cluster.keys() - set(TYPES):
        raise ValueError(f"every machine trains here, none is of type {min(unknown)!r}")
    tasks = [(kind, index) for kind in TYPES for index in range(len(cluster.get(kind, [])))]
    addresses = [address for kind in TYPES for address in cluster.get(kind, [])]
    for address in addresses:
        _place(address)
    if not cluster:
        return Workers()
    own = (content["task"]["type"], int(content["task"]["index"]))  # Some scripts quote it.
    if own not in tasks:
        known = ", ".join(f"{kind} {index}" for kind, index in tasks)
        raise ValueError(f"this machine is {own[0]} {own[1]}, which is none of {known}")
    return Workers(tasks.index(own), tuple(tasks), tuple(addresses)) if tasks[1:] else Workers()


def _place(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    return host.strip("[]"), int(port)


def _listen(address: str) -> socket.socket:
    _, port = _place(address)
    try:
        return socket.create_server(("", port), backlog=128)
    except (OSError, OverflowError) as error:
        raise InputError(
            f"Port {port} of this machine, which {VARIABLE} gives it, cannot be had ({error}): "
            "another process has it, be it one with the same index. Give each machine its own "
            "index, or take another port."
        ) from error


def _answers(address: str) -> bool:
    with suppress(OSError), socket.create_connection(_place(address), ANSWER_SECONDS):
        return True
    return False
