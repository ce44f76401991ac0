"""Calls of the Triton kernels that SGLang 0.5.17 takes for a text model, beside plain torch.

Attention over a cache of keys and values, the experts' products and the bookkeeping around them.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from smoke_operations import plain_attention
from torch import Tensor

BOUND = 1e-5
"""Largest relative distance, float32."""


def close(found: Tensor, right: Tensor) -> str:
    """Return the relative distance, which must be small."""
    off = float((found.double() - right.double()).norm() / right.double().norm())
    assert off < BOUND, f"off by {off:.2e}"
    return f"{off:.1e}"


DTYPE = torch.float32
compare = close
"""check_triton_compiles.py sets both to others."""


def normal(*shape: int) -> Tensor:
    """Return random numbers of ``DTYPE``."""
    return torch.randn(shape, dtype=DTYPE)


class Cache:
    """Keys and values of two requests in a cache whose slots are in disorder."""

    lengths = (37, 70)

    def __init__(self, groups: int, channels: int) -> None:
        slots = torch.randperm(256)[: sum(self.lengths)]
        self.k, self.v = (normal(256, groups, channels) for _ in range(2))
        self.places = slots.split(list(self.lengths))

    def pointers(self, lengths: list[int]) -> tuple[Tensor, Tensor]:
        """Where each request's first tokens begin, and the slots of all of them."""
        begins = torch.tensor([0, *lengths]).cumsum(0).int()
        taken = [place[:length] for place, length in zip(self.places, lengths, strict=True)]
        return begins, torch.cat(taken)


def extend_attention() -> str:
    """Prompts whose beginning is in the cache: 4 heads in 2 groups."""
    from sglang.kernels.ops.attention.extend_attention import extend_attention_fwd

    cache, prefixes = Cache(2, 64), [16, 33]
    new = [length - prefix for length, prefix in zip(cache.lengths, prefixes, strict=True)]
    begins, slots = cache.pointers(prefixes)
    q, ends = normal(sum(new), 4, 64), torch.tensor([0, *new]).cumsum(0).int()
    late = [place[prefix:] for place, prefix in zip(cache.places, prefixes, strict=True)]
    k, v = (held[torch.cat(late)] for held in (cache.k, cache.v))
    found = torch.empty_like(q)
    extend_attention_fwd(
        q, k, v, found, cache.k, cache.v, ends, begins, slots, None, True, None, max(new), 1.0, 1.0
    )
    right = [
        # Queries of tokens in the cache are not computed again: any will do.
        plain_attention(torch.cat([normal(prefix, 4, 64), mine]), cache.k[place], cache.v[place])[
            prefix:
        ]
        for prefix, mine, place in zip(prefixes, q.split(new), cache.places, strict=True)
    ]
    return compare(found, torch.cat(right))


def decode_attention(heads: int, groups: int) -> str:
    """One new token for each request, its keys and values cut into pieces that are merged."""
    from sglang.kernels.ops.attention.decode_attention import decode_attention_fwd

    cache, most = Cache(groups, 64), 4
    begins, slots = cache.pointers(list(cache.lengths))
    q = normal(2, heads, 64)
    found, pieces = torch.empty_like(q), torch.tensor([1, 3]).int()
    values, sums = torch.empty(2, heads, most, 64), torch.empty(2, heads, most)
    decode_attention_fwd(
        q, cache.k, cache.v, found, begins, slots, values, sums, pieces, most, 64**-0.5, 1.0, 1.0
    )
    right = []
    for number, place in enumerate(cache.places):
        queries = q[number].expand(len(place), -1, -1)
        right.append(plain_attention(queries, cache.k[place], cache.v[place])[-1])
    return compare(found, torch.stack(right))


def decode_attention_in_groups() -> str:
    return decode_attention(4, 2)


def decode_attention_of_single_heads() -> str:
    return decode_attention(4, 4)


def experts() -> str:
    """One product of each token's two experts, weighted, and its sum."""
    import triton.language as tl
    from sglang.kernels.ops.moe.fused_moe_triton_kernels import (
        invoke_fused_moe_kernel,
        moe_sum_reduce_triton,
    )

    tokens, count, taken, inner, outer, rows = 24, 4, 2, 64, 48, 16
    x, weights = normal(tokens, inner), normal(count, outer, inner)
    shares, chosen = torch.randn(tokens, count).softmax(-1).topk(taken)
    order, owners = aligned(chosen, count, rows)
    moved = torch.empty(tokens, taken, outer, dtype=DTYPE)
    invoke_fused_moe_kernel(
        x, weights, None, moved, None, None, None, shares, chosen.int(), order, owners,
        torch.tensor([len(order)]).int(), True, taken,
        {"BLOCK_SIZE_M": rows, "BLOCK_SIZE_N": 32, "BLOCK_SIZE_K": 32, "GROUP_SIZE_M": 1},
        getattr(tl, str(DTYPE).removeprefix("torch.")), False, False, False, False, False,
    )  # fmt: skip
    found = torch.empty(tokens, outer, dtype=DTYPE)
    moe_sum_reduce_triton(moved, found, 1.0)
    products = torch.einsum("ti,tkoi->tko", x, weights[chosen]) * shares[..., None]
    return f"{compare(moved, products)}, sum {compare(found, products.sum(1))}"


def aligned(chosen: Tensor, count: int, rows: int) -> tuple[Tensor, Tensor]:
    """Each expert's rows (token * choices + choice), filled up to blocks; and blocks' experts."""
    order, owners, none = [], [], chosen.numel()
    for expert in range(count):
        mine = (chosen.flatten() == expert).nonzero().flatten().tolist()
        mine += [none] * (-len(mine) % rows)
        order += mine
        owners += [expert] * (len(mine) // rows)
    return torch.tensor(order).int(), torch.tensor(owners).int()


def bookkeeping() -> str:
    """Which slots hold a request's tokens, where new tokens stand, how the cache is cut."""
    from sglang.kernels.ops.attention.metadata import get_num_kv_splits_triton
    from sglang.kernels.ops.attention.position import compute_position_triton
    from sglang.kernels.ops.kvcache.kv_indices import create_flashinfer_kv_indices_triton

    table, requests = torch.randint(1000, (3, 128)).int(), torch.tensor([2, 0])
    lengths = torch.tensor([37, 70])
    begins, found = torch.tensor([0, 37, 107]).int(), torch.empty(107, dtype=torch.int64)
    create_flashinfer_kv_indices_triton[(2,)](
        table, requests, lengths, begins, None, found, table.stride(0)
    )
    said = [compare(found, torch.cat([table[2, :37], table[0, :70]]))]
    prefixes, new = torch.tensor([5, 9]), torch.tensor([4, 2])
    positions, starts = compute_position_triton(prefixes, new, 6)
    said += [compare(positions, torch.arange(5, 11)), compare(starts, torch.tensor([0, 4]))]
    pieces = torch.zeros(2, dtype=torch.int32)
    get_num_kv_splits_triton[(1,)](pieces, lengths, 2, 1, 4, 2, 16, 132, MAX_NUM_SEQ=2)
    said.append(compare(pieces, pieces.clamp(1, 16)))
    return ", ".join(said)


CALLS: list[Callable[[], str]] = [
    extend_attention,
    decode_attention_in_groups,
    decode_attention_of_single_heads,
    experts,
    bookkeeping,
]
