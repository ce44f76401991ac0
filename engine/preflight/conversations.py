"""Check the conversations of fine-tuning."""

from __future__ import annotations

from collections.abc import Iterable

from engine.config.sft_data import SftDataConfig
from engine.preflight.finding import Finding
from engine.preflight.sections import Sections


def check(sections: Sections) -> Iterable[Finding]:
    """Read all conversations, tokenize them where that is not done, and hold them against all."""
    config = sections.get("data", SftDataConfig)
    if config is None:
        return []
    from engine.preflight.conversation_parts import check_parts  # numpy and jinja2 with it

    return check_parts(sections, config)
