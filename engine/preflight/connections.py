"""Check that the sampler may open as many connections as it will have to the servers."""

from __future__ import annotations

from collections.abc import Iterable

from engine.config.servers import ServersConfig
from engine.errors import RunError
from engine.platform.open_files import require_open_files
from engine.preflight.finding import Finding
from engine.preflight.sections import Sections


def check(sections: Sections) -> Iterable[Finding]:
    """Hold ``servers.requests_in_flight`` against the open files that a process may have here."""
    servers = sections.get("servers", ServersConfig)
    if servers is None:
        return
    try:
        require_open_files(servers.connections, f"{servers.connections:,} connections to servers")
    except RunError as error:
        yield Finding(("servers", "requests_in_flight"), f"{error}, or lower this")
