"""What TF_CONFIG says, and what is said where it cannot be used."""

import json
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from pretended import free_ports

from cancernet.cli import InputError
from cancernet.training import workers
from cancernet.training.workers import Workers

PORTS = free_ports(3)
A, B, C = (f"127.0.0.1:{port}" for port in PORTS)


def find(cluster: Any = None, kind: Any = "worker", index: Any = 0) -> Workers:
    content = {"cluster": cluster, "task": {"type": kind, "index": index}}
    return workers.find({"TF_CONFIG": json.dumps(content)})


@pytest.mark.parametrize("text", [None, "", " ", "{}", '{"cluster": {}}', '{"task": {}}'])
def test_without_others_this_process_trains_alone(text: str | None) -> None:
    assert workers.find({} if text is None else {"TF_CONFIG": text}) == Workers()
    assert find({"worker": [A]}).count == 1


def test_the_chief_comes_first() -> None:
    found = find({"worker": [B, C], "chief": [A]}, "worker", 1)
    assert (found.rank, found.addresses, found.is_chief) == (2, (A, B, C), False)
    assert found.names([0, 2]) == f"chief 0 ({A}), worker 1 ({C})"
    assert found.others == [0, 1]
    first = find({"worker": [A, B]}, index="0")
    assert first.is_chief


@pytest.mark.parametrize(
    ("cluster", "kind", "index", "words"),
    [
        ({"worker": [A, B]}, "worker", 2, "worker 0, worker 1"),
        ({"worker": [A, B]}, "worker", None, "Give each machine its own"),
        ({"worker": [A, B]}, "worker", True, "Give each machine its own"),
        ({"worker": [A, B]}, "worker", [1], "Give each machine its own"),
        ({"worker": [A, B]}, "chief", 0, "worker 0, worker 1"),
        ({"worker": [A, B], "ps": [C]}, "worker", 0, "the type 'ps'"),
        ({"chief": [A, B]}, "chief", 0, "as 'chief'"),
        ({"worker": A}, "worker", 0, "as 'worker'"),
        ({"worker": [A, A]}, "worker", 0, "twice"),
        ({"worker": [A, "host"]}, "worker", 0, "the address 'host'"),
        ({"worker": [A, 5]}, "worker", 0, "the address 5"),
        ({"worker": []}, "worker", 0, "no machine"),
        ([A], "worker", 0, "expected as in"),
    ],
)
def test_what_cannot_be_used_is_refused(cluster: Any, kind: Any, index: Any, words: str) -> None:
    with pytest.raises(InputError, match="TF_CONFIG") as refused:
        find(cluster, kind, index)
    assert words in str(refused.value)


@pytest.mark.parametrize("text", ["{", "[]", '{"cluster": 1}', '{"cluster": {"worker": ["a:1"]}}'])
def test_text_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="TF_CONFIG"):
        workers.find({"TF_CONFIG": text})


def test_a_port_that_is_taken_is_refused() -> None:
    with socket.create_server(("", 0)) as server:
        port = server.getsockname()[1]
        with pytest.raises(InputError, match=f"Port {port}.*its own index"):
            find({"worker": [f"127.0.0.1:{port}", A]})


def test_differences_are_named_with_the_worker() -> None:
    three = Workers(1, (("worker", 0), ("worker", 1), ("worker", 2)), (A, B, C))
    alike = {"BATCH_SIZE": 32, "manifest.csv": "ab"}
    three.refuse_differences([alike] * 3)
    with pytest.raises(InputError) as refused:
        three.refuse_differences([alike, alike, alike | {"BATCH_SIZE": 16, "new": 1}])
    text = str(refused.value)
    assert f"On worker 2 ({C}) BATCH_SIZE is 16, the chief's is 32" in text
    assert "new is 1, the chief's is None" in text
    assert "worker 1" not in text


def test_who_is_gone_is_told_by_silence_or_else_by_what_tensorflow_says() -> None:
    three = Workers(1, (("chief", 0), ("worker", 0), ("worker", 1)), (A, B, C))
    with socket.create_server(("127.0.0.1", PORTS[0])):
        assert three.answering([0, 2]) == {0}
        assert f"worker 1 ({C}) has ended" in str(three.lost(""))
        with socket.create_server(("127.0.0.1", PORTS[2])):
            named = "unhealthy: /job:worker/replica:0/task:1 and so on"
            assert f"worker 1 ({C}) has ended" in str(three.lost(named))
            assert f"chief 0 ({A}) has ended" in str(three.lost("Deadline: Heartbeat"))


def test_workers_wait_for_each_other_and_name_who_does_not_come() -> None:
    tasks = (("worker", 0), ("worker", 1), ("worker", 2))
    addresses = tuple(f"127.0.0.1:{port}" for port in free_ports(3))
    ours = [Workers(rank, tasks, addresses) for rank in range(3)]
    with ThreadPoolExecutor() as threads:
        waiting = [threads.submit(us.wait, 2.0) for us in ours[:2]]
        for each in waiting:
            with pytest.raises(InputError, match=rf"^worker 2 \({addresses[2]}\) did not come"):
                each.result()
        everyone = threading.Barrier(3)

        def come(us: Workers) -> None:
            us.wait(20.0)
            # Who has seen all is still there for the others: TensorFlow has its port from then on.
            with socket.create_server(("", int(us.addresses[us.rank].rpartition(":")[2]))):
                everyone.wait(20.0)

        for each in [threads.submit(come, us) for us in ours]:
            each.result()
