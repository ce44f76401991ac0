"""Compare logits of two checkpoints for the same prompts, in float32, in one process."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from engine.errors import RunError
from engine.platform import accelerator
from engine.weights.hugging_face import HuggingFaceFolder
from tools.convert.sources import Source

LIMIT = 1e-4
"""Largest difference of two logits that counts as equal, in units of the logits' own spread where
that is above 1: float32 keeps seven digits of a number, however large."""


@dataclass(frozen=True)
class Compared:
    """Difference of the logits of two checkpoints; see :data:`LIMIT`.

    Attributes:
        worst: largest absolute difference of two logits.
        spread: standard deviation of the logits.
    """

    worst: float
    spread: float
    tokens: int

    @property
    def equal(self) -> bool:
        """True if the difference is within the limit."""
        return self.worst <= LIMIT * max(1.0, self.spread)


def compare_logits(first: Source, second: Source, prompts: Sequence[Sequence[int]]) -> Compared:
    """Return the difference of both models' logits; one model at a time is held in memory.

    A Hugging Face folder is run by transformers, a megatron checkpoint by this project's own model.

    Raises:
        RunError: a prompt has a token beyond the vocabulary, or transformers cannot load a folder.
    """
    words = int(first.companions.config["vocab_size"])
    for prompt in prompts:
        if not prompt or not all(0 <= token < words for token in prompt):
            raise RunError(f"a prompt needs tokens from 0 to {words - 1}, found {list(prompt)}")
    a, b = _logits(first, prompts), _logits(second, prompts)
    worst = max(float((x - y).abs().max()) for x, y in zip(a, b, strict=True))
    return Compared(worst, float(torch.cat(a).std()), sum(map(len, prompts)))


def random_prompts(
    words: int, lengths: Sequence[int] = (1, 7, 33), seed: int = 0
) -> list[list[int]]:
    """Return prompts for where none are given: any token may follow any."""
    generator = torch.Generator().manual_seed(seed)
    return [torch.randint(words, (n,), generator=generator).tolist() for n in lengths]


def _logits(source: Source, prompts: Sequence[Sequence[int]]) -> list[Tensor]:
    """Return the logits, float32 [tokens, V], for each prompt."""
    if source.kind == "hugging_face":
        return of_transformers(source.path, prompts)
    return _of_ours(source, prompts)


@torch.no_grad()
def of_transformers(folder: Path, prompts: Sequence[Sequence[int]]) -> list[Tensor]:
    """Return transformers' logits of a Hugging Face folder: float32 [tokens, V] for each prompt.

    Raises:
        RunError: transformers cannot load the folder.
    """
    from tools.convert.transformers_fixes import mend

    try:
        model = _transformers_model(HuggingFaceFolder(folder))
    except Exception as error:  # what its configs raise for a value has no narrower class
        raise RunError(f"transformers cannot load {folder}: {error}") from None
    mend(model)
    device = "cuda" if accelerator.has_gpu() else "cpu"
    model = model.eval().to(device)
    return [model(torch.tensor([p], device=device)).logits[0].float().cpu() for p in prompts]


def _transformers_model(folder: HuggingFaceFolder) -> Any:
    from transformers import AutoConfig, AutoModelForCausalLM

    settings: dict[str, Any] = {
        "dtype": torch.float32,
        "attn_implementation": "eager",
        "experts_implementation": "eager",
    }
    local = {"local_files_only": True}
    if folder.quantised is None:
        return AutoModelForCausalLM.from_pretrained(folder.path, **local, **settings)
    # transformers would compute in FP8, and on a GPU alone: it gets the weights dequantised.
    config = AutoConfig.from_pretrained(folder.path, **local)
    del config.quantization_config
    with torch.device("meta"):
        kind = type(AutoModelForCausalLM.from_config(config))
    weights = {name: folder.tensor(name) for name in folder.files}
    return kind.from_pretrained(None, config=config, state_dict=weights, **settings)


@torch.no_grad()
def _of_ours(source: Source, prompts: Sequence[Sequence[int]]) -> list[Tensor]:
    accelerator.prepare()  # before anything imports megatron
    from engine.checkpoint.loading import load_weights
    from engine.config.layout import LayoutConfig
    from engine.config.training import TrainingConfig
    from engine.data.packing import pack
    from engine.models.build import build
    from engine.parallel.groups import process_groups
    from engine.training.forward import hidden_states

    longest = max(map(len, prompts)) + 1
    training = TrainingConfig(dtype="float32", tokens_per_microbatch=longest)
    layout = LayoutConfig(processes=1)
    found = []
    with _one_rank(), process_groups(layout, seed=0, store=dist.HashStore()):
        (model,) = build(source.companions.config, layout, training)
        model.eval()
        load_weights([model], source.path)
        for prompt in prompts:
            row = pack([(list(prompt), [0])], row_multiple=1).to(torch.cuda.current_device())
            hidden = hidden_states(model, row)[: len(prompt), 0]
            found.append(torch.nn.functional.linear(hidden, model.head_weight()).float().cpu())
    return found


@contextmanager
def _one_rank() -> Iterator[None]:
    """Set the environment variables that torchrun sets for the only rank of a run."""
    kept = dict(os.environ)
    os.environ.update(RANK="0", WORLD_SIZE="1", LOCAL_RANK="0")
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(kept)
