"""Who trains together: what TF_CONFIG says, who answers, what differs. Loads without TensorFlow.

TF_CONFIG is the variable that Slurm scripts, Kubeflow and Ray Train set for TensorFlow, such as
{"cluster": {"worker": ["host0:2222", "host1:2222"]}, "task": {"type": "worker", "index": 0}}.
"""

import json
import re
import socket
import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from cancernet.cli import InputError

VARIABLE = "TF_CONFIG"
TYPES = ("chief", "worker")  # In this order they are counted; the first one is the chief.

ANSWER_SECONDS = 5.0  # How long a worker that is there may take to accept a connection.
LOOK_SECONDS = 0.5  # How often to look who is there.

EXPECTED = (
    'expected as in {"cluster": {"worker": ["host0:2222", "host1:2222"]}, '
    '"task": {"type": "worker", "index": 0}}. Set it so, or unset it to train on one machine.'
)


@dataclass(frozen=True)
class Workers:
    """The processes that train together, one a machine, and which of them this one is.

    Attributes:
        rank: Of this process, from 0, the chief, who alone writes output.
        tasks: What TF_CONFIG calls each, such as ("worker", 0), by rank.
        addresses: Host and port of each, by rank; none where this process trains alone.
    """

    rank: int = 0
    tasks: tuple[tuple[str, int], ...] = ()
    addresses: tuple[str, ...] = ()

    @property
    def count(self) -> int:
        """How many there are."""
        return max(1, len(self.addresses))

    @property
    def is_chief(self) -> bool:
        """Whether this one writes what there is to write."""
        return self.rank == 0

    @property
    def others(self) -> list[int]:
        """The ranks of all but this one."""
        return [rank for rank in range(self.count) if rank != self.rank]

    def names(self, ranks: Iterable[int]) -> str:
        """Names workers for a message, such as "worker 1 (host1:2222)"."""
        return ", ".join(
            f"{kind} {index} ({self.addresses[rank]})"
            for rank in ranks
            for kind, index in [self.tasks[rank]]
        )

    def answering(self, ranks: Sequence[int]) -> set[int]:
        """Finds out which of some workers accept a connection now."""
        with ThreadPoolExecutor(max_workers=len(ranks) or 1) as threads:
            answers = threads.map(lambda rank: _answers(self.addresses[rank]), ranks)
            return {rank for rank, answer in zip(ranks, answers, strict=True) if answer}

    def wait(self, seconds: float) -> None:
        """Waits until every other worker has been here once, at this one's port or after that.

        TensorFlow itself would wait for an hour, deaf to Ctrl-C, and name nobody.

        Raises:
            InputError: Naming those that did not come.
        """
        seen: set[int] = set()
        deadline = time.monotonic() + seconds
        with _listen(self.addresses[self.rank]):
            while missing := [rank for rank in self.others if rank not in seen]:
                if time.monotonic() > deadline:
                    raise InputError(
                        f"{self.names(missing)} did not come within {seconds:.0f} seconds. Start "
                        "the same command on every machine that TF_CONFIG names; what one that "
                        "ended printed says why."
                    )
                seen |= self.answering(missing)
                time.sleep(LOOK_SECONDS)

    def lost(self, reason: str) -> InputError:
        """Makes the message on workers that died or were cut off.

        Args:
            reason: TensorFlow's, which may name tasks; those that do not answer come first.
        """
        found = set(self.others) - self.answering(self.others)
        if not found:
            found = {rank for rank in self.others if _is_named(*self.tasks[rank], reason)}
        if not found and not self.is_chief:
            found = {0}  # Who does not answer the heartbeats of a worker is the chief.
        have = "have" if len(found) > 1 else "has"
        return InputError(
            f"{self.names(sorted(found)) or 'Another worker'} {have} ended or cannot be reached "
            "any more; what it printed last may say why. Once that is mended, start the command "
            "with --resume on every machine: it goes on after the last finished epoch."
        )

    def refuse_differences(self, inputs: Sequence[Mapping[str, Any]]) -> None:
        """Compares what each worker would train with: configuration, versions and the like.

        Raises:
            InputError: Naming each worker that differs from the chief, and in what.
        """
        chiefs, problems = inputs[0], []
        for rank, its in enumerate(inputs):
            differing = [
                f"{name} is {its.get(name)!r}, the chief's is {chiefs.get(name)!r}"
                for name in sorted(its.keys() | chiefs.keys())
                if its.get(name) != chiefs.get(name)
            ]
            if differing:
                problems.append(f"On {self.names([rank])} {'; '.join(differing)}.")
        if problems:
            raise InputError(
                f"{' '.join(problems)} Workers train together with the same configuration, data "
                f"set and packages alone: make them those of the chief, {self.names([0])}."
            )


def find(environment: Mapping[str, str]) -> Workers:
    """Reads TF_CONFIG and checks it.

    Args:
        environment: Of the process, `os.environ`.

    Returns:
        The workers; this process alone where TF_CONFIG names no more than one, or is not set.

    Raises:
        InputError: It cannot be used, or this process's port is taken.
    """
    text = environment.get(VARIABLE, "").strip()
    try:
        content = json.loads(text or "{}")
    except ValueError as error:
        raise InputError(f"{VARIABLE} is no JSON ({error}): {EXPECTED}") from error
    if not isinstance(content, dict) or not isinstance(content.get("cluster", {}), dict):
        raise InputError(f"{VARIABLE} is {text}: {EXPECTED}")
    if not content.get("cluster"):
        return Workers()
    tasks, addresses = _read_cluster(content["cluster"])
    rank = _read_task(content.get("task"), tasks)
    if len(tasks) == 1:
        return Workers()
    _listen(addresses[rank]).close()
    return Workers(rank, tasks, addresses)


def _read_cluster(
    cluster: Mapping[str, Any],
) -> tuple[tuple[tuple[str, int], ...], tuple[str, ...]]:
    """Gives tasks and addresses by rank."""
    if unknown := sorted(cluster.keys() - set(TYPES)):
        raise InputError(
            f"{VARIABLE} has machines of the type {', '.join(map(repr, unknown))}: expected "
            "'worker', and at most one 'chief'. Every machine trains here, none has another job."
        )
    tasks, addresses = [], []
    for kind in TYPES:
        listed = cluster.get(kind, [])
        if not isinstance(listed, list) or (kind == "chief" and len(listed) > 1):
            raise InputError(f"{VARIABLE} has {listed!r} as {kind!r}: {EXPECTED}")
        tasks += [(kind, index) for index in range(len(listed))]
        addresses += listed
    for address in addresses:
        if not (isinstance(address, str) and re.fullmatch(r"[^\s/]+:\d{1,5}", address)):
            raise InputError(f"{VARIABLE} has the address {address!r}: {EXPECTED}")
        if addresses.count(address) > 1:
            raise InputError(
                f"{VARIABLE} has the address {address} twice: expected one process at each. "
                "Give each its own host or port."
            )
    if not addresses:
        raise InputError(f"{VARIABLE} names no machine: {EXPECTED}")
    return tuple(tasks), tuple(addresses)


def _read_task(task: object, tasks: Sequence[tuple[str, int]]) -> int:
    """Gives this process's rank."""
    own = (task.get("type"), task.get("index")) if isinstance(task, dict) else (None, None)
    if isinstance(own[1], str) and own[1].isdecimal():  # As scripts write it who quote all.
        own = (own[0], int(own[1]))
    if type(own[1]) is not int or own not in tasks:
        known = ", ".join(f"{kind} {index}" for kind, index in tasks)
        raise InputError(
            f'{VARIABLE} has {task!r} as "task", which says who this machine is: expected the type '
            f"and index of one of {known}. Give each machine its own."
        )
    return tasks.index(own)


def _listen(address: str) -> socket.socket:
    port = _port(address)
    try:
        return socket.create_server(("", port), backlog=128)
    except (OSError, OverflowError) as error:
        raise InputError(
            f"Port {port} of this machine, which {VARIABLE} gives it, cannot be had ({error}): "
            "another process has it, be it one with the same index. Give each machine its own "
            "index, or take another port."
        ) from error


def _port(address: str) -> int:
    return int(address.rpartition(":")[2])


def _answers(address: str) -> bool:
    place = (address.rpartition(":")[0].strip("[]"), _port(address))
    try:
        socket.create_connection(place, timeout=ANSWER_SECONDS).close()
    except OSError:
        return False
    return True


def _is_named(kind: str, index: int, reason: str) -> bool:
    """Whether one of TensorFlow's messages names a task."""
    return bool(re.search(rf"/job:{kind}/(replica:\d+/)?task:{index}\b", reason))
