"""FLOPs by formula, against torch's count of what transformers computes and published sizes."""

import json
from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from engine.config.model_sizes import ModelSizes, model_sizes
from engine.models.flops import forward_flops, training_flops

CONFIGS = Path(__file__).parents[2] / "tools" / "benchmarks" / "configs"
LENGTH = 13

MOE = {
    "vocab_size": 50,
    "hidden_size": 32,
    "intermediate_size": 88,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 24,
    "norm_topk_prob": True,
}
QWEN3_MOE = {**MOE, "num_experts": 6, "head_dim": 12}
DEEPSEEK_V3 = {
    **MOE,
    "num_key_value_heads": 4,
    "n_routed_experts": 8,
    "n_group": 2,
    "topk_group": 1,
    "n_shared_experts": 2,
    "first_k_dense_replace": 1,
    "q_lora_rank": 20,
    "kv_lora_rank": 16,
    "qk_nope_head_dim": 10,
    "qk_rope_head_dim": 6,
    "v_head_dim": 14,
    "num_nextn_predict_layers": 0,  # newer transformers (5.17) assume one and do not compute it
}
DENSE = {key: MOE[key] for key in list(MOE)[:6]}


def model_and_sizes(model_type: str, sizes: dict):
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.for_model(model_type, **sizes)
    model = AutoModelForCausalLM.from_config(
        config, attn_implementation="eager", experts_implementation="eager"
    )
    return model, model_sizes(config.to_dict())


def counted(model, *, backward: bool) -> int:
    """What torch counts for one sample, less the product that makes rotary angles."""
    tokens = torch.randint(50, (1, LENGTH))
    with FlopCounterMode(display=False) as counter:
        logits = model(tokens, use_cache=False).logits
        if backward:
            logits.sum().backward()
    angles = next(
        sum(counts.values())
        for name, counts in counter.get_flop_counts().items()
        if name.endswith("model.rotary_emb")
    )
    return counter.get_total_flops() - angles


@pytest.mark.parametrize(
    ("model_type", "sizes"),
    [
        ("qwen3_moe", QWEN3_MOE),
        ("deepseek_v3", DEEPSEEK_V3),
        ("deepseek_v3", {**DEEPSEEK_V3, "q_lora_rank": None}),
        ("qwen3", {**DENSE, "head_dim": 12}),
        ("qwen2", DENSE),
        ("llama", DENSE),
    ],
)
def test_the_formula_equals_what_torch_counts(model_type, sizes):
    model, found = model_and_sizes(model_type, sizes)
    flops = forward_flops(found, [LENGTH])
    # transformers computes every pair of tokens and masks; we count the pairs that are used.
    masked = flops.attention_scores * (2 * LENGTH**2) // (LENGTH * (LENGTH + 1))
    computed = flops.total - flops.attention_scores + masked
    assert counted(model, backward=False) == computed
    assert counted(model, backward=True) == 3 * computed
    assert training_flops(found, [LENGTH]) == 3 * flops.total


def published(name: str, **changes) -> ModelSizes:
    """Return the sizes of a model as published, from its cut for the benchmark."""
    return model_sizes(json.loads((CONFIGS / name).read_text()) | changes)


def test_qwen3_30b_a3b_is_as_large_as_its_name_says():
    """3.3B activated parameters (Qwen3 report, table 2), the embedding's 0.31B among them."""
    sizes = published("qwen3_30b_a3b_4_layers.json", num_hidden_layers=48)
    flops = forward_flops(sizes, [1])
    weights = (flops.total - flops.attention_scores) / 2 + sizes.vocabulary * 2048
    assert weights == pytest.approx(3.3e9, rel=0.02)


def test_deepseek_v3_is_as_large_as_published():
    """36.7B activated and 2.4B in the MTP module, say the notes on its weights.

    The first number fits with the output layer's 0.9B and without the embedding's; the second fits
    with both and without the 0.1B that join two hidden states.
    """
    sizes = published(
        "deepseek_v3_2_layers.json",
        num_hidden_layers=61,
        first_k_dense_replace=3,
        num_nextn_predict_layers=1,
    )
    flops = forward_flops(sizes, [1])
    scores_of_a_layer = flops.attention_scores // 61
    depth = (flops.multi_token_prediction - scores_of_a_layer) / 2
    main = (flops.main - flops.attention_scores) / 2
    assert main == pytest.approx(36.7e9, rel=0.005)
    assert depth + sizes.vocabulary * 7168 - 2 * 7168**2 == pytest.approx(2.4e9, rel=0.02)


def test_packed_samples_cost_what_they_cost_alone():
    sizes = published("qwen3_30b_a3b_4_layers.json")
    together = forward_flops(sizes, [5, 90, 1000]).total
    alone = [forward_flops(sizes, [length]).total for length in (5, 90, 1000)]
    assert together == sum(alone)


def test_only_attention_grows_with_the_square_of_the_length():
    sizes = published("qwen3_30b_a3b_4_layers.json")
    short, long = (forward_flops(sizes, [n]) for n in (1024, 2048))
    rest = [flops.total - flops.attention_scores for flops in (short, long)]
    assert rest[1] == 2 * rest[0]
    assert long.attention_scores / short.attention_scores == pytest.approx(4, rel=1e-3)
