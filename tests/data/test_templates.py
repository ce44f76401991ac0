from __future__ import annotations

import pytest

from engine.data.templates import apply_template


def test_the_r1_zero_template_is_the_papers() -> None:
    assert apply_template("r1_zero", "1 + 1 = ?") == (
        "A conversation between User and Assistant. The user asks a question, and the Assistant "
        "solves it. The assistant first thinks about the reasoning process in the mind and then "
        "provides the user with the answer. The reasoning process and answer are enclosed within "
        "<think> </think> and <answer> </answer> tags, respectively, i.e., <think> reasoning "
        "process here </think> <answer> answer here </answer>. User: 1 + 1 = ?. Assistant:"
    )


@pytest.mark.parametrize("prompt", ["<bos> 3 a + 4 = ?", "", "{prompt} {0} {", r"\frac{1}{2}"])
def test_the_plain_template_adds_nothing(prompt: str) -> None:
    assert apply_template("plain", prompt) == prompt


def test_braces_in_a_question_stay() -> None:
    assert r"User: \frac{1}{2} {prompt} {x}. " in apply_template(
        "r1_zero", r"\frac{1}{2} {prompt} {x}"
    )
