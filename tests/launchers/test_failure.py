"""Which process is blamed, and in which words."""

from __future__ import annotations

import signal

from launchers.failure import Death, root_cause, sentence


def death(name: str, code: int, at: float, service: bool = False) -> Death:
    return Death(name, service, code, at)


def test_of_ordinary_failures_the_earliest_is_the_cause():
    first, second = death("trainer-1", 1, 3.0), death("trainer-0", 1, 3.2)
    assert root_cause([second, first]) is first


def test_a_server_that_ended_goes_before_the_sampler_that_noticed_first():
    noticed, server = death("sampler", 1, 3.0), death("server-0", 0, 3.4, service=True)
    assert root_cause([noticed, server]) is server


def test_a_killed_rank_goes_before_the_rank_that_noticed_first():
    noticed, killed = death("trainer-0", 1, 3.0), death("trainer-1", -signal.SIGKILL, 3.1)
    assert root_cause([noticed, killed]) is killed


def test_an_abort_is_no_more_of_a_cause_than_a_failure():
    failed, aborted = death("trainer-0", 1, 3.0), death("trainer-1", -signal.SIGABRT, 3.1)
    assert root_cause([failed, aborted]) is failed


def test_processes_that_ended_well_are_not_blamed():
    assert root_cause([death("sampler", 0, 1.0), death("trainer-0", 1, 2.0)]).name == "trainer-0"


def test_the_sentence_names_party_way_and_moment():
    assert sentence(death("trainer-0", 3, 12.4), None) == (
        "trainer-0 failed with exit status 3 12 s after the start"
    )
    assert "killed by SIGSEGV" in sentence(death("server-1", -signal.SIGSEGV, 1), None)
    assert "memory" in sentence(death("a", -signal.SIGKILL, 1), None, out_of_memory=True)
    assert "memory" not in sentence(death("a", 1, 1), None, out_of_memory=True)
    assert "until it is stopped" in sentence(death("server-1", 0, 1, service=True), None)
    assert sentence(death("a", -40, 1), None).startswith("a was killed by signal 40")


def test_the_sentence_ends_with_the_process_s_own_words():
    assert sentence(death("trainer-0", 1, 2), "no space left").endswith(": no space left")
