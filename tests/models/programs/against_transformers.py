"""Prints, as JSON, how far our models are from transformers': logits, gradients, exported weights.

One process for all cases: starting megatron-core takes longer than any of them.
"""

from __future__ import annotations

# ruff: noqa: E402 (megatron-core may be imported only after prepare())
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

from engine.platform import accelerator

accelerator.prepare()

import torch
from safetensors.torch import load_file
from small_models import MODELS, SAMPLES
from torch import Tensor
from torch.nn.functional import cross_entropy, linear
from transformers import AutoConfig, AutoModelForCausalLM

from engine.config.layout import LayoutConfig
from engine.config.training import TrainingConfig
from engine.data.packing import PackedRow, pack
from engine.models.build import build
from engine.models.family import family_of
from engine.models.gpt import PolicyModel
from engine.models.hugging_face import HuggingFaceFolder
from engine.models.load import load
from engine.models.weight_rules import expand
from engine.parallel.groups import process_groups
from engine.training.forward import hidden_states
from engine.weights.gather import Gatherer

TRAINING = TrainingConfig(dtype="float32", tokens_per_microbatch=1024)


def compare(settings: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Distances of one case."""
    torch.manual_seed(0)
    published = AutoConfig.for_model(**settings)
    theirs = AutoModelForCausalLM.from_config(
        published, attn_implementation="eager", experts_implementation="eager"
    ).eval()
    randomise(theirs)
    theirs.save_pretrained(folder)
    source = HuggingFaceFolder(folder)
    (ours,) = build(source.config, LayoutConfig(processes=1), TRAINING)
    ours.eval()
    load([ours], source)
    stored = load_file(folder / "model.safetensors")
    exported = as_hugging_face(ours, source.config)
    row = pack(
        [
            (torch.randint(0, settings["vocab_size"], (length,)).tolist(), [1])
            for length in SAMPLES
            if length > 0
        ],
        row_multiple=8,
    )
    own_logits, their_logits = logits_of_the_row(ours, row), logits_one_by_one(theirs, row)
    real = ~row.padding_mask
    for logits in (own_logits, their_logits):
        cross_entropy(logits[real], row.labels[real]).backward()
    their_gradients = as_on_disk(
        {name: parameter.grad for name, parameter in theirs.named_parameters()}
    )
    own_gradients = gradients(ours, source.config)
    return {
        "logits": distance(own_logits[real], their_logits[real]),
        "spread": float(their_logits.std()),
        "gradients": {
            name: distance(own_gradients[name], gradient)
            for name, gradient in their_gradients.items()
        },
        "sizes": {name: float(grad.abs().max()) for name, grad in their_gradients.items()},
        "not in ours": sorted(set(stored) - set(exported)),
        "not in theirs": sorted(set(exported) - set(stored)),
        "changed": sorted(
            name for name, tensor in stored.items() if not torch.equal(tensor, exported[name])
        ),
    }


def randomise(model: torch.nn.Module) -> None:
    """Weights that let every part matter: fresh norms are all ones, fresh biases all zeros."""
    for name, tensor in model.state_dict().items():
        if "norm" in name:
            tensor.normal_(1.0, 0.2)
        elif "bias" in name:
            tensor.normal_(0.0, 0.1)
        else:
            tensor.normal_(0.0, 0.15)


def logits_of_the_row(model: PolicyModel, row: PackedRow) -> Tensor:
    """[T, vocabulary]: all samples at once."""
    return linear(hidden_states(model, row)[:, 0], model.head_weight())


def logits_one_by_one(model: torch.nn.Module, row: PackedRow) -> Tensor:
    """[T, vocabulary]: each sample of the row by itself, without padding."""
    pieces = [
        model(tokens[None]).logits[0] for tokens in row.tokens.split(row.cu_seqlens.diff().tolist())
    ]
    return torch.cat(pieces)


def as_hugging_face(model: torch.nn.Module, config: dict[str, Any]) -> dict[str, Tensor]:
    """The model's tensors under Hugging Face names."""
    maps = expand(family_of(config).rules(config))
    whole = Gatherer([model]).gather()
    found: dict[str, Tensor] = {}
    for key, tensor in whole.items():
        found.update(maps[key].to_hugging_face(tensor))
    return {name: tensor.clone() for name, tensor in found.items()}


@torch.no_grad()
def gradients(model: torch.nn.Module, config: dict[str, Any]) -> dict[str, Tensor]:
    """The gradients under Hugging Face names: they take the parameters' place and are exported."""
    for parameter in model.parameters():
        parameter.copy_(parameter.grad if parameter.grad is not None else 0)
    return as_hugging_face(model, config)


def as_on_disk(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """transformers 5 stacks experts in memory; checkpoints hold one tensor an expert."""
    found: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        layer, _, kind = name.rpartition(".experts.")
        if kind == "gate_up_proj":
            for expert, both in enumerate(tensor):
                gate, up = both.chunk(2)
                found[f"{layer}.experts.{expert}.gate_proj.weight"] = gate
                found[f"{layer}.experts.{expert}.up_proj.weight"] = up
        elif kind == "down_proj":
            for expert, down in enumerate(tensor):
                found[f"{layer}.experts.{expert}.down_proj.weight"] = down
        else:
            found[name] = tensor
    return found


def distance(one: Tensor, other: Tensor) -> float:
    """Largest absolute difference."""
    return float((one - other).detach().abs().max())


def main() -> None:
    """All cases, or those named on the command line."""
    os.environ.update(RANK="0", WORLD_SIZE="1", MASTER_ADDR="127.0.0.1", MASTER_PORT=sys.argv[1])
    found = {}
    with process_groups(LayoutConfig(processes=1), seed=1):
        for name in sys.argv[2:] or MODELS:
            with tempfile.TemporaryDirectory() as folder:
                found[name] = compare(MODELS[name], Path(folder))
    print(json.dumps(found))


if __name__ == "__main__":
    main()
