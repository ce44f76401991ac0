"""Ranks that share the vocabulary find what one process finds, gradients included."""

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from naive_scores import naive

from engine.training.heads.log_probability import log_probability_and_entropy

TOKENS, WIDTH, VOCABULARY, TEMPERATURE, CHUNK = 23, 6, 24, 0.7, 5


def inputs():
    torch.manual_seed(0)
    hidden = torch.randn(TOKENS, WIDTH)
    hidden[3] *= 1e3  # the shards' peaks lie far apart here
    weight = torch.randn(VOCABULARY, WIDTH)
    return hidden, weight, torch.randint(VOCABULARY, (TOKENS,)), torch.randn(2, TOKENS)


def scores_of_rank(rank, ranks, folder):
    """One rank of ``ranks``; leaves its values and gradients in ``folder``."""
    store = dist.FileStore(f"{folder}/store", ranks)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=ranks)
    hidden, weight, targets, weights = inputs()
    hidden.requires_grad_()
    shard = weight.chunk(ranks)[rank].clone().requires_grad_()
    chosen, entropy = log_probability_and_entropy(
        hidden, shard, targets, TEMPERATURE, dist.group.WORLD, CHUNK
    )
    (chosen * weights[0] + entropy * weights[1]).sum().backward()
    found = (chosen.detach(), entropy.detach(), hidden.grad, shard.grad)
    torch.save(found, f"{folder}/{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.slow
@pytest.mark.parametrize("ranks", [2, 4])
def test_vocabulary_parallel_equals_one_process(ranks, tmp_path):
    mp.spawn(scores_of_rank, (ranks, str(tmp_path)), nprocs=ranks)
    found = [torch.load(tmp_path / f"{rank}.pt") for rank in range(ranks)]
    hidden, weight, targets, weights = inputs()
    hidden, weight = hidden.double().requires_grad_(), weight.double().requires_grad_()
    chosen, entropy = naive(hidden, weight, targets, TEMPERATURE)
    (chosen * weights[0] + entropy * weights[1]).sum().backward()
    for values in found:
        assert torch.equal(values[0], found[0][0]) and torch.equal(values[1], found[0][1])
        torch.testing.assert_close(values[0].double(), chosen, atol=1e-5, rtol=1e-6)
        torch.testing.assert_close(values[1].double(), entropy, atol=1e-5, rtol=1e-6)
    parts = torch.stack([values[2] for values in found])
    torch.testing.assert_close(parts.double().sum(0), hidden.grad, atol=1e-5, rtol=1e-5)
    assert (parts.sum(0) - parts[0]).abs().max() > 0.1  # each rank has a part only
    shards = torch.cat([values[3] for values in found])
    torch.testing.assert_close(shards.double(), weight.grad, atol=1e-4, rtol=1e-5)
