"""Check a Ray cluster, and choose where its workers run."""

from __future__ import annotations

import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from service.inference import Provider

ANSWER_SECONDS = 10


class ClusterError(Exception):
    """The cluster cannot be used, or a worker of it failed."""


@dataclass(frozen=True)
class Placement:
    """Where one worker runs: on a machine, or on one GPU of it."""

    node: str
    number: int
    cpus: int
    gpus: int


def check_address(address: str) -> None:
    """Check that a cluster answers, because Ray ends the whole process if none does.

    Args:
        address: As in RAY_ADDRESS. Ray itself resolves an empty one, `auto` and `local`.

    Raises:
        ClusterError: No server listens there, or the address is of a Ray Client (`ray://`).
    """
    if "://" in address:
        raise ClusterError(f"{address}: the command must run on a machine of the cluster")
    host, colon, port = address.rpartition(":")
    if colon:
        try:
            socket.create_connection((host.strip("[]"), int(port)), ANSWER_SECONDS).close()
        except (OSError, ValueError) as error:
            raise ClusterError(f"no Ray cluster at {address}: {error}") from error


def check_ledger(nodes: Sequence[Mapping[str, Any]], url: str) -> None:
    """Check that all machines can share the ledger.

    Raises:
        ClusterError: There are several, and the ledger is a file: network file systems do not keep
            its locks.
    """
    machines = {node["NodeManagerHostname"] for node in nodes if node["Alive"]}
    if len(machines) > 1 and url.startswith("sqlite"):
        raise ClusterError(
            f"{len(machines)} machines cannot share a ledger in a file: --ledger postgresql+..."
        )


def placements(nodes: Sequence[Mapping[str, Any]], provider: Provider) -> list[Placement]:
    """One placement for each machine with a free core, or for each GPU.

    Args:
        nodes: As `ray.nodes` returns them.
        provider: Where the network runs.
    """
    found = []
    for node in nodes:
        resources = node["Resources"] if node["Alive"] else {}
        gpus = 0 if provider == "cpu" else int(resources.get("GPU", 0))
        workers = 1 if provider == "cpu" else gpus
        cpus = int(resources.get("CPU", 0)) // max(workers, 1)
        if cpus:
            found += [
                Placement(node["NodeID"], number, cpus, min(gpus, 1)) for number in range(workers)
            ]
    return found
