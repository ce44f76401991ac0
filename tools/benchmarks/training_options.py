"""Measure memory and time of options of section ``training`` against a plain run.

    python -m tools.benchmarks.training_options [--rounds N]

A latent-attention mixture of experts with a prediction head on one process; rounds of plain and of
each option in turn. Memory is what autograd keeps for the backward pass, parameters aside; time is
that of a whole update. Both are ratios to the plain run.
"""

from __future__ import annotations

import time
from statistics import median
from typing import Any

from tools.benchmarks import rank_imports  # isort: skip  (readies the platform for megatron)

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

from engine.algorithms.next_token import next_token_loss
from engine.config.layout import LayoutConfig
from engine.config.trainer import OptimizerConfig
from engine.config.training import TrainingConfig
from engine.data.batch_builder import Packing, WeightedRow, build_minibatches
from engine.errors import clear_errors
from engine.training.heads.token_logprobs import TokenLogProbs, TokenOutputs
from engine.training.trained_model import TrainedModel
from tools.benchmarks import report
from tools.benchmarks.parity.models import MLA_MOE
from tools.benchmarks.rank_pool import RankPool

__all__ = ["rank_imports"]

MODEL: dict[str, Any] = {
    **MLA_MOE,
    "hidden_size": 256,
    "intermediate_size": 512,
    "moe_intermediate_size": 128,
    "num_hidden_layers": 8,
    "q_lora_rank": 96,
    "kv_lora_rank": 64,
    "qk_nope_head_dim": 32,
    "qk_rope_head_dim": 16,
    "v_head_dim": 32,
}
SAMPLES, TOKENS = 4, 256
OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "recompute: selective": {"recompute": "selective"},
    "recompute: full": {"recompute": "full"},
    "recompute: full, in fours": {"recompute": "full", "recompute_layers": 4},
    "grouped experts": {"grouped_experts": True},
    "dispatcher: allgather": {"dispatcher": "allgather"},
}


def row() -> WeightedRow:
    """Return a row of random samples, every token of equal weight."""
    generator = torch.Generator().manual_seed(0)
    words = torch.randint(MODEL["vocab_size"], (SAMPLES, TOKENS), generator=generator).tolist()
    (minibatch,) = build_minibatches(
        [(sample[:1], sample[1:]) for sample in words],
        [1.0 / (SAMPLES * TOKENS)] * SAMPLES,
        Packing(0, 1, SAMPLES * TOKENS),
    )
    (found,) = minibatch.rows
    return found


def kept_and_seconds(
    layout: LayoutConfig, training_options: dict[str, Any], rounds: int
) -> tuple[int, list[float]]:
    """Return the bytes that autograd holds when the loss is reached, and seconds of each update."""
    training = TrainingConfig(
        dtype="float32",
        tokens_per_microbatch=SAMPLES * TOKENS,
        mtp_loss_weight=0.1,
        **training_options,
    )
    head = TokenLogProbs(1.0, training.logits_chunk_tokens)
    policy = TrainedModel(MODEL, layout, OptimizerConfig(lr=1e-3), training, head)
    kept, seconds = 0, []
    for _ in range(rounds + 1):  # the first warms up
        begun = time.perf_counter()
        policy.update([row()], _loss, SAMPLES * TOKENS, 1e-3)
        seconds.append(time.perf_counter() - begun)
    held: dict[int, torch.UntypedStorage] = {}
    parameters = {p.untyped_storage().data_ptr() for p in policy.chunks[0].parameters()}

    def see(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in parameters:
            held[storage._cdata] = storage
        return tensor

    def loss(outputs: TokenOutputs, row: WeightedRow) -> tuple[Tensor, dict[str, Tensor]]:
        nonlocal kept
        unique = {s.data_ptr(): s.nbytes() for s in held.values()}
        kept = sum(unique.values())
        return _loss(outputs, row)

    with saved_tensors_hooks(see, lambda tensor: tensor):
        policy.update([row()], loss, SAMPLES * TOKENS, 1e-3)
    return kept, seconds[1:]


def _loss(outputs: TokenOutputs, row: WeightedRow) -> tuple[Tensor, dict[str, Tensor]]:
    return next_token_loss(outputs.logp, row.weights)


def main() -> None:
    """Print the table."""
    parser = report.command_line(__doc__, "python -m tools.benchmarks.training_options")
    parser.add_argument("--rounds", type=int, default=3, help="times that each option is measured")
    options = parser.parse_args()
    layout = LayoutConfig(processes=1)
    kept: dict[str, int] = {}
    seconds: dict[str, list[float]] = {name: [] for name in OPTIONS}
    with RankPool(1) as pool:
        for _ in range(options.rounds):
            for name, training_options in OPTIONS.items():
                given = {"training_options": training_options, "rounds": 2}
                (found,) = pool.run(kept_and_seconds, layout, 600.0, **given)
                kept[name] = found[0]
                seconds[name] += found[1]
    print(f"{'option':<28}{'kept':>8}{'time':>8}   plain: {kept['plain'] / 2**20:.1f} MiB")
    results = []
    for name in OPTIONS:
        memory = kept[name] / kept["plain"]
        slower = median(seconds[name]) / median(seconds["plain"])
        print(f"{name:<28}{memory:8.2f}{slower:8.2f}")
        results.append({"option": name, "kept": memory, "time": slower})
    report.write(options, plain_bytes=kept["plain"], results=results)


if __name__ == "__main__":
    with clear_errors():
        main()
