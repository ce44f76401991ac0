"""What a layout cuts of a model, read from its ``config.json``, and whether it can be cut so."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from engine.config.layout import LayoutConfig
from engine.config.layout_rules import Sizes, proposal
from engine.config.stages import stage_layers


@dataclass(frozen=True)
class ModelSizes:
    """Numbers of a model's parts; 0 where it has none of them.

    Attributes:
        groups: key/value heads, 0 for multi-head latent attention, which has none of its own.
        expert_columns: hidden columns of each expert; ``columns`` are those of dense layers.
        shared_columns: hidden columns of the shared expert.
        mtp: depths of multi-token prediction.
    """

    layers: int
    vocabulary: int
    heads: int
    groups: int = 0
    columns: int = 0
    experts: int = 0
    expert_columns: int = 0
    shared_columns: int = 0
    mtp: int = 0


def model_sizes(config: Mapping[str, Any]) -> ModelSizes:
    """Read the sizes; keys as in transformers' configs of the known families.

    A key that is missing counts as 0: what a family cannot do without, its own file says.
    """

    def number(*names: str) -> int:
        return next((config[name] for name in names if isinstance(config.get(name), int)), 0)

    latent = number("kv_lora_rank") > 0
    experts = number("num_experts", "num_local_experts", "n_routed_experts")
    expert_columns = number("moe_intermediate_size", "intermediate_size") if experts else 0
    return ModelSizes(
        layers=number("num_hidden_layers"),
        vocabulary=number("vocab_size"),
        heads=number("num_attention_heads"),
        groups=0 if latent else number("num_key_value_heads"),
        columns=number("intermediate_size"),
        experts=experts,
        expert_columns=expert_columns,
        shared_columns=number("n_shared_experts") * number("moe_intermediate_size"),
        mtp=number("num_nextn_predict_layers"),
    )


def check_fit(model: ModelSizes, layout: LayoutConfig) -> None:
    """Pass silently if ``layout`` can cut ``model``.

    Raises:
        ValueError: it cannot; names each dimension and what it would have to divide, and proposes
            the nearest layout of the same processes that can.
    """
    if not model.layers:
        return  # no size was found: what the model lacks is its family's to say
    problems = list(_problems(model, layout.sizes))
    if not problems:
        stage_layers(
            model.layers, layout.stages, layout.first_stage_layers, layout.last_stage_layers
        )
        return

    def accepts(sizes: Sizes) -> bool:
        return not any(_problems(model, sizes))

    change = proposal(layout.processes, layout.sizes, accepts)
    raise ValueError(f"{'; '.join(problems)}; nearest possible: {change}")


def _problems(model: ModelSizes, sizes: Sizes) -> Iterator[str]:
    for key, total, things in (
        ("tp", model.heads, "attention heads"),
        ("tp", model.vocabulary, "words"),
        ("tp", model.columns, "hidden columns"),
        ("tp", model.shared_columns, "hidden columns of the shared expert"),
        ("ep", model.experts, "experts"),
        ("etp", model.expert_columns, "hidden columns of each expert"),
    ):
        parts = getattr(sizes, key)
        if total % parts:
            yield f"expected {key} to divide the model's {total} {things}, found {parts}"
    tp, groups = sizes.tp, model.groups
    if groups % tp and (not groups or tp % groups):
        yield f"expected tp to divide or be a multiple of {groups} key/value heads, found {tp}"
    for key, having in (("ep", sizes.ep), ("etp", sizes.etp)):
        if having > 1 and not model.experts:
            yield f"expected {key} = 1 for a model without experts, found {having}"
    stages = sizes.pp * sizes.vpp
    if model.layers < stages:
        yield f"expected pp * vpp to be at most the model's {model.layers} layers, found {stages}"
