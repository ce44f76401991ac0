"""Push weights to the servers and take rollouts from the sampler, on a trainer rank."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import torch
import torch.distributed as dist

from engine.algorithms.algorithm import Algorithm
from engine.platform.waiting import wait_for
from engine.rollout.control import Control
from engine.rollout.sample import Sample
from engine.rollout.store import RolloutStore
from engine.run.roles import CONTROL, HTTP
from engine.run.rollout_batch import RolloutBatch
from engine.run.rollout_record import RolloutRecord
from engine.run.step import Step
from engine.training import parity
from engine.training.parity import Comparison
from engine.training.trained_model import TrainedModel
from engine.weights.export import Exporter
from engine.weights.push.disk import DiskPush

if TYPE_CHECKING:
    from engine.run.run import Run

T = TypeVar("T")

CONTROL_SECONDS = 60.0
"""How long the other ranks wait for rank 0 to open the control store."""


class Sampling:
    """What a trainer rank has to do with servers and sampler. All ranks call at the same points.

    Made when the policy has the weights that the run goes on with: the servers get them at once.

    Args:
        run: its configuration has the sections of sampling (``rollout``, ``servers``, ...).
        policy: whose weights are pushed.
    """

    def __init__(self, run: Run[Any], policy: TrainedModel) -> None:
        self._run, self._config, self._policy = run, run.config, policy
        folder, placement = run.config.run_dir, run.placement
        self._rollouts = RolloutStore(folder / "rollouts")
        self._evaluations = RolloutStore(folder / "evaluations")
        self._control = _control(placement.address("trainer", CONTROL))
        self._push = DiskPush(
            Exporter(policy.chunks, run.source),
            folder / "weights",
            placement.urls("server", HTTP),
            self._config.servers.request_seconds,
        )
        self._record = RolloutRecord(run.config, placement.recipe) if dist.get_rank() == 0 else None
        if run.is_first_rank:
            print(f"policy ready at step {run.first_step}; waiting for the servers", flush=True)
        start_seconds = self._config.servers.start_seconds
        self._wait_for("the servers", self._control.servers_ready, start_seconds)
        self.push(version=run.first_step)

    def push(self, version: int) -> None:
        """Give the servers the policy as it is now, and let the sampler go on with it.

        Raises:
            RunError: a server did not take it (on rank 0).
        """
        with self._run.phases("push"):
            self._push(version)
            if dist.get_rank() == 0:
                self._control.announce_weights_version(version)

    def batch(self, step: Step, algorithm: Algorithm, minibatches: int) -> RolloutBatch:
        """Wait for the rollout of ``step``, and pack it for ``algorithm``.

        Args:
            minibatches: parts of which each makes one update.

        Raises:
            RunError: the rollout does not come within ``rollout.wait_seconds``.
        """
        return RolloutBatch(
            self._rollout(step),
            algorithm,
            self._run.data.packing,
            minibatches=minibatches,
            max_length=self._config.rollout.max_new_tokens,
            # another split in each step of each run
            seed=self._config.seed * 1_000_003 + step.number,
            device=torch.cuda.current_device(),
            phases=self._run.phases,
        )

    def _rollout(self, step: Step) -> Sequence[Sample]:
        number = step.number
        with self._run.phases("wait_for_rollout"):
            limit = self._config.rollout.wait_seconds
            self._wait_for(f"rollout {number}", lambda: self._rollouts.summary(number), limit)
            return self._rollouts.samples(number)

    def check_parity(self, compared: Comparison, step: Step) -> None:
        """Pass silently if trainer and sampler agree on the sampled tokens' log-probabilities.

        Args:
            compared: what ``RolloutBatch.fill_old_logprobs`` found.

        Raises:
            RunError: they disagree on a token by more than ``parity.max_logprob_difference``.
        """
        limit = self._config.parity.max_logprob_difference
        parity.hold(compared.worst, limit, version=step.number)

    def log(
        self, step: Step, batch: RolloutBatch, updates: Sequence[Mapping[str, float]], rate: float
    ) -> None:
        """Note what happened in ``step``: samples, updates and, where there was one, evaluation."""
        step.expert_load = self._policy.expert_load.take(self._run.layers)
        summary = self._rollouts.summary(step.number)
        done = self._evaluations.is_done(step.number)
        if self._record is not None and summary is not None:
            evaluation = self._evaluations.samples(step.number) if done else None
            self._record.log(step, batch, updates, rate, summary.seconds, evaluation)

    def finish(self) -> dict[str, Any]:
        """Wait for the evaluation of the last weights; write summary.json and report.html.

        Returns:
            Its figures, on rank 0.

        Raises:
            RunError: it does not come within ``rollout.wait_seconds``.
        """
        last = self._config.steps
        self._wait_for(
            f"the evaluation of weight version {last}",
            lambda: self._evaluations.summary(last),
            self._config.rollout.wait_seconds,
        )
        if self._record is None:
            return {}
        return self._record.finish(self._run.record, self._evaluations)

    def _wait_for(self, what: str, poll: Callable[[], T | None], limit_seconds: float) -> T:
        self._control.say(f"waiting for {what}")
        return wait_for(what, poll, limit_seconds, lambda: self._control.last_said("sampler"))


def _control(address: str) -> Control:
    rank = dist.get_rank()
    if rank == 0:
        return Control.host(address)
    return Control.connect(address, f"trainer-{rank}", limit_seconds=CONTROL_SECONDS)
