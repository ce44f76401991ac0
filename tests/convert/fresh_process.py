"""Calling transformers in a process of its own.

Where the platform was made ready for megatron, as other tests do in theirs, from_pretrained makes
other rotary embeddings.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM

from tools.convert.logits import _of_transformers


def in_fresh_process(function: Callable[..., Any], *arguments: Any) -> Any:
    """What ``function``, of a module's top level, returns there."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as one:
        return one.submit(function, *arguments).result()


def logits(folder: Path, prompts: list[list[int]]) -> list[Any]:
    """transformers' logits of every prompt, as arrays: tensors would travel in shared memory."""
    return [found.numpy() for found in _of_transformers(folder, prompts)]


def greedy(folder: Path, prompts: list[list[int]], tokens: int, eos: int) -> list[list[int]]:
    """transformers' greedy continuation of every prompt."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    return [
        model.generate(
            torch.tensor([prompt]), max_new_tokens=tokens, do_sample=False, eos_token_id=eos
        )[0, len(prompt) :].tolist()
        for prompt in prompts
    ]
