"""Connections to the servers, held against what this process may open."""

from __future__ import annotations

import resource

import pytest

from engine.config.servers import ServersConfig
from engine.preflight.connections import check
from engine.preflight.sections import Sections


@pytest.mark.parametrize(("count", "in_flight", "wrong"), [(2, 7, False), (4, 10**7, True)])
def test_more_connections_than_open_files_are_refused_before_a_start(
    count: int, in_flight: int, wrong: bool
):
    if resource.getrlimit(resource.RLIMIT_NOFILE)[1] in (resource.RLIM_INFINITY, 2**30):
        pytest.skip("no hard limit of open files here")
    servers = ServersConfig(count=count, max_total_tokens=9, requests_in_flight=in_flight)
    found = list(check(Sections({"servers": servers}, print)))
    assert [one.key for one in found] == [("servers", "requests_in_flight")] * wrong
    if wrong:
        assert "40,000,004 connections to servers need 40,000,260 open files" in found[0].says


def test_a_recipe_without_servers_needs_none():
    assert list(check(Sections({}, print))) == []
