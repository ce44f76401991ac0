"""One step of a recipe's loop: its number, its learning rate, what is recorded of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from engine.algorithms.learning_rate import learning_rate
from engine.config.trainer import OptimizerConfig
from engine.monitoring import metric_names as names
from engine.monitoring.mfu import StepWork
from engine.monitoring.sample_view import SampleView


@dataclass
class Step:
    """One step, from 0, of ``total``.

    Attributes:
        scalars: what has been logged, by metric name.
        tokens: tokens by which the record computes its speed.
        expert_load: share of tokens of each expert, by layer number.
        work: its FLOPs, where they are known.
        samples: shown as text in TensorBoard.
        replayed: whether it trains on a rollout that an earlier start has sampled whole.
        has_line: whether it gets a line of the record even where only every n-th step does.
    """

    number: int
    total: int
    scalars: dict[str, float] = field(default_factory=dict)
    tokens: int = 0
    expert_load: Mapping[int, Sequence[float]] = field(default_factory=dict)
    work: StepWork | None = None
    samples: Sequence[SampleView] = ()
    replayed: bool = False
    has_line: bool = False

    def measured(self, name: str, value: float) -> None:
        """Note what is measured now and then; the step gets a line of the record for it."""
        self.scalars[name] = value
        self.has_line = True

    def learning_rate(self, optimizer: OptimizerConfig) -> float:
        """Return the rate of this step in a schedule over all steps."""
        return scheduled_rate(optimizer, self.number, self.total)

    def log(self, updates: Sequence[Mapping[str, float]], tokens: int, **scalars: float) -> None:
        """Note the means of the updates' metrics, the tokens of the step, and further scalars.

        Args:
            updates: what ``TrainedModel.update`` returned, for each minibatch.
            tokens: by which the record computes tokens per second: response tokens of a rollout,
                real tokens of a batch of documents.
            scalars: by metric name; ``rate`` stands for the learning rate.
        """
        for name in updates[0] if updates else ():
            mean = sum(update[name] for update in updates) / len(updates)
            self.scalars[names.TRAINING_PREFIX + name] = mean
        if "rate" in scalars:
            self.scalars[names.LEARNING_RATE] = scalars.pop("rate")
        self.scalars.update(scalars)
        self.tokens = tokens


def scheduled_rate(optimizer: OptimizerConfig, update: int, total: int) -> float:
    """Return the learning rate of update ``update``, from 0, of ``total``."""
    return learning_rate(
        update,
        peak=optimizer.lr,
        schedule=optimizer.schedule,
        warmup=optimizer.warmup_steps,
        total=total,
        minimum=optimizer.min_lr,
    )
