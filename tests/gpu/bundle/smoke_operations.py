"""The operations that our layers take from Transformer Engine 2.11, each by itself.

Sizes are small, but of the kind that megatron asks for: empty experts, packed rows, channels in
multiples of 16. Every check imports Transformer Engine itself: whether it can be is one of them.
"""

from __future__ import annotations

import sys
from itertools import pairwise

import pytest
import torch
from smoke_checks import CUDA, FP8_BOUND, check, normal, same
from torch import Tensor

IN_TRITON = ("permutation", "permutation_with_merging", "sorting_of_chunks")
"""Checks of kernels that are written in Triton, and so can be tried on a CPU."""


@check
def machine() -> str:
    from importlib.metadata import version

    free, memory = torch.cuda.mem_get_info()
    packages = ("torch", "triton", "numpy", "megatron-core", "transformer-engine", "pydantic")
    nccl = ".".join(map(str, torch.cuda.nccl.version()))
    return (
        f"{torch.cuda.get_device_name()}, {free >> 30} of {memory >> 30} GiB free, cuDNN "
        f"{torch.backends.cudnn.version()}, NCCL {nccl}, Python {sys.version.split()[0]}, "
        + ", ".join(f"{package} {version(package)}" for package in packages)
    )


@check
def transformer_engine_is_imported() -> str:
    import transformer_engine.pytorch as te
    import transformer_engine_torch as extension

    return f"{te.__file__}, {extension.__file__}"


@check
def linear() -> str:
    import transformer_engine.pytorch as te

    x, layer = normal(128, 256), te.Linear(256, 512, bias=False, params_dtype=torch.bfloat16)
    return same(layer(x), x.float() @ layer.weight.float().t(), x, layer.weight)


@check
def linear_in_float32() -> str:
    """Transformer Engine rounds the factors to TF32."""
    import transformer_engine.pytorch as te

    x = normal(128, 256, dtype=torch.float32)
    layer = te.Linear(256, 512, bias=False, params_dtype=torch.float32)
    return same(layer(x), x @ layer.weight.t(), x, layer.weight)


@check
def norm() -> str:
    import transformer_engine.pytorch as te

    x, layer = normal(128, 256), te.RMSNorm(256, eps=1e-6, dtype=torch.bfloat16)
    right = torch.nn.functional.rms_norm(x.float(), (256,), layer.weight.float(), 1e-6)
    return same(layer(x), right, x, layer.weight)


@check
def norm_and_linear() -> str:
    import transformer_engine.pytorch as te

    x = normal(128, 256)
    layer = te.LayerNormLinear(
        256, 64, eps=1e-6, bias=False, normalization="RMSNorm", params_dtype=torch.bfloat16
    )
    scale = layer.layer_norm_weight
    normed = torch.nn.functional.rms_norm(x.float(), (256,), scale.float(), 1e-6)
    return same(layer(x), normed @ layer.weight.float().t(), x, scale, layer.weight)


@check
def grouped_linear() -> str:
    import transformer_engine.pytorch as te

    counts = [32, 0, 64, 16]
    layer = te.GroupedLinear(4, 256, 128, bias=False, params_dtype=torch.bfloat16)
    x, weights = normal(sum(counts), 256), list(layer.parameters())
    parts = zip(x.float().split(counts), weights, strict=True)
    right = torch.cat([part @ weight.float().t() for part, weight in parts])
    return same(layer(x, counts), right, x, *weights)


@check
def grouped_linear_by_cutlass() -> str:
    """Hopper's kernel for all experts at once in 16 bits, which our layers take.

    It has groups of one inner size only, so the weights' gradients say "Fallback to cuBLAS".
    """
    with pytest.MonkeyPatch.context() as patch:  # its library reads them at every call
        patch.setenv("NVTE_USE_CUTLASS_GROUPED_GEMM", "1")
        patch.setenv("NVTE_CUTLASS_GROUPED_GEMM_WARN_FALLBACK", "1")
        return grouped_linear()


def plain_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Causal attention of one sample, [tokens, heads, channels] in float32."""
    k, v = (t.repeat_interleave(q.shape[1] // t.shape[1], 1) for t in (k, v))
    scores = torch.einsum("qhd,khd->hqk", q, k) * q.shape[-1] ** -0.5
    future = torch.ones(len(q), len(q), dtype=torch.bool, device=q.device).triu(1)
    shares = scores.masked_fill(future, float("-inf")).softmax(-1)
    return torch.einsum("hqk,khd->qhd", shares, v)


def attention(dtype: torch.dtype, *, heads: int, groups: int, channels: tuple[int, int]) -> str:
    """Packed rows, as megatron calls it; which of the three implementations was taken is said."""
    import transformer_engine.pytorch as te
    from transformer_engine.pytorch.attention.dot_product_attention import dot_product_attention

    ends = [0, 40, 100, 256]
    lengths = torch.tensor(ends, dtype=torch.int32, device=CUDA)
    q = normal(256, heads, channels[0], dtype=dtype)
    k, v = (normal(256, groups, width, dtype=dtype) for width in channels)
    layer = te.DotProductAttention(
        heads, channels, num_gqa_groups=groups, qkv_format="thd", attn_mask_type="padding_causal"
    )
    rows = {"cu_seqlens_q": lengths, "cu_seqlens_kv": lengths}
    found = layer(q, k, v, **rows, max_seqlen_q=156, max_seqlen_kv=156)
    right = [plain_attention(*(t[a:b].float() for t in (q, k, v))) for a, b in pairwise(ends)]
    said = same(found, torch.cat(right).flatten(1), q, k, v)
    taken = dot_product_attention._attention_backends
    names = [name for name in ("flash", "fused", "unfused") if taken[f"use_{name}_attention"]]
    return f"{said}, {' or '.join(names)}"


@check
def attention_in_bfloat16() -> str:
    return attention(torch.bfloat16, heads=8, groups=2, channels=(64, 64))


@check
def attention_of_narrow_heads_in_bfloat16() -> str:
    """The width of the tests' models."""
    return attention(torch.bfloat16, heads=4, groups=2, channels=(16, 16))


@check
def latent_attention_in_bfloat16() -> str:
    """DeepSeek-V3's widths: keys are wider than values."""
    return attention(torch.bfloat16, heads=4, groups=4, channels=(192, 128))


@check
def narrow_latent_attention_in_bfloat16() -> str:
    return attention(torch.bfloat16, heads=4, groups=4, channels=(32, 16))


@check
def attention_in_float32() -> str:
    return attention(torch.float32, heads=8, groups=2, channels=(64, 64))


@check
def latent_attention_in_float32() -> str:
    return attention(torch.float32, heads=4, groups=4, channels=(32, 16))


@check
def rotation() -> str:
    from transformer_engine.pytorch.attention.rope import apply_rotary_pos_emb

    x, lengths = normal(256, 4, 64), torch.tensor([0, 40, 100, 256], device=CUDA).int()
    angles = torch.outer(torch.arange(256, device=CUDA), 1e-4 ** torch.linspace(0, 1, 32).cuda())
    angles = torch.cat([angles, angles], -1)[:, None, None]
    given = {"tensor_format": "thd", "cu_seqlens": lengths}
    found = apply_rotary_pos_emb(x, angles, fused=True, **given)
    return same(found, apply_rotary_pos_emb(x.float(), angles, fused=False, **given), x)


def routed() -> tuple[Tensor, Tensor, Tensor]:
    """Tokens, weights of experts and the choice, two of eight experts each, as our router's."""
    x, weights = normal(64, 256), normal(64, 8, dtype=torch.float32)
    best = weights.topk(2).indices
    return x, weights, torch.zeros_like(weights, dtype=torch.bool).scatter(1, best, True)


@check
def permutation() -> str:
    """As megatron's dispatcher calls it: weights go along, and are multiplied by the experts."""
    import transformer_engine.pytorch as te

    x, weights, chosen = routed()
    moved, moved_weights, order = te.moe_permute_with_probs(x, weights, chosen, num_out_tokens=128)
    experts, tokens = chosen.t().nonzero(as_tuple=True)
    said = [
        same(moved, x[tokens], x),
        same(moved_weights, weights[tokens, experts], weights),
    ]
    back = te.moe_unpermute(moved, order, restore_shape=x.shape)
    return "; ".join([*said, same(back, 2 * x, x)])


@check
def permutation_with_merging() -> str:
    import transformer_engine.pytorch as te

    x, weights, chosen = routed()
    moved, order = te.moe_permute(x, chosen, num_out_tokens=128)
    back = te.moe_unpermute(moved, order, merging_probs=weights, restore_shape=x.shape)
    return same(back, x.float() * (weights * chosen).sum(1, keepdim=True), x, weights)


@check
def sorting_of_chunks() -> str:
    """What several experts on each of several ranks need besides."""
    import transformer_engine.pytorch as te

    counts, order = [16, 0, 40, 8], [2, 0, 3, 1]
    x, weights = normal(64, 256), normal(64, dtype=torch.float32)
    sizes, places = (torch.tensor(given, device=CUDA) for given in (counts, order))
    moved, moved_weights = te.moe_sort_chunks_by_index_with_probs(x, weights, sizes, places)
    parts, parts_of_weights = x.split(counts), weights.split(counts)
    said = same(moved, torch.cat([parts[i] for i in order]), x)
    right = torch.cat([parts_of_weights[i] for i in order])
    return f"{said}; {same(moved_weights, right, weights)}"


@check
def gradient_norm() -> str:
    from transformer_engine.pytorch.optimizers import multi_tensor_applier, multi_tensor_l2norm

    flag, x = torch.zeros(1, dtype=torch.int, device=CUDA), torch.randn(1000, device=CUDA)
    found, _ = multi_tensor_applier(multi_tensor_l2norm, flag, [[x]], False)
    return same(found, x.norm().reshape_as(found))


def adam(dtype: torch.dtype, **options: object) -> str:
    """Three steps of Adam against torch's in float32; of rounded parameters, their masters."""
    from transformer_engine.pytorch.optimizers import FusedAdam

    mine = torch.nn.Parameter(torch.randn(1000, device=CUDA, dtype=dtype))
    right = torch.nn.Parameter(mine.detach().float())
    begun, given = right.detach().clone(), {"lr": 1e-2, "weight_decay": 0.1}
    ours = FusedAdam([mine], adam_w_mode=True, **given, **options)
    theirs = torch.optim.AdamW([right], **given)
    for _ in range(3):
        right.grad = torch.randn_like(right)
        if "use_decoupled_grad" in options:
            mine.decoupled_grad = right.grad.clone()
        else:
            mine.grad = right.grad.clone()
        ours.step()
        theirs.step()
    if dtype == torch.float32:
        return same(mine.detach() - begun, right.detach() - begun)
    master = ours.get_unscaled_state(mine, "master_param")
    assert mine.equal(master.to(dtype)), "the parameters are not their masters, rounded"
    return same(master - begun, right.detach() - begun)


@check
def adam_of_float32() -> str:
    """As megatron's distributed optimizer calls it: on float32 masters that it keeps itself."""
    return adam(torch.float32)


@check
def adam_of_bfloat16() -> str:
    """As its precision-aware optimizer does: the masters are Adam's, gradients float32."""
    return adam(torch.bfloat16, master_weights=True, use_decoupled_grad=True)


def fp8(name: str, *, parameters: bool = False) -> str:
    """Two microbatches; megatron says which is the first, so the second finds rounded weights."""
    import transformer_engine.pytorch as te
    from transformer_engine.common import recipe

    chosen, dtype = getattr(recipe, name)(), torch.bfloat16
    with te.quantized_model_init(enabled=parameters, recipe=chosen):
        one = te.Linear(256, 512, bias=False, params_dtype=dtype)
        many = te.GroupedLinear(2, 256, 512, bias=False, params_dtype=dtype)
    counts, said = [48, 80], []
    weights = [w.dequantize() if parameters else w for w in (one.weight, *many.parameters())]
    for first in (True, False):
        x = normal(128, 256)
        with te.autocast(enabled=True, recipe=chosen):
            alone = one(x, is_first_microbatch=first)
            grouped = many(x, counts, is_first_microbatch=first)
        parts = zip(x.float().split(counts), weights[1:], strict=True)
        right = torch.cat([part @ w.float().t() for part, w in parts])
        leaves = [] if parameters else weights
        exact = x.float() @ weights[0].float().t()
        said.append(same(alone, exact, x, *leaves[:1], bound=FP8_BOUND))
        said.append(same(grouped, right, x, *leaves[1:], bound=FP8_BOUND))
    return "; ".join(said)


@check
def fp8_tensorwise() -> str:
    return fp8("Float8CurrentScaling")


@check
def fp8_blockwise() -> str:
    return fp8("Float8BlockScaling")


@check
def fp8_delayed() -> str:
    return fp8("DelayedScaling")


@check
def fp8_blockwise_parameters() -> str:
    return fp8("Float8BlockScaling", parameters=True)
