"""Look at what conversations say: the same ones again, or questions that validation shares."""

from __future__ import annotations

from collections.abc import Iterator
from hashlib import blake2b

from engine.config.reader.keys import KeyPath
from engine.data.chat_template import Message
from engine.data.sft_records import Conversation, Place
from engine.preflight.finding import Finding, warning

_DIGEST_BYTES = 16


class SeenConversations:
    """Digests of one part's conversations, with the places where they stand.

    Attributes:
        many: conversations that were seen.
    """

    def __init__(self) -> None:
        self.many = 0
        self._first: dict[bytes, Place] = {}  # by digest of the whole conversation
        self._again: list[tuple[Place, Place]] = []  # of one that was there already; the first
        self._questions: dict[bytes, list[Place]] = {}

    def see(self, conversation: Conversation) -> None:
        """Remember a conversation; space between the words of its question does not count."""
        before = conversation.question
        hasher = blake2b(digest_size=_DIGEST_BYTES)
        for message in before:
            _add(hasher, message, " ".join(message["content"].split()))
        question = hasher.digest()
        for message in conversation.messages[len(before) :]:
            _add(hasher, message, message["content"])
        whole, where = hasher.digest(), conversation.where
        self.many += 1
        if (first := self._first.setdefault(whole, where)) is not where:
            self._again.append((where, first))
        self._questions.setdefault(question, []).append(where)

    def repeated(self, key: KeyPath) -> Iterator[Finding]:
        """Warn of conversations that are there several times, every word the same."""
        if self._again:
            many, (where, first) = len(self._again), self._again[0]
            yield warning(
                key,
                f"{many:,} of {self.many:,} conversations {_is(many)} there already, word for"
                f" word: {where} is {_beside(where, first)} again; they weigh more",
            )

    def shared_with(self, train: SeenConversations, key: KeyPath) -> Iterator[Finding]:
        """Warn of conversations, seen here, whose question ``train`` has too."""
        both = [
            (where, train._questions[question][0])
            for question, places in self._questions.items()
            if question in train._questions
            for where in places
        ]
        if both:
            many, (where, first) = len(both), both[0]
            yield warning(
                key,
                f"the question of {many:,} of {self.many:,} conversations {_is(many)} in data.train"
                f" too, so that the loss is partly of what was learned: {where} asks what {first}"
                " asks",
            )


def _add(hasher: blake2b, message: Message, content: str) -> None:
    text = content.encode()
    hasher.update(f"{message['role']} {len(text)}\n".encode())
    hasher.update(text)


def _beside(where: Place, first: Place) -> str:
    """Return ``first`` as a sentence that has named ``where`` calls it."""
    return f"{first.unit} {first.number}" if where.file == first.file else str(first)


def _is(many: int) -> str:
    return "is" if many == 1 else "are"
