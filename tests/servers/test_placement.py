"""Servers and trainers get GPUs of their own, or share them when told to; too few are refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.errors import RunError
from engine.servers.command import servers
from engine.servers.placement import SHARED_MEMORY, ServerGpus, gpus_of_servers


def test_servers_come_after_the_trainers():
    assert gpus_of_servers(4, 4, 8, share=False) == ServerGpus(4)


def test_servers_beside_trainers_leave_them_memory():
    assert gpus_of_servers(8, 4, 8, share=True) == ServerGpus(0, SHARED_MEMORY)


@pytest.mark.parametrize(
    ("available", "share", "message"),
    [
        (
            7,
            False,
            r"4 and servers\.count \* servers\.tp = 4 need 8 GPUs, found 7; serv",
        ),
        (3, True, r"need 4 GPUs, found 3$"),
        (3, False, r"need 8 GPUs, found 3$"),
    ],
)
def test_too_few_gpus_are_refused(available, share, message):
    with pytest.raises(RunError, match=message):
        gpus_of_servers(4, 4, available, share=share)


def test_each_server_is_told_its_first_gpu():
    described = servers(
        Path("model"),
        iter(range(9000, 9099)),
        count=2,
        port=0,
        tp=2,
        max_total_tokens=100,
        gpus=ServerGpus(4, 0.4),
        seed=0,
    )
    commands = [" ".join(server.process.command) for server in described]
    assert "--base-gpu-id 4 " in commands[0] and "--base-gpu-id 6 " in commands[1]
    assert all("--mem-fraction-static 0.4 " in command for command in commands)
