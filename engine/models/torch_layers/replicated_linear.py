"""A linear layer that every tensor-parallel rank holds whole, as MLA's down-projections are.

megatron's own torch spec cuts them into columns instead and silently gets wrong gradients under
sequence parallelism; Transformer Engine's ``parallel_mode="duplicated"`` is what this layer equals.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from megatron.core.transformer import multi_latent_attention
from megatron.core.transformer.module import MegatronModule
from megatron.core.transformer.transformer_config import TransformerConfig
from torch import Tensor
from torch.nn.functional import linear


class ReplicatedLinear(MegatronModule):
    """y = x W^T without bias, W on every rank.

    Under sequence parallelism each rank sees its own tokens, so W's gradient is a partial sum; the
    mark ``sequence_parallel`` has megatron's ``finalize_model_grads`` add the ranks' parts.
    """

    def __init__(
        self,
        input_size: int,
        output_size: int,
        *,
        config: TransformerConfig,
        init_method: Callable[[Tensor], Any],
        **_: Any,
    ) -> None:
        super().__init__(config=config)
        weight = torch.empty(
            output_size,
            input_size,
            dtype=config.params_dtype,
            device=torch.cuda.current_device(),
        )
        self.weight = torch.nn.Parameter(weight)
        if config.perform_initialization:
            init_method(self.weight)  # from the random stream that tensor-parallel ranks share
        self.weight.sequence_parallel = config.sequence_parallel

    def forward(self, inputs: Tensor) -> tuple[Tensor, None]:
        """Multiply: [..., input_size] -> ([..., output_size], no bias)."""
        return linear(inputs, self.weight), None


@contextmanager
def accepted_by_latent_attention() -> Iterator[None]:
    """Let ``MLASelfAttention`` be built with :class:`ReplicatedLinear` within the block.

    multi_latent_attention.py:408 and 453 of megatron-core 0.16.1 compare the spec's class with
    the name of Transformer Engine's, which is None without it, and refuse any other.
    """
    of_megatron = multi_latent_attention.TELinear
    multi_latent_attention.TELinear = ReplicatedLinear
    try:
        yield
    finally:
        multi_latent_attention.TELinear = of_megatron
