"""Memory derived from sizes equals what is counted by hand, and is close to what was measured."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from engine.config.layout import LayoutConfig
from engine.config.model_sizes import model_sizes
from engine.config.training import TrainingConfig
from engine.models.memory import kept_per_token, training_memory
from engine.models.published import published
from engine.models.sharding import tensor_infos

pytestmark = pytest.mark.slow

CONFIGS = Path(__file__).parents[2] / "tools" / "benchmarks" / "configs"
ONE = LayoutConfig(processes=1)
MIB = 2**20
MEASURED = {
    ("qwen3_30b_a3b_12_layers_16_experts", "none"): (53_827, 0.03),
    ("qwen3_30b_a3b_12_layers_16_experts", "blockwise"): (51_545, 0.03),
    ("deepseek_v3_2_layers_32_experts_32k_words", "none"): (61_226, 0.03),
    ("deepseek_v3_2_layers_32_experts_32k_words", "blockwise"): (69_273, 0.1),
    ("qwen3_30b_a3b_4_layers", "none"): (63_061, 0.03),
    ("qwen3_30b_a3b_4_layers", "blockwise"): (67_044, 0.03),
}
"""Peak MiB of the allocator on an H100 (tests/gpu/results.md), and the error that is allowed."""


def training(**keys: Any) -> TrainingConfig:
    return TrainingConfig(dtype="bfloat16", tokens_per_microbatch=16384, **keys)


def cut_model(name: str) -> dict[str, Any]:
    config: dict[str, Any] = json.loads((CONFIGS / f"{name}.json").read_text())
    return config


@pytest.mark.parametrize(("model", "fp8"), MEASURED)
def test_what_was_measured_on_a_gpu_is_near_what_is_derived(model: str, fp8: str) -> None:
    peak, error = MEASURED[model, fp8]
    derived = training_memory(cut_model(model), ONE, training(fp8=fp8), 16384).total / MIB
    assert peak / derived == pytest.approx(1, abs=error)


@pytest.mark.parametrize("name", ["Qwen3-30B-A3B", "DeepSeek-V3"])
def test_state_takes_18_bytes_of_each_parameter(name: str) -> None:
    config = published(name)
    trained = sum(t.elements for t in tensor_infos(config) if not t.kind.float32)
    memory = training_memory(config, ONE, training(), 16384)
    assert memory.gradients == 4 * trained
    assert memory.optimizer == 12 * trained
    assert memory.parameters == pytest.approx(2 * trained, rel=1e-6)  # biases of experts: float32


def test_ranks_share_the_optimizer_and_the_experts() -> None:
    config = published("Qwen3-30B-A3B")
    alone = training_memory(config, ONE, training(), 16384)
    shared = training_memory(config, LayoutConfig(processes=8), training(), 16384)
    assert shared.optimizer == pytest.approx(alone.optimizer / 8, rel=1e-6)
    assert shared.parameters == alone.parameters
    experts = training_memory(config, LayoutConfig(processes=8, ep=8), training(), 16384)
    assert experts.optimizer == pytest.approx(alone.optimizer / 8, rel=1e-6)
    assert experts.parameters < 0.2 * alone.parameters
    halved = training_memory(config, LayoutConfig(processes=2, tp=2), training(), 16384)
    assert halved.activations == alone.activations / 2


def test_the_fullest_stage_of_a_pipeline_counts() -> None:
    """The first of four stages has four rows under way, the last one the output layer."""
    config = cut_model("qwen3_30b_a3b_12_layers_16_experts")
    alone = training_memory(config, ONE, training(), 16384)
    first = training_memory(config, LayoutConfig(processes=4, pp=4), training(), 16384)
    assert first.activations == alone.activations
    assert first.output_layer == 0


def test_activations_of_a_dense_layer_counted_by_hand() -> None:
    sizes = model_sizes(published("Qwen2.5-7B"))
    hidden, columns, heads, groups, size = 3584, 18944, 28, 4, 128
    query, key = heads * size, groups * size
    attention = 2 * hidden + (query + 2 * key) + (query + key) + query
    feed_forward = 2 * hidden + 3 * columns
    by_hand = 2 * (attention + feed_forward) + 4 * heads
    assert kept_per_token(sizes, training(), 0) == by_hand
    assert kept_per_token(sizes, training(recompute="full"), 0) == 2 * hidden


def test_each_option_saves_what_it_is_there_for() -> None:
    config = cut_model("deepseek_v3_2_layers_32_experts_32k_words")
    plain = training_memory(config, ONE, training(), 16384)
    fp8 = training_memory(config, ONE, training(fp8="blockwise"), 16384)
    assert fp8.activations < plain.activations and fp8.fp8_copies > 0
    only_fp8 = training_memory(config, ONE, training(fp8="blockwise", fp8_parameters=True), 16384)
    assert only_fp8.fp8_copies == 0 and only_fp8.total < fp8.total
    selective = training_memory(config, ONE, training(recompute="selective"), 16384)
    full = training_memory(config, ONE, training(recompute="full"), 16384)
    assert full.activations < selective.activations < 0.7 * plain.activations
    offloaded = training_memory(config, ONE, training(optimizer_offload=0.5), 16384)
    assert offloaded.optimizer == plain.optimizer / 2
    for module in ("core_attn", "mla_up_proj", "layernorm", "mlp", "moe", "moe_act"):
        one = training(recompute="selective", recompute_modules=(module,))
        assert training_memory(config, ONE, one, 16384).activations < plain.activations, module
