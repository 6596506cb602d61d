"""Machines that train together, pretended: processes on loopback, each in a folder of its own."""

import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

PROJECT = Path(__file__).parents[1]


def free_ports(count: int) -> list[int]:
    """Finds ports that nobody has."""
    taken = [socket.create_server(("", 0)) for _ in range(count)]
    ports = [server.getsockname()[1] for server in taken]
    for server in taken:
        server.close()
    return ports


def tf_config(addresses: Sequence[str], index: int) -> str:
    """Makes what TF_CONFIG is on one machine."""
    task = {"type": "worker", "index": index}
    return json.dumps({"cluster": {"worker": list(addresses)}, "task": task})


def start_all(
    *commands: Sequence[str | Path],
    folders: Sequence[Path],
    hosts: Sequence[tuple[str, Sequence[str]]] | None = None,
) -> list[subprocess.Popen[str]]:
    """Starts a Python command on each machine.

    `hosts` are addresses, and what runs a command there; else ports of loopback that are free now.
    """
    hosts = hosts or [(f"127.0.0.1:{port}", ()) for port in free_ports(len(commands))]
    addresses = [address for address, _ in hosts]
    # Other tests may have settled in this process how much TensorFlow says.
    plain = {name: text for name, text in os.environ.items() if name != "TF_CPP_MIN_LOG_LEVEL"}
    return [
        subprocess.Popen(
            [*hosts[index][1], sys.executable, *map(str, command)],
            cwd=folder,
            env=plain | {"TF_CONFIG": tf_config(addresses, index), "PYTHONPATH": str(PROJECT)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            encoding="utf-8",
        )
        for index, (command, folder) in enumerate(zip(commands, folders, strict=True))
    ]


def copy_data(folder: Path, machines: int) -> list[Path]:
    """Gives each machine a folder of its own with a copy of the data set."""
    folders = [folder / f"machine{index}" for index in range(machines)]
    for each in folders:
        shutil.copytree(folder / "datasets/idc", each / "datasets/idc")
    return folders
