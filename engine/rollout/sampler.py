"""Run the sampler process: wait for each step's weights, evaluate where due, sample a rollout.

It shares no interpreter with a trainer rank and nothing with it but the rollout store and a few
control words, so either can be killed and started again without the other's memory.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow.compute as pc

from engine.config.sampler import EvaluationConfig, PromptsConfig, RolloutConfig
from engine.config.servers import ServersConfig
from engine.data.prompt_file import Prompt
from engine.data.prompt_tokens import TokenizedPrompts
from engine.data.tokenizer import Tokenizer
from engine.errors import RunError
from engine.platform.waiting import wait_for_async
from engine.rewards.reward_function import RewardFunction
from engine.rewards.table import RewardsConfig
from engine.rollout.collect import Collector, GroupRequest
from engine.rollout.control import Control
from engine.rollout.evaluation import evaluate
from engine.rollout.heartbeat import heartbeat
from engine.rollout.store import RolloutStore, StepSummary
from engine.servers.client import Sampling, SamplingClient, connect

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class SamplerPlan:
    """What a sampler has to know of a run."""

    run_dir: Path
    model: Path  # a Hugging Face folder; the tokenizer is read from it
    seed: int  # of the order of the prompts
    steps: int  # rollouts 0 .. steps - 1, and an evaluation of version `steps`
    server_urls: Mapping[str, str]  # name -> base URL
    control_address: str  # host:port, see engine.rollout.control
    prompts: PromptsConfig
    rollout: RolloutConfig
    servers: ServersConfig
    rewards: RewardsConfig
    evaluation: EvaluationConfig


def run_sampler(plan: SamplerPlan) -> None:
    """Sample all that ``plan`` asks for and the store does not have yet; return when it is there.

    Raises:
        RunError: a server, the trainer, a file or the disk is not as it must be. Whatever ends
            this process, finished groups stay in the store and are not asked again.
    """
    asyncio.run(_run(plan))


async def _run(plan: SamplerPlan) -> None:
    tokenizer = Tokenizer.load(plan.model)
    for remark in tokenizer.remarks:
        _log.info("%s: %s", plan.model, remark)
    work = _Work(plan, tokenizer)
    control = Control.connect(plan.control_address, "sampler", plan.servers.start_seconds)
    async with (
        heartbeat(control, over=work.is_over) as say,
        connect(plan.server_urls, plan.servers.request_seconds) as client,
        RewardFunction(plan.rewards.chosen) as rewards,
    ):
        await _start(client, control, plan.servers.start_seconds, say)
        await work.run(control, Collector(client, rewards, tokenizer.decode, say), say)


async def _start(
    client: SamplingClient, control: Control, limit_seconds: float, say: Callable[[str], None]
) -> None:
    def progress(word: str) -> None:
        _log.info("%s", word)
        say(f"waiting for the servers; {word}")

    await client.wait_until_healthy(limit_seconds, progress)
    control.announce_servers_ready()


class _Work:
    """The evaluations and rollouts of a run, those that are stored already included."""

    def __init__(self, plan: SamplerPlan, tokenizer: Tokenizer) -> None:
        self._plan = plan
        self._tokenizer = tokenizer
        self._train = self._load(plan.prompts.train)
        held_out = self._load(plan.prompts.held_out)
        asked = held_out.set.fixed_subset(plan.evaluation.prompts)
        self._held_out = _requests(held_out, asked)
        self._rollouts = RolloutStore(plan.run_dir / "rollouts")
        self._evaluations = RolloutStore(plan.run_dir / "evaluations")

    def _load(self, file: Path) -> TokenizedPrompts:
        plan, say = self._plan, _log.info
        model, template = plan.model, plan.prompts.template
        return TokenizedPrompts.load(
            file, model, template, self._tokenizer, seed=plan.seed, say=say
        )

    def is_over(self) -> bool:
        """Return whether everything is stored: then nobody needs this process any more."""
        last = self._plan.steps
        return self._evaluations.is_done(last) and all(map(self._rollouts.is_done, range(last)))

    async def run(self, control: Control, collector: Collector, say: Callable[[str], None]) -> None:
        """Go through the steps, from the one whose weights the trainer announces first."""
        if self.is_over():  # and the trainer, which has nothing to do either, may be gone soon
            return
        first = await self._wait_for_weights(control, say, 0)
        for step in range(first, self._plan.steps):
            if self._rollouts.is_done(step):
                _log.info("rollout %d is stored already", step)
                self._rollouts.finish(step, self._plan.rollout.prompts_per_step, seconds=0.0)
                continue
            # The trainer cannot move on without this rollout, so the version stays while we work.
            await self._wait_for_weights(control, say, step, exactly=True)
            if step % self._plan.evaluation.every == 0:
                await self._evaluate(collector, step)
            await self._roll_out(collector, step)
        if not self._evaluations.is_done(self._plan.steps):
            await self._wait_for_weights(control, say, self._plan.steps, exactly=True)
            await self._evaluate(collector, self._plan.steps)

    async def _wait_for_weights(
        self, control: Control, say: Callable[[str], None], version: int, exactly: bool = False
    ) -> int:
        """Return the servers' weight version once it is at least ``version``."""

        def poll() -> int | None:
            found = control.weights_version()
            return found if found is not None and found >= version else None

        name = f"weight version {version}"
        say(f"waiting for {name}")
        limit = self._plan.rollout.wait_seconds
        found = await wait_for_async(name, poll, limit, lambda: control.last_said("trainer"))
        if exactly and found != version:
            raise RunError(
                f"{self._plan.run_dir}: the servers have weight version {found}, but what version "
                f"{version} has to sample is not stored; start the run again"
            )
        return found

    async def _roll_out(self, collector: Collector, step: int) -> None:
        rollout = self._plan.rollout
        sampling = Sampling(
            n=rollout.group_size,
            max_new_tokens=rollout.max_new_tokens,
            temperature=rollout.temperature,
            stop_token_ids=self._tokenizer.eos_ids,
        )
        prompts = self._train.set.for_step(step, rollout.prompts_per_step)
        requests = _requests(self._train, prompts)
        summary = await collector.collect(self._rollouts, step, requests, sampling, version=step)
        reward = pc.mean(self._rollouts.read(step, ["reward"])["reward"]).as_py()
        _log.info("rollout %d: %s, mean reward %.3f", step, _cost(summary), reward)

    async def _evaluate(self, collector: Collector, version: int) -> None:
        evaluation = self._plan.evaluation
        sampling = Sampling(
            n=evaluation.samples_per_prompt,
            max_new_tokens=self._plan.rollout.max_new_tokens,
            temperature=evaluation.temperature,
            stop_token_ids=self._tokenizer.eos_ids,
            top_p=evaluation.top_p,
        )
        summary = await collector.collect(
            self._evaluations, version, self._held_out, sampling, version
        )
        found = evaluate(self._evaluations.samples(version))
        rewards = "".join(f", {name} {one.value:.3f}" for name, one in found.rewards.items())
        _log.info(
            "evaluation of version %d: %s, response length %.1f%s",
            version, _cost(summary), found.response_length, rewards,
        )  # fmt: skip


def _requests(of: TokenizedPrompts, prompts: Sequence[Prompt]) -> list[GroupRequest]:
    return [
        GroupRequest(
            prompt_id=prompt.id,
            prompt=prompt.prompt,
            tokens=of.tokens(prompt),
            answer=prompt.answer,
        )
        for prompt in prompts
    ]


def _cost(summary: StepSummary) -> str:
    speed = f" ({summary.tokens / summary.seconds:,.0f} tokens/s)" if summary.seconds else ""
    return (
        f"{summary.groups} groups, {summary.samples} samples, {summary.tokens:,} tokens in "
        f"{summary.seconds:.1f} s{speed}"
    )
