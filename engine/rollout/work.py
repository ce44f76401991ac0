"""The sampler's work: an evaluation where one is due and a rollout, step after step."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path

import pyarrow.compute as pc

from engine.data.prompt_file import Prompt
from engine.data.prompt_tokens import TokenizedPrompts
from engine.data.tokenizer import Tokenizer
from engine.errors import RunError
from engine.platform.waiting import wait_for_async
from engine.rollout.collect import Collector, GroupRequest
from engine.rollout.control import Control
from engine.rollout.evaluation import evaluate, is_due
from engine.rollout.lineage import Lineage
from engine.rollout.made_by import Settings
from engine.rollout.plan import SamplerPlan
from engine.rollout.store import RolloutStore, StepSummary
from engine.servers.client import Sampling

_log = logging.getLogger(__name__)


class Work:
    """The evaluations and rollouts of one start of a run, those that are stored already included.

    The trainer has discarded what this start cannot use before it told where the start begins; so
    what is stored from there on is used, if its settings are the wanted ones.
    """

    def __init__(self, plan: SamplerPlan, tokenizer: Tokenizer) -> None:
        self._plan = plan
        self._tokenizer = tokenizer
        self._train = self._load(plan.prompts.train)
        held_out = self._load(plan.prompts.held_out)
        asked = held_out.set.fixed_subset(plan.evaluation.prompts)
        self._held_out = _requests(held_out, asked)
        self._rollouts = RolloutStore(plan.run_dir / "rollouts")
        self._evaluations = RolloutStore(plan.run_dir / "evaluations")
        self._lineage: Lineage | None = None
        self._first = 0
        self._in_doubt: set[int] = set()  # stored steps that the trainer may yet discard

    def _load(self, file: Path) -> TokenizedPrompts:
        plan, say = self._plan, _log.info
        model, template = plan.model, plan.prompts.template
        return TokenizedPrompts.load(
            file, model, template, self._tokenizer, seed=plan.seed, say=say
        )

    def begin(self, lineage: Lineage) -> None:
        """Take what the steps of this start have to be made by, from its first step on."""
        self._lineage, self._first = lineage, lineage.place.version
        self._in_doubt = {
            step
            for store in (self._rollouts, self._evaluations)
            for step in store.stored()
            if step <= self._plan.steps and lineage.drift(store, step)
        }

    def is_over(self) -> bool:
        """Return whether everything is stored: then nobody needs this process any more."""
        return self._all_is_stored() and not self._in_doubt

    def _all_is_stored(self) -> bool:
        steps, last = range(self._first, self._plan.steps), self._plan.steps
        due = [step for step in steps if is_due(step, self._plan.evaluation)]
        return (
            self._lineage is not None
            and all(map(self._rollouts.is_done, steps))
            and all(map(self._evaluations.is_done, [*due, last]))
        )

    async def run(self, control: Control, collector: Collector, say: Callable[[str], None]) -> None:
        """Go through the steps from the first one of this start on.

        Raises:
            RunError: a step cannot be sampled; says why.
        """
        if self.is_over():  # and the trainer, which has nothing to do either, may be gone soon
            return
        lineage = self._lineage
        assert lineage is not None, "begin() comes before run()"
        for step in range(self._first, self._plan.steps):
            await self._settle(control, say, step)
            # The trainer cannot move on without them, so that the version stays meanwhile.
            if is_due(step, self._plan.evaluation) and not self._evaluations.is_done(step):
                await self._evaluate(control, collector, say, lineage)
            summary = self._rollouts.summary(step)
            if summary is None:
                summary = await self._roll_out(control, collector, say, lineage)
            else:
                _log.info("rollout %d is stored already", step)
                self._rollouts.finish(step, summary.groups, seconds=0.0)
            lineage.advance(summary)
        await self._settle(control, say, self._plan.steps)
        if not self._evaluations.is_done(self._plan.steps):
            await self._evaluate(control, collector, say, lineage)

    async def _settle(self, control: Control, say: Callable[[str], None], step: int) -> None:
        """Wait until the trainer has come to a stored step that it may discard: it has decided."""
        if step not in self._in_doubt:
            return
        try:
            await self._wait_for_weights(control, say, step, exactly=False)
        except RunError:  # the trainer needs nothing more, and may be gone
            if not self._all_is_stored():
                raise
        self._in_doubt.remove(step)

    async def _wait_for_weights(
        self, control: Control, say: Callable[[str], None], version: int, *, exactly: bool = True
    ) -> None:
        """Return once the servers have weight version ``version``, or a later one if allowed."""

        def poll() -> int | None:
            found = control.weights_version()
            return found if found is not None and found >= version else None

        name = f"weight version {version}"
        say(f"waiting for {name}")
        limit = self._plan.rollout.wait_seconds
        with control.notice_of_weights(version) as notice:
            found = await wait_for_async(
                name, poll, limit, lambda: control.last_said("trainer"), notice.pause_async
            )
        if exactly and found != version:
            raise RunError(
                f"{self._plan.run_dir}: the servers have weight version {found}, but what version "
                f"{version} has to sample is not stored; start the run again"
            )

    async def _roll_out(
        self,
        control: Control,
        collector: Collector,
        say: Callable[[str], None],
        lineage: Lineage,
    ) -> StepSummary:
        rollout, place = self._plan.rollout, lineage.place
        sampling = Sampling(
            n=rollout.group_size,
            max_new_tokens=rollout.max_new_tokens,
            temperature=rollout.temperature,
            stop_token_ids=self._tokenizer.eos_ids,
        )
        self._begin(self._rollouts, "rollout", lineage, lineage.rollout())
        prompts = self._train.set.take(place.prompts, rollout.prompts_per_step)
        requests = _requests(self._train, prompts)
        step = place.version
        await self._wait_for_weights(control, say, step)  # all else is ready by then
        summary = await collector.collect(self._rollouts, step, requests, sampling, version=step)
        control.announce_stored(self._rollouts.root.name, step)
        reward = pc.mean(self._rollouts.read(step, ["reward"])["reward"]).as_py()
        _log.info("rollout %d: %s, mean reward %.3f", step, _cost(summary), reward)
        return summary

    async def _evaluate(
        self,
        control: Control,
        collector: Collector,
        say: Callable[[str], None],
        lineage: Lineage,
    ) -> None:
        evaluation, version = self._plan.evaluation, lineage.place.version
        sampling = Sampling(
            n=evaluation.samples_per_prompt,
            max_new_tokens=self._plan.rollout.max_new_tokens,
            temperature=evaluation.temperature,
            stop_token_ids=self._tokenizer.eos_ids,
            top_p=evaluation.top_p,
        )
        self._begin(self._evaluations, "evaluation of version", lineage, lineage.evaluation())
        await self._wait_for_weights(control, say, version)
        summary = await collector.collect(
            self._evaluations, version, self._held_out, sampling, version
        )
        control.announce_stored(self._evaluations.root.name, version)
        found = evaluate(self._evaluations.samples(version))
        rewards = "".join(f", {name} {one.value:.3f}" for name, one in found.rewards.items())
        _log.info(
            "evaluation of version %d: %s, response length %.1f%s",
            version, _cost(summary), found.response_length, rewards,
        )  # fmt: skip

    def _begin(self, store: RolloutStore, kind: str, lineage: Lineage, made_by: Settings) -> None:
        """Write down what makes the step at hand; what is stored of it by other settings goes."""
        step = lineage.place.version
        if why := lineage.why_not(store, made_by):
            _log.info("%s %d %s: it is sampled again", kind, step, why)
            store.discard(step)
        store.begin(step, made_by)


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
