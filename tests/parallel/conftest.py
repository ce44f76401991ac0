"""A small Qwen3-MoE folder, samples, and what transformers makes of them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from ranks import EPS
from safetensors.torch import load_file

from engine.platform import accelerator
from tools.benchmarks.rank_pool import RankPool

accelerator.prepare()  # tests here import megatron in their own process


@pytest.fixture(scope="session")
def pool() -> Iterator[RankPool]:
    """Eight ranks that serve one layout after another."""
    with RankPool(8) as started:
        yield started


@dataclass(frozen=True)
class Reference:
    """transformers on one process: log-probabilities before, weights after three updates."""

    model: Path
    samples: Path
    logp: list[torch.Tensor]
    losses: list[float]
    before: dict[str, torch.Tensor]
    after: dict[str, torch.Tensor]


@pytest.fixture(scope="session")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Reference:
    from transformers import Qwen3MoeConfig, Qwen3MoeForCausalLM

    folder = tmp_path_factory.mktemp("reference")
    torch.manual_seed(0)
    model = Qwen3MoeForCausalLM(
        Qwen3MoeConfig(
            vocab_size=48,
            hidden_size=64,
            intermediate_size=128,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            head_dim=16,
            num_experts=8,
            num_experts_per_tok=2,
            moe_intermediate_size=64,
            norm_topk_prob=True,
            max_position_embeddings=512,
            router_aux_loss_coef=0.0,
            initializer_range=0.1,
        )
    ).float()
    samples = make_samples()
    (folder / "samples.json").write_text(json.dumps(samples))
    model.save_pretrained(folder / "model")
    with torch.no_grad():
        logp = scores(model, samples)
    losses = three_updates(model, samples)
    model.save_pretrained(folder / "after")
    return Reference(
        folder / "model",
        folder / "samples.json",
        logp,
        losses,
        load_file(folder / "model" / "model.safetensors"),
        load_file(folder / "after" / "model.safetensors"),
    )


def make_samples() -> list[tuple[list[int], list[int]]]:
    generator = torch.Generator().manual_seed(3)
    lengths = torch.randint(8, 40, (16,), generator=generator).tolist()
    tokens = [torch.randint(48, (length,), generator=generator).tolist() for length in lengths]
    return [(sample[:5], sample[5:]) for sample in tokens]


def scores(model: torch.nn.Module, samples: list) -> list[torch.Tensor]:
    """One sample a forward pass: nothing is packed or padded here."""
    found = []
    for prompt, response in samples:
        logits = model(torch.tensor([prompt + response])).logits[0, len(prompt) - 1 : -1]
        targets = torch.tensor(response)[:, None]
        found.append(torch.log_softmax(logits, -1).gather(-1, targets)[:, 0])
    return found


def three_updates(model: torch.nn.Module, samples: list) -> list[float]:
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=1e-2, betas=(0.9, 0.95), eps=EPS, weight_decay=0.0
    )
    losses = []
    for _ in range(3):
        optimizer.zero_grad()
        loss = -torch.cat(scores(model, samples)).mean()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        losses.append(loss.item())
    return losses
