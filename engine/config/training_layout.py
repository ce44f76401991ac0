"""Check section ``training`` against a layout, and compute the multiple of packed rows."""

from __future__ import annotations

import math

from engine.config.fp8 import gathered_multiple, size_multiple
from engine.config.layout import LayoutConfig
from engine.config.training import TrainingConfig


def check_training_fits_layout(training: TrainingConfig, layout: LayoutConfig) -> None:
    """Check that the options of ``training`` work in ``layout``.

    Raises:
        ValueError: one does not; names the key, what was expected and why.
    """
    if training.dispatcher == "allgather" and layout.pp > 1 and layout.vpp == 1:
        raise ValueError(
            f"dispatcher: expected alltoall where layout.pp is {layout.pp}, found allgather; "
            "megatron-core refuses it together with rows of variable length, which pipeline "
            "stages exchange"
        )


def row_multiple(training: TrainingConfig, layout: LayoutConfig) -> int:
    """Return the number of tokens to a multiple of which each packed row is padded.

    The layout splits rows over its ranks. Two options need all rows equally long, and get rows of
    the whole ``tokens_per_microbatch``: the allgather dispatcher, among expert-parallel ranks, and
    the interleaved schedule, among microbatches. FP8 products take certain numbers of rows only.
    """
    on_each_rank = (gathered_multiple if layout.tp > 1 else size_multiple)(training.fp8)
    multiple = math.lcm(layout.row_multiple, layout.cp * layout.tp * on_each_rank)
    if training.dispatcher == "allgather" or layout.vpp > 1:
        return -(-training.tokens_per_microbatch // multiple) * multiple
    return multiple
