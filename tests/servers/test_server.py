"""What the real SGLang server says about its samples is what transformers computes.

One start of two servers for all tests here, the second with tensor parallelism 2; groups are spread
over both.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
import torch
from real_servers import real_servers
from transformers import Qwen3MoeForCausalLM

from engine.errors import RunError
from engine.servers.client import Completion, Sampling, connect
from engine.weights.push.disk import update_from_disk
from tools.benchmarks.local_servers import RunningServer, urls
from tools.benchmarks.tiny_model import EOS, VOCABULARY, tiny_qwen3_moe

pytestmark = [pytest.mark.slow, pytest.mark.serial]

BOUND = 1e-4
Prompts = Sequence[Sequence[int]]


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> list[Path]:
    """Two models of one shape: version 0, which the servers start with, and version 1."""
    return [tiny_qwen3_moe(tmp_path_factory.mktemp(f"model{seed}"), seed) for seed in (0, 1)]


@pytest.fixture(scope="module")
def references(folders: list[Path]) -> list[Qwen3MoeForCausalLM]:
    return [Qwen3MoeForCausalLM.from_pretrained(f, dtype=torch.float32).eval() for f in folders]


@pytest.fixture(scope="module")
def started(folders: list[Path], tmp_path_factory) -> Iterator[list[RunningServer]]:
    with real_servers(folders[0], tmp_path_factory.mktemp("servers"), tp=(1, 2)) as servers:
        yield servers


def sampling(n: int = 1, tokens: int = 30, temperature: float = 1.0, **more) -> Sampling:
    more.setdefault("stop_token_ids", (EOS,))
    return Sampling(n=n, max_new_tokens=tokens, temperature=temperature, **more)


def generate(
    started: list[RunningServer], prompts: Prompts, wanted: Sampling
) -> list[list[Completion]]:
    async def ask() -> list[list[Completion]]:
        async with connect(urls(started), request_seconds=120) as client:
            return await asyncio.gather(*(client.generate(p, wanted) for p in prompts))

    return asyncio.run(ask())


@torch.no_grad()
def distributions(
    model: Qwen3MoeForCausalLM, prompt: Sequence[int], tokens: Sequence[int], temperature: float
) -> torch.Tensor:
    """Log-probabilities [tokens, vocabulary] of the next token before each of ``tokens``."""
    logits = model(torch.tensor([[*prompt, *tokens]])).logits[0, len(prompt) - 1 : -1]
    return torch.log_softmax(logits / temperature, dim=-1)


def worst_difference(
    model: Qwen3MoeForCausalLM,
    prompts: Prompts,
    groups: list[list[Completion]],
    temperature: float = 1.0,
) -> float:
    worst = 0.0
    for prompt, group in zip(prompts, groups, strict=True):
        for sample in group:
            expected = distributions(model, prompt, sample.tokens, temperature)
            drawn = expected[torch.arange(len(sample.tokens)), torch.tensor(sample.tokens)]
            worst = max(worst, (drawn - torch.tensor(sample.logprobs)).abs().max().item())
    return worst


def prompts_of_lengths(lengths: Sequence[int], seed: int) -> list[list[int]]:
    draw = random.Random(seed)
    return [[draw.randrange(2, VOCABULARY) for _ in range(length)] for length in lengths]


MIXED = [1, 2, 5, 14, 14, 14, 30, 60, 120, 200, 1, 90, 3, 14, 250, 14]
NARROW = [31, 22, 45, 20, 38, 44, 25, 33, 29, 41, 20, 36, 27, 45, 23, 39]


@pytest.mark.parametrize("lengths", [MIXED, NARROW], ids=["mixed lengths", "narrow unsorted"])
def test_greedy_samples_are_the_argmax_and_carry_its_log_probability(started, references, lengths):
    prompts = prompts_of_lengths(lengths, seed=1)
    groups = generate(started, prompts, sampling(temperature=0.0))
    assert worst_difference(references[0], prompts, groups) < BOUND
    for prompt, (sample,) in zip(prompts, groups, strict=True):
        expected = distributions(references[0], prompt, sample.tokens, 1.0)
        drawn = expected[torch.arange(len(sample.tokens)), torch.tensor(sample.tokens)]
        assert (expected.max(dim=-1).values - drawn).max() < BOUND  # equal but for near-ties


@pytest.mark.parametrize("lengths", [MIXED, NARROW], ids=["mixed lengths", "narrow unsorted"])
def test_log_probabilities_of_groups_equal_those_of_transformers(started, references, lengths):
    prompts = prompts_of_lengths(lengths, seed=2)
    groups = generate(started, prompts, sampling(n=8))
    assert all(len(group) == 8 for group in groups)
    assert worst_difference(references[0], prompts, groups) < BOUND


def test_log_probabilities_come_after_the_temperature(started, references):
    prompts = prompts_of_lengths([10, 20, 15, 12], seed=3)
    groups = generate(started, prompts, sampling(n=4, temperature=0.6))
    assert worst_difference(references[0], prompts, groups, temperature=0.6) < BOUND
    assert worst_difference(references[0], prompts, groups, temperature=1.0) > 100 * BOUND


def test_prompts_with_a_shared_beginning_and_repeated_prompts(started, references):
    (beginning,) = prompts_of_lengths([60], seed=4)
    prompts = [beginning + [4, 5, 6] * k for k in range(12)] + [beginning] * 4
    for _ in range(2):  # the second time every one of them has been seen
        groups = generate(started, prompts, sampling(n=2))
        assert worst_difference(references[0], prompts, groups) < BOUND


def test_prompts_that_the_server_prefills_in_chunks(started, references):
    prompts = prompts_of_lengths([700, 690, 710, 650, 720, 600, 640, 705], seed=5)
    groups = generate(started, prompts, sampling(n=4, tokens=10))
    assert worst_difference(references[0], prompts, groups) < BOUND


def test_samples_of_a_group_differ_and_follow_the_distribution(started, references):
    (prompt,) = prompts_of_lengths([9], seed=6)
    (group,) = generate(started, [prompt], sampling(n=512, tokens=1))
    counts = torch.bincount(torch.tensor([s.tokens[0] for s in group]), minlength=VOCABULARY)
    expected = 512 * distributions(references[0], prompt, [0], 1.0)[0].exp()
    # Pearson's statistic over 47 degrees of freedom: mean 47, standard deviation 10
    assert ((counts - expected) ** 2 / expected).sum() < 110


def test_a_sample_ends_with_a_stop_token_or_at_its_limit(started):
    prompts = prompts_of_lengths([10] * 8, seed=7)
    stops = (EOS, 5, 6, 7, 8, 9)
    groups = generate(started, prompts, sampling(n=8, tokens=20, stop_token_ids=stops))
    samples = [sample for group in groups for sample in group]
    assert {s.finish_reason for s in samples} == {"stop", "length"}
    for sample in samples:
        assert not set(stops) & set(sample.tokens[:-1])
        if sample.finish_reason == "stop":
            assert sample.tokens[-1] in stops
        else:
            assert len(sample.tokens) == 20 and sample.tokens[-1] not in stops


def test_after_an_update_versions_and_log_probabilities_are_the_new_weights(
    started, folders, references
):
    prompts = prompts_of_lengths(NARROW, seed=8)
    before = generate(started, prompts, sampling(n=2))
    assert {s.weight_version for group in before for s in group} == {0}
    for version, which in ((1, 1), (2, 0)):  # there and back again
        update_from_disk(urls(started), folders[which], version, limit_seconds=60)
        groups = generate(started, prompts, sampling(n=2))
        assert {s.weight_version for group in groups for s in group} == {version}
        assert worst_difference(references[which], prompts, groups) < BOUND
        assert worst_difference(references[1 - which], prompts, groups) > 100 * BOUND


def test_an_update_right_after_the_last_sample(started, folders):
    prompts = prompts_of_lengths([12] * 8, seed=12)
    for version in range(100, 110):
        update_from_disk(urls(started), folders[0], version, limit_seconds=60)
        groups = generate(started, prompts, sampling(n=4, tokens=4))
        assert {s.weight_version for group in groups for s in group} == {version}


def test_an_update_in_the_middle_of_a_rollout_leaves_every_sample_with_one_version(
    started, folders, references
):
    update_from_disk(urls(started), folders[0], 6, limit_seconds=60)
    prompts = prompts_of_lengths([12] * 8, seed=9)

    async def both() -> list[list[Completion]]:
        async with connect(urls(started), request_seconds=120) as client:
            asked = [
                asyncio.create_task(client.generate(p, sampling(n=8, tokens=200))) for p in prompts
            ]
            await asyncio.sleep(0.3)
            await asyncio.to_thread(update_from_disk, urls(started), folders[1], 7, 60)
            return await asyncio.gather(*asked)

    groups = asyncio.run(both())
    update_from_disk(urls(started), folders[0], 8, limit_seconds=60)
    # The servers finish what they are making; what they have not begun is made with new weights.
    for prompt, group in zip(prompts, groups, strict=True):
        (version,) = {sample.weight_version for sample in group}
        reference = {6: references[0], 7: references[1]}[version]
        assert worst_difference(reference, [prompt], [group]) < BOUND


def test_a_folder_without_weights_is_refused_and_the_old_ones_stay(started, references, tmp_path):
    with pytest.raises(RunError, match=r"server-0 .*server-1 .*") as error:
        update_from_disk(urls(started), tmp_path, 9, limit_seconds=60)
    assert "weight version 9" in str(error.value)
    prompts = prompts_of_lengths([10], seed=10)
    groups = generate(started, prompts, sampling(n=2))
    assert groups[0][0].weight_version != 9
    assert worst_difference(references[0], prompts, groups) < BOUND


def test_a_request_beyond_the_context_length_is_refused_with_the_servers_words(started):
    prompts = prompts_of_lengths([10], seed=11)
    with pytest.raises(RunError, match=r"server-\d .*HTTP 400.*maximum context length of 1024"):
        generate(started, prompts, sampling(tokens=5000))
