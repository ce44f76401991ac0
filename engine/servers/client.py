"""Client that samples groups from all servers of a run."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import aiohttp
import orjson

from engine.errors import RunError
from engine.servers.endpoint import Endpoint, open_session, quote

HEALTH_POLL_SECONDS = 0.25
HEALTH_ANSWER_SECONDS = 3.0


@dataclass(frozen=True)
class Sampling:
    """Sampling parameters of a group."""

    n: int
    """Samples per prompt: the group's size."""
    max_new_tokens: int
    temperature: float
    """0 is greedy. Log-probabilities come back after division of the logits by it."""
    stop_token_ids: tuple[int, ...]
    """A sample ends with the first of these, which is its last token."""
    top_p: float = 1.0

    def parameters(self) -> dict[str, Any]:
        """Return SGLang's ``sampling_params``."""
        return {
            "n": self.n,
            "max_new_tokens": self.max_new_tokens,
            "temperature": self.temperature,
            "stop_token_ids": list(self.stop_token_ids),
            "top_p": self.top_p,
            "top_k": -1,
        }


@dataclass(frozen=True)
class Completion:
    """One sample of a group as the server made it."""

    tokens: list[int]
    logprobs: list[float]
    """In nats, one per token, under the distribution that the token was drawn from."""
    finish_reason: str
    """``stop`` (a stop token), ``length`` (max_new_tokens reached) or ``abort``."""
    weight_version: int
    """Of the weights that made it; the oldest, had they changed in the middle."""


class SamplingClient:
    """Client that returns a group for each prompt; made by :func:`connect`.

    A group stays on one server, where its samples share the prompt's key-value cache. It goes to
    the server that owes the fewest samples.
    """

    def __init__(
        self, servers: Mapping[str, str], request_seconds: float, session: aiohttp.ClientSession
    ) -> None:
        self._endpoints = [Endpoint(name, url) for name, url in servers.items()]
        self._owed = [0] * len(self._endpoints)  # samples asked for and not yet answered
        self._request_seconds = request_seconds
        self._session = session

    async def wait_until_healthy(
        self, limit_seconds: float, progress: Callable[[str], None]
    ) -> None:
        """Return when every server is healthy; all are asked at the same time.

        Args:
            limit_seconds: for all of them together, from now.
            progress: called, whenever it changes, with a server's state: "server-1: healthy".

        Raises:
            RunError: the limit passed; names every server that is not ready and its last word.
        """
        words = [""] * len(self._endpoints)

        async def watch(index: int, endpoint: Endpoint) -> None:
            while words[index] != "healthy":
                word = await endpoint.health(self._session, HEALTH_ANSWER_SECONDS)
                if word != words[index]:
                    words[index] = word
                    progress(f"{endpoint.name}: {word}")
                if word != "healthy":
                    await asyncio.sleep(HEALTH_POLL_SECONDS)

        try:
            async with asyncio.timeout(limit_seconds), asyncio.TaskGroup() as group:
                for index, endpoint in enumerate(self._endpoints):
                    group.create_task(watch(index, endpoint))
        except TimeoutError:
            missing = [
                f"{endpoint} {word or 'has not answered'}"
                for endpoint, word in zip(self._endpoints, words, strict=True)
                if word != "healthy"
            ]
            raise RunError(
                f"not every server was ready within {limit_seconds:g} s: {'; '.join(missing)}"
            ) from None

    async def generate(self, prompt: Sequence[int], sampling: Sampling) -> list[Completion]:
        """Return one group: ``sampling.n`` completions of the prompt's token ids.

        Raises:
            RunError: the server died, did not answer in time, refused, or answered nonsense.
        """
        index = self._owed.index(min(self._owed))
        endpoint = self._endpoints[index]
        request = {
            "input_ids": list(prompt),
            "sampling_params": sampling.parameters(),
            "return_logprob": True,
        }
        self._owed[index] += sampling.n
        try:
            answer = await endpoint.post(self._session, "/generate", request, self._request_seconds)
        finally:
            self._owed[index] -= sampling.n
        try:
            return _group(answer, sampling.n)
        except _NotFinite as error:
            raise RunError(
                f"{endpoint} computed no finite log-probability: it gave {error} in answer to a "
                f"prompt of {len(prompt)} tokens; the trainer pushes no weights that are not "
                f"finite, so the server's kernels or memory are at fault; see its log"
            ) from None
        except (ValueError, TypeError, KeyError) as error:
            raise RunError(
                f"{endpoint} gave a malformed answer to /generate "
                f"({type(error).__name__}: {error}): {quote(orjson.dumps(answer))}"
            ) from None


@asynccontextmanager
async def connect(
    servers: Mapping[str, str], request_seconds: float
) -> AsyncIterator[SamplingClient]:
    """Open a client for the servers, given as name and base URL.

    ``request_seconds`` is the time in which a server must have answered a request for a group,
    the time in its queue included.
    """
    async with open_session() as session:
        yield SamplingClient(servers, request_seconds, session)


def _group(answer: Any, n: int) -> list[Completion]:
    """Read the answer of /generate; ValueError, TypeError or KeyError where it is malformed."""
    samples = [answer] if isinstance(answer, dict) else answer  # n = 1: no list
    if len(samples) != n:
        raise ValueError(f"{len(samples)} samples instead of {n}")
    return [_completion(sample) for sample in samples]


def _completion(sample: Mapping[str, Any]) -> Completion:
    meta = sample["meta_info"]
    tokens = sample["output_ids"]
    entries = meta["output_token_logprobs"]  # [[log-probability, token id, None], ...]
    if [token for _, token, _ in entries] != tokens:
        raise ValueError("output_token_logprobs is of other tokens than output_ids")
    logprobs = [_log_probability(entry[0], place) for place, entry in enumerate(entries)]
    return Completion(
        tokens=tokens,
        logprobs=logprobs,
        finish_reason=meta["finish_reason"]["type"],
        weight_version=min(int(span["version"]) for span in meta["weight_versions"]),
    )


class _NotFinite(Exception):
    """The server's answer has a log-probability that is no finite number."""


def _log_probability(value: Any, place: int) -> float:
    """Return the log-probability of token ``place`` of a response."""
    if value is None:  # what SGLang makes of NaN and infinity, for which JSON has no number
        raise _NotFinite(f"null (NaN or infinity) at response token {place}")
    if not isinstance(value, float | int):
        raise TypeError(f"log-probability {value!r} at response token {place}")
    return float(value)
