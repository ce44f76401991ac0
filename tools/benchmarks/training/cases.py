"""Models to train, each with the minibatch of a step."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from engine.config.layout import LayoutConfig
from engine.config.model_sizes import model_sizes
from engine.errors import RunError
from engine.models.family import family_of
from engine.models.flops import training_flops
from engine.platform import accelerator
from tools.benchmarks.packing import drawn_lengths
from tools.benchmarks.training.results import Work
from tools.benchmarks.training.variants import SMALL_MODEL


@dataclass(frozen=True)
class Case:
    """A model and the minibatch that it is trained on, over and over."""

    name: str
    model: dict[str, Any]
    lengths: Sequence[int]
    work: Work


def case_of(file: Path | None, layout: LayoutConfig, options: argparse.Namespace) -> Case:
    """Return the model of ``file``, or the small one, and samples as the options say.

    Raises:
        RunError: the file is no ``config.json``, or its family is unknown.
    """
    model = SMALL_MODEL if file is None else _read(file)
    lengths = drawn_lengths(
        options.samples, options.median, options.spread, options.limit, options.seed
    )
    family_of(model).architecture(model)  # refuses what megatron cannot express
    work = Work(
        flops=training_flops(replace(model_sizes(model), mtp=0), lengths),
        tokens=sum(lengths),
        processes=layout.processes,
        device=accelerator.device_name(),
    )
    return Case("small mixture of experts" if file is None else file.stem, model, lengths, work)


def _read(file: Path) -> dict[str, Any]:
    try:
        config: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RunError(f"--model: {file} is no config.json: {error}") from None
    return config
