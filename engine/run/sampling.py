"""Push weights to the servers and take rollouts from the sampler, on a trainer rank."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from math import isfinite
from typing import Any, TypeVar

import torch
import torch.distributed as dist

from engine.algorithms.algorithm import Algorithm
from engine.config.model_sizes import model_sizes
from engine.data.batch_builder import Packing
from engine.data.tokenizer import Tokenizer
from engine.errors import RunError
from engine.monitoring import metric_names as names
from engine.monitoring.phases import Phases
from engine.platform.waiting import wait_for
from engine.rollout.control import Control
from engine.rollout.evaluation import is_due
from engine.rollout.lineage import Lineage, Place, Start
from engine.rollout.made_by import Difference, Settings
from engine.rollout.notice import Notice
from engine.rollout.sample import Sample
from engine.rollout.stale import discard_after, discard_stale, span
from engine.rollout.store import RolloutStore, StepSummary
from engine.run.placement import CONTROL, HTTP, Placement
from engine.run.record import Record
from engine.run.rollout_batch import RolloutBatch
from engine.run.rollout_record import RolloutRecord
from engine.run.step import Step
from engine.training import parity
from engine.training.parity import Comparison
from engine.training.trained_model import TrainedModel
from engine.weights.export import Exporter
from engine.weights.hugging_face import HuggingFaceFolder
from engine.weights.push.disk import DiskPush

T = TypeVar("T")

DRIFT_SHARE = 0.25
"""Of ``parity.max_logprob_difference``: beyond it rollouts of another layout are replayed no more.
An update of the quickstart has added up to two fifths of its limit."""
CONTROL_SECONDS = 60.0
"""How long the other ranks wait for rank 0 to open the control store."""


class Sampling:
    """What a trainer rank has to do with servers and sampler. All ranks call at the same points.

    Made when the policy has the weights that the run goes on with: what is stored and not made as
    this start would make it is discarded, and the servers get the weights at once.

    Args:
        config: the run's, with the sections of sampling (``rollout``, ``servers``, ...).
        placement: where servers and control store are.
        policy: whose weights are pushed.
        source: the folder that it came from.
        packing: how samples become rows on this rank.
        phases: where the time goes.
        start: where this start of the run begins; the policy has its weights.

    Raises:
        RunError: the servers are not ready in time, or do not take the weights.
    """

    def __init__(
        self,
        config: Any,
        placement: Placement,
        policy: TrainedModel,
        *,
        source: HuggingFaceFolder,
        packing: Packing,
        phases: Phases,
        start: Start,
    ) -> None:
        self._config, self._policy = config, policy
        self._packing, self._phases = packing, phases
        sizes = model_sizes(source.config)
        self._layers = sizes.layers + sizes.mtp
        self._rollouts = RolloutStore(config.run_dir / "rollouts")
        self._evaluations = RolloutStore(config.run_dir / "evaluations")
        self._control = _control(placement.address("trainer", CONTROL))
        self._push = DiskPush(
            Exporter(policy.chunks, source),
            config.run_dir / "weights",
            placement.urls("server", HTTP),
            config.servers.request_seconds,
        )
        self._lineage = Lineage(start, config, Tokenizer.load(config.model).eos_ids)
        self._evaluated = False  # whether there is an evaluation of the step at hand
        self._replayed: frozenset[int] = frozenset()
        self._pushed_at = self._received_at = 0.0  # seconds since the epoch, as samples have them
        is_first = dist.get_rank() == 0
        self._record = RolloutRecord(config, placement.recipe) if is_first else None
        version = start.place.version
        if is_first:
            self._replayed = self._use_what_is_stored()
            self._control.announce_start(start)
            print(f"policy ready at step {version}; waiting for the servers", flush=True)
        start_seconds = config.servers.start_seconds
        with self._control.notice_of_servers() as notice:
            ready = self._control.servers_ready
            self._wait_for("the servers", ready, start_seconds, notice)
        self.push(version)

    @property
    def place(self) -> Place:
        """Where the run stands when the step at hand is over, for its checkpoint."""
        return self._lineage.place

    def _use_what_is_stored(self) -> frozenset[int]:
        """Discard what this start cannot use; return the rollouts that it replays. On rank 0."""
        found = discard_stale(
            self._rollouts, self._evaluations, self._lineage, self._config.steps, _say
        )
        if found:
            _say(f"rollout {span(sorted(found))} is stored and trained on as it is")
        return found

    def push(self, version: int) -> None:
        """Give the servers the policy as it is now, and let the sampler go on with it.

        Raises:
            RunError: a server did not take it; on all ranks.
        """
        with self._phases("push"):
            self._push(version)
            if dist.get_rank() == 0:
                self._pushed_at = time.time()
                self._control.announce_weights_version(version)

    def batch(self, step: Step, algorithm: Algorithm, minibatches: int) -> RolloutBatch:
        """Wait for the rollout of ``step``, and pack it for ``algorithm``.

        Args:
            minibatches: parts of which each makes one update.

        Raises:
            RunError: the rollout does not come within ``rollout.wait_seconds``.
        """
        samples = self._rollout(step)
        step.scalars.update(self._handover(samples))
        return RolloutBatch(
            samples,
            algorithm,
            self._packing,
            minibatches=minibatches,
            max_length=self._config.rollout.max_new_tokens,
            # another split in each step of each run
            seed=self._config.seed * 1_000_003 + step.number,
            device=torch.cuda.current_device(),
            phases=self._phases,
        )

    def _rollout(self, step: Step) -> Sequence[Sample]:
        number = step.number
        with self._phases("wait_for_rollout"):
            evaluated_by = self._lineage.evaluation()
            if is_due(number, self._config.evaluation):
                self._wait_for_step(self._evaluations, "evaluation of version", evaluated_by)
            self._evaluated = self._evaluations.is_done(number) and not self._lineage.why_not(
                self._evaluations, evaluated_by
            )
            mine = self._wait_for_step(self._rollouts, "rollout", self._lineage.rollout())
            summary = self._summary_of_rank_0(mine)
            step.replayed = number in self._replayed
            self._lineage.advance(summary)
            samples = self._rollouts.samples(number)
            self._received_at = time.time()
            return samples

    def _handover(self, samples: Sequence[Sample]) -> dict[str, float]:
        """Return the seconds before and after sampling in which nobody samples.

        What was stored before the push was not waited for; an evaluation comes before the rollout.
        """
        first = min(sample.requested_at for sample in samples)
        if first < self._pushed_at:
            return {}
        last = max(sample.scored_at for sample in samples)
        seconds = {names.DELIVERY_SECONDS: self._received_at - last}
        if not self._evaluated:
            seconds[names.START_SECONDS] = first - self._pushed_at
        return seconds

    def _summary_of_rank_0(self, mine: StepSummary) -> StepSummary:
        """Return the summary that rank 0 has of the rollout that this rank sees as ``mine``.

        To other ranks a network's file system may still show a discarded rollout of this number.
        """
        digest = [mine.digest]
        dist.broadcast_object_list(digest)
        if mine.digest == digest[0]:
            return mine

        def poll() -> StepSummary | None:
            found = self._rollouts.summary(mine.step)
            return found if found and found.digest == digest[0] else None

        limit = self._config.rollout.wait_seconds
        who = partial(self._control.last_said, "sampler")
        return wait_for(f"rollout {mine.step} as rank 0 sees it", poll, limit, who)

    def _wait_for_step(self, store: RolloutStore, kind: str, made_by: Settings) -> StepSummary:
        """Wait until ``store`` has the step at hand, made by these settings; return its summary.

        Raises:
            RunError: it does not come within ``rollout.wait_seconds``, or is made by others.
        """
        step, limit = self._lineage.place.version, self._config.rollout.wait_seconds
        with self._control.notice_of_step(store.root.name, step) as notice:
            found = self._wait_for(f"{kind} {step}", lambda: store.summary(step), limit, notice)
        if why := self._lineage.why_not(store, made_by):
            raise RunError(f"{store.folder(step)} {why}; start the run again to have it sampled")
        return found

    def check_parity(self, compared: Comparison, step: Step) -> None:
        """Pass silently if trainer and sampler agree on the sampled tokens' log-probabilities.

        Where a replayed rollout was sampled by weights of another layout, from which those of this
        run drift by rounding, the replay ends before the difference comes near the limit.

        Args:
            compared: what ``RolloutBatch.fill_old_logprobs`` found.

        Raises:
            RunError: they disagree on a token by more than ``parity.max_logprob_difference``.
        """
        limit = self._config.parity.max_logprob_difference
        if drift := self._lineage.drift(self._rollouts, step.number):
            self._end_replay(step.number, drift, compared.worst.difference, limit)
        parity.hold(compared.worst, limit, version=step.number)

    def _end_replay(self, number: int, drift: Difference, worst: float, limit: float) -> None:
        """Discard what is stored behind rollout ``number`` if the weights have drifted far."""
        if worst <= DRIFT_SHARE * limit or not isfinite(worst):  # the gate itself names the latter
            return
        last = number if worst <= limit else number - 1
        self._replayed = frozenset(step for step in self._replayed if step <= last)
        if self._record is not None:  # before the sampler is told of the next weights
            for what in discard_after(self._rollouts, self._evaluations, last):
                _say(f"{what} {drift}; both now differ by {worst:.1e}: sampled again")
        if worst > limit:
            raise RunError(
                f"rollout {number} {drift}, and the log-probability of a token differs by "
                f"{worst:.1e}, above parity.max_logprob_difference = {limit:.1e}; it is discarded: "
                f"start the run again to have it sampled"
            )

    def log(
        self, step: Step, batch: RolloutBatch, updates: Sequence[Mapping[str, float]], rate: float
    ) -> None:
        """Note what happened in ``step``: samples, updates and, where there was one, evaluation."""
        step.expert_load = self._policy.expert_load.take(self._layers)
        summary = self._rollouts.summary(step.number)
        if self._record is not None and summary is not None:
            evaluation = self._evaluations.samples(step.number) if self._evaluated else None
            self._record.log(step, batch, updates, rate, summary.seconds, evaluation)

    def finish(self, record: Record) -> dict[str, Any]:
        """Wait for the evaluation of the last weights; write summary.json and report.html.

        Args:
            record: the run's, which gets the last evaluation.

        Returns:
            Its figures, on rank 0.

        Raises:
            RunError: it does not come within ``rollout.wait_seconds``.
        """
        self._wait_for_step(self._evaluations, "evaluation of version", self._lineage.evaluation())
        if self._record is None:
            return {}
        return self._record.finish(record, self._evaluations)

    def _wait_for(
        self, what: str, poll: Callable[[], T | None], limit_seconds: float, notice: Notice
    ) -> T:
        self._control.say(f"waiting for {what}")
        last_said = partial(self._control.last_said, "sampler")
        return wait_for(what, poll, limit_seconds, last_said, notice.pause)


def _say(text: str) -> None:
    print(text, flush=True)


def _control(address: str) -> Control:
    rank = dist.get_rank()
    if rank == 0:
        return Control.host(address)
    return Control.connect(address, f"trainer-{rank}", limit_seconds=CONTROL_SECONDS)
