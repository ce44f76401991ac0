"""The share of words of the target language, in several languages and scripts."""

from __future__ import annotations

import asyncio
import string
import time
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import RunError
from engine.rewards.language import LanguageReward, chain_of_thought
from engine.rewards.reward import Answer
from engine.rewards.score import Score, graded
from engine.rewards.table import RewardsConfig
from recipes.chain_task.problems import LABELS
from recipes.chain_task.vocabulary import CHINESE, DIGITS, ENGLISH

FRENCH = ("donc", "l'eau", "est", "froide", "où", "elle", "le", "chat", "qu")
CHINESE_WORDS = ("你好", "世界", "世", "所以", "答案", "是")


def score(response: str, target: str, **options: Any) -> Score:
    return asyncio.run(
        LanguageReward(weight=1.0, target=target, **options).score(Answer("", response, ""))
    )


def share(text: str, target: str, **options: Any) -> float:
    found = score(f"<think> {text} </think> <answer> 7 </answer>", target, **options)
    assert found.outcome == "graded"
    return found.value


@pytest.mark.parametrize(
    ("text", "target", "expected"),
    [
        # the chain task
        ("start 3 ; a plus 4 is 7 ; so 7", "en", 1),
        ("start 3 ; a plus 4 is 7 ; so 7", "zh", 0),
        ("始 3 ; a 加 4 得 7 ; 故 7", "zh", 1),
        ("start 3 ; a 加 4 is 7 ; wait start 3 ; 故 7", "en", Fraction(4, 6)),
        ("start 3 ; a 加 4 is 7 ; wait start 3 ; 故 7", "zh", Fraction(2, 6)),
        # scripts of their own
        ("Пусть x равен трём, then we add", "ru", Fraction(3, 6)),
        ("Пусть б равен", "ru", 1),
        ("ας είναι α = 3 so", "el", Fraction(2, 3)),
        ("إذن الجواب هو 7 and", "ar", Fraction(3, 4)),
        ("उत्तर सात है so", "hi", Fraction(3, 4)),
        ("답 은 7 입니다 so", "ko", Fraction(3, 4)),
        ("그래서 답 은 7", "ko", 1),
        ("Սա պատասխանն է so", "hy", Fraction(2, 3)),  # է is a single letter of an alphabet
        # without spaces each letter is a word
        ("所以答案是七 so", "zh", Fraction(6, 7)),
        ("我们得到所以x等于七because", "zh", Fraction(9, 10)),
        ("คำตอบ so", "th", Fraction(5, 6)),
        ("ที่ so", "th", Fraction(1, 2)),  # marks are no letters
        ("これは答えです", "ja", 1),
        ("コーヒーを飲む", "ja", 1),
        ("これは答", "zh", Fraction(1, 4)),  # kana are no Chinese, kanji cannot be told
        ("答え", "ko", 0),
        # notation of mathematics, tags and numbers are of no language
        (r"\frac{1}{2} + \sqrt{x_1} \le 3rd 2ab <eos> 所", "zh", 1),
        (r"\frac{1}{2} + x so", "en", 1),
        (r"a\n所以", "zh", 1),  # a command of TeX ends where ASCII letters end
        (r"\所以 so", "zh", Fraction(2, 3)),
        (r"\alpha所 so", "zh", Fraction(1, 2)),
        ("<think> <eos> <|im_end|> <｜end▁of▁sentence｜> 所", "zh", 1),
        ("<所以> <because> <|因|>", "zh", Fraction(3, 4)),  # these are no tags
        ("ℵℶ 𝑎𝑏 ℃ 所", "zh", 1),  # letters of the Common script
        # code and formulas are of no language, words beside them are
        ("```python\nfor x in range(3):\n    print('so')\n``` 所以", "zh", 1),
        ("用 `len(text)` 所以 `so` is", "zh", Fraction(3, 4)),
        (r"$sin(x) = y$ $$max so$$ \(so\) \[min\n so\] 所", "zh", 1),
        ("$\\text{so}$所$so$以 so", "zh", Fraction(2, 3)),
        ("it costs $5 or $6 or more", "zh", 0),  # amounts are no formula
        ("it costs $5 所 or $6", "en", Fraction(3, 4)),
        (r"所以 \( so ` so ``` so $$ so $x so", "zh", Fraction(2, 7)),  # never closed
        (r"f\\[2pt] so 所", "en", Fraction(1, 2)),
        (r"max(foo, bar) \text{so} so 所", "en", Fraction(5, 6)),  # code that nothing marks
        ("１２ ½ Ⅳ 10⁷ 𝑥 so", "en", 1),
        # forms of letters and words
        ("naïve résumé don't o’clock", "en", 1),
        ("nai\u0308ve re\u0301sume\u0301", "en", 1),
        ("well-known step-by-step", "en", 1),
        ("pаypal", "en", 0),  # its first a is Cyrillic
    ],
)
def test_words_are_told_by_their_script(text: str, target: str, expected: Fraction) -> None:
    assert share(text, target) == pytest.approx(float(expected))


@pytest.mark.parametrize(
    ("text", "target", "words", "expected"),
    [
        ("donc le chat is cold", "fr", FRENCH, Fraction(3, 5)),
        ("Donc L’eau EST froide", "fr", FRENCH, 1),
        ("l'est, qu'elle, d'or", "fr", FRENCH, Fraction(2, 3)),
        ("ou\u0300 est", "fr", FRENCH, 1),
        ("donc le 猫", "fr", FRENCH, Fraction(2, 3)),
        # the longest words first, each letter that is left a word of its own
        ("你好世界", "zh", CHINESE_WORDS, 1),
        ("所以答案是七", "zh", CHINESE_WORDS, Fraction(3, 4)),
        ("世人", "zh", CHINESE_WORDS, Fraction(1, 2)),
        ("答え", "zh", CHINESE_WORDS, 0),
        ("所以 so", "zh", CHINESE_WORDS, Fraction(1, 2)),
        ("สวัสดีครับ", "th", ("สวัสดี",), Fraction(1, 4)),
        ("vello 3 tello", "klingon", ("vello",), Fraction(1, 2)),
    ],
)
def test_with_a_vocabulary_the_listed_words_are_of_the_language(
    text: str, target: str, words: tuple[str, ...], expected: Fraction
) -> None:
    assert share(text, target, words=words) == pytest.approx(float(expected))


def test_a_vocabulary_may_stand_in_a_file(tmp_path: Path) -> None:
    file = tmp_path / "french.txt"
    file.write_text("\n".join(FRENCH) + "\n", encoding="utf-8")
    assert share("donc le chat is cold", "fr", words=file) == pytest.approx(0.6)
    with pytest.raises(RunError, match="cannot read the words"):
        share("donc", "fr", words=tmp_path / "no.txt")
    file.write_text(" \n")
    with pytest.raises(RunError, match="found none"):
        share("donc", "fr", words=file)


@pytest.mark.parametrize(
    ("response", "thoughts"),
    [
        ("<think>a</think> <answer>b</answer>", "a"),
        ("x <think>a</think> y <think>b</think> z", "a\nb"),
        ("<think>a</think> <think>b", "a"),
        ("<think></think> b", ""),
        ("<think>a", "<think>a"),
        ("a</think> b", "a"),  # the template of the prompt opened it
        ("a</think> b</think> c", "a"),
        ("a</think> <think>b</think> c", "a\nb"),
        ("</think> a <think>", ""),
        ("a", "a"),
        ("", ""),
    ],
)
def test_the_chain_of_thought_stands_between_the_tags(response: str, thoughts: str) -> None:
    assert chain_of_thought(response) == thoughts


def test_without_tags_the_whole_response_counts_and_tags_are_no_words() -> None:
    assert score("<think> so 七 </answer>", "en") == graded(0.5)
    assert score("so </think> <answer> 七 </answer>", "en") == graded(1.0)
    assert score("<think> so </think> <answer> 七 </answer>", "en") == graded(1.0)


@pytest.mark.parametrize(
    "response", ["", "7", "<think> 3 + 4 = 7 </think> so", "x = 7", "!?", "$so$", "</think> so"]
)
def test_a_chain_of_thought_without_words_is_graded_zero(response: str) -> None:
    """Graded, so that evaluations show a mean value even where no answer has any words."""
    assert score(response, "en") == graded(0.0)


words_of_both = st.lists(st.sampled_from([*ENGLISH.words, *CHINESE.words]), min_size=1)
neutral = st.lists(st.sampled_from([*DIGITS, *LABELS, *"+-*=?;", "<eos>"]))


@given(words_of_both, neutral, st.randoms())
def test_labels_digits_and_punctuation_change_nothing(words, signs, random) -> None:
    mixed = [*words, *signs]
    random.shuffle(mixed)
    english = sum(word in ENGLISH.words for word in words) / len(words)
    for options in ({}, {"words": ENGLISH.words}):
        assert share(" ".join(mixed), "en", **options) == pytest.approx(english)
    assert share(" ".join(mixed), "zh") == pytest.approx(1 - english)


@given(st.text())
def test_any_text_is_graded_between_zero_and_one(text: str) -> None:
    for options in ({}, {"words": ("so", "好")}):
        found = score(text, "en", **options)
        assert found.outcome == "graded" and 0 <= found.value <= 1


@given(words_of_both, st.sampled_from(ENGLISH.words))
def test_one_more_word_of_the_language_never_lowers_the_share(words, more) -> None:
    text = " ".join(words)
    assert share(f"{text} {more}", "en") >= share(text, "en")


@pytest.mark.parametrize(
    "piece",
    [
        *("<think>", "</think>", "<think></think>", "'", "a'", "\\", "<", "</a", "x1 ", "1a"),
        *("é", "的", "a\u0301", "\u0301", "wait 等 ", "$", "$a ", "$$a ", "\\$", "`", "`a", "`a\n"),
        *("```", "```a ", "````a", "\\(", "\\(a", "\\[", "\\)", "\\(\\[", "<|", "<|a", "<｜a▁"),
    ],
)
def test_counting_takes_linear_time_whatever_the_policy_writes(piece: str) -> None:
    """Eight times the text may take sixteen times as long; 64 times would be quadratic."""
    for options in ({}, {"words": CHINESE_WORDS}):
        short, long = (seconds_to_score(piece, size, options) for size in (6_250, 50_000))
        assert long < 16 * short + 0.05


def seconds_to_score(piece: str, size: int, options: dict[str, Any]) -> float:
    """Processor time of the fastest of two runs over ``size`` characters."""
    text, seconds = piece * (size // len(piece)), []
    for _ in range(2):
        started = time.process_time()
        score(text, "zh", **options)
        seconds.append(time.process_time() - started)
    return min(seconds)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"target": "xx"}, "expected words or scripts of the target language: those of 'xx'"),
        (
            {"target": "en", "scripts": ["Latn", "Lattin"]},
            "scripts such as Latin .* found 'Lattin'",
        ),
        ({"target": "en", "words": []}, "expected at least one word"),
        ({"target": ""}, "at least 2 characters"),
    ],
)
def test_options_that_tell_no_language_are_refused(options, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        RewardsConfig.model_validate({"language": {"weight": 1.0, **options}})


def test_scripts_may_be_given() -> None:
    assert share("ᏣᎳᎩ ᎦᏬᏂᎯᏍᏗ so", "chr", scripts=("Cherokee",)) == pytest.approx(2 / 3)
    assert share("Pa sa so сила", "sr") == 1  # written in both
    assert share("Pa sa so сила", "sr", scripts=("Cyrillic",)) == 0.25


@given(st.text(string.ascii_lowercase, min_size=2))
def test_codes_with_a_region_are_those_of_the_language(word: str) -> None:
    assert share(word, "pt-BR") == share(word, "pt") == 1
    assert share(word, "zh-Hant") == 0
