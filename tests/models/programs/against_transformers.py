"""Prints, as JSON, how far our models are from transformers': logits, gradients, exported weights.

One process for all cases: starting megatron-core takes longer than any of them.
"""

from __future__ import annotations

# ruff: noqa: E402 (megatron-core may be imported only after prepare())
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from engine.platform import accelerator

accelerator.prepare()

import torch
from comparison import (
    TRAINING,
    as_hugging_face,
    compare_gradients,
    distance,
    gradients,
    one_by_one,
    random_row,
    randomise,
)
from safetensors.torch import load_file
from small_models import MODELS
from torch import Tensor
from torch.nn.functional import cross_entropy, linear
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.core_model_loading import revert_weight_conversion

from engine.config.layout import LayoutConfig
from engine.models.build import build
from engine.parallel.groups import process_groups
from engine.training.forward import hidden_states
from engine.weights.hugging_face import HuggingFaceFolder
from engine.weights.load import load
from tools.convert.transformers_fixes import mend


def compare(settings: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Distances of one case."""
    torch.manual_seed(0)
    theirs = AutoModelForCausalLM.from_config(
        AutoConfig.for_model(**settings),
        attn_implementation="eager",
        experts_implementation="eager",
    ).eval()
    randomise(theirs)
    mend(theirs)
    theirs.save_pretrained(folder)
    source = HuggingFaceFolder(folder)
    (ours,) = build(source.config, LayoutConfig(processes=1), TRAINING)
    ours.eval()
    load([ours], source)
    stored = load_file(folder / "model.safetensors")
    exported = as_hugging_face(ours, source.config)
    row = random_row(settings["vocab_size"])
    real = ~row.padding_mask
    own_logits = linear(hidden_states(ours, row)[:, 0], ours.head_weight())[real]
    their_logits = torch.cat([theirs(tokens).logits[0] for tokens, _ in one_by_one(row)])
    for logits in (own_logits, their_logits):
        cross_entropy(logits, row.labels[real]).backward()
    their_gradients = revert_weight_conversion(
        theirs, {name: parameter.grad for name, parameter in theirs.named_parameters()}
    )
    changed = [name for name, tensor in stored.items() if not tensor.equal(exported[name])]
    fused = fused_experts(theirs, folder / "fused", source.config)
    return {
        "logits": distance(own_logits, their_logits),
        "spread": float(their_logits.std()),
        **compare_gradients(gradients(ours, source.config), their_gradients),
        "not in ours": sorted(set(stored) - set(exported)),
        "not in theirs": sorted(set(exported) - set(stored)),
        "changed": changed,
        "changed when fused": [n for n, tensor in stored.items() if not tensor.equal(fused[n])],
    }


def fused_experts(theirs: Any, folder: Path, config: dict[str, Any]) -> dict[str, Tensor]:
    """What ours makes of a folder in which transformers saved all experts of a layer as one."""
    theirs.save_pretrained(folder, save_original_format=False)
    (ours,) = build(config, LayoutConfig(processes=1), TRAINING)
    load([ours], HuggingFaceFolder(folder))
    return as_hugging_face(ours, config)


def main() -> None:
    """All cases, or those named on the command line."""
    found = {}
    with process_groups(LayoutConfig(processes=1), seed=1):
        for name in sys.argv[1:] or MODELS:
            with tempfile.TemporaryDirectory() as folder:
                found[name] = compare(MODELS[name], Path(folder))
    print(json.dumps(found))


if __name__ == "__main__":
    main()
