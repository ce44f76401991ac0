"""Conversations from files: both formats, both kinds of file, and what is wrong with a record."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import parquet

from engine.data.sft_records import Conversation, conversations_of, read_conversations
from engine.errors import RunError

CHAT = {
    "messages": [
        {"role": "system", "content": ""},
        {"role": "user", "content": "3 + 4?"},
        {"role": "assistant", "content": "7"},
        {"role": "user", "content": "和中文?\u2028"},
        {"role": "assistant", "content": "七"},
    ],
    "id": 5,
}
PAIR = {"prompt": "3 + 4?", "response": "7", "level": 2}
AS_CHAT = ({"role": "user", "content": "3 + 4?"}, {"role": "assistant", "content": "7"})


def json_lines(path: Path, *records: Any) -> Path:
    lines = (json.dumps(r, ensure_ascii=False) + "\n" for r in records)
    path.write_text("".join(lines).replace("\ud83d", r"\ud83d"))  # which is no UTF-8
    return path


def parquet_file(path: Path, *records: Any) -> Path:
    parquet.write_table(pa.Table.from_pylist(list(records)), path)
    return path


@pytest.mark.parametrize("write", [json_lines, parquet_file])
@pytest.mark.parametrize("wanted", ["auto", None])
def test_both_formats_from_both_kinds_of_file(tmp_path: Path, write, wanted) -> None:
    (chat,) = read_conversations(write(tmp_path / "a", CHAT), wanted or "chat")
    assert list(chat.messages) == CHAT["messages"]
    assert chat.answers == [2, 4]
    pairs = list(read_conversations(write(tmp_path / "b", PAIR, PAIR), wanted or "prompt_response"))
    assert [pair.messages for pair in pairs] == [AS_CHAT] * 2
    unit = "line" if write is json_lines else "row"
    assert [pair.where for pair in pairs] == [f"{tmp_path / 'b'}, {unit} {n}" for n in (1, 2)]


def test_a_parquet_file_gives_messages_keys_of_others(tmp_path: Path) -> None:
    table = pa.Table.from_pylist([{"messages": [{**m, "name": None} for m in CHAT["messages"]]}])
    parquet.write_table(table, tmp_path / "a")
    (chat,) = read_conversations(tmp_path / "a")
    assert list(chat.messages) == CHAT["messages"]


def test_rows_are_counted_over_batches(tmp_path: Path) -> None:
    records = [{"prompt": str(n), "response": "x" if n != 700 else " "} for n in range(1, 900)]
    file = parquet_file(tmp_path / "a", *records)
    with pytest.raises(RunError, match=r"a, row 700: 'response' must be a text"):
        list(read_conversations(file))


@pytest.mark.parametrize("write", [json_lines, parquet_file])
def test_each_files_first_record_says_its_format(tmp_path: Path, write) -> None:
    files = [write(tmp_path / "a", CHAT), write(tmp_path / "b", PAIR)]
    assert [len(one.messages) for one in conversations_of(files)] == [5, 2]


def answered(*messages: Any) -> dict:
    return {"messages": list(messages)}


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ([1], "expected a JSON object, found b'[1]"),
        ({"message": []}, "key 'messages' is missing, found message; did you mean messages by"),
        ({"prompt": "x", "respons": "y"}, "key 'response' is missing, found prompt, respons; did"),
        ({"text": "x"}, "expected the key messages, or prompt and response: key 'messages'"),
        ({**CHAT, **PAIR}, "found all of them; say which with data.format"),
        ({**PAIR, "response": ""}, "'response' must be a text that is not empty, found ''"),
        ({**PAIR, "response": None}, "'response' must be a text that is not empty, found None"),
        ({**PAIR, "prompt": ["x"]}, "'prompt' must be a text that is not empty, found ['x']"),
        ({"messages": "x"}, "'messages' must be a list of messages, found 'x'"),
        ({"messages": []}, "'messages' must be a list of messages, found []"),
        (answered("x"), "message 1: expected role and content, found 'x'"),
        (answered({"role": "user"}), "message 1: key 'content' is missing, found role"),
        (answered({"rol": "user", "content": "x"}), "found content, rol; did you mean role by"),
        (answered(*AS_CHAT, {"role": "usr", "content": "x"}), "message 3: unknown role 'usr'; did"),
        (answered({"role": 3, "content": "x"}), "message 1: unknown role 3; valid: system,"),
        (
            answered({"role": "user", "content": "x", "tool_calls": [1]}),
            "message 1: expected role and content alone, found 'tool_calls' too",
        ),
        (
            answered(AS_CHAT[0], {"role": "assistant", "content": "\n "}),
            "message 2: content of the assistant must be a text that is not empty",
        ),
        (
            {**PAIR, "response": "\ud83d!"},
            "'response' has half a character, '\\ud83d' at position 0",
        ),
        (answered({"role": "user", "content": ""}), "content of the user must be a text"),
        (answered(AS_CHAT[0]), "expected an answer (role assistant), found none to learn"),
        (answered(AS_CHAT[1]), "expected a question before the first answer, found none"),
    ],
)
def test_a_bad_record_is_named_with_its_line(tmp_path: Path, record: Any, message: str) -> None:
    file = json_lines(tmp_path / "a.jsonl", record)
    with pytest.raises(RunError) as error:
        list(read_conversations(file))
    assert str(error.value).startswith(f"{file}, line 1") and message in str(error.value)


def test_later_records_are_of_the_first_ones_format(tmp_path: Path) -> None:
    file = json_lines(tmp_path / "a.jsonl", PAIR, CHAT)
    with pytest.raises(RunError, match=r"line 2: key 'prompt' is missing, found id, messages"):
        list(read_conversations(file))


def test_blank_lines_are_taken_at_the_end_alone(tmp_path: Path) -> None:
    file, line = tmp_path / "a.jsonl", json.dumps(PAIR)
    file.write_text(f"{line}\r\n{line}\n \n\n")
    assert len(list(read_conversations(file))) == 2
    file.write_text(f"{line}\n\n \n{line}\n")
    with pytest.raises(RunError, match="line 2: expected a JSON object, found a blank line"):
        list(read_conversations(file))


def test_columns_of_a_parquet_file_are_checked(tmp_path: Path) -> None:
    file = parquet_file(tmp_path / "a", {"prompt": "x", "answer": "y"})
    with pytest.raises(RunError, match=r"a: expected the key .* key 'response' is missing"):
        list(read_conversations(file))
    with pytest.raises(RunError, match=r"a: key 'messages' is missing, found answer, prompt"):
        list(read_conversations(file, "chat"))


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "cannot read the conversations"), (b"PAR1broken", "expected a whole Parquet file")],
)
def test_a_bad_file_is_named(tmp_path: Path, content: bytes | None, message: str) -> None:
    file = tmp_path / "data"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(RunError) as error:
        list(read_conversations(file))
    assert str(file) in str(error.value) and message in str(error.value)


def conversation(question: str, answer: str) -> Conversation:
    return Conversation(
        "x", ({"role": "user", "content": question}, {"role": "assistant", "content": answer})
    )


@given(st.text(), st.floats(0, 1), st.floats(0, 1))
def test_a_larger_share_holds_back_more_of_the_same(question, one, other) -> None:
    low, high = sorted((one, other))
    held = conversation(question, "a").is_held_back
    assert held(low) <= held(high)
    assert not held(0.0) and held(1.0)


def test_answers_to_one_question_stay_together_and_the_share_is_met() -> None:
    held = [conversation(str(n), "a").is_held_back(0.2) for n in range(2000)]
    assert held == [conversation(str(n), "other").is_held_back(0.2) for n in range(2000)]
    assert 330 < sum(held) < 470  # 400, four sigma are 72
