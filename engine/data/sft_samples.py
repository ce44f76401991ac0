"""Make samples of conversations: every answer becomes one, and only answers are learned.

The rules, each held by a test:

- The prompt of a sample is everything before its answer, rendered anew: templates of reasoning
  models drop the thoughts of earlier answers, and so the prompt is what the model will be asked
  with.
- The response is the answer's text as it stands in the file, then the ending token. What a template
  would do to an answer (drop its thoughts, trim it) is not done.
- Where the prompt already opens the thoughts (it ends with ``<think>``, as templates of reasoning
  models do), the answer's own ``<think>`` is dropped: the model does not write it.
- Prompt and response are tokenized each by itself, because that is what the model meets: the
  prompt's tokens are fixed when it begins to answer, and no token spans the border.
- The ending token is the first one that the template writes after an answer and that ends a
  response (``Tokenizer.eos_ids``); the main one of these where there is none. An answer that
  ends with such a token keeps it; one that has it in the middle is refused.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import NamedTuple, Protocol

from engine.data.chat_template import ChatTemplate, Message
from engine.data.sft_records import Place, Record, WrongRecord
from engine.data.templates import apply_template
from engine.data.tokenizer import Tokenizer
from engine.errors import RunError

_THINK, _END_OF_THOUGHT = "<think>", "</think>"
_PLACEHOLDER = "answer"
_AT_ONCE = 512  # answers that are tokenized together, on several threads


class Sample(NamedTuple):
    """One answer's tokens.

    Attributes:
        where: its conversation stands.
        answer: its number in the conversation, counted from 1; None where there is no other.
        prompt: ids of what the model is asked with.
        response: ids of what it learns to say, the ending token included.
    """

    where: Place
    answer: int | None
    prompt: list[int]
    response: list[int]


class PromptTemplate(Protocol):
    """How the messages before an answer become text."""

    adds_special: bool
    """Whether the tokenizer puts its own tokens (a bos) in front."""

    def prompt(self, before: tuple[Message, ...]) -> str:
        """Return the text that the model is asked with; RunError where it cannot be."""
        ...

    def after_an_answer(self, messages: tuple[Message, ...]) -> str:
        """Return what the template writes behind the last message, which is an answer."""
        ...


class ModelTemplate:
    """The model's own chat template; it writes every special token itself."""

    adds_special = False

    def __init__(self, template: ChatTemplate) -> None:
        self._template = template

    def prompt(self, before: tuple[Message, ...]) -> str:
        """See :class:`PromptTemplate`."""
        return self._template.render(before, add_generation_prompt=True)

    def after_an_answer(self, messages: tuple[Message, ...]) -> str:
        """See :class:`PromptTemplate`."""
        answer: Message = {"role": messages[-1]["role"], "content": _PLACEHOLDER}
        _, found, after = self._template.render([*messages[:-1], answer]).rpartition(_PLACEHOLDER)
        return after if found else ""


class QuestionTemplate:
    """One of ``engine.data.templates``: a question alone, as reinforcement learning asks it."""

    adds_special = True

    def __init__(self, name: str) -> None:
        self._name = name

    def prompt(self, before: tuple[Message, ...]) -> str:
        """See :class:`PromptTemplate`."""
        if [message["role"] for message in before] != ["user"]:
            raise RunError(
                f"expected one question of the user before an answer where data.template is"
                f" {self._name}, found {', '.join(message['role'] for message in before)}; use"
                " data.template=model"
            )
        return apply_template(self._name, before[0]["content"])

    def after_an_answer(self, messages: tuple[Message, ...]) -> str:
        """See :class:`PromptTemplate`."""
        return ""


class _Text(NamedTuple):
    """A sample before it is tokenized."""

    where: Place
    answer: int | None
    prompt: str
    response: str


class SampleMaker:
    """Makes the samples of one tokenizer and template."""

    def __init__(self, tokenizer: Tokenizer, template: PromptTemplate) -> None:
        self._tokenizer = tokenizer
        self._template = template
        self._ending: int | None = None  # known with the first answer

    def samples(self, records: Iterable[Record]) -> Iterator[Sample | WrongRecord]:
        """Yield a sample for every answer, in order, and why there is none.

        Args:
            records: wrong ones among them are passed on.
        """
        found = (one for record in records for one in self._texts(record))
        encode, special = self._tokenizer.encode_each, self._template.adds_special
        while chunk := list(islice(found, _AT_ONCE)):
            texts = [one for one in chunk if isinstance(one, _Text)]
            prompts = encode([one.prompt for one in texts], add_special=special)
            responses = encode([one.response for one in texts], add_special=False)
            for one in chunk:
                if isinstance(one, _Text):
                    yield self._sample(one, next(prompts), next(responses))
                else:
                    yield one

    def _texts(self, record: Record) -> Iterator[_Text | WrongRecord]:
        if isinstance(record, WrongRecord):
            yield record
            return
        answers = record.answers
        for number, at in enumerate(answers, start=1):
            which = number if len(answers) > 1 else None
            before, answer = record.messages[:at], record.messages[at]
            try:
                prompt = self._template.prompt(before)
                if self._ending is None:
                    self._ending = self._ending_of((*before, answer))
                yield _Text(record.where, which, prompt, _continuing(prompt, answer["content"]))
            except RunError as error:
                yield _wrong(record.where, which, str(error), str(error))

    def _ending_of(self, messages: tuple[Message, ...]) -> int:
        after = self._template.after_an_answer(messages)
        ends = self._tokenizer.eos_ids
        written = self._tokenizer.encode(after, add_special=False) if after else []
        return next((token for token in written if token in ends), ends[0])

    def _sample(
        self, text: _Text, prompt: list[int] | RunError, response: list[int] | RunError
    ) -> Sample | WrongRecord:
        where, which = text.where, text.answer
        if isinstance(prompt, RunError):
            return _wrong(where, which, "words", str(prompt))
        if isinstance(response, RunError):
            return _wrong(where, which, "words", str(response))
        ends = self._tokenizer.eos_ids
        if not prompt:
            says = "expected a prompt, found one without any token"
            return _wrong(where, which, "no token to ask", says)
        if not any(token not in ends for token in response):
            says = "expected an answer, found one without any token"
            return _wrong(where, which, "no token to learn", says)
        if any(token in ends for token in response[:-1]):
            says = (
                f"expected a token that ends a response ({list(ends)}) at the answer's end at most,"
                " found one before it; the model would learn to stop there"
            )
            return _wrong(where, which, "ending token", says)
        assert self._ending is not None
        ended = response if response[-1] in ends else [*response, self._ending]
        return Sample(where, which, prompt, ended)


def _wrong(where: Place, answer: int | None, kind: str, says: str) -> WrongRecord:
    return WrongRecord(where, kind, says if answer is None else f"answer {answer}: {says}")


def _continuing(prompt: str, answer: str) -> str:
    """What is left of ``answer`` to write behind ``prompt``."""
    before = prompt.rstrip()
    if not before.endswith(_THINK):
        return answer
    if answer.lstrip().startswith(_THINK):
        rest = answer.lstrip().removeprefix(_THINK)
        return rest.lstrip("\n") if prompt.endswith("\n") else rest
    if _END_OF_THOUGHT not in answer:
        raise RunError(
            f"expected an answer with thoughts up to {_END_OF_THOUGHT}, as the model's chat"
            f" template opens them with {_THINK}; found none"
        )
    return answer
