from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.rewards.format import score_format
from engine.rewards.score import RIGHT, WRONG

TAGS = ("<think>", "</think>", "<answer>", "</answer>")


@pytest.mark.parametrize(
    "response",
    [
        "<think> start 3 ; a plus 4 is 7 ; </think> <answer> 7 </answer>",
        "<think>x</think><answer>7</answer>",
        "  \n<think>x\ny</think>\n\n<answer>7</answer>\n",
        "<think> 1 < 2 and <b> </ think> </think> <answer> $x<y$ </answer>",
        "<think></think> <answer></answer>",  # what stands inside is not the format's matter
    ],
)
def test_the_template_is_right(response: str) -> None:
    assert score_format(response) == RIGHT


@pytest.mark.parametrize(
    "response",
    [
        "",
        "7",
        "<answer> 7 </answer>",
        "<think> x </think>",
        "<think> x </think> 7",
        "<think> x <answer> 7 </answer>",  # thoughts never closed
        "<think> x </think> <answer> 7",  # answer never closed
        "x </think> <answer> 7 </answer>",  # thoughts never opened
        "<answer> 7 </answer> <think> x </think>",  # order
        "</think> x <think> <answer> 7 </answer>",
        "<think> x </think> </answer> 7 <answer>",
        "<think> x <answer> 7 </answer> </think>",  # nested
        "<think> <think> x </think> </think> <answer> 7 </answer>",
        "<think> x </think> <answer> <answer> 7 </answer> </answer>",
        "<think> x </think> <answer> 7 </answer> <answer> 8 </answer>",  # two answers
        "<think> x </think> <think> y </think> <answer> 7 </answer>",
        "<think> I will write <answer> soon </think> <answer> 7 </answer>",
        "so <think> x </think> <answer> 7 </answer>",  # text outside
        "<think> x </think> so <answer> 7 </answer>",
        "<think> x </think> <answer> 7 </answer> done",
        "<think> x </think> <answer> 7 </answer> <eos>",
        "<THINK> x </THINK> <ANSWER> 7 </ANSWER>",
        "<think > x </think > <answer > 7 </answer >",
    ],
)
def test_anything_else_is_wrong(response: str) -> None:
    assert score_format(response) == WRONG


plain_text = st.text(st.characters(exclude_characters="<>"), max_size=30)


@given(plain_text, plain_text)
def test_any_text_without_tags_may_stand_inside(thought: str, answer: str) -> None:
    response = f"<think>{thought}</think> <answer>{answer}</answer>"
    assert score_format(response) == RIGHT


@given(st.lists(st.sampled_from([*TAGS, " ", "7", "x"]), max_size=9))
def test_of_all_arrangements_only_the_one_in_order_is_right(pieces: list[str]) -> None:
    tags = [piece for piece in pieces if piece in TAGS]
    outside, inside = [], False
    for piece in pieces:
        if piece in TAGS:
            inside = not piece.startswith("</")
        elif not inside:
            outside.append(piece)
    expected = tags == list(TAGS) and not "".join(outside).strip()
    assert (score_format("".join(pieces)) == RIGHT) == expected
