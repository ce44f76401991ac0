"""The messages that launchers/README.md explains are those of the code, word by word."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ROWS = [
    row
    for row in (ROOT / "launchers" / "README.md").read_text().splitlines()
    if re.match(r"\| `[^|]*` \| [^|]+ \| [^|]+ \|$", row)
]
TABLE = ROWS[next(n for n, row in enumerate(ROWS) if "problems" in row) :]


@pytest.fixture(scope="module")
def texts() -> str:
    """All pieces of text between the values that are put into them, one a line."""
    found = []
    for top in ("engine", "launchers", "recipes"):
        for file in sorted((ROOT / top).rglob("*.py")):
            for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Constant) and isinstance(node.value, str):
                    found.append(node.value.replace("\n", " "))
    return "\n".join(found)


@pytest.mark.parametrize("row", TABLE)
def test_a_message_of_the_table_is_in_the_code(row: str, texts: str):
    columns = row.strip("|").split(" | ")
    messages = re.findall(r"`([^`]+)`", columns[0])
    for message in messages:
        for piece in message.split("..."):
            assert piece.strip(" ,;:()") in texts, message


def test_the_table_speaks_of_every_kind_of_process():
    assert len(TABLE) > 40
    text = (ROOT / "launchers" / "README.md").read_text()
    for kind in ("any process", "trainer", "sampler", "server", "launcher"):
        assert f"| **{kind}** | | |" in text


def test_each_row_says_what_to_do():
    for row in TABLE:
        message, meaning, advice = row.strip("|").split(" | ")
        assert message.strip() and meaning.strip() and advice.strip(), row


def test_what_signals_mean_is_in_the_table():
    from launchers.failure import _KILLED_FOR_MEMORY, _MEANINGS

    text = "\n".join(TABLE)
    for words in {*_KILLED_FOR_MEMORY.values(), *_MEANINGS.values()}:
        assert words.split("; a person")[0] in text, words
