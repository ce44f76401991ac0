"""The derived pieces of every rank are those that megatron builds, piece by piece."""

from __future__ import annotations

import pytest
from built_shards import bounds, built_shards
from small_models import MODELS

from engine.config.layout import LayoutConfig
from engine.models.sequence_classifier import as_sequence_classifier
from engine.models.sharding import Sharding
from tools.benchmarks.rank_pool import RankPool

EVEN = {"vocab_size": 68, "moe_intermediate_size": 28, "num_hidden_layers": 4}
LATENT = {
    **MODELS["deepseek_v3, yarn, 1 of 2 groups"],
    **EVEN,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "num_nextn_predict_layers": 1,
}
CASES = {
    "latent, one process": (LATENT, {"processes": 1}),
    "latent, no query rank": ({**LATENT, "q_lora_rank": None}, {"processes": 2, "tp": 2}),
    "latent, all": (LATENT, {"processes": 4, "tp": 2, "pp": 2, "ep": 2}),
    "latent, experts' columns": (LATENT, {"processes": 4, "tp": 2, "ep": 2, "etp": 2}),
    "glm, uneven virtual stages": (
        {**MODELS["glm4_moe"], **EVEN, "n_routed_experts": 12, "num_nextn_predict_layers": 1},
        {"processes": 4, "pp": 2, "vpp": 2, "ep": 2, "etp": 1},
    ),
    "softmax, ep over tp": (
        {**MODELS["mixtral, tied, 4 of 5"], **EVEN, "num_local_experts": 6},
        {"processes": 4, "tp": 2, "pp": 2, "ep": 2, "first_stage_layers": 1},
    ),
    "qk-norms, copies": (
        {**MODELS["qwen3_moe"], **EVEN, "num_experts": 8},
        {"processes": 4, "ep": 2},
    ),
    "one value a sample": (
        as_sequence_classifier(LATENT),
        {"processes": 4, "tp": 2, "pp": 2, "ep": 2},
    ),
    "one value a sample, tied": (
        as_sequence_classifier({**MODELS["qwen2, tied"], **EVEN}),
        {"processes": 2, "pp": 2},
    ),
    "biases, tied": ({**MODELS["qwen2, tied"], **EVEN}, {"processes": 4, "tp": 2, "pp": 2}),
    "more ranks than groups": (
        {**MODELS["qwen3"], **EVEN, "num_attention_heads": 8, "intermediate_size": 60},
        {"processes": 4, "tp": 4},
    ),
}


@pytest.fixture(scope="module")
def pool():
    with RankPool(4) as started:
        yield started


@pytest.mark.slow
@pytest.mark.parametrize(("config", "sizes"), CASES.values(), ids=CASES)
def test_every_rank_builds_the_derived_pieces(pool, config, sizes):
    layout = LayoutConfig.model_validate(sizes)
    sharding = Sharding(config, layout)
    built = pool.run(built_shards, layout, config=config)
    for coordinates, found in zip(sharding.rank_coordinates(), built, strict=True):
        derived = [
            (
                shard.whole.key,
                shard.whole.expert,
                shard.whole.shape,
                bounds(shard.place),
                shard.bytes(2) // shard.elements,
            )
            for shard in sharding.of(coordinates)
        ]
        assert sorted(derived, key=str) == sorted((piece[:5] for piece in found), key=str)
    main = [piece[:4] for found in built for piece in found if piece[5]]
    assert len(main) == len(set(main)), "each piece is main on one rank"
    assert set(main) == {piece[:4] for found in built for piece in found}
