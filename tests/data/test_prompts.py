from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.data.prompt_file import Prompt
from engine.data.prompts import PromptSet
from engine.errors import RunError


def prompt_set(size: int, seed: int = 0) -> PromptSet:
    prompts = [Prompt(f"p{number}", f"what is {number}?", str(number)) for number in range(size)]
    return PromptSet(prompts, seed=seed, name="prompts")


def ids(prompts: list[Prompt]) -> list[str]:
    return [prompt.id for prompt in prompts]


@given(size=st.integers(1, 40), seed=st.integers(0, 5), epoch=st.integers(0, 3))
def test_every_epoch_is_a_permutation(size: int, seed: int, epoch: int) -> None:
    prompts = prompt_set(size, seed)
    asked = [prompt for place in range(size) for prompt in prompts.take(epoch * size + place, 1)]
    assert len(set(ids(asked))) == size


@given(size=st.integers(1, 30), count=st.integers(1, 12), steps=st.integers(1, 12))
def test_steps_lie_end_to_end_and_none_repeats_within_an_epoch(
    size: int, count: int, steps: int
) -> None:
    prompts = prompt_set(size)
    places = range(0, steps * count, count)
    asked = [one for place in places for one in ids(prompts.take(place, count))]
    assert asked == ids(prompts.take(0, count * steps))
    for start in range(0, len(asked), size):
        assert max(Counter(asked[start : start + size]).values()) == 1


def test_the_order_is_a_function_of_seed_and_epoch_alone() -> None:
    forwards, backwards = prompt_set(50), prompt_set(50)
    by_step = {step: forwards.take(16 * step, 16) for step in range(20)}
    assert {step: backwards.take(16 * step, 16) for step in reversed(range(20))} == by_step
    epochs = [tuple(ids(prompt_set(50, seed).take(50 * e, 50))) for seed in (0, 1) for e in (0, 1)]
    assert len(set(epochs)) == 4


def test_the_order_never_changes_between_releases() -> None:
    expected = "p0 p7 p6 p1 p5 p3 p2 p4"
    assert ids(prompt_set(8, seed=1).take(0, 8)) == expected.split()


def test_the_fixed_subset_is_the_same_for_every_seed() -> None:
    subset = prompt_set(100, seed=1).fixed_subset(20)
    assert subset == prompt_set(100, seed=2).fixed_subset(20)
    assert len(set(ids(subset))) == 20
    assert ids(subset) != [f"p{number}" for number in range(20)]
    assert prompt_set(100).fixed_subset(10) == subset[:10]


def test_a_subset_larger_than_the_set_is_an_error() -> None:
    with pytest.raises(RunError, match="prompts: 101 prompts are asked for, it has 100"):
        prompt_set(100).fixed_subset(101)


def test_a_file_gives_its_prompts(tmp_path: Path) -> None:
    path = tmp_path / "train.jsonl"
    record = {"id": "a", "prompt": "始 3 ?", "answer": "3", "level": 5}
    path.write_text(json.dumps(record, ensure_ascii=False) + "\n", encoding="utf-8")
    prompts = PromptSet.load(path, seed=0)
    assert prompts.take(0, 1) == [Prompt("a", "始 3 ?", "3")]
    assert len(prompts) == 1


GOOD = b'{"id": "a", "prompt": "3 ?", "answer": "3"}\n'


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "expected at least one prompt"),
        (GOOD + b"\n" + GOOD, "line 2: expected a JSON object"),
        (GOOD + b"{'id': 'b'}\n", "line 2: expected a JSON object"),
        (GOOD + b"\xff\xfe\n", "line 2: expected UTF-8"),
        (GOOD + b"[1, 2]\n", "line 2: expected a JSON object"),
        (GOOD + b'{"id": "b", "prompt": "x"}\n', "line 2: key 'answer' is missing"),
        (GOOD + b'{"id": "b", "prompt": "x", "answer": 3}\n', "line 2: 'answer' must be a text"),
        (GOOD + b'{"id": "b", "prompt": "", "answer": "3"}\n', "line 2: 'prompt' must be a text"),
        (GOOD + GOOD.replace(b'"a"', b'"b"') + GOOD, "line 3: id 'a' is that of line 1"),
    ],
)
def test_a_bad_file_is_named_with_its_line(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "train.jsonl"
    path.write_bytes(content)
    with pytest.raises(RunError) as error:
        PromptSet.load(path, seed=0)
    assert str(path) in str(error.value) and message in str(error.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"none\.jsonl: cannot read the prompt set"):
        PromptSet.load(tmp_path / "none.jsonl", seed=0)
