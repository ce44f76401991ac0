"""Run in a process of its own: our attention and experts against SGLang's, on random batches.

Prints one line per kind of batch, its name and the largest difference. Slots of the cache that no
request owns hold NaN: whatever reads one shows.
"""

from __future__ import annotations

import random
from types import SimpleNamespace

from engine.platform.sglang_cpu import imports

imports.install()  # before sglang is imported

import torch  # noqa: E402
from sglang.srt.layers.attention.torch_native_backend import TorchNativeAttnBackend  # noqa: E402
from sglang.srt.layers.moe.fused_moe_native import moe_forward_native  # noqa: E402
from sglang.srt.layers.radix_attention import RadixAttention  # noqa: E402
from sglang.srt.model_executor.forward_batch_info import ForwardMode  # noqa: E402

from engine.platform.sglang_cpu.attention import BatchedAttention  # noqa: E402
from engine.platform.sglang_cpu.experts import grouped_experts  # noqa: E402

SLOTS, LONGEST, DIM = 20_000, 400, 16


class Pool:
    """A key-value cache of one layer, NaN where nothing was written."""

    def __init__(self, kv_heads: int) -> None:
        self.keys = torch.full((SLOTS, kv_heads, DIM), torch.nan)
        self.values = torch.full((SLOTS, kv_heads, DIM), torch.nan)

    def get_key_buffer(self, layer_id: int) -> torch.Tensor:
        return self.keys

    def get_value_buffer(self, layer_id: int) -> torch.Tensor:
        return self.values

    def set_kv_buffer(self, layer, where, k, v) -> None:
        self.keys[where.loc], self.values[where.loc] = k, v


def attention_difference(prefix: list[int], new: list[int], heads: int, kv_heads: int) -> float:
    """Largest difference on one batch; with one new token each it is a decode step."""
    decode = max(new) == 1 and min(prefix) > 0
    total = [p + n for p, n in zip(prefix, new, strict=True)]
    table = torch.randint(0, SLOTS, (len(new) + 5, LONGEST), dtype=torch.int32)  # stale entries
    rows = torch.randperm(len(new) + 5)[: len(new)]
    free = torch.randperm(SLOTS)
    pool = Pool(kv_heads)
    written = []
    for row, p, t in zip(rows, prefix, total, strict=True):
        slots, free = free[:t], free[t:]
        table[row, :t] = slots.to(torch.int32)
        pool.keys[slots[:p]] = torch.randn(p, kv_heads, DIM)
        pool.values[slots[:p]] = torch.randn(p, kv_heads, DIM)
        written.append(slots[p:])
    runner = SimpleNamespace(
        device="cpu",
        req_to_token_pool=SimpleNamespace(req_to_token=table),
        token_to_kv_pool=pool,
    )
    batch = SimpleNamespace(
        forward_mode=ForwardMode.DECODE if decode else ForwardMode.EXTEND,
        req_pool_indices=rows,
        seq_lens=torch.tensor(total),
        extend_prefix_lens=torch.tensor(prefix),
        extend_seq_lens=torch.tensor(new),
        out_cache_loc=torch.cat(written),
        encoder_lens=None,
    )
    layer = RadixAttention(heads, DIM, DIM**-0.5, kv_heads, layer_id=0)
    q = torch.randn(sum(new), heads * DIM)
    k, v = torch.randn(2, sum(new), kv_heads, DIM)
    results = []
    for backend in TorchNativeAttnBackend(runner), BatchedAttention(runner):
        backend.init_forward_metadata(batch)
        forward = backend.forward_decode if decode else backend.forward_extend
        results.append(forward(q, k, v, layer, batch))
    assert results[0].shape == results[1].shape and not results[0].isnan().any()
    return (results[0] - results[1]).abs().nan_to_num(nan=torch.inf).max().item()


def experts_difference(tokens: int, experts: int, top_k: int) -> float:
    layer = SimpleNamespace(
        num_experts=experts,
        w13_weight=torch.randn(experts, 2 * 24, 32) / 6,
        w2_weight=torch.randn(experts, 32, 24) / 5,
    )
    config = SimpleNamespace(
        activation="silu",
        gemm1_alpha=None,
        gemm1_clamp_limit=None,
        apply_router_weight_on_input=False,
    )
    weights, ids = torch.randn(tokens, experts).softmax(-1).topk(top_k)
    topk = (weights, ids.to(torch.int32), None)
    x = torch.randn(tokens, 32)
    expected = moe_forward_native(layer, x, topk, config)

    def refuse(*_: object) -> torch.Tensor:
        raise AssertionError("the experts were taken for unusual ones")

    return (grouped_experts(refuse, layer, x, topk, config) - expected).abs().max().item()


def lengths(count: int, low: int, high: int) -> list[int]:
    return [random.randint(low, high) for _ in range(count)]


def main() -> None:
    torch.manual_seed(0)
    random.seed(0)
    torch.set_num_threads(1)
    with torch.inference_mode():
        for _ in range(12):
            heads, kv_heads = random.choice([(4, 2), (4, 4), (6, 1)])
            count = random.randint(1, 40)
            spread = lengths(count, 1, 300)
            narrow = lengths(count, 20, 45)
            one, none = [1] * count, [0] * count
            short = lengths(count, 1, 60)
            some = [p * random.randint(0, 1) for p in narrow]
            for name, prefix, new in (
                ("decode narrow", narrow, one),
                ("decode spread", spread, one),
                ("prefill", none, narrow),
                ("prefill spread", none, spread),
                ("prefill after prefixes", narrow, short),
                ("prefill, some with prefix", some, spread),
            ):
                print(name, attention_difference(prefix, new, heads, kv_heads), sep="\t")
            k = random.randint(1, 4)
            print("experts", experts_difference(count, random.randint(4, 16), k), sep="\t")


if __name__ == "__main__":
    main()
