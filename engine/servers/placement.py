"""Which GPUs of one machine the servers compute on."""

from __future__ import annotations

from dataclasses import dataclass

from engine.errors import RunError

SHARED_MEMORY = 0.4
"""Part of a GPU's memory that a server takes beside a trainer rank. Never run."""


@dataclass(frozen=True)
class ServerGpus:
    """GPUs ``first`` and following, one after the other for each rank of each server.

    Attributes:
        memory: a server's part of each GPU's memory; None: SGLang's choice.
    """

    first: int
    memory: float | None = None


def gpus_of_servers(trainers: int, wanted: int, available: int, *, share: bool) -> ServerGpus:
    """Place the servers after the trainers, which have a GPU each, or beside them.

    Args:
        trainers: number of trainer ranks; rank n computes on GPU n.
        wanted: GPUs of all servers together.
        available: GPUs of this machine.
        share: whether both may compute on the same.

    Raises:
        RunError: there are too few.
    """
    needed = max(trainers, wanted) if share else trainers + wanted
    if needed > available:
        helps = not share and max(trainers, wanted) <= available
        instead = "; servers.share_gpus=true puts both on the same" if helps else ""
        raise RunError(
            f"layout.processes = {trainers} and servers.count * servers.tp = {wanted} need "
            f"{needed} GPUs, found {available}{instead}"
        )
    return ServerGpus(0, SHARED_MEMORY) if share else ServerGpus(trainers)
