"""Check that a layout can split a model, and propose the nearest layout that can."""

from __future__ import annotations

from collections.abc import Iterator

from engine.config.layout import LayoutConfig
from engine.config.layout_rules import Sizes, proposal
from engine.config.model_sizes import ModelSizes
from engine.config.stages import stage_layers


def check_fit(model: ModelSizes, layout: LayoutConfig) -> None:
    """Check that ``layout`` can split ``model``.

    Raises:
        ValueError: it cannot; names each dimension and what it would have to divide, and proposes
            the nearest layout of the same processes that can.
    """
    if not model.layers:
        return  # no size was found: the model's family says what is missing
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
