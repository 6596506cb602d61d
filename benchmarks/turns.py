"""Compares ways of doing one thing in one run: each in a process of its own, by turns, medians.

A machine's speed drifts, so what is compared runs A B C, A B C, ...: the ratios hold where single
times do not.
"""

import contextlib
import os
import statistics
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

GO, READY = "go", "ready"


def serve(work: Callable[[], float]) -> None:
    """Works in a worker process: once to warm up, then once at each request, until there is none.

    Args:
        work: Does it once and tells what was reached, such as patches a second.
    """

    def quietly() -> float:
        with contextlib.redirect_stdout(sys.stderr):  # What libraries print is no answer.
            return work()

    quietly()
    print(READY, flush=True)
    for _ in sys.stdin:
        print(quietly(), flush=True)
    print(peak_megabytes(), flush=True)


def peak_megabytes() -> float:
    """The most memory that this process had, in megabytes; not a number on Windows."""
    try:
        import resource
    except ImportError:
        return float("nan")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 10**6 if sys.platform == "darwin" else peak * 1024 / 10**6


class Worker:
    """A process that runs `serve`, and what it reached at each request.

    Attributes:
        reached: One number a request.
        megabytes: The most memory that the process had, once it is closed.
    """

    def __init__(
        self, script: str, *options: str | Path, environment: Mapping[str, str] | None = None
    ) -> None:
        """Starts `script` with these options and waits until it is warm."""
        self.reached: list[float] = []
        self.megabytes = float("nan")
        self._process = subprocess.Popen(
            [sys.executable, script, *map(str, options)],
            env=os.environ | dict(environment or {}),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        while self._read() != READY:
            pass  # What libraries print while it starts.

    def _read(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            sys.exit(f"{self._process.args!r} stopped: run it by hand to see why.")
        return line.strip()

    def work(self) -> None:
        """Has the process do its work once."""
        assert self._process.stdin is not None
        print(GO, file=self._process.stdin, flush=True)
        self.reached.append(float(self._read()))

    def close(self) -> None:
        """Ends the process and notes its memory."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self.megabytes = float(self._read())
        self._process.wait()


def by_turns(workers: Sequence[Worker], *, rounds: int) -> None:
    """Has all work in turn, `rounds` times, then ends them."""
    for _ in range(rounds):
        for worker in workers:
            worker.work()
    for worker in workers:
        worker.close()


def table(rows: Mapping[str, Worker], *, unit: str, base: str) -> list[str]:
    """Lays out medians, and the median over the rounds of each one's ratio to `base`."""
    lines = [
        f"| what | {unit}, median (lowest to highest) | ratio | peak memory, MB |",
        "|---|---:|---:|---:|",
    ]
    for name, worker in rows.items():
        reached = worker.reached
        ratio = statistics.median(
            mine / its for mine, its in zip(reached, rows[base].reached, strict=True)
        )
        spread = f"{min(reached):,.0f} to {max(reached):,.0f}"
        lines.append(
            f"| {name} | {statistics.median(reached):,.0f} ({spread}) | {ratio:.2f} | "
            f"{worker.megabytes:,.0f} |"
        )
    return lines
