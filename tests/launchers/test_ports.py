"""Ports are free, given once, and refused with the name of their holder."""

from __future__ import annotations

import os
import socket
from itertools import islice
from pathlib import Path

import pytest

from engine.errors import RunError
from launchers.ports import LoopbackPorts


@pytest.fixture
def taken() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield listener.getsockname()[1]


def test_no_port_is_given_twice():
    ports = list(islice(LoopbackPorts(), 2_000))
    assert len(set(ports)) == len(ports)


def test_free_ports_can_be_bound_and_are_not_for_outgoing_connections():
    outgoing = Path("/proc/sys/net/ipv4/ip_local_port_range")
    for port in islice(LoopbackPorts(), 20):
        with socket.socket() as server:
            server.bind(("127.0.0.1", port))
        assert port < int(outgoing.read_text().split()[0])


def test_a_used_port_is_refused_with_key_port_and_holder(taken: int):
    with pytest.raises(RunError, match=rf"servers\.port: port {taken} .* pid {os.getpid()} \("):
        LoopbackPorts().claim(taken, "servers.port")


def test_a_port_cannot_be_claimed_twice_in_one_run():
    ports = LoopbackPorts()
    port = next(LoopbackPorts())
    assert ports.claim(port, "servers.port") == port
    with pytest.raises(RunError, match=r"servers\.port: port .* twice"):
        ports.claim(port, "servers.port")


def test_a_port_in_time_wait_is_free():
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = listener.getsockname()[1]
        client = socket.create_connection(("127.0.0.1", port))
        served, _ = listener.accept()
        served.close()  # the side that closes first is left in TIME_WAIT
        client.close()
    assert LoopbackPorts().claim(port, "servers.port") == port
