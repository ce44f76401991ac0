"""Run the sampler process: wait for servers and trainer, then do the run's work (``work.py``).

It shares no interpreter with a trainer rank and nothing with it but the rollout store and a few
control words, so either can be killed and started again without the other's memory.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from engine.data.tokenizer import Tokenizer
from engine.platform.waiting import wait_for_async
from engine.rewards.reward_function import RewardFunction
from engine.rollout.collect import Collector
from engine.rollout.control import Control
from engine.rollout.heartbeat import heartbeat
from engine.rollout.lineage import Lineage, Start
from engine.rollout.plan import SamplerPlan
from engine.rollout.work import Work
from engine.servers.client import SamplingClient, connect

_log = logging.getLogger(__name__)


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
    work = Work(plan, tokenizer)
    control = Control.connect(plan.control_address, "sampler", plan.servers.start_seconds)
    async with (
        heartbeat(control, over=work.is_over) as say,
        connect(
            plan.server_urls,
            plan.servers.request_seconds,
            in_flight=plan.servers.requests_in_flight,
            vocabulary_size=tokenizer.vocabulary_size,
        ) as client,
        RewardFunction(plan.rewards.chosen) as rewards,
    ):
        await _wait_for_servers(client, plan.servers.start_seconds, say)
        # The trainer goes on when the servers are announced, and may soon be done and gone: what it
        # has to tell is asked before.
        work.begin(Lineage(await _start(plan, control, say), plan, tokenizer.eos_ids))
        control.announce_servers_ready()
        await work.run(control, Collector(client, rewards, tokenizer.decode, say), say)


async def _wait_for_servers(
    client: SamplingClient, limit_seconds: float, say: Callable[[str], None]
) -> None:
    def progress(word: str) -> None:
        _log.info("%s", word)
        say(f"waiting for the servers; {word}")

    await client.wait_until_healthy(limit_seconds, progress)


async def _start(plan: SamplerPlan, control: Control, say: Callable[[str], None]) -> Start:
    """Return where this start of the run begins, once the trainer has loaded its checkpoint."""
    name = "the trainer's first step"
    say(f"waiting for {name}")
    limit = plan.rollout.wait_seconds
    return await wait_for_async(name, control.start, limit, lambda: control.last_said("trainer"))
