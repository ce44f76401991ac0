"""What this machine has to offer a run that starts on it."""

from __future__ import annotations

from typing import Any


def count_gpus() -> int:
    """Return how many GPUs this machine has."""
    import torch

    return int(torch.cuda.device_count())


def check_machine(config: Any) -> None:
    """Pass silently if this machine can compute what the section ``training`` asks for.

    Raises:
        RunError: it cannot; names the key, what it needs and what was found.
    """
    if (training := getattr(config, "training", None)) is not None:
        from engine.models.transformer_config_args import check_machine as check

        check(training)
