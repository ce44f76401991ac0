"""Prints, as JSON, how far our softmax router is from megatron's where both can express the choice.

That is with one group of experts. Compared are what training sees: weights, and the gradient of the
router, which the loss for balance between the experts is part of.
"""

from __future__ import annotations

# ruff: noqa: E402 (megatron-core may be imported only after prepare())
import json
from typing import Any

from engine.platform import accelerator

accelerator.prepare()

import torch
from comparison import TRAINING, distance
from megatron.core.transformer.moe.moe_utils import get_default_pg_collection
from megatron.core.transformer.moe.router import TopKRouter
from small_models import MODELS
from torch import Tensor

from engine.config.layout import LayoutConfig
from engine.models.build import transformer_config
from engine.models.router import SoftmaxRouter
from engine.parallel.groups import process_groups

ONE_GROUP = {
    **MODELS["deepseek_v2, yarn, 2 of 4 groups"],
    "n_group": 1,
    "topk_group": 1,
    "aux_loss_alpha": 0.1,
}
TOKENS = 11


def train_once(kind: type[TopKRouter], changes: dict[str, Any]) -> dict[str, Tensor]:
    """Weights, choice and gradient of a router that chooses for random tokens, some padding."""
    config = transformer_config({**ONE_GROUP, **changes}, LayoutConfig(processes=1), TRAINING)
    torch.manual_seed(0)
    router = kind(config=config, pg_collection=get_default_pg_collection()).train()
    router.set_layer_number(1)
    torch.nn.init.normal_(router.weight)
    hidden, target = torch.randn(TOKENS, 1, config.hidden_size), torch.randn(TOKENS, 12)
    padding = (torch.arange(TOKENS) >= TOKENS - 3)[:, None]
    weights, chosen = router(hidden, padding)
    (weights * target).sum().backward()
    return {"weights": weights, "choice": chosen.float(), "gradient": router.weight.grad}


def main() -> None:
    """With the loss for balance, and how much that loss weighs in the gradient."""
    with process_groups(LayoutConfig(processes=1), seed=1):
        ours, theirs = (train_once(kind, {}) for kind in (SoftmaxRouter, TopKRouter))
        without = train_once(SoftmaxRouter, {"aux_loss_alpha": 0.0})
    far = {name: distance(ours[name], theirs[name]) for name in ours}
    far["part of the loss"] = distance(ours["gradient"], without["gradient"])
    far["size of the gradient"] = float(theirs["gradient"].abs().max())
    print(json.dumps(far))


if __name__ == "__main__":
    main()
