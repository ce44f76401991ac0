"""Client that samples groups from all servers of a run."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import aiohttp

from engine.config.servers import REQUESTS_IN_FLIGHT, connections
from engine.errors import RunError
from engine.servers.endpoint import Endpoint, open_session, quote
from engine.servers.silence import SilenceWatch

HEALTH_POLL_SECONDS = 0.25
HEALTH_ANSWER_SECONDS = 3.0
_FINISH_REASONS = ("stop", "length", "abort")


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
    """``stop`` (a stop token), ``length`` (max_new_tokens are made) or ``abort``."""
    weight_version: int
    """Of the weights that made it; the oldest, had they changed in the middle."""


@dataclass
class _Server:
    endpoint: Endpoint
    watch: SilenceWatch
    requests: int = 0  # that it has and has not answered yet
    owed: int = 0  # samples of these


class SamplingClient:
    """Client that returns a group for each prompt; made by :func:`connect`.

    A group stays on one server, where its samples share the prompt's key-value cache. It goes to
    the server that owes the fewest samples, as soon as one has room for a request.
    """

    def __init__(
        self,
        servers: Mapping[str, str],
        session: aiohttp.ClientSession,
        *,
        silence_seconds: float,
        in_flight: int,
        vocabulary_size: int | None,
    ) -> None:
        self._endpoints = [Endpoint(name, url) for name, url in servers.items()]
        self._servers = [
            _Server(endpoint, SilenceWatch(endpoint, session, silence_seconds))
            for endpoint in self._endpoints
        ]
        self._in_flight, self._silence_seconds = in_flight, silence_seconds
        self._room = asyncio.Semaphore(in_flight * len(self._servers))
        self._vocabulary_size = vocabulary_size
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

        Where every server has as many requests as it may have, this one waits here for its turn.

        Raises:
            RunError: the server died, was silent for too long, refused, answered nonsense, or
                ended an answer too early.
        """
        request = {
            "input_ids": list(prompt),
            "sampling_params": sampling.parameters(),
            "return_logprob": True,
        }
        async with self._room:
            free = [server for server in self._servers if server.requests < self._in_flight]
            server = min(free, key=lambda one: one.owed)
            server.requests += 1
            server.owed += sampling.n
            try:
                async with server.watch.request("/generate"):
                    answer = await server.endpoint.post(
                        self._session,
                        "/generate",
                        request,
                        None,
                        body_seconds=self._silence_seconds,
                    )
            finally:
                server.requests -= 1
                server.owed -= sampling.n
        return self._read(answer, server.endpoint, len(prompt), sampling)

    def _read(
        self, answer: Any, endpoint: Endpoint, prompt_tokens: int, sampling: Sampling
    ) -> list[Completion]:
        """Return the group in a server's answer; RunError if it is none."""
        try:
            group = _group(answer, sampling.n)
            for completion in group:
                _check_tokens(completion.tokens, self._vocabulary_size, sampling.max_new_tokens)
        except _NotFinite as error:
            raise RunError(
                f"{endpoint} computed no finite log-probability: it gave {error} in answer to a "
                f"prompt of {prompt_tokens} tokens; the trainer pushes no weights that are not "
                f"finite, so the server's kernels or memory are at fault; see its log"
            ) from None
        except (ValueError, TypeError, KeyError) as error:
            raise RunError(
                f"{endpoint} gave a malformed answer to /generate "
                f"({type(error).__name__}: {error}): {quote(json.dumps(answer).encode())}"
            ) from None
        for completion in group:
            made = len(completion.tokens)
            if completion.finish_reason == "length" and made < sampling.max_new_tokens:
                raise RunError(
                    f"{endpoint} has no room for a whole answer: it cut one at {made} of the "
                    f"{sampling.max_new_tokens} tokens that it may have, behind a prompt of "
                    f"{prompt_tokens}; raise servers.max_total_tokens, lower "
                    f"rollout.max_new_tokens, or leave out long prompts (the model's context is a "
                    f"limit, too)"
                )
        return group


@asynccontextmanager
async def connect(
    servers: Mapping[str, str],
    request_seconds: float,
    *,
    in_flight: int = REQUESTS_IN_FLIGHT,
    vocabulary_size: int | None = None,
) -> AsyncIterator[SamplingClient]:
    """Open a client for the servers, given as name and base URL.

    Args:
        request_seconds: how long a server may be silent while it has requests: it answers none of
            them, and is not healthy either. How long one request takes, its time in the server's
            queue included, is not limited here: who waits for a whole rollout has a limit.
        in_flight: requests that each server has at a time; more wait in the client.
        vocabulary_size: token ids of answers are below it; None: any are taken.

    Raises:
        RunError: this process may not open so many connections.
    """
    most = connections(len(servers), in_flight)
    async with open_session(most, "servers.requests_in_flight") as session:
        yield SamplingClient(
            servers,
            session,
            silence_seconds=request_seconds,
            in_flight=in_flight,
            vocabulary_size=vocabulary_size,
        )


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
    if (reason := meta["finish_reason"]["type"]) not in _FINISH_REASONS:
        raise ValueError(f"finish reason {reason!r}, expected one of {', '.join(_FINISH_REASONS)}")
    return Completion(
        tokens=tokens,
        logprobs=logprobs,
        finish_reason=reason,
        weight_version=min(int(span["version"]) for span in meta["weight_versions"]),
    )


class _NotFinite(ValueError):
    """The server's answer has a log-probability that is no finite number."""


def _log_probability(value: Any, place: int) -> float:
    """Return the log-probability of token ``place`` of a response."""
    if value is None:  # what SGLang makes of NaN and infinity, for which JSON has no number
        raise _NotFinite(f"null (NaN or infinity) at response token {place}")
    if isinstance(value, bool) or not isinstance(value, float | int):
        raise TypeError(f"log-probability {value!r} at response token {place}")
    try:
        number = float(value)
    except OverflowError:  # an integer of hundreds of digits
        number = -math.inf
    if not math.isfinite(number):
        raise _NotFinite(f"{number} at response token {place}")
    return number


def _check_tokens(tokens: Sequence[int], vocabulary_size: int | None, most: int) -> None:
    """Raise ValueError or TypeError unless these are at most so many ids of such a vocabulary."""
    if len(tokens) > most:
        raise ValueError(f"{len(tokens)} tokens, where max_new_tokens is {most}")
    for token in tokens:
        if isinstance(token, bool) or not isinstance(token, int):
            raise TypeError(f"token {token!r} is no integer")
        if token < 0 or (vocabulary_size is not None and token >= vocabulary_size):
            known = "" if vocabulary_size is None else f" of {vocabulary_size} tokens"
            raise ValueError(f"token {token} is outside the vocabulary{known}")
