"""Count the FLOPs of a training step, from the model's sizes and its samples' lengths."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from engine.config.model_sizes import model_sizes
from engine.config.training import TrainingConfig
from engine.models.family import HuggingFaceConfig
from engine.models.flops import forward_flops, training_flops
from engine.monitoring.mfu import StepWork


def step_work(
    config: HuggingFaceConfig,
    training: TrainingConfig,
    lengths: Sequence[int],
    scoring_passes: int,
) -> StepWork:
    """Count one step over samples that are trained on once.

    The prediction head counts where it is trained. Recomputed activations do not count: they are
    the price of memory, no part of the model.

    Args:
        lengths: positions of each sample, prompt and response less one.
        scoring_passes: forward passes before the updates, without the prediction head: one for old
            log-probabilities, one for the reference model's.
    """
    sizes = model_sizes(config)
    trained = sizes if training.mtp_loss_weight else replace(sizes, mtp=0)
    return StepWork(
        tokens=sum(lengths),
        training_flops=training_flops(trained, lengths),
        scoring_flops=scoring_passes * forward_flops(sizes, lengths).main,
    )
