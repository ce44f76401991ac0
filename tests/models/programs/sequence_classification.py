"""Prints, as JSON, how far models with a scalar head are from transformers': values, gradients.

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
from small_models import CLASSIFIERS, MODELS
from torch.nn.functional import logsigmoid
from transformers import AutoConfig, AutoModelForSequenceClassification
from transformers.core_model_loading import revert_weight_conversion

from engine.config.layout import LayoutConfig
from engine.models.build import build
from engine.parallel.groups import process_groups
from engine.training.forward import hidden_states
from engine.training.heads.scalar import ScalarHead
from engine.weights.hugging_face import HuggingFaceFolder
from engine.weights.load import load
from tools.convert.transformers_fixes import mend


def compare(settings: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Distances of one case."""
    torch.manual_seed(0)
    theirs = AutoModelForSequenceClassification.from_config(
        AutoConfig.for_model(**settings, num_labels=1),
        attn_implementation="eager",
        experts_implementation="eager",
    ).eval()
    randomise(theirs)
    mend(theirs)
    theirs.save_pretrained(folder)
    source = HuggingFaceFolder(folder)
    head = ScalarHead()
    (ours,) = build(head.model_config(source.config), LayoutConfig(processes=1), TRAINING)
    ours.eval()
    load([ours], source)
    stored = load_file(folder / "model.safetensors")
    exported = as_hugging_face(ours, source.config)
    row = random_row(settings["vocab_size"])
    own = head.outputs(ours, hidden_states(ours, row), row)
    their = torch.cat([theirs(tokens).logits[0] for tokens, _ in one_by_one(row)])
    for values in (own, their):  # Bradley-Terry's loss of neighbours
        (-logsigmoid(values[::2] - values[1::2])).mean().backward()
    their_gradients = revert_weight_conversion(
        theirs, {name: parameter.grad for name, parameter in theirs.named_parameters()}
    )
    changed = [name for name, tensor in stored.items() if not tensor.equal(exported[name])]
    return {
        "values": distance(own, their),
        "spread": float(their.std()),
        **compare_gradients(gradients(ours, source.config), their_gradients),
        "not in ours": sorted(set(stored) - set(exported)),
        "not in theirs": sorted(set(exported) - set(stored)),
        "changed": changed,
    }


def main() -> None:
    """All cases, or those named on the command line."""
    found = {}
    with process_groups(LayoutConfig(processes=1), seed=1):
        for name in sys.argv[1:] or CLASSIFIERS:
            with tempfile.TemporaryDirectory() as folder:
                found[name] = compare(MODELS[name], Path(folder))
    print(json.dumps(found))


if __name__ == "__main__":
    main()
