"""The rules of ``engine.data.sft_samples``, one test each."""

from __future__ import annotations

from pathlib import Path

import pytest
from chat_models import BOS, ENDINGS, EOS, TEMPLATES, model_folder, word_folder
from hypothesis import given
from hypothesis import strategies as st

from engine.data.chat_template import ChatTemplate, Message
from engine.data.sft_records import Conversation, Place, Record, WrongRecord
from engine.data.sft_samples import (
    ModelTemplate,
    PromptTemplate,
    QuestionTemplate,
    Sample,
    SampleMaker,
)
from engine.data.tokenizer import Tokenizer


@pytest.fixture(scope="module", params=TEMPLATES)
def folder(request, tmp_path_factory) -> Path:
    return model_folder(tmp_path_factory.mktemp("model") / request.param, request.param)


@pytest.fixture(scope="module")
def reasoning(tmp_path_factory) -> Path:
    return model_folder(tmp_path_factory.mktemp("model"), "reasoning")


@pytest.fixture(scope="module")
def opened(tmp_path_factory) -> Path:
    return model_folder(tmp_path_factory.mktemp("model"), "opened")


def conversation(*contents: str) -> Conversation:
    messages: list[Message] = [
        {"role": "assistant" if n % 2 else "user", "content": content}
        for n, content in enumerate(contents)
    ]
    return Conversation(Place(Path("FILE"), 3), tuple(messages))


def made(folder: Path, template: PromptTemplate, *records: Record) -> list[Sample | WrongRecord]:
    return list(SampleMaker(Tokenizer.load(folder), template).samples(records))


def samples(folder: Path, *conversations: Conversation) -> list[Sample]:
    found = made(folder, ModelTemplate(ChatTemplate.load(folder)), *conversations)
    assert not [str(one) for one in found if isinstance(one, WrongRecord)]
    return [one for one in found if isinstance(one, Sample)]


def refusal(folder: Path, *conversations: Conversation) -> str:
    """Return what is said of the one record that no sample can be made of."""
    found = made(folder, ModelTemplate(ChatTemplate.load(folder)), *conversations)
    (wrong,) = [one for one in found if isinstance(one, WrongRecord)]
    return str(wrong)


def asked(folder: Path, template: str, *conversations: Conversation) -> list[Sample]:
    found = made(folder, QuestionTemplate(template), *conversations)
    return [one for one in found if isinstance(one, Sample)]


def test_every_answer_is_a_sample_whose_prompt_is_everything_before_it(folder: Path) -> None:
    """In every family's template: the prompt's text is the template's, the response the file's."""
    first = "<think>\nThree and four.\n</think>\n\nSeven. "
    whole = conversation("What is 3 + 4? ", first, "And 4 + 3?", "<think>\nAlike.\n</think>\n\n7")
    one, two = samples(folder, whole)
    tokenizer, template = Tokenizer.load(folder), ChatTemplate.load(folder)
    for sample, at in ((one, 1), (two, 3)):
        text = template.render(whole.messages[:at], add_generation_prompt=True)
        assert tokenizer.decode(sample.prompt) == text
        content = whole.messages[at]["content"]
        if folder.name == "opened":
            content = content.removeprefix("<think>\n")
        assert tokenizer.decode(sample.response) == content
        assert tokenizer.decode([*sample.response, 0]).endswith(ENDINGS[folder.name] + BOS)
    assert [(str(sample.where), sample.answer) for sample in (one, two)] == [
        ("FILE, line 3", 1),
        ("FILE, line 3", 2),
    ]


def test_a_prompt_has_no_earlier_thoughts(reasoning: Path) -> None:
    _, two = samples(reasoning, conversation("a", "<think>secret</think>\n\nb", "c", "d"))
    prompt = Tokenizer.load(reasoning).decode(two.prompt)
    assert "secret" not in prompt and "b<|im_end|>" in prompt


def test_nothing_is_put_into_an_answer(reasoning: Path) -> None:
    """The template would give an answer without thoughts empty ones."""
    (sample,) = samples(reasoning, conversation("a", "  b\n"))
    assert Tokenizer.load(reasoning).decode(sample.response) == "  b\n"


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("<think>\nx\n</think>\n\ny", "x\n</think>\n\ny"),
        ("\n<think>x</think>y", "x</think>y"),
        ("x</think>y", "x</think>y"),
    ],
)
def test_thoughts_that_the_prompt_opens_are_not_opened_again(opened, answer, expected) -> None:
    (sample,) = samples(opened, conversation("a", answer))
    tokenizer = Tokenizer.load(opened)
    assert tokenizer.decode(sample.prompt).endswith("<think>\n")
    assert tokenizer.decode(sample.response) == expected


def test_an_answer_without_thoughts_behind_opened_ones_is_refused(opened: Path) -> None:
    says = refusal(opened, conversation("a", "7"))
    assert says.startswith("FILE, line 3: expected an answer with thoughts up to")


def test_an_ending_token_is_not_doubled_and_stands_nowhere_else(reasoning: Path) -> None:
    (sample,) = samples(reasoning, conversation("a", "b<|im_end|>"))
    assert sample.response == samples(reasoning, conversation("a", "b"))[0].response
    (other,) = samples(reasoning, conversation("a", f"b{EOS}"))
    assert other.response[-1] == Tokenizer.load(reasoning).eos_ids[0]
    says = refusal(reasoning, conversation("a", f"b{EOS}c"))
    assert says.startswith("FILE, line 3: expected a token that ends a response")
    says = refusal(reasoning, conversation("a", EOS))
    assert says.startswith("FILE, line 3: expected an answer, found one without")


def test_a_prompt_without_a_token_is_refused(tmp_path: Path) -> None:
    folder = model_folder(tmp_path, "reasoning")
    (folder / "chat_template.jinja").write_text("{% if false %}{{ messages }}{% endif %}")
    says = refusal(folder, conversation("a", "b"))
    assert says == "FILE, line 3: expected a prompt, found one without any token"


def test_no_token_spans_the_border_of_prompt_and_response(opened: Path) -> None:
    """The prompt ends with a line break and the thoughts begin with two: never one token."""
    tokenizer = Tokenizer.load(opened)
    (sample,) = samples(opened, conversation("a", "\n\nx</think>y"))
    text = ChatTemplate.load(opened).render(
        [{"role": "user", "content": "a"}], add_generation_prompt=True
    )
    assert sample.prompt == tokenizer.encode(text, add_special=False)
    assert sample.response[:-1] == tokenizer.encode("\n\nx</think>y", add_special=False)


@given(
    st.lists(st.tuples(st.text("ab 中\n", min_size=1), st.text("ab 中\n", min_size=1)), min_size=1)
)
def test_samples_come_back_as_text(reasoning: Path, pairs) -> None:
    tokenizer = Tokenizer.load(reasoning)
    found = samples(reasoning, *(conversation(q, a) for q, a in pairs))
    assert len(found) == len(pairs)
    for sample, (question, answer) in zip(found, pairs, strict=True):
        prompt = f"<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n"
        assert tokenizer.decode(sample.prompt) == prompt
        assert tokenizer.decode(sample.response) == answer
        assert sample.response[-1] == tokenizer.eos_ids[2]


def test_a_refusing_template_is_named_with_the_record(tmp_path: Path) -> None:
    folder = model_folder(tmp_path, "instruct")
    two = Conversation(
        Place(Path("FILE"), 4), (*conversation("a").messages, *conversation("b", "c").messages)
    )
    says = refusal(folder, conversation("a", "b"), two, conversation("a", "b"))
    assert says.startswith("FILE, line 4: ") and "refuses it: Roles must alternate" in says


WORDS = ["<eos>", "User:", "three", "plus", "four", "seven"]


def test_a_plain_question_is_tokenized_as_reinforcement_learning_asks_it(opened: Path) -> None:
    tokenizer = Tokenizer.load(opened)
    (sample,) = asked(opened, "plain", conversation("a b", "c"))
    assert sample.prompt == tokenizer.encode("a b") and sample.prompt[0] == 0  # the bos
    assert sample.response == [*tokenizer.encode("c", add_special=False), tokenizer.eos_ids[0]]
    (sample,) = asked(opened, "r1_zero", conversation("a b", "c"))
    assert tokenizer.decode(sample.prompt).endswith("User: a b. Assistant:")


def test_words_alone_make_samples_too(tmp_path: Path) -> None:
    folder = word_folder(tmp_path, WORDS)
    (sample,) = asked(folder, "plain", conversation("three plus four", "seven"))
    assert sample == (Place(Path("FILE"), 3), None, [2, 3, 4], [5, 0])


@pytest.mark.parametrize(
    ("given_conversation", "message"),
    [
        (conversation("three", "five"), "FILE, line 3: cannot tokenize 'five'"),
        (conversation("five", "three"), "FILE, line 3: cannot tokenize 'five'"),
        (conversation("three", "four", "four", "three"), "answer 2: expected one question of the"),
    ],
)
def test_what_no_sample_can_be_made_of_is_named(tmp_path, given_conversation, message) -> None:
    folder = word_folder(tmp_path, WORDS)
    good = conversation("three", "seven")
    found = made(folder, QuestionTemplate("plain"), good, given_conversation, good)
    assert [one for one in found if isinstance(one, Sample)][-1].response == [5, 0]
    assert message in str(next(one for one in found if isinstance(one, WrongRecord)))


def test_wrong_records_are_passed_on_in_their_place(tmp_path) -> None:
    folder, good = word_folder(tmp_path, WORDS), conversation("three", "seven")
    wrong = WrongRecord(Place(Path("FILE"), 2), "blank", "found a blank line")
    found = made(folder, QuestionTemplate("plain"), good, wrong, conversation("five", "four"), good)
    assert [isinstance(one, WrongRecord) for one in found] == [False, True, True, False]
    assert found[1] is wrong
