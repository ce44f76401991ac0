"""Findings of checks reach the person with the key and the place where it was written."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pytest
from pydantic import Field

from engine.config.reader.loading import load
from engine.config.section import Section
from engine.errors import RunError
from engine.preflight.finding import Finding, warning
from engine.preflight.preflight import Preflight
from engine.preflight.sections import Sections


class Bucket(Section):
    litres: int = Field(ge=1)
    colour: str = "grey"


class Config(Section):
    bucket: Bucket
    name: str
    count: int = 3


def bucket_is_large(sections: Sections) -> Iterable[Finding]:
    bucket = sections.get("bucket", Bucket)
    if bucket is not None and bucket.litres < 10:
        yield Finding(("bucket", "litres"), f"expected at least 10, found {bucket.litres}")
    if bucket is not None and bucket.colour == "grey":
        yield warning(("bucket", "colour"), "grey is hard to see")


def count_is_known(sections: Sections) -> Iterable[Finding]:
    count = sections.get("count", int)
    assert count is not None, "a default counts as valid"
    return [] if count < 5 else [Finding(("count",), f"expected fewer than 5, found {count}")]


def looked(tmp_path: Path, text: str) -> tuple[str, list[str]]:
    """Return the message of the refusal ("" without one), and what was said."""
    file, said = tmp_path / "config.yaml", []
    file.write_text(text)
    try:
        load(Config, file, look=Preflight(said.append, [bucket_is_large, count_is_known]))
    except RunError as error:
        return str(error), said
    return "", said


def test_a_problem_is_told_with_the_line_of_its_key(tmp_path: Path):
    message, said = looked(tmp_path, "name: a\nbucket:\n  litres: 2\n  colour: red\n")
    assert message.endswith("bucket.litres: expected at least 10, found 2 (line 3)")
    assert said == []


def test_a_warning_is_said_and_refuses_nothing(tmp_path: Path):
    assert looked(tmp_path, "name: a\nbucket:\n  litres: 20\n") == (
        "",
        ["warning: bucket.colour: grey is hard to see"],
    )


@pytest.mark.parametrize("wrong", ["name: 5", "nam: a", "name: a\nsize: 4"])
def test_checks_find_their_problems_beside_wrong_keys(tmp_path: Path, wrong: str):
    message, _ = looked(tmp_path, f"{wrong}\ncount: 7\nbucket:\n  litres: 2\n")
    assert "bucket.litres: expected at least 10, found 2" in message
    assert "count: expected fewer than 5, found 7 (line" in message
    assert "problems" in message


def test_a_section_that_is_wrong_itself_is_told_once(tmp_path: Path):
    message, _ = looked(tmp_path, "name: a\nbucket:\n  litres: 0\n")
    assert message.endswith("bucket.litres: expected an integer >= 1, found 0 (line 3)")
    assert "problems" not in message
