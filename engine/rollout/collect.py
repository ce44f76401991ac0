"""Collect the groups of one step: ask, reward each group as it comes, store it.

Groups that a previous start has stored are not asked again, and no prompt is ever skipped: a step
is whole, or the run stops with the prompt named that could not be completed.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from engine.errors import RunError
from engine.platform.waiting import first_error_itself
from engine.rewards.reward import Answer
from engine.rewards.reward_function import RewardFunction
from engine.rollout.sample import Sample
from engine.rollout.store import FinishedGroup, RolloutStore, StepSummary
from engine.servers.client import Completion, Sampling

_NAMED = 8  # group ids in a heartbeat, before it says "and so many more"


class Generator(Protocol):
    """Where groups come from; :class:`engine.servers.client.SamplingClient` in a run."""

    async def generate(self, prompt: Sequence[int], sampling: Sampling) -> list[Completion]:
        """Return ``sampling.n`` completions; RunError if its server dies or is silent."""
        ...


@dataclass(frozen=True)
class GroupRequest:
    """A prompt to be answered by a group of samples."""

    prompt_id: str
    prompt: str  # the problem as text, without the template around it
    tokens: list[int]  # what the servers are asked, template included
    answer: str  # the reference answer


class Collector:
    """Fills a rollout store with groups.

    Args:
        generator: where completions come from.
        rewards: judges them.
        decode: token ids of a response to its text, without the end-of-sequence token.
        say: told in words, whenever it changes, which groups are waited for.
    """

    def __init__(
        self,
        generator: Generator,
        rewards: RewardFunction,
        decode: Callable[[Sequence[int]], str],
        say: Callable[[str], None],
    ) -> None:
        self._generator = generator
        self._rewards = rewards
        self._decode = decode
        self._say = say

    async def collect(
        self,
        store: RolloutStore,
        step: int,
        requests: Sequence[GroupRequest],
        sampling: Sampling,
        version: int,
    ) -> StepSummary:
        """Have every request of ``step`` answered, scored and stored; return the step's summary.

        Group i answers ``requests[i]``. All missing groups are asked for at once: the client
        queues them. A step that is done already is left as it is.

        Raises:
            RunError: a group cannot be completed, was sampled with other weights than ``version``,
                or a stored one belongs to other requests; groups finished before that stay stored.
        """
        if store.is_done(step):
            return store.finish(step, len(requests), seconds=0.0)
        started = time.monotonic()
        finished = await asyncio.to_thread(store.finished_groups, step)
        for group, found in finished.items():
            _check_same_request(store, step, group, found, requests, sampling, version)
        missing = [group for group in range(len(requests)) if group not in finished]
        waiting = set(missing)
        self._report(store, step, waiting, len(requests))

        async def complete(group: int) -> None:
            request = requests[group]
            try:
                samples = await self._answer(group, request, sampling, version)
                await asyncio.to_thread(store.write_group, step, samples)
            except RunError as error:
                raise RunError(
                    f"{store.root.name} {step}: group {group} (prompt {request.prompt_id}) could "
                    f"not be completed: {error}"
                ) from None
            waiting.remove(group)
            self._report(store, step, waiting, len(requests))

        async with first_error_itself(), asyncio.TaskGroup() as tasks:
            for group in missing:
                tasks.create_task(complete(group))
        seconds = time.monotonic() - started
        return await asyncio.to_thread(store.finish, step, len(requests), seconds)

    async def _answer(
        self, group: int, request: GroupRequest, sampling: Sampling, version: int
    ) -> list[Sample]:
        """Return the scored group of one request."""
        requested_at = time.time()
        completions = await self._generator.generate(request.tokens, sampling)
        finished_at = time.time()
        for completion in completions:
            _check_whole(completion, version)
        texts = [self._decode(completion.tokens) for completion in completions]
        verdicts = await asyncio.gather(
            *(self._rewards.score(Answer(request.prompt, text, request.answer)) for text in texts)
        )
        scored_at = time.time()
        return [
            Sample(
                prompt_id=request.prompt_id,
                group=group,
                index=index,
                prompt_tokens=request.tokens,
                tokens=completion.tokens,
                logprobs=completion.logprobs,
                weight_version=completion.weight_version,
                finish_reason=completion.finish_reason,
                text=text,
                answer=request.answer,
                reward=verdict.reward,
                scores=verdict.scores,
                requested_at=requested_at,
                finished_at=finished_at,
                scored_at=scored_at,
            )
            for index, (completion, text, verdict) in enumerate(
                zip(completions, texts, verdicts, strict=True)
            )
        ]

    def _report(self, store: RolloutStore, step: int, waiting: set[int], total: int) -> None:
        groups = ", ".join(map(str, sorted(waiting)[:_NAMED]))
        more = f" and {len(waiting) - _NAMED} more" if len(waiting) > _NAMED else ""
        done = f"{store.root.name} {step}: {total - len(waiting)} of {total} groups are stored"
        self._say(f"{done}; waiting for groups {groups}{more}" if waiting else done)


def _check_whole(completion: Completion, version: int) -> None:
    if completion.weight_version != version:
        raise RunError(
            f"expected an answer by weight version {version}, a server answered with version "
            f"{completion.weight_version}"
        )
    if completion.finish_reason == "abort" or not completion.tokens:
        raise RunError(
            f"a server gave up after {len(completion.tokens)} tokens "
            f"(finish reason {completion.finish_reason}); see its log"
        )


def _check_same_request(
    store: RolloutStore,
    step: int,
    group: int,
    found: FinishedGroup,
    requests: Sequence[GroupRequest],
    sampling: Sampling,
    version: int,
) -> None:
    """Refuse a stored group that this run would not have asked for."""
    wanted = "no such group"
    if group < len(requests):
        wanted = _describe(requests[group].prompt_id, sampling.n, [version])
    stored = _describe(found.prompt_id, found.samples, found.weight_versions)
    if stored != wanted:
        raise RunError(
            f"{store.folder(step)}: group {group} was stored with {stored}, but this run asks for "
            f"{wanted}; restore the seed, the prompts and the group size, or remove that folder"
        )


def _describe(prompt_id: str, samples: int, versions: Sequence[int]) -> str:
    return f"prompt {prompt_id}, {samples} samples, weight version {', '.join(map(str, versions))}"
