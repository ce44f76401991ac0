"""Roles on one machine: GPUs and ports of their own, or shared; too few GPUs are refused."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.errors import RunError
from engine.run.placement import VARIABLE, Placement
from engine.run.roles import Port, Role
from launchers.placing import place
from launchers.process import Process


class CountedPorts(Iterator[int]):
    """Ports 9000, 9001, ...; ``claimed`` are those that were asked for."""

    def __init__(self) -> None:
        self._next = 9000
        self.claimed: list[tuple[int, str]] = []

    def __next__(self) -> int:
        self._next += 1
        return self._next - 1

    def claim(self, port: int, key: str) -> int:
        self.claimed.append((port, key))
        return port


def nothing(config: object, placement: Placement) -> None:
    """Do nothing."""


def trainer(count: int = 4) -> Role:
    return Role("trainer", nothing, count=count, gpus=1, ports=(Port("control", first_only=True),))


def server(count: int = 2, gpus: int = 2, *, shared: bool = False, port: int = 0) -> Role:
    return Role(
        "server",
        nothing,
        count=count,
        gpus=gpus,
        shares_gpus_with="trainer" if shared else None,
        sharing_key="servers.share_gpus",
        ports=(Port("http", number=port, key="servers.port"),),
        service=True,
    )


def placed(*roles: Role, gpus: int, ports: CountedPorts | None = None) -> list[Process]:
    return place("recipes.zero", Path("config.yaml"), roles, ports or CountedPorts(), gpus)


def placement(process: Process, monkeypatch: pytest.MonkeyPatch) -> Placement:
    monkeypatch.setenv(VARIABLE, process.env[VARIABLE])
    found = Placement.from_environment()
    assert found is not None
    return found


def devices(processes: list[Process], role: str) -> list[list[int]]:
    found = [json.loads(process.env[VARIABLE]) for process in processes]
    return [each["devices"] for each in found if each["role"] == role]


def test_trainers_get_the_first_gpus_whatever_the_order_of_roles():
    processes = placed(server(), trainer(), gpus=8)
    assert [process.name for process in processes] == [
        "server-0",
        "server-1",
        *(f"trainer-{rank}" for rank in range(4)),
    ]
    assert devices(processes, "trainer") == [[0], [1], [2], [3]]
    assert devices(processes, "server") == [[4, 5], [6, 7]]


def test_shared_gpus_are_the_trainers():
    assert devices(placed(server(shared=True), trainer(), gpus=4), "server") == [[0, 1], [2, 3]]


def test_both_sides_know_that_they_share(monkeypatch):
    processes = placed(server(shared=True), trainer(), Role("judge", nothing, gpus=1), gpus=5)
    shared = {p.name: placement(p, monkeypatch).shares_devices for p in processes}
    assert shared["server-0"] and shared["trainer-3"] and not shared["judge-0"]


def test_a_role_gets_as_many_gpus_as_the_largest_that_shares_them():
    judge = Role("judge", nothing, count=1, gpus=2)
    processes = placed(trainer(2), server(shared=True), judge, gpus=6)
    assert devices(processes, "server") == [[0, 1], [2, 3]]
    assert devices(processes, "judge") == [[4, 5]]


def test_gpus_of_a_role_that_is_not_there_cannot_be_shared():
    with pytest.raises(RunError, match="role server: no role trainer has GPUs to share"):
        placed(server(shared=True), gpus=4)


def test_without_gpus_nobody_gets_any():
    processes = placed(server(), trainer(), gpus=0)
    assert devices(processes, "server") == [[], []]
    assert devices(processes, "trainer") == [[]] * 4


@pytest.mark.parametrize(
    ("gpus", "shared", "message"),
    [
        (7, False, r"needs 8 GPUs \(trainer 4 x 1, server 2 x 2\), found 7; servers.share_gpus=tr"),
        (3, True, r"needs 4 GPUs .*, found 3$"),
        (3, False, r"needs 8 GPUs .*, found 3$"),
    ],
)
def test_too_few_gpus_are_refused(gpus, shared, message):
    with pytest.raises(RunError, match=message):
        placed(trainer(), server(shared=shared), gpus=gpus)


def test_every_process_knows_all_addresses(monkeypatch):
    processes = placed(server(), trainer(1), gpus=0)
    first, second, rank = (placement(process, monkeypatch) for process in processes)
    assert first.own_address("http") == "127.0.0.1:9000"
    assert second.own_address("http") == "127.0.0.1:9001"
    assert rank.urls("server", "http") == {
        "server-0": "http://127.0.0.1:9000",
        "server-1": "http://127.0.0.1:9001",
    }
    assert second.address("trainer", "control") == "127.0.0.1:9002"
    with pytest.raises(RunError, match="names no address of trainer/http"):
        rank.address("trainer", "http")


def test_a_fixed_port_is_claimed_for_the_first_and_the_next_follow():
    ports = CountedPorts()
    placed(server(port=30000), gpus=0, ports=ports)
    assert ports.claimed == [(30000, "servers.port"), (30001, "servers.port")]


def test_all_processes_have_one_command_line():
    commands = {process.command for process in placed(server(), trainer(), gpus=0)}
    assert len(commands) == 1
    assert commands.pop()[1:] == ("-m", "recipes.zero", "config.yaml")
