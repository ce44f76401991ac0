"""The rules of ``engine.data.sft_samples``, one test each."""

from __future__ import annotations

from pathlib import Path

import pytest
from chat_models import BOS, ENDINGS, EOS, TEMPLATES, model_folder, word_folder
from hypothesis import given
from hypothesis import strategies as st

from engine.data.chat_template import ChatTemplate, Message
from engine.data.sft_records import Conversation
from engine.data.sft_samples import ModelTemplate, QuestionTemplate, Sample, SampleMaker
from engine.data.tokenizer import Tokenizer
from engine.errors import RunError


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
    return Conversation("FILE, line 3", tuple(messages))


def samples(folder: Path, *conversations: Conversation) -> list[Sample]:
    template = ModelTemplate(ChatTemplate.load(folder))
    return list(SampleMaker(Tokenizer.load(folder), template).samples(conversations))


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
    assert (one.where, two.where) == ("FILE, line 3, answer 1", "FILE, line 3, answer 2")


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
    with pytest.raises(RunError, match=r"FILE, line 3: expected an answer with thoughts up to"):
        samples(opened, conversation("a", "7"))


def test_an_ending_token_is_not_doubled_and_stands_nowhere_else(reasoning: Path) -> None:
    (sample,) = samples(reasoning, conversation("a", "b<|im_end|>"))
    assert sample.response == samples(reasoning, conversation("a", "b"))[0].response
    (other,) = samples(reasoning, conversation("a", f"b{EOS}"))
    assert other.response[-1] == Tokenizer.load(reasoning).eos_ids[0]
    with pytest.raises(RunError, match=r"FILE, line 3: expected a token that ends a response"):
        samples(reasoning, conversation("a", f"b{EOS}c"))
    with pytest.raises(RunError, match=r"FILE, line 3: expected an answer, found one without"):
        samples(reasoning, conversation("a", EOS))


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
        "FILE, line 4", (*conversation("a").messages, *conversation("b", "c").messages)
    )
    with pytest.raises(RunError, match=r"^FILE, line 4: .*refuses it: Roles must alternate"):
        samples(folder, conversation("a", "b"), two)


WORDS = ["<eos>", "User:", "three", "plus", "four", "seven"]


def with_question_template(folder: Path, name: str, *conversations: Conversation) -> list[Sample]:
    maker = SampleMaker(Tokenizer.load(folder), QuestionTemplate(name))
    return list(maker.samples(conversations))


def test_a_plain_question_is_tokenized_as_reinforcement_learning_asks_it(opened: Path) -> None:
    tokenizer = Tokenizer.load(opened)
    (sample,) = with_question_template(opened, "plain", conversation("a b", "c"))
    assert sample.prompt == tokenizer.encode("a b") and sample.prompt[0] == 0  # the bos
    assert sample.response == [*tokenizer.encode("c", add_special=False), tokenizer.eos_ids[0]]
    (sample,) = with_question_template(opened, "r1_zero", conversation("a b", "c"))
    assert tokenizer.decode(sample.prompt).endswith("User: a b. Assistant:")


def test_words_alone_make_samples_too(tmp_path: Path) -> None:
    folder = word_folder(tmp_path, WORDS)
    (sample,) = with_question_template(folder, "plain", conversation("three plus four", "seven"))
    assert sample == ("FILE, line 3", [2, 3, 4], [5, 0])


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
    with pytest.raises(RunError) as error:
        with_question_template(folder, "plain", good, given_conversation)
    assert message in str(error.value)
