"""Triton kernels over logits give what plain torch gives; run by ``test_logit_kernels.py``.

Triton is told to interpret (TRITON_INTERPRET=1) before it is first imported.
"""

from __future__ import annotations

from collections.abc import Iterator
from types import ModuleType

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.training.heads import logit_passes


@pytest.fixture(scope="module")
def kernels() -> Iterator[ModuleType]:
    with pytest.MonkeyPatch.context() as patch:
        from engine.training.heads import logit_kernels

        patch.setattr(logit_kernels, "_BLOCK", 32)  # several programs a row, the last one partly
        yield logit_kernels


CASES = {
    "tokens": st.integers(1, 4),
    "words": st.integers(1, 100),
    "temperature": st.sampled_from([0.6, 1.0, 2.0]),
    "spread": st.sampled_from([0.1, 3.0, 40.0]),
    "seed": st.integers(0, 1000),
}


def drawn(
    tokens: int, words: int, spread: float, seed: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Generator]:
    """Products [t, V], and targets of which some are other ranks'."""
    generator = torch.Generator().manual_seed(seed)
    products = spread * torch.randn(tokens, words, generator=generator)
    return products, torch.randint(-3, words + 3, (tokens,), generator=generator), generator


@settings(max_examples=25, deadline=None)
@given(**CASES)
def test_statistics_of_a_shard(
    kernels: ModuleType, tokens: int, words: int, temperature: float, spread: float, seed: int
) -> None:
    products, column, _ = drawn(tokens, words, spread, seed)
    before = products.clone()
    found = kernels.statistics_of_shard(products, column, temperature)
    assert products.equal(before)
    expected = logit_passes.statistics_of_shard(products, column, temperature)
    torch.testing.assert_close(found, expected, rtol=2e-5, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("given_grads", ["both", "chosen", "entropy"])
@settings(max_examples=15, deadline=None)
@given(**CASES)
def test_gradient_of_products(
    kernels: ModuleType,
    dtype: torch.dtype,
    given_grads: str,
    tokens: int,
    words: int,
    temperature: float,
    spread: float,
    seed: int,
) -> None:
    products, column, generator = drawn(tokens, words, spread, seed)
    log_p = torch.log_softmax(products / temperature, 1)
    peak = (products / temperature).amax(1)
    entropy = -(log_p.exp() * log_p).sum(1)
    log_total = (products / temperature - peak[:, None]).logsumexp(1)
    # as autograd and the chunks give them: parts of longer rows, and one number for all tokens
    distribution = torch.stack([peak, log_total, entropy]).repeat(1, 2)[:, tokens:]
    of_chosen = torch.randn(tokens, generator=generator) if given_grads != "entropy" else None
    of_entropy = (
        torch.randn(1, generator=generator).expand(tokens) if given_grads != "chosen" else None
    )
    arguments = (column, distribution, of_chosen, of_entropy, temperature, dtype)
    found = kernels.gradient_of_products(products.clone(), *arguments)
    expected = logit_passes.gradient_of_products(products.clone(), *arguments)
    assert found.dtype == expected.dtype == dtype
    close = (
        {"rtol": 1e-2, "atol": 1e-5} if dtype == torch.bfloat16 else {"rtol": 2e-5, "atol": 2e-5}
    )
    torch.testing.assert_close(found, expected, **close)
