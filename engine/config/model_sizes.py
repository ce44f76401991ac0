"""Derive every size of a model from its ``config.json``: heads, columns, experts, layers, ranks.

No other file derives one: the layout check, tensor shapes, the FP8 size check, FLOPs and memory
read :class:`ModelSizes`. A test compares it with the ``TransformerConfig`` that the families build.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any


@dataclass(frozen=True)
class ModelSizes:
    """Sizes of a model, or of one rank's part of it; 0 where the model has no such part.

    Attributes:
        layers: decoder layers, prediction depths aside.
        vocabulary: rows of the embedding and of the output layer.
        hidden: channels of the residual stream.
        heads: query heads.
        groups: key/value heads; 0 for multi-head latent attention, which has none of its own.
        query_channels: channels of one head's query, ``rotated_channels`` included.
        value_channels: channels of one head's value.
        rotated_channels: of latent attention, the query channels that rotary embedding turns, and
            those of the one key that all heads share. 0 for grouped-query attention.
        query_rank: of latent attention, channels of the compressed query; 0 where it is not.
        key_value_rank: of latent attention, channels of the compressed keys and values.
        columns: hidden columns of a dense layer's SwiGLU.
        dense_layers: layers without experts; they come before all others.
        experts: routed experts of a layer.
        chosen_experts: routed experts that a token visits in a layer.
        expert_columns: hidden columns of each expert.
        shared_columns: hidden columns of the shared experts together.
        mtp: depths of multi-token prediction.
    """

    layers: int
    vocabulary: int
    heads: int
    hidden: int = 0
    groups: int = 0
    query_channels: int = 0
    value_channels: int = 0
    rotated_channels: int = 0
    query_rank: int = 0
    key_value_rank: int = 0
    columns: int = 0
    dense_layers: int = 0
    experts: int = 0
    chosen_experts: int = 0
    expert_columns: int = 0
    shared_columns: int = 0
    mtp: int = 0

    @property
    def latent(self) -> bool:
        """True if attention is multi-head latent attention (DeepSeek-V2, arXiv 2405.04434)."""
        return self.key_value_rank > 0

    @property
    def key_channels(self) -> int:
        """Channels of a key that each head, or each group, has for itself."""
        return self.query_channels - self.rotated_channels

    @property
    def query_columns(self) -> int:
        """Channels of all heads' queries."""
        return self.heads * self.query_channels

    @property
    def value_columns(self) -> int:
        """Channels of all heads' outputs, which the attention's last projection reads."""
        return self.heads * self.value_channels

    @property
    def qkv_columns(self) -> int:
        """Output channels of grouped-query attention's joint projection."""
        return self.query_columns + self.groups * (self.key_channels + self.value_channels)

    @property
    def compressed_columns(self) -> int:
        """Output channels of latent attention's down-projection: compressed, and the shared key."""
        return self.key_value_rank + self.rotated_channels

    @property
    def key_value_columns(self) -> int:
        """Output channels of latent attention's up-projection to keys and values."""
        return self.heads * (self.key_channels + self.value_channels)

    @property
    def prediction_columns(self) -> int:
        """Input channels of a prediction depth's projection: a hidden state and an embedding."""
        return 2 * self.hidden

    def is_sparse(self, layer: int) -> bool:
        """Return whether decoder layer ``layer``, counted from 0, has experts."""
        return self.experts > 0 and layer >= self.dense_layers

    def on_rank(self, tp: int, etp: int) -> ModelSizes:
        """Return the sizes of one rank's part of each layer; whole layers, experts and ranks.

        Args:
            tp: tensor parallel size. With fewer groups than ranks each rank has a copy of one.
            etp: expert tensor parallel size.
        """
        return replace(
            self,
            vocabulary=self.vocabulary // tp,
            heads=self.heads // tp,
            groups=max(1, self.groups // tp) if self.groups else 0,
            columns=self.columns // tp,
            expert_columns=self.expert_columns // etp,
            shared_columns=self.shared_columns // tp,
        )


def model_sizes(config: Mapping[str, Any]) -> ModelSizes:
    """Return the sizes of the model that ``config.json`` describes.

    Keys are those of transformers' configs of the known families. A key that is missing counts as
    0: what a family cannot do without, its own file says.
    """

    def number(*names: str) -> int:
        return next((config[name] for name in names if isinstance(config.get(name), int)), 0)

    layers, hidden, heads = (
        number(name) for name in ("num_hidden_layers", "hidden_size", "num_attention_heads")
    )
    experts = number("num_experts", "num_local_experts", "n_routed_experts")
    latent = number("kv_lora_rank") > 0
    rotated = number("qk_rope_head_dim") if latent else 0
    shared = hidden // heads if heads else 0
    # 128 is transformers' default for Qwen3, whatever hidden_size is.
    head = number("head_dim") or (128 if config.get("model_type") == "qwen3" else shared)
    groups = number("num_key_value_heads")
    if not groups and config.get("model_type") == "llama":
        groups = heads  # what it means there to leave it out
    of_experts = () if config.get("model_type") == "mixtral" else ("moe_intermediate_size",)
    return ModelSizes(
        layers=layers,
        vocabulary=number("vocab_size"),
        heads=heads,
        hidden=hidden,
        groups=0 if latent else groups,
        query_channels=number("qk_nope_head_dim") + rotated if latent else head,
        value_channels=number("v_head_dim") if latent else head,
        rotated_channels=rotated,
        query_rank=number("q_lora_rank") if latent else 0,
        key_value_rank=number("kv_lora_rank"),
        columns=number("intermediate_size"),
        dense_layers=min(layers, number("first_k_dense_replace")) if experts else layers,
        experts=experts,
        chosen_experts=number("num_experts_per_tok") if experts else 0,
        expert_columns=number(*of_experts, "intermediate_size") if experts else 0,
        shared_columns=number("n_shared_experts") * number("moe_intermediate_size"),
        mtp=number("num_nextn_predict_layers"),
    )
