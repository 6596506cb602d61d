"""What TF_CONFIG says, how workers meet, and what is said where they do not."""

import json
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import keras
import pytest
from conftest import recipe_of
from pretended import free_ports

from cancernet.cli import InputError
from cancernet.training import workers
from cancernet.training.run import Run
from cancernet.training.workers import Workers

PORTS = free_ports(3)
A, B, C = (f"127.0.0.1:{port}" for port in PORTS)
TASKS = (("worker", 0), ("worker", 1), ("worker", 2))


def find(cluster: Any = None, kind: Any = "worker", index: Any = 0) -> Workers:
    content = {"cluster": cluster, "task": {"type": kind, "index": index}}
    return workers.find({"TF_CONFIG": json.dumps(content)})


def test_without_others_this_process_trains_alone_else_the_chief_comes_first() -> None:
    for text in (" ", "{}", '{"cluster": {}}', '{"task": {}}'):
        assert workers.find({"TF_CONFIG": text}) == workers.find({}) == Workers()
    assert find({"worker": [A]}).count == 1
    found = find({"worker": [B, C], "chief": [A]}, "worker", 1)
    assert (found.rank, found.addresses, found.is_chief) == (2, (A, B, C), False)
    assert found.names([0, 2]) == f"chief 0 ({A}), worker 1 ({C})"
    assert find({"worker": [A, B]}, index="0").is_chief


@pytest.mark.parametrize(
    ("cluster", "kind", "index", "words"),
    [
        ({"worker": [A, B]}, "worker", 2, "worker 2, which is none of worker 0, worker 1"),
        ({"worker": [A, B]}, "worker", None, "an index and an address of its own"),
        ({"worker": [A, B], "ps": [C]}, "worker", 0, "of type 'ps'"),
        ({"worker": [A, "host"]}, "worker", 0, "'host'"),
        ({"worker": A}, "worker", 0, "expected as in"),
        ({"worker": []}, "worker", 0, "none of"),
        ([A], "worker", 0, "expected as in"),
    ],
)
def test_what_cannot_be_used_is_refused(cluster: Any, kind: Any, index: Any, words: str) -> None:
    with pytest.raises(InputError, match=r"^TF_CONFIG is ") as refused:
        find(cluster, kind, index)
    assert words in str(refused.value)


def test_what_is_no_json_and_a_port_that_is_taken_are_refused() -> None:
    with pytest.raises(InputError, match=r"^TF_CONFIG is {"):
        workers.find({"TF_CONFIG": "{"})
    with socket.create_server(("", 0)) as server:
        port = server.getsockname()[1]
        with pytest.raises(InputError, match=rf"Port {port}.*its own index"):
            find({"worker": [f"127.0.0.1:{port}", A]})


# --- Meeting -------------------------------------------------------------------------------------


def meet(*inputs: dict[str, Any], chief: Run | None = None) -> list[Any]:
    """Lets the first of three meet, with these inputs; gives their runs, or what refused them."""
    addresses = tuple(f"127.0.0.1:{port}" for port in free_ports(3))
    runs = [Run(None, epochs=3, inputs=its) for its in inputs]
    runs[0] = chief or runs[0]

    def come(rank: int) -> Run | str:
        while rank == 1 and not workers._answers(addresses[0]):  # A stranger knocks, and goes.
            time.sleep(0.05)
        try:
            Workers(rank, TASKS, addresses).meet(runs[rank])
        except InputError as refused:
            return str(refused)
        return runs[rank]

    with ThreadPoolExecutor() as threads:
        found = list(threads.map(come, range(len(inputs))))
    return [each.replace(addresses[2], C) if isinstance(each, str) else each for each in found]


def test_all_go_on_from_the_chiefs_run(tmp_path: Path) -> None:
    inputs = {"SEED": 1}
    chief = Run(tmp_path, epochs=3, inputs=inputs)
    model = keras.Sequential([keras.Input((1000,)), keras.layers.Dense(1000)])
    model.compile(recipe_of().optimizer())
    chief.best_weights = model.get_weights()
    chief.save(model, {"epoch": 1}, began=0)
    for run in meet(inputs, inputs, inputs, chief=chief)[1:]:
        assert [row["epoch"] for row in run.rows] == [1]
        assert run.best_weights[0].tobytes() == chief.best_weights[0].tobytes()


def test_all_refuse_differences_and_name_them() -> None:
    alike = {"BATCH_SIZE": 32, "manifest.csv": "ab"}
    found = meet(alike, alike, alike | {"BATCH_SIZE": 16, "new": 1})
    assert found[0] == found[1] == found[2]
    assert f"On worker 2 ({C}) BATCH_SIZE is 16, the chief's is 32; new is 1" in found[0]
    assert "On worker 1" not in found[0]


def test_who_does_not_come_is_named_by_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "START_SECONDS", 2.0)
    for refusal in meet({}, {}):
        assert refusal.startswith(f"worker 2 ({C}) did not come within 2 seconds")
    with pytest.raises(InputError, match=rf"^worker 0 \({A}\) did not come"):
        Workers(1, TASKS, (A, B, C)).meet(Run(None, epochs=1))


def test_who_is_gone_is_told_by_silence_or_else_by_what_tensorflow_says() -> None:
    three = Workers(1, (("chief", 0), ("worker", 0), ("worker", 1)), (A, B, C))
    with socket.create_server(("127.0.0.1", PORTS[0])):
        assert f"worker 1 ({C}) has ended" in str(three.lost(""))
        with socket.create_server(("127.0.0.1", PORTS[2])):
            named = "unhealthy: /job:worker/replica:0/task:1 and so on"
            assert str(three.lost(named)).startswith(f"worker 1 ({C}) has ended")
            assert str(three.lost("Heartbeat")).startswith("Another worker has ended")
