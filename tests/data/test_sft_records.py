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

from engine.data.json_lines import WrongLineError
from engine.data.sft_records import (
    Conversation,
    Place,
    WrongRecord,
    read_records,
    record_format,
    records_of,
)

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
    path.write_text("".join(json.dumps(r, ensure_ascii=False) + "\n" for r in records))
    return path


def parquet_file(path: Path, *records: Any) -> Path:
    parquet.write_table(pa.Table.from_pylist(list(records)), path)
    return path


def wrong_ones(file: Path, wanted: str = "auto") -> list[WrongRecord]:
    return [one for one in read_records(file, wanted) if isinstance(one, WrongRecord)]


@pytest.mark.parametrize("write", [json_lines, parquet_file])
@pytest.mark.parametrize("wanted", ["auto", None])
def test_both_formats_from_both_kinds_of_file(tmp_path: Path, write, wanted) -> None:
    (chat,) = read_records(write(tmp_path / "a", CHAT), wanted or "chat")
    assert list(chat.messages) == CHAT["messages"]
    assert chat.answers == [2, 4]
    pairs = list(read_records(write(tmp_path / "b", PAIR, PAIR), wanted or "prompt_response"))
    assert [pair.messages for pair in pairs] == [AS_CHAT] * 2
    unit = "line" if write is json_lines else "row"
    places = [f"{tmp_path / 'b'}, {unit} {n}" for n in (1, 2)]
    assert [str(pair.where) for pair in pairs] == places


def test_a_parquet_file_gives_messages_keys_of_others(tmp_path: Path) -> None:
    table = pa.Table.from_pylist([{"messages": [{**m, "name": None} for m in CHAT["messages"]]}])
    parquet.write_table(table, tmp_path / "a")
    (chat,) = read_records(tmp_path / "a")
    assert list(chat.messages) == CHAT["messages"]


def test_rows_are_counted_over_batches(tmp_path: Path) -> None:
    records = [{"prompt": str(n), "response": "x" if n != 700 else " "} for n in range(1, 900)]
    file = parquet_file(tmp_path / "a", *records)
    (wrong,) = wrong_ones(file)
    assert str(wrong).startswith(f"{file}, row 700: 'response' must be a text")


@pytest.mark.parametrize("write", [json_lines, parquet_file])
def test_each_files_first_record_says_its_format(tmp_path: Path, write) -> None:
    files = [write(tmp_path / "a", CHAT), write(tmp_path / "b", PAIR)]
    assert [len(one.messages) for one in records_of(files)] == [5, 2]


def answered(*messages: Any) -> dict:
    return {"messages": list(messages)}


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ([1], "expected a JSON object, found a JSON array ('[1]')"),
        ({"message": []}, "key 'messages' is missing, found message; did you mean messages by"),
        ({"prompt": "x", "respons": "y"}, "key 'response' is missing, found prompt, respons; did"),
        (
            {"question": "x", "answer": "y"},
            "'prompt' is missing, found answer, question; did you",
        ),
        ({"conversations": []}, "did you mean messages by 'conversations'?"),
        (answered({"from": "human", "value": "x"}), "did you mean role by 'from'?"),
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
        (answered({"role": "user", "content": ""}), "content of the user must be a text"),
        (answered(AS_CHAT[0]), "expected an answer (role assistant), found none to learn"),
        (answered(AS_CHAT[1]), "expected a question before the first answer, found none"),
    ],
)
def test_a_bad_record_is_named_with_its_line(tmp_path: Path, record: Any, message: str) -> None:
    file = json_lines(tmp_path / "a.jsonl", record)
    (wrong,) = wrong_ones(file)
    assert str(wrong).startswith(f"{file}, line 1") and message in str(wrong)


def test_later_records_are_of_the_first_ones_format(tmp_path: Path) -> None:
    file = json_lines(tmp_path / "a.jsonl", {"id": 1}, PAIR, CHAT)
    _, wrong = wrong_ones(file)
    assert str(wrong).endswith("line 3: key 'prompt' is missing, found id, messages")


def test_every_wrong_record_is_told_and_the_others_are_read(tmp_path: Path) -> None:
    file = json_lines(tmp_path / "a.jsonl", {"prompt": "x"}, PAIR, {**PAIR, "response": 7}, PAIR)
    found = list(read_records(file))
    assert [one.where.number for one in found] == [1, 2, 3, 4]
    assert [one.kind for one in found if isinstance(one, WrongRecord)] == [
        "lacks response",
        "response is a number",
    ]


def test_blank_lines_are_wrong_only_before_a_record(tmp_path: Path) -> None:
    file, pair = tmp_path / "a.jsonl", json.dumps(PAIR)
    file.write_bytes(b"\xef\xbb\xbf" + f"{pair}\r\n\n{pair}\r\n\n \n".encode())
    (wrong,) = wrong_ones(file)
    assert str(wrong) == f"{file}, line 2: expected a JSON object, found a blank line"
    assert len(list(read_records(file))) == 3


def test_columns_of_a_parquet_file_are_checked(tmp_path: Path) -> None:
    file = parquet_file(tmp_path / "a", {"prompt": "x", "answer": "y"})
    (wrong,) = wrong_ones(file)
    assert str(wrong).startswith(f"{file}: expected the key messages, or prompt and response")
    assert "key 'response' is missing" in wrong.says
    (wrong,) = wrong_ones(file, "chat")
    assert "key 'messages' is missing, found answer, prompt" in str(wrong)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "cannot read the conversations"),
        (b"PAR1broken", "expected a whole Parquet file"),
        (b"\x1f\x8b123", "expected JSON lines in UTF-8 or a Parquet file, found a gzip file"),
    ],
)
def test_a_bad_file_is_named(tmp_path: Path, content: bytes | None, message: str) -> None:
    file = tmp_path / "data"
    if content is not None:
        file.write_bytes(content)
    (wrong,) = wrong_ones(file)
    assert str(wrong).startswith(f"{file}: ") and message in str(wrong)


def conversation(question: str, answer: str) -> Conversation:
    return Conversation(
        Place(Path("x"), 1),
        ({"role": "user", "content": question}, {"role": "assistant", "content": answer}),
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


def test_half_a_character_is_called_so(tmp_path: Path) -> None:
    (tmp_path / "a").write_text(json.dumps({**PAIR, "response": "x\ud83d"}))
    (wrong,) = wrong_ones(tmp_path / "a")
    assert wrong.says.startswith("'response' has half a character, '\\ud83d' at position 1")


@pytest.mark.parametrize(
    ("keys", "wanted", "expected"),
    [
        (["messages", "id"], "auto", "chat"),
        (["prompt", "response"], "auto", "prompt_response"),
        (["messages", "prompt"], "auto", "chat"),
        (["messages", "prompt", "response"], "chat", "chat"),
        (["messages", "prompt", "response"], "prompt_response", "prompt_response"),
    ],
)
def test_formats(keys: list[str], wanted: str, expected: str) -> None:
    assert record_format(keys, wanted) == expected


def test_a_record_of_both_formats_is_of_none() -> None:
    with pytest.raises(WrongLineError, match=r"found all of them; say which with data\.format"):
        record_format(["messages", "prompt", "response"], "auto")
