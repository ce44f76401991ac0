"""RMSNorm that works under sequence parallelism, which megatron's own torch norm refuses."""

from __future__ import annotations

from typing import Any

import torch
from megatron.core.transformer.transformer_config import TransformerConfig


class RMSNorm(torch.nn.RMSNorm):
    """Root-mean-square norm over the last axis.

    Its weight is marked ``sequence_parallel`` where the layout splits sequences, so that
    megatron's ``finalize_model_grads`` sums its gradient over the tensor-parallel ranks.
    """

    def __init__(
        self, config: TransformerConfig, hidden_size: int, eps: float = 1e-5, **_: Any
    ) -> None:
        super().__init__(
            hidden_size,
            eps=eps,
            dtype=config.params_dtype,
            device=torch.cuda.current_device(),
        )
        self.weight.sequence_parallel = config.sequence_parallel
