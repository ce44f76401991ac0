"""Push weights through a folder: the trainer writes it, and every server loads it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import aiohttp
import torch.distributed as dist

from engine.errors import RunError
from engine.servers.endpoint import Endpoint, open_session, quote
from engine.weights.versions import remove_versions, version_folder

if TYPE_CHECKING:  # it needs megatron, and who only has servers load a folder does not
    from engine.weights.export import Exporter

_log = logging.getLogger(__name__)

FLUSH_SECONDS = 10  # for a server that has nothing to do but to notice that
REQUESTS = 3
"""Number of requests that an update sends to each server, one after the other."""


class DiskPush:
    """Pushes weights as a folder; of the pushed versions only the newest stays on the disk.

    Built and called by all trainer ranks together; see :class:`engine.weights.push.WeightPush`.
    """

    def __init__(
        self, exporter: Exporter, folder: Path, servers: Mapping[str, str], limit_seconds: float
    ) -> None:
        """Write nothing yet.

        Args:
            exporter: of the policy.
            folder: for this alone; a version becomes a folder in it. On a file system that all
                trainer ranks and servers share.
            servers: name -> base URL; rank 0 speaks to them.
            limit_seconds: see :func:`update_from_disk`.
        """
        self._exporter, self._folder = exporter, folder
        self._servers, self._limit = servers, limit_seconds
        # The other ranks wait as long as the servers may take, which can be longer than a
        # collective of training may.
        patience = timedelta(seconds=REQUESTS * limit_seconds + 60)
        self._group = dist.new_group(timeout=patience, backend="gloo")

    def __call__(self, version: int) -> None:
        """Give all servers the weights as they are now, as ``version``, and wait until they do.

        Raises:
            RunError: see :meth:`Exporter.export` and :func:`update_from_disk`; the same sentence
                on all ranks.
        """
        place = version_folder(self._folder, version)
        self._exporter.export(place, durable=False)  # after a power cut the servers are gone, too
        failure: list[str | None] = [None]
        if dist.get_rank() == 0:
            failure = [self._reason_against(place, version)]
        dist.broadcast_object_list(failure, src=0, group=self._group)
        if failure[0] is not None:
            raise RunError(failure[0])
        if dist.get_rank() == 0:
            remove_versions(self._folder, keep=version)

    def _reason_against(self, place: Path, version: int) -> str | None:
        """Have the servers load ``place``; return why one did not, None if all did."""
        try:
            update_from_disk(self._servers, place, version, self._limit)
        except RunError as error:
            return str(error)
        except Exception as error:
            _log.exception("a push failed")
            return f"pushing weight version {version}: {type(error).__name__}: {error}"
        return None


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
    async with open_session(len(servers)) as session:
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
        raise RunError(f"{endpoint} did not load {folder}: {quote(str(answer))}")
    await endpoint.command(session, f"/flush_cache?timeout={FLUSH_SECONDS}", limit_seconds)
    info = await endpoint.get(session, "/model_info", limit_seconds)
    found = info.get("weight_version") if isinstance(info, dict) else info
    if found != str(version):
        raise RunError(
            f"{endpoint} loaded {folder}, but says that it has weight version {quote(repr(found))}"
        )
