"""The experts of a mixture-of-experts layer on the CPU as two grouped matrix products.

SGLang's CPU path loops over the experts in Python, with several small kernels for each.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.nn.functional import grouped_mm, silu


def grouped_experts(
    original: Callable[..., torch.Tensor],
    layer: Any,
    x: torch.Tensor,
    topk_output: Any,
    config: Any,
) -> torch.Tensor:
    """Stand in for SGLang's ``moe_forward_native``; falls back on it for unusual experts.

    Args:
        original: SGLang's function.
        layer: holds ``w13_weight`` [experts, 2 * width, hidden] (gate, then up) and ``w2_weight``
            [experts, hidden, width].
        x: [tokens, hidden].
        topk_output: weights [tokens, k], expert ids [tokens, k] and the router's logits.
        config: SGLang's ``MoeRunnerConfig``.

    Returns:
        [tokens, hidden], the weighted sum of each token's experts, in the order of its top k.
    """
    if not _is_plain(layer, x, config):
        return original(layer, x, topk_output, config)
    weights, ids, _ = topk_output
    flat = ids.view(-1).to(torch.int64)
    by_expert = flat.argsort()
    ends = flat.bincount(minlength=layer.num_experts).cumsum(0).to(torch.int32)
    tokens = x[by_expert // ids.shape[1]]
    gate, up = grouped_mm(tokens, layer.w13_weight.transpose(1, 2), offs=ends).chunk(2, dim=-1)
    hidden = silu(gate).mul_(up)
    sorted_out = grouped_mm(hidden, layer.w2_weight.transpose(1, 2), offs=ends)
    out = torch.empty_like(sorted_out)
    out[by_expert] = sorted_out
    return out.view(*ids.shape, -1).mul_(weights.unsqueeze(-1)).sum(1)


def _is_plain(layer: Any, x: torch.Tensor, config: Any) -> bool:
    """Whether these are SwiGLU experts without biases in float32."""
    return (
        x.dtype == torch.float32
        and config.activation == "silu"
        and config.gemm1_alpha is None
        and not config.apply_router_weight_on_input
        and getattr(layer, "w13_weight_bias", None) is None
        and getattr(layer, "w2_weight_bias", None) is None
    )
