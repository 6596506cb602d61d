"""Trains on three hosts, cuts one off without a word, and goes on after that; Linux and root only.

    python tests/three_hosts.py

The hosts are network namespaces on a bridge of their own. One's cable is pulled in training: no
packet tells the others, who have to end by themselves, each with a message that names it. Then all
three go on, and what they end with is compared with training that nobody disturbed.
Needs no data set: it draws random patches.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import kill_training
import pretended

PORT, EPOCHS = 2222, 4
# From a range kept for benchmarks (RFC 2544).
HOSTS = [f"198.18.0.{host}" for host in (1, 2, 3)]
BRIDGE = "cancernet"
LIMIT_SECONDS = 120


def ip(*words: str) -> None:
    """Calls iproute2."""
    subprocess.run(["ip", *words], check=True)


@contextmanager
def hosts() -> Iterator[None]:
    """Makes the hosts and what connects them; takes them away at the end."""
    try:
        ip("link", "add", BRIDGE, "type", "bridge")
        ip("link", "set", BRIDGE, "up")
        for host, address in enumerate(HOSTS):
            name, cable = f"{BRIDGE}{host}", f"{BRIDGE}-{host}"
            ip("netns", "add", name)
            ip("link", "add", cable, "type", "veth", "peer", "name", "eth0", "netns", name)
            ip("link", "set", cable, "master", BRIDGE, "up")
            ip("-n", name, "address", "add", f"{address}/24", "dev", "eth0")
            for device in ("lo", "eth0"):
                ip("-n", name, "link", "set", device, "up")
        yield
    finally:
        for host in range(len(HOSTS)):
            subprocess.run(["ip", "netns", "delete", f"{BRIDGE}{host}"], check=False)
        subprocess.run(["ip", "link", "delete", BRIDGE], check=False)


def train(folders: list[Path], output: str, *options: str) -> list[subprocess.Popen[str]]:
    """Starts train_model.py on all hosts."""
    numbers = ["--epochs", str(EPOCHS), "--batch-size", str(kill_training.BATCH_SIZE)]
    command = [str(pretended.PROJECT / "train_model.py"), "--output", output, *numbers, *options]
    hosts = [
        (f"{address}:{PORT}", ["ip", "netns", "exec", f"{BRIDGE}{host}"])
        for host, address in enumerate(HOSTS)
    ]
    return pretended.start_all(*[command] * len(HOSTS), folders=folders, hosts=hosts)


def cut_off(processes: list[subprocess.Popen[str]], victim: int) -> bool:
    """Pulls a host's cable after an epoch; prints what all say to it; whether all ended well."""
    assert processes[0].stdout is not None
    while not (line := processes[0].stdout.readline()).startswith("epoch"):
        if not line:
            sys.exit(f"No epoch was trained:\n{processes[0].communicate()[1]}")
    ip("link", "set", f"{BRIDGE}-{victim}", "down")
    began, well = time.monotonic(), True
    for host, process in enumerate(processes):
        try:
            _, errors = process.communicate(timeout=LIMIT_SECONDS - (time.monotonic() - began))
        except subprocess.TimeoutExpired:
            process.kill()
            _, errors = process.communicate()
        seconds = time.monotonic() - began
        said = [line for line in errors.splitlines() if line.startswith("error: ")]
        well &= process.returncode == 2 and len(said) == 1
        well &= host == victim or f"({HOSTS[victim]}:{PORT})" in "".join(said)
        print(f"host {host} ended with {process.returncode} within {seconds:.0f} s: {said}")
    ip("link", "set", f"{BRIDGE}-{victim}", "up")
    return well


def main() -> None:
    """Cuts each host off in turn."""
    argparse.ArgumentParser(description="Cut off one of three hosts in training.").parse_args()
    if sys.platform != "linux" or os.geteuid() != 0 or not shutil.which("ip"):
        sys.exit("This needs Linux, root (for network namespaces) and iproute2's `ip`.")
    problems = []
    with tempfile.TemporaryDirectory() as name, hosts():
        folder = Path(name)
        kill_training.build(folder)
        folders = pretended.copy_data(folder, len(HOSTS))
        for process in train(folders, "unbroken"):
            kill_training.finish(process)
        for victim in reversed(range(len(HOSTS))):
            output = f"cut{victim}"
            print(f"Host {victim} is cut off{', the chief' if victim == 0 else ''}.", flush=True)
            if not cut_off(train(folders, output), victim):
                problems.append(f"host {victim}: not all ended with a message that names it")
            for process in train(folders, output, "--resume"):
                kill_training.finish(process)
            found = kill_training.differences(folders[0] / "unbroken", folders[0] / output)
            problems += [f"host {victim}: {what} differs" for what in found]
    print(f"Problems: {'; '.join(problems) or 'none'}.")
    sys.exit(bool(problems))


if __name__ == "__main__":
    main()
