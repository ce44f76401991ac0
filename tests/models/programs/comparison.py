"""Our models beside transformers': import it after ``accelerator.prepare()``."""

from __future__ import annotations

from typing import Any

import torch
from small_models import SAMPLES
from torch import Tensor

from engine.config.training import TrainingConfig
from engine.data.packing import PackedRow, pack
from engine.models.family import family_of
from engine.models.weight_rules import expand
from engine.weights.tensor_stream import TensorStream

TRAINING = TrainingConfig(dtype="float32", tokens_per_microbatch=1024)


def random_row(vocabulary: int) -> PackedRow:
    """Samples of the lengths in SAMPLES, and some padding."""
    samples = [(torch.randint(0, vocabulary, (length,)).tolist(), [1]) for length in SAMPLES]
    return pack(samples, row_multiple=8)


def one_by_one(row: PackedRow) -> list[tuple[Tensor, Tensor]]:
    """Tokens [1, L] and labels [L] of each sample; the padding behind them is left out."""
    ends = row.cu_seqlens[1:].tolist()
    return [
        (row.tokens[None, end - length : end], row.labels[end - length : end])
        for length, end in zip(SAMPLES, ends, strict=False)
    ]


@torch.no_grad()
def randomise(model: torch.nn.Module) -> None:
    """Weights that let every part matter: fresh norms are all ones, fresh biases all zeros."""
    for name, tensor in model.state_dict().items():
        if "norm" in name:
            tensor.normal_(1.0, 0.2)
        elif "bias" in name:
            tensor.normal_(0.0, 0.1)
        else:
            tensor.normal_(0.0, 0.15)


def as_hugging_face(model: torch.nn.Module, config: dict[str, Any]) -> dict[str, Tensor]:
    """The model's tensors under Hugging Face names."""
    maps = expand(family_of(config).rules(config))
    found: dict[str, Tensor] = {}
    for key, tensor in TensorStream([model]).collect().items():
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


def compare_gradients(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> dict[str, Any]:
    """Distance and size of each of ``theirs``."""
    return {
        "gradients": {name: distance(ours[name], grad) for name, grad in theirs.items()},
        "sizes": {name: float(grad.abs().max()) for name, grad in theirs.items()},
    }
