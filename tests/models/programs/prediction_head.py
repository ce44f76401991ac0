"""Prints, as JSON, how far our multi-token prediction head is from one written in plain torch.

The reference takes one sample at a time and, at depth d, only the positions that have a token d
positions ahead: nothing is rolled, padded or masked.
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
    as_on_disk,
    compare_gradients,
    distance,
    gradients,
    one_by_one,
    random_row,
    randomise,
)
from megatron.core.distributed.finalize_model_grads import _update_router_expert_bias
from megatron.core.transformer.moe.router import TopKRouter
from safetensors.torch import load_file, save_file
from small_models import MODELS, PREDICTING
from torch import Tensor, nn
from torch.nn.functional import linear
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.models.deepseek_v3 import modeling_deepseek_v3 as deepseek
from transformers.models.glm4_moe import modeling_glm4_moe as glm

from engine.config.layout import LayoutConfig
from engine.data.packing import PackedRow
from engine.models.build import build
from engine.models.gpt import GPTBackbone
from engine.parallel.groups import process_groups
from engine.training.forward import hidden_states
from engine.weights.hugging_face import HuggingFaceFolder
from engine.weights.load import load

LOSS_WEIGHT = 0.3
LAYERS = {
    "deepseek_v3": deepseek.DeepseekV3DecoderLayer,
    "glm4_moe": glm.Glm4MoeDecoderLayer,
}


class Depth(nn.Module):
    """One depth of the reference (arXiv 2412.19437, eq. 21 to 23)."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        size, epsilon = config.hidden_size, config.rms_norm_eps
        self.enorm = deepseek.DeepseekV3RMSNorm(size, epsilon)
        self.hnorm = deepseek.DeepseekV3RMSNorm(size, epsilon)
        self.eh_proj = nn.Linear(2 * size, size, bias=False)
        self.layer = LAYERS[config.model_type](config, config.num_hidden_layers - 1)
        self.norm = deepseek.DeepseekV3RMSNorm(size, epsilon)

    def forward(self, hidden: Tensor, embedded: Tensor, rotary: Any) -> Tensor:
        """Hidden states and the embeddings of tokens ahead, [1, L, h] each -> [1, L, h]."""
        both = torch.cat([self.enorm(embedded), self.hnorm(hidden)], dim=-1)
        length = hidden.shape[1]
        mask = torch.full((length, length), float("-inf")).triu(1)[None, None]
        return self.norm(
            self.layer(self.eh_proj(both), attention_mask=mask, position_embeddings=rotary)
        )

    def stored(self, prefix: str) -> dict[str, Tensor]:
        """Its parameters and buffers under a checkpoint's names."""
        return as_on_disk({prefix + _renamed(name): t for name, t in self.state_dict().items()})


def _renamed(name: str) -> str:
    return "shared_head.norm.weight" if name == "norm.weight" else name.removeprefix("layer.")


class Reference(nn.Module):
    """transformers' model and the depths on top of it."""

    def __init__(self, settings: dict[str, Any], depths: int) -> None:
        super().__init__()
        eager = {"attn_implementation": "eager", "experts_implementation": "eager"}
        config = AutoConfig.for_model(**settings)
        self.main = AutoModelForCausalLM.from_config(config, **eager).eval()
        self.depths = nn.ModuleList(Depth(self.main.config) for _ in range(depths)).eval()
        self.chosen: dict[nn.Module, Tensor] = {}
        for module in self.modules():
            if isinstance(module, (deepseek.DeepseekV3MoE, glm.Glm4MoeMoE)):
                module.experts.register_forward_hook(self._count)
        randomise(self)

    def _count(self, experts: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        counts = torch.bincount(inputs[1].flatten(), minlength=experts.num_experts)
        self.chosen[experts] = self.chosen.get(experts, 0) + counts

    def log_probabilities(self, tokens: Tensor, labels: Tensor) -> list[Tensor]:
        """Of one sample: L values of the main model, L - d of depth d."""
        hidden = self.main.model(tokens).last_hidden_state
        found = [self._score(hidden, labels)]
        for ahead, depth in enumerate(self.depths, start=1):
            length = len(labels) - ahead
            if length <= 0:
                break
            embedded = self.main.model.embed_tokens(tokens[:, ahead:])
            rotary = self.main.model.rotary_emb(hidden, torch.arange(length)[None])
            hidden = depth(hidden[:, :length], embedded, rotary)
            found.append(self._score(hidden, labels[ahead:]))
        return found

    def _score(self, hidden: Tensor, labels: Tensor) -> Tensor:
        logp = self.main.lm_head(hidden[0]).log_softmax(-1)
        return logp.gather(1, labels[:, None])[:, 0]

    def save(self, folder: Path, layers: int) -> None:
        """A checkpoint as DeepSeek publishes it: with the head, and copies of what it shares."""
        self.main.save_pretrained(folder)
        file = folder / "model.safetensors"
        tensors = load_file(file)
        for number, depth in enumerate(self.depths):
            prefix = f"model.layers.{layers + number}."
            tensors.update(depth.stored(prefix))
            tensors[prefix + "embed_tokens.weight"] = tensors["model.embed_tokens.weight"].clone()
            tensors[prefix + "shared_head.head.weight"] = tensors["lm_head.weight"].clone()
        save_file({k: v.detach().contiguous() for k, v in tensors.items()}, file)

    def gradients(self, layers: int) -> dict[str, Tensor]:
        """By a checkpoint's names."""
        stored = as_on_disk({n: p.grad for n, p in self.main.named_parameters()})
        for number, depth in enumerate(self.depths):
            grads = {
                f"model.layers.{layers + number}.{_renamed(n)}": p.grad
                for n, p in depth.named_parameters()
            }
            stored.update(as_on_disk(grads))
        return stored


def compare(settings: dict[str, Any], depths: int, folder: Path) -> dict[str, Any]:
    """Distances of one case."""
    torch.manual_seed(0)
    layers = settings["num_hidden_layers"]
    theirs = Reference({**settings, "num_nextn_predict_layers": depths}, depths)
    theirs.save(folder, layers)
    source = HuggingFaceFolder(folder)
    (ours,) = build(source.config, LayoutConfig(processes=1), TRAINING)
    load([ours], source)
    exported = as_hugging_face(ours, source.config)
    stored = load_file(folder / "model.safetensors")
    row = random_row(settings["vocab_size"])
    ours.mtp_mode = "joint"
    own = our_log_probabilities(ours, row)
    per_sample = [theirs.log_probabilities(*sample) for sample in one_by_one(row)]
    other = [
        torch.cat([sample[depth] for sample in per_sample if len(sample) > depth])
        for depth in range(depths + 1)
    ]
    for logps in (own, other):
        (-logps[0].mean() - LOSS_WEIGHT * sum(logp.mean() for logp in logps[1:])).backward()
    counts, biases = expert_biases(ours)
    return {
        "log-probabilities": [distance(a, b) for a, b in zip(own, other, strict=True)],
        "counts": counts,
        "their counts": [count.tolist() for count in theirs.chosen.values()],
        "biases moved wrongly": biases,
        **compare_gradients(gradients(ours, source.config), theirs.gradients(layers)),
        "changed": sorted(
            name
            for name in {*stored, *exported}
            if name not in stored or name not in exported or not stored[name].equal(exported[name])
        ),
    }


def our_log_probabilities(model: GPTBackbone, row: PackedRow) -> list[Tensor]:
    """Of the main model and of each depth, where the row has a label."""
    found = []
    for depth, hidden in enumerate(hidden_states(model, row).chunk(model.depths())):
        labels, real = row.ahead(depth, row.labels, ~row.padding_mask)
        logp = linear(hidden[:, 0], model.head_weight()).log_softmax(-1)
        found.append(logp.gather(1, labels[:, None])[real.bool(), 0])
    return found


def expert_biases(model: GPTBackbone) -> tuple[list[list[int]], float]:
    """Tokens counted for each expert by layer; by how much megatron's update of the bias is off."""
    routers = [module for module in model.modules() if isinstance(module, TopKRouter)]
    counts = [router.local_tokens_per_expert.clone() for router in routers]
    before = [router.expert_bias.clone() for router in routers]
    _update_router_expert_bias([model], model.config)
    off = [
        distance(router.expert_bias, bias + 0.001 * (count.mean() - count).sign())
        for router, bias, count in zip(routers, before, counts, strict=True)
    ]
    return [count.int().tolist() for count in counts], max(off)


def main() -> None:
    """All cases, or those named on the command line."""
    found = {}
    with process_groups(LayoutConfig(processes=1), seed=1):
        for name in sys.argv[1:] or PREDICTING:
            model, depths = PREDICTING[name]
            with tempfile.TemporaryDirectory() as folder:
                found[name] = compare(MODELS[model], depths, Path(folder))
    print(json.dumps(found))


if __name__ == "__main__":
    main()
