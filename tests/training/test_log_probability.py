"""Log-probability and entropy from logits, values and gradients, against torch's own."""

import pytest
import torch
import torch.distributed as dist
from hypothesis import given
from hypothesis import strategies as st

from engine.training.log_probability import log_probability_and_entropy


@pytest.fixture(scope="module")
def group(tmp_path_factory):
    store = dist.FileStore(str(tmp_path_factory.mktemp("store") / "file"), 1)
    dist.init_process_group("gloo", store=store, rank=0, world_size=1)
    yield dist.group.WORLD
    dist.destroy_process_group()


def naive(logits, targets, temperature):
    log_p = torch.log_softmax(logits / temperature, -1)
    chosen = log_p.gather(-1, targets[:, None])[:, 0]
    return chosen, -(log_p.exp() * log_p).sum(-1)


@given(seed=st.integers(0, 1000), temperature=st.sampled_from([0.3, 0.7, 1.0, 2.0]))
def test_values_and_gradients_equal_autograd(group, seed, temperature):
    torch.manual_seed(seed)
    logits = (torch.randn(7, 11) * 3).requires_grad_()
    targets = torch.randint(11, (7,))
    weights = torch.randn(2, 7)
    results = []
    for function in (naive, lambda *a: log_probability_and_entropy(*a, group)):
        chosen, entropy = function(logits, targets, temperature)
        (gradient,) = torch.autograd.grad(
            (chosen * weights[0] + entropy * weights[1]).sum(), logits
        )
        results.append((chosen, entropy, gradient))
    for expected, found in zip(*results, strict=True):
        assert torch.allclose(expected, found, atol=2e-5)


def test_logits_are_left_as_they_are(group):
    logits = torch.randn(3, 5)
    before = logits.clone()
    log_probability_and_entropy(logits, torch.tensor([0, 1, 2]), 1.0, group)
    assert torch.equal(logits, before)


def test_huge_logits_do_not_overflow(group):
    logits = torch.tensor([[1e4, 0.0, -1e4]])
    chosen, entropy = log_probability_and_entropy(logits, torch.tensor([0]), 1.0, group)
    assert chosen.item() == 0.0 and entropy.item() == 0.0
