from __future__ import annotations

import pytest

from recipes.chain_task.statistics import (
    mixed_language_share,
    mixes_languages,
    self_check_share,
    self_checks,
)


@pytest.mark.parametrize(
    ("text", "checks", "mixes"),
    [
        ("", False, False),
        ("7 a ; <think> </think>", False, False),
        ("start 3 ; a plus 4 is 7 ; so 7", False, False),
        ("始 3 ; a 加 4 得 7 ; 故 7", False, False),
        ("start 3 ; a 加 4 得 7 ; so 7", False, True),
        ("so 7 ; wait start 3 ; a plus 4 is 7 ;", True, False),
        ("so 7 ; 等 始 3 ; a 加 4 得 7 ;", True, True),
        ("waiting so7", False, False),
    ],
)
def test_self_checks_and_mixed_languages_are_seen(text: str, checks: bool, mixes: bool) -> None:
    assert self_checks(text) == checks
    assert mixes_languages(text) == mixes


def test_shares_are_means_over_answers() -> None:
    texts = ["so 7", "wait so 7", "等 so 7", "故 7"]
    assert self_check_share(texts) == 0.5
    assert mixed_language_share(texts) == 0.25
