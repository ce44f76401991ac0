"""Section ``servers``: the SGLang servers that sample."""

from __future__ import annotations

from pydantic import Field, ValidationInfo, field_validator

from engine.config.section import Seconds, Section

HIGHEST_PORT = 65535
REQUESTS_IN_FLIGHT = 256
"""Default of ``requests_in_flight``: keeps a server busy also where a group is one sample."""


class ServersConfig(Section):
    """Number, ports, GPUs, time limits and key-value cache of the servers."""

    count: int = Field(ge=1, description="servers to start")
    port: int = Field(
        0, ge=0, le=HIGHEST_PORT, description="of the first server, then port + 1, ...; 0: any free"
    )
    tp: int = Field(1, ge=1, description="tensor parallel size of each server")
    share_gpus: bool = Field(
        False,
        description="servers on the trainers' GPUs, with 40 % of their memory, not on those "
        "after them (never run)",
    )
    start_seconds: Seconds = Field(
        180, description="limit in seconds until all servers are healthy"
    )
    request_seconds: Seconds = Field(
        120,
        description="limit in seconds of a server's silence: with requests waiting, it answers "
        "none of them and not even /health; and of each request of a weight push",
    )
    requests_in_flight: int = Field(
        REQUESTS_IN_FLIGHT,
        ge=1,
        description="requests that each server has at a time; more wait in the sampler, without a "
        "limit of time",
    )
    max_total_tokens: int = Field(
        ge=1, description="tokens, of all requests together, that a server's KV cache holds"
    )

    @field_validator("port")
    @classmethod
    def _last_port_exists(cls, port: int, info: ValidationInfo) -> int:
        count = info.data.get("count")
        if port and count and port + count - 1 > HIGHEST_PORT:
            raise ValueError(
                f"expected room for {count} consecutive ports, found {port}; nearest possible: "
                f"{HIGHEST_PORT + 1 - count}"
            )
        return port

    @property
    def connections(self) -> int:
        """Connections that the sampler has at the same time, at most."""
        return connections(self.count, self.requests_in_flight)


def connections(servers: int, in_flight: int) -> int:
    """Return how many connections there may be to so many servers; one more each for its health."""
    return servers * (in_flight + 1)
