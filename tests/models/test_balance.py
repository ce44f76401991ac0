"""Marks survive their way, and the balance loss is DeepSeek-V3's, whoever holds which tokens."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from engine.models.balance import sequence_balance
from engine.models.token_metadata import (
    most_samples,
    padding_of,
    sample_of,
    token_metadata,
    with_padding,
)

EXPERTS, CHOSEN = 6, 2


def random_row(seed: int, lengths: list[int], padding: int):
    generator = torch.Generator().manual_seed(seed)
    tokens = sum(lengths) + padding
    samples = torch.arange(len(lengths) + 1).repeat_interleave(torch.tensor([*lengths, padding]))
    shares = torch.rand(tokens, EXPERTS, generator=generator).softmax(-1)
    best = torch.rand(tokens, EXPERTS, generator=generator).topk(CHOSEN).indices
    chosen = torch.zeros(tokens, EXPERTS, dtype=torch.bool).scatter(1, best, True)
    metadata = token_metadata(samples == len(lengths), samples, len(lengths) + 1)
    return shares, chosen, metadata


@given(st.lists(st.integers(0, 300), min_size=1, max_size=20), st.integers(0, 2**20))
def test_marks_keep_padding_and_sample(samples: list[int], mask: int):
    numbers = torch.tensor(samples)
    padding = torch.tensor([bool(mask >> i & 1) for i in range(len(samples))])
    metadata = token_metadata(padding, numbers, max(samples) + 1)
    assert metadata.dtype == torch.bool
    assert torch.equal(padding_of(metadata), padding)
    assert torch.equal(sample_of(metadata), numbers)
    assert max(samples) < most_samples(metadata)
    other = with_padding(metadata, ~padding)
    assert torch.equal(padding_of(other), ~padding)
    assert torch.equal(sample_of(other), numbers)


@given(st.integers(0, 1000), st.lists(st.integers(1, 9), min_size=1, max_size=4), st.integers(0, 5))
def test_the_loss_is_the_papers_sample_by_sample(seed: int, lengths: list[int], padding: int):
    """Equations 17 to 20, written out."""
    shares, chosen, metadata = random_row(seed, lengths, padding)
    expected, start = 0.0, 0
    for length in lengths:
        own = slice(start, start + length)
        f = EXPERTS / (CHOSEN * length) * chosen[own].float().sum(0)
        p = shares[own].mean(0)
        expected += length * float((f * p).sum())
        start += length
    assert float(sequence_balance(shares, chosen, metadata, None)) == pytest.approx(
        expected, rel=1e-5
    )


def test_even_choices_cost_one_a_token():
    shares = torch.full((EXPERTS, EXPERTS), 1 / EXPERTS)
    chosen = torch.eye(EXPERTS, dtype=torch.bool)
    metadata = token_metadata(torch.zeros(EXPERTS).bool(), torch.zeros(EXPERTS).long(), 1)
    assert float(sequence_balance(shares, chosen, metadata, None)) == pytest.approx(EXPERTS)


def test_padding_gets_no_gradient():
    shares, chosen, metadata = random_row(3, [5, 2], padding=4)
    shares.requires_grad_()
    (gradient,) = torch.autograd.grad(sequence_balance(shares, chosen, metadata, None), shares)
    assert gradient[:7].abs().sum() > 0
    assert gradient[7:].abs().sum() == 0
