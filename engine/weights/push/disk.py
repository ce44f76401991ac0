"""Has every server load a version of the weights from a folder."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path

import aiohttp

from engine.errors import RunError
from engine.servers.endpoint import Endpoint, open_session

FLUSH_SECONDS = 10  # for a server that has nothing to do but to notice that


def update_from_disk(
    servers: Mapping[str, str], folder: Path, version: int, limit_seconds: float
) -> None:
    """Make ``folder`` the weights of all servers (name to base URL), as ``version``.

    The servers load in parallel, each once it has finished the samples it is making, and then drop
    their prefix caches: keys and values of the old weights would give log-probabilities of neither
    version. When this returns, every server has said that it has the version. A sample that is
    asked for in the meantime may still meet the old cache: ask when this has returned.

    Args:
        folder: a Hugging Face folder at a path that the servers can read.
        limit_seconds: for each server and request, the samples it still finishes included.

    Raises:
        RunError: servers died, hang, or could not load the folder; all of them are named.
    """
    asyncio.run(_update_all(servers, folder.absolute(), version, limit_seconds))


async def _update_all(
    servers: Mapping[str, str], folder: Path, version: int, limit_seconds: float
) -> None:
    async with open_session() as session:
        outcomes = await asyncio.gather(
            *(
                _update(session, Endpoint(name, url), folder, version, limit_seconds)
                for name, url in servers.items()
            ),
            return_exceptions=True,
        )
    failures = [outcome for outcome in outcomes if outcome is not None]
    for failure in failures:
        if not isinstance(failure, RunError):
            raise failure
    if failures:
        raise RunError(f"pushing weight version {version}: {'; '.join(map(str, failures))}")


async def _update(
    session: aiohttp.ClientSession,
    endpoint: Endpoint,
    folder: Path,
    version: int,
    limit_seconds: float,
) -> None:
    # To flush in the same request would be a race: a server that has just answered its last sample
    # may not have put it away yet, and SGLang 0.5.20 dies of an update that cannot flush.
    request = {"model_path": str(folder), "flush_cache": False, "weight_version": str(version)}
    answer = await endpoint.post(session, "/update_weights_from_disk", request, limit_seconds)
    if not (isinstance(answer, dict) and answer.get("success") is True):
        raise RunError(f"{endpoint} did not load {folder}: {answer}")
    await endpoint.command(session, f"/flush_cache?timeout={FLUSH_SECONDS}", limit_seconds)
    info = await endpoint.get(session, "/model_info", limit_seconds)
    if info.get("weight_version") != str(version):
        raise RunError(
            f"{endpoint} loaded {folder}, but says that it has weight version "
            f"{info.get('weight_version')!r}"
        )
