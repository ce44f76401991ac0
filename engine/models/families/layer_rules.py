"""Weight rules that families share, one function for each part of a model.

Sources: transformers' modeling files for Hugging Face's names, megatron-core's Transformer Engine
layer specs for ours (a norm before a column-parallel linear is part of that linear there).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from engine.config.model_sizes import model_sizes
from engine.models.family import USUAL_NAMES, FeedForwardNames, HuggingFaceConfig
from engine.models.sequence_classifier import SCORE, is_sequence_classifier
from engine.models.weight_rules import Copies, GateUp, GroupedQkv, Join, Rule, Same


@dataclass(frozen=True)
class WeightPrefix:
    """Beginnings of weights' names in megatron and in Hugging Face, perhaps for some layers."""

    megatron: str
    hugging_face: str
    layers: range | None = None

    def rule(
        self, ours: str, *theirs: str, join: Join | None = None, experts: int | None = None
    ) -> Rule:
        """Return a rule for names that continue this prefix."""
        names = tuple(self.hugging_face + name for name in theirs)
        return Rule(self.megatron + ours, names, join or Same(), self.layers, experts)


def decoder_layers(layers: range) -> WeightPrefix:
    """Return the prefix of some of the decoder's layers."""
    return WeightPrefix("decoder.layers.{layer}.", "model.layers.{layer}.", layers)


def outside_the_layers(config: HuggingFaceConfig) -> list[Rule]:
    """Return the rules of embedding, last norm and, unless it is tied, output layer.

    A sequence classification model has its score layer in place of the output layer.

    DeepSeek's checkpoints repeat embedding and output layer in every depth of multi-token
    prediction, GLM-4.6's do not; Qwen3-0.6B's holds its tied output layer beside the embedding.
    """
    depths = prediction_depths(config)
    embedding = _with_copies("model.embed_tokens.weight", depths, "embed_tokens.weight")
    head = _with_copies("lm_head.weight", depths, "shared_head.head.weight")
    tied = config.get("tie_word_embeddings", False)
    found = [
        Rule(
            "embedding.word_embeddings.weight",
            embedding,
            Copies(len(embedding)),
            also=head if tied else (),
        ),
        Rule("decoder.final_layernorm.weight", ("model.norm.weight",)),
    ]
    if is_sequence_classifier(config):
        found.append(Rule(SCORE, (SCORE,)))
    elif not tied:
        found.append(Rule("output_layer.weight", head, Copies(len(head))))
    return found


def _with_copies(name: str, depths: Sequence[str], copy: str) -> tuple[str, ...]:
    return (name, *(depth + copy for depth in depths))


def prediction_depths(config: HuggingFaceConfig) -> list[str]:
    """Return Hugging Face's prefixes of the prediction depths: layers after the last one."""
    sizes = model_sizes(config)
    return [f"model.layers.{sizes.layers + depth}." for depth in range(sizes.mtp)]


def prediction_head(
    config: HuggingFaceConfig, layer: Callable[[WeightPrefix], Sequence[Rule]]
) -> list[Rule]:
    """Return the rules of multi-token prediction (arXiv 2412.19437, section 2.2).

    Args:
        config: contents of ``config.json``.
        layer: makes the rules of a depth's transformer layer below a prefix.
    """
    rules = []
    for depth, there in enumerate(prediction_depths(config)):
        here = f"mtp.layers.{depth}."
        prefix = WeightPrefix(here, there)
        rules += [
            prefix.rule("enorm.weight", "enorm.weight"),
            prefix.rule("hnorm.weight", "hnorm.weight"),
            prefix.rule("eh_proj.weight", "eh_proj.weight"),
            prefix.rule("final_layernorm.weight", "shared_head.norm.weight"),
            *layer(WeightPrefix(f"{here}transformer_layer.", there)),
        ]
    return rules


def grouped_query_attention(
    prefix: WeightPrefix, config: HuggingFaceConfig, *, bias: bool = False, qk_norm: bool = False
) -> list[Rule]:
    """Return the rules of grouped-query attention and the norm before it."""
    here, there = "self_attention.", "self_attn."
    channels = model_sizes(config).query_channels
    qkv = GroupedQkv(config["num_attention_heads"], config["num_key_value_heads"], channels)
    rules = [
        prefix.rule(f"{here}linear_qkv.layer_norm_weight", "input_layernorm.weight"),
        prefix.rule(f"{here}linear_proj.weight", f"{there}o_proj.weight"),
    ]
    for kind in ("weight", "bias") if bias else ("weight",):
        projections = [f"{there}{name}_proj.{kind}" for name in "qkv"]
        rules.append(prefix.rule(f"{here}linear_qkv.{kind}", *projections, join=qkv))
    for name in "qk" if qk_norm else "":
        rules.append(prefix.rule(f"{here}{name}_layernorm.weight", f"{there}{name}_norm.weight"))
    return rules


def latent_attention(prefix: WeightPrefix, config: HuggingFaceConfig) -> list[Rule]:
    """Return the rules of DeepSeek's multi-head latent attention and the norm before it.

    The query is compressed to the rank ``q_lora_rank``, or not where that is None.
    """
    here, there = "self_attention.", "self_attn."
    same = {
        "linear_kv_down_proj.weight": "kv_a_proj_with_mqa.weight",
        "linear_kv_up_proj.layer_norm_weight": "kv_a_layernorm.weight",
        "linear_kv_up_proj.weight": "kv_b_proj.weight",
        "linear_proj.weight": "o_proj.weight",
    }
    if config["q_lora_rank"] is None:
        same["linear_q_proj.weight"] = "q_proj.weight"
    else:
        same["linear_q_down_proj.weight"] = "q_a_proj.weight"
        same["linear_q_up_proj.layer_norm_weight"] = "q_a_layernorm.weight"
        same["linear_q_up_proj.weight"] = "q_b_proj.weight"
    return [
        prefix.rule("input_layernorm.weight", "input_layernorm.weight"),
        *(prefix.rule(here + ours, there + theirs) for ours, theirs in same.items()),
    ]


def dense_mlp(prefix: WeightPrefix) -> list[Rule]:
    """Return the rules of a dense SwiGLU and the norm before it."""
    return [
        prefix.rule("mlp.linear_fc1.layer_norm_weight", "post_attention_layernorm.weight"),
        *_swiglu(prefix, "mlp."),
    ]


def experts(
    prefix: WeightPrefix,
    count: int,
    *,
    bias: bool = False,
    shared: bool = False,
    names: FeedForwardNames = USUAL_NAMES,
) -> list[Rule]:
    """Return the rules of router, SwiGLU experts and the norm before them.

    Args:
        prefix: of the layers.
        count: number of routed experts.
        bias: whether the router has DeepSeek-V3's bias for balance.
        shared: whether every token also goes through shared experts.
        names: how Hugging Face calls the block and the matrices of an expert.
    """
    block = names.block
    each = replace(names, block=f"{block}experts.{{expert}}.")
    rules = [
        prefix.rule("pre_mlp_layernorm.weight", "post_attention_layernorm.weight"),
        prefix.rule("mlp.router.weight", f"{block}gate.weight"),
        *_swiglu(prefix, "mlp.experts.experts.", each, count),
    ]
    if bias:
        rules.append(prefix.rule("mlp.router.expert_bias", f"{block}gate.e_score_correction_bias"))
    if shared:
        one = replace(names, block=f"{block}shared_experts.")
        rules += _swiglu(prefix, "mlp.shared_experts.", one)
    return rules


def _swiglu(
    prefix: WeightPrefix,
    here: str,
    names: FeedForwardNames = USUAL_NAMES,
    count: int | None = None,
) -> list[Rule]:
    gate, up, down = (f"{names.block}{name}.weight" for name in (names.gate, names.up, names.down))
    return [
        prefix.rule(here + "linear_fc1.weight", gate, up, join=GateUp(), experts=count),
        prefix.rule(here + "linear_fc2.weight", down, experts=count),
    ]
