"""R1-Zero as a trainer rank lives it; ``recipes/zero.py`` starts it."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TypeVar

import torch
import torch.distributed as dist

from engine.algorithms.learning_rate import learning_rate
from engine.checkpoint.checkpoints import Checkpoints
from engine.checkpoint.training_state import TrainingState
from engine.config.model_sizes import model_sizes
from engine.models.transformer_config_args import kernels_of
from engine.monitoring import metric_names as names
from engine.monitoring.phases import Phases
from engine.parallel.groups import process_groups
from engine.parallel.rank_map import rank_map
from engine.platform.kernels import line as kernel_line
from engine.platform.waiting import wait_for
from engine.rollout.control import Control, control_address
from engine.rollout.sample import Sample
from engine.rollout.store import RolloutStore
from engine.servers.command import server_urls
from engine.training import parity
from engine.training.reference import Reference
from engine.training.trained_model import TrainedModel
from engine.weights.export import Exporter
from engine.weights.hugging_face import HuggingFaceFolder
from engine.weights.load import load as load_weights
from engine.weights.push.disk import update_from_disk
from recipes.grpo_batch import GrpoBatch, loss_of
from recipes.zero_config import ZeroConfig
from recipes.zero_record import ZeroRecord

T = TypeVar("T")

CONTROL_SECONDS = 60.0
"""How long the other ranks wait for rank 0 to open the control store."""


def train(config: ZeroConfig) -> None:
    """R1-Zero: sample groups, score them by rule, improve the policy with GRPO; no SFT before.

    Source: DeepSeek-R1 (arXiv 2501.12948), section 2.2.
    """
    with process_groups(config.layout, config.seed):
        run = ZeroRun(config)
        for step in range(run.first_step, config.steps):
            samples = run.wait_for_rollout(step)
            batch = run.prepare(step, samples)
            metrics = run.improve(step, batch)
            run.push(version=step + 1)
            run.record(step, samples, metrics)
            run.checkpoint(step + 1)
        run.finish()


class ZeroRun:
    """One trainer rank's parts of a run, and the actions that the loop is made of."""

    def __init__(self, config: ZeroConfig) -> None:
        self.config = config
        self.phases = Phases(synchronize=torch.cuda.synchronize)
        source = HuggingFaceFolder(config.model)
        self.policy = TrainedModel(
            source.config,
            config.layout,
            config.optimizer,
            config.training,
            temperature=config.rollout.temperature,
            mtp="isolated",  # the head follows the policy; what was sampled is no teacher for it
        )
        self.policy.parameters_changed(load_weights(self.policy.chunks, source))
        self.reference = Reference(
            source.config,
            config.layout,
            config.training,
            offload=config.grpo.reference_offload,
        )
        self.reference.refresh(self.policy, version=0)
        self.exporter = Exporter(self.policy.chunks, source)
        depths = source.config.get("num_nextn_predict_layers") or 0
        self.layers = int(source.config["num_hidden_layers"]) + depths
        self.rollouts = RolloutStore(config.run_dir / "rollouts")
        self.evaluations = RolloutStore(config.run_dir / "evaluations")
        folder = config.run_dir / "checkpoints"
        self.checkpoints = Checkpoints(folder, config.checkpoint, config.seed)
        self.first_step = self._resume()
        self.control = _control()
        if dist.get_rank() == 0:
            print(rank_map(config.layout, model_sizes(source.config)), flush=True)
            print(kernel_line(kernels_of(config.training)), flush=True)
            print(f"policy ready at step {self.first_step}; waiting for the servers", flush=True)
        self._wait_for("the servers", self.control.servers_ready, config.servers.start_seconds)
        self.push(self.first_step)
        self.phases.take()  # the start belongs to no step
        self.report = ZeroRecord(config, self.first_step) if dist.get_rank() == 0 else None

    def wait_for_rollout(self, step: int) -> list[Sample]:
        """The samples of ``step``, made by the weights of version ``step``."""
        with self.phases("wait_for_rollout"):
            self._wait_for(
                f"rollout {step}",
                lambda: self.rollouts.summary(step),
                self.config.rollout.wait_seconds,
            )
            return self.rollouts.samples(step)

    def prepare(self, step: int, samples: Sequence[Sample]) -> GrpoBatch:
        """Pack the samples and give them old and reference log-probabilities.

        Raises:
            RunError: trainer and sampler disagree on the samples' log-probabilities.
        """
        config = self.config
        with self.phases("pack"):
            batch = GrpoBatch(
                samples,
                config.grpo,
                config.layout,
                config.training,
                seed=config.seed * 1_000_003 + step,  # another split in each step of each run
            )
        with self.phases("log_probabilities"):
            batch.fill_old_logprobs(self.policy, config.parity.routing_tie)
            worst = batch.comparison.worst
            parity.hold(worst, config.parity.max_logprob_difference, version=step)
        with self.phases("reference"):
            batch.fill_reference_logprobs(self.reference, self.policy)
        return batch

    def improve(self, step: int, batch: GrpoBatch) -> dict[str, float]:
        """One inner epoch over the minibatches; refresh the reference where it is due.

        Returns:
            The mean of each training metric over the minibatches.
        """
        config = self.config
        rate = learning_rate(
            step,
            peak=config.optimizer.lr,
            schedule=config.optimizer.schedule,
            warmup=config.optimizer.warmup_steps,
            total=config.steps,
            minimum=config.optimizer.min_lr,
        )
        loss = partial(loss_of, config.grpo)
        with self.phases("update"):
            updates = [
                self.policy.update(part.rows, loss, part.tokens, rate) for part in batch.minibatches
            ]
            if (step + 1) % config.grpo.reference_refresh_steps == 0:
                self.reference.refresh(self.policy, version=step + 1)
        means = {name: sum(u[name] for u in updates) / len(updates) for name in updates[0]}
        compared = batch.comparison
        return {
            **{names.TRAINING_PREFIX + name: value for name, value in means.items()},
            names.LEARNING_RATE: rate,
            names.MAX_LOGPROB_DIFFERENCE: compared.worst.difference,
            names.BEHIND_ROUTING_TIES: compared.share_left_out,
            names.ZERO_VARIANCE_GROUPS: batch.zero_variance_groups
            / config.rollout.prompts_per_step,
        }

    def push(self, version: int) -> None:
        """Give the servers the policy as it is now, and let the sampler go on with it."""
        with self.phases("push"):
            folder = self.config.run_dir / "weights" / f"{version:06d}"
            self.exporter.export(folder)
            if dist.get_rank() == 0:
                limit = self.config.servers.request_seconds
                update_from_disk(server_urls(), folder, version, limit)
                self.control.announce_weights_version(version)
                _remove_others(folder)

    def record(self, step: int, samples: Sequence[Sample], metrics: dict[str, float]) -> None:
        """Write what happened in ``step`` to the console, metrics.jsonl and TensorBoard."""
        load = self.policy.expert_load.take(self.layers)
        if self.report is not None:
            summary = self.rollouts.summary(step)
            assert summary is not None
            metrics[names.SAMPLING_SECONDS] = summary.seconds
            evaluation = self.evaluations.samples(step) if self.evaluations.is_done(step) else None
            self.report.step(step, samples, metrics, load, evaluation, self.phases.take())

    def checkpoint(self, step: int) -> None:
        """Save what a restart needs, where it is due, to begin with ``step``."""
        with self.phases("checkpoint"):
            self.checkpoints.poll()
            if step % self.config.checkpoint.every == 0 or step == self.config.steps:
                progress = {
                    "weight_version": step,
                    "reference_version": self.reference.version,
                    "next_prompt": step * self.config.rollout.prompts_per_step,
                }
                self.checkpoints.save(step, self._state, progress)

    def finish(self) -> None:
        """Wait for the last evaluation and write summary.json and report.html."""
        self.checkpoints.finish()
        last = self.config.steps
        self._wait_for(
            f"the evaluation of weight version {last}",
            lambda: self.evaluations.summary(last),
            self.config.rollout.wait_seconds,
        )
        if self.report is not None:
            self.report.finish(self.evaluations)
        dist.barrier()  # rank 0 hosts the control store: it leaves together with the others

    @property
    def _state(self) -> TrainingState:
        return TrainingState(self.policy.chunks, self.policy.optimizer, self.reference.chunks)

    def _resume(self) -> int:
        """Load the newest checkpoint, where there is one; the step to go on with."""
        step = self.checkpoints.latest()
        if step is None:
            return 0
        self.reference.version = self.checkpoints.load(step, self._state)["reference_version"]
        return step

    def _wait_for(self, what: str, poll: Callable[[], T | None], limit_seconds: float) -> T:
        self.control.say(f"waiting for {what}")
        return wait_for(what, poll, limit_seconds, lambda: self.control.last_said("sampler"))


def _control() -> Control:
    rank = dist.get_rank()
    if rank == 0:
        return Control.host(control_address())
    return Control.connect(control_address(), f"trainer-{rank}", limit_seconds=CONTROL_SECONDS)


def _remove_others(folder: Path) -> None:
    """Keep only the newest pushed weights: checkpoints are what a run is resumed from."""
    for other in folder.parent.iterdir():
        if other != folder:
            shutil.rmtree(other)
