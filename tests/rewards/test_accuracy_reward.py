from __future__ import annotations

import time
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.rewards.accuracy import answer_in, prepare, score, score_plain
from engine.rewards.score import RIGHT, UNPARSABLE, WRONG, Score


def says(answer: str) -> str:
    return f"<think> hm </think> <answer> {answer} </answer>"


@pytest.mark.parametrize(
    ("response", "content"),
    [
        ("<answer> 7 </answer>", "7"),
        ("so it is <answer>7</answer> done", "7"),
        ("<answer>\n x + 1 \n</answer>", "x + 1"),
        ("7", None),
        ("<answer> 7", None),
        ("7 </answer>", None),
        ("</answer> 7 <answer>", None),
        ("<answer> </answer>", None),
        ("<answer></answer>", None),
        ("<answer> 7 </answer> <answer> 8 </answer>", None),
        ("<answer> <answer> 7 </answer> </answer>", None),
        ("<think> <answer> 7 </answer> </think> <answer> 7 </answer>", None),
    ],
)
def test_the_answer_is_what_stands_in_the_one_pair_of_tags(
    response: str, content: str | None
) -> None:
    assert answer_in(response) == content


@pytest.mark.parametrize(
    ("answer", "reference", "verdict"),
    [
        ("7", "7", RIGHT),
        ("8", "7", WRONG),
        ("07", "7", RIGHT),
        ("7.0", "7", RIGHT),
        ("7.", "7", RIGHT),
        (".5", "0.50", RIGHT),
        ("+7", "7", RIGHT),
        ("-7", "7", WRONG),
        ("-0", "0", RIGHT),
        ("-0.0", "0", RIGHT),
        ("70", "7", WRONG),
        ("0.7", "7", WRONG),
        ("9" * 10_000, "9" * 10_000 + ".0", RIGHT),  # beyond what int() takes
        ("", "7", UNPARSABLE),
        ("2 5", "7", UNPARSABLE),  # math-verify adds them up
        ("7 7", "7", UNPARSABLE),
        ("1 2 3 4 5 6 7 8 9", "7", UNPARSABLE),
        ("Paris", " Paris ", RIGHT),  # equal text is right, mathematics or not
        ("seven", "7", None),
        ("7 .", "7", None),
        (".", "7", None),
        ("7/1", "7", None),
        ("٧", "7", None),  # digits are ASCII
        (r"\frac{1}{2}", "0.5", None),
    ],
)
def test_plain_numbers_are_settled_by_reading(
    answer: str, reference: str, verdict: Score | None
) -> None:
    assert score_plain(says(answer), reference) == verdict


decimals = st.decimals(allow_nan=False, allow_infinity=False, places=3, min_value=-99, max_value=99)


@given(decimals, decimals)
def test_plain_numbers_compare_as_decimals_do(left: Decimal, right: Decimal) -> None:
    expected = RIGHT if left == right else WRONG
    assert score_plain(says(f"{left:f}"), f"{right:f}") == expected


@given(decimals, st.integers(0, 3), st.integers(0, 3))
def test_idle_zeros_change_nothing(number: Decimal, before: int, after: int) -> None:
    sign = "-" if number < 0 else ""
    padded = sign + "0" * before + f"{abs(number):f}" + "0" * after
    assert score_plain(says(padded), f"{number:f}") == RIGHT


@pytest.mark.parametrize("piece", ["0", "<answer>", "1.", "7 ", "</answer>", "+", " "])
def test_reading_takes_linear_time_whatever_the_policy_writes(piece: str) -> None:
    response = says(piece * 200_000 + "x")
    started = time.process_time()  # a busy machine does not count
    score_plain(response, "7")
    assert time.process_time() - started < 2


@pytest.fixture(scope="module")
def math_verify() -> None:
    prepare()


@pytest.mark.usefixtures("math_verify")
@pytest.mark.parametrize(
    ("answer", "reference", "verdict"),
    [
        (r"\frac{1}{2}", "0.5", RIGHT),
        ("1/2", r"\frac{1}{2}", RIGHT),
        (r"$\frac{1}{2}$", "0.5", RIGHT),
        (r"\boxed{7}", "7", RIGHT),
        ("x + 1", "1 + x", RIGHT),
        (r"\sqrt{8}", r"2\sqrt{2}", RIGHT),
        ("x = 7", "7", RIGHT),
        (r"\{3, 1, 2\}", r"\{1, 2, 3\}", RIGHT),
        ("7", "7", RIGHT),
        # parts of an expression, of which math-verify would find the last number if it searched
        ("2", r"2\sqrt{2}", WRONG),
        (r"2\sqrt{2}", "2", WRONG),
        ("10^{3}", "10", WRONG),
        ("1 + x", "1", WRONG),
        # more than one answer
        ("7 or 8", "7", WRONG),
        ("1, 2, 3, 7", "7", WRONG),
        ("7, 8", "8", WRONG),
        ("2 5", "7", UNPARSABLE),
        ("", "7", UNPARSABLE),
        (r"\begin{matrix} 1 \\", "7", UNPARSABLE),
        ("wait", "7", WRONG),
        ('__import__("os")', "7", UNPARSABLE),
    ],
)
def test_mathematics_is_compared_as_a_whole(answer: str, reference: str, verdict: Score) -> None:
    assert score(says(answer), reference) == verdict
