"""A step of reinforcement learning in FLOPs, and the GPUs that it is asked of."""

from __future__ import annotations

from collections.abc import Sequence

from engine.config.layout import LayoutConfig
from engine.config.training import TrainingConfig
from engine.models.family import HuggingFaceConfig, family_of
from engine.models.flops import forward_flops, training_flops
from engine.monitoring.mfu import Devices, StepWork
from engine.platform import accelerator
from engine.rollout.sample import Sample

SCORING_PASSES = 2
"""Old and reference log-probabilities: a forward pass each, without the prediction head."""


def devices(layout: LayoutConfig, training: TrainingConfig) -> Devices:
    """What the policy trains on, and in which precision it multiplies there."""
    return Devices(accelerator.device_name(), layout.processes, training.products)


def step_work(
    config: HuggingFaceConfig, training: TrainingConfig, samples: Sequence[Sample]
) -> StepWork:
    """Count one step over ``samples``, each scored twice and then trained on once.

    The prediction head counts where it is trained. Recomputed activations do not count: they are
    the price of memory, no part of the model.
    """
    lengths = [len(sample.prompt_tokens) + len(sample.tokens) - 1 for sample in samples]
    architecture = family_of(config).architecture(config)
    trained = architecture if training.mtp_loss_weight else {**architecture, "mtp_num_layers": None}
    words = config["vocab_size"]
    return StepWork(
        tokens=sum(lengths),
        training_flops=training_flops(trained, words, lengths),
        scoring_flops=SCORING_PASSES * forward_flops(architecture, words, lengths).main,
    )
