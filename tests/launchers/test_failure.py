"""Which process is blamed, and in which words."""

from __future__ import annotations

import signal

import pytest

from launchers.failure import Death, root_cause, sentence

GLOO = "RuntimeError: [gloo/transport/tcp/pair.cc:553] Connection closed by peer [10.0.0.7]:4998."


def death(name: str, code: int, at: float, words: str | None = None, **more: bool) -> Death:
    return Death(name, more.pop("service", False), code, at, words, **more)


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


@pytest.mark.parametrize(
    "symptom",
    [
        GLOO,
        "trainer rank 0 has gone: its control store at 127.0.0.1:1 does not answer (Broken pipe)",
        "torch.distributed.DistBackendError: NCCL error: remote process exited or there was a "
        "network error",
        "server-1 (http://127.0.0.1:2) died or cannot be reached: /generate ended",
    ],
)
def test_who_only_lost_another_goes_behind_who_has_a_reason_of_its_own(symptom):
    noticed, failed = death("trainer-0", 1, 3.0, symptom), death("trainer-1", 1, 3.9, "KeyError: 3")
    assert noticed.is_consequence and not failed.is_consequence
    assert root_cause([noticed, failed]) is failed
    assert root_cause([noticed]) is noticed


def test_processes_that_ended_well_are_not_blamed():
    assert root_cause([death("sampler", 0, 1.0), death("trainer-0", 1, 2.0)]).name == "trainer-0"


def test_the_sentence_names_party_way_and_moment():
    assert sentence(death("trainer-0", 3, 12.4)) == (
        "trainer-0 failed with exit status 3 12 s after the start"
    )
    assert "until it is stopped" in sentence(death("server-1", 0, 1, service=True))
    assert sentence(death("a", -40, 1)) == "a was killed by signal 40 1 s after the start"


def test_the_sentence_ends_with_the_process_s_own_words():
    assert sentence(death("trainer-0", 1, 2, "no space left")).endswith(": no space left")
    crashed = death("server-1", -signal.SIGSEGV, 1, "Segmentation fault (mine.py, line 3)")
    assert sentence(crashed) == (
        "server-1 was killed by SIGSEGV 1 s after the start: Segmentation fault (mine.py, line 3)"
    )


@pytest.mark.parametrize(
    ("shortage", "meaning"),
    [
        ("job", "the kernel did it: the memory of this job or container ran out"),
        ("machine", "most likely the kernel did it, since this machine ran out of memory"),
        (None, "no part of the run did it, and the kernel counts no process killed for want"),
    ],
)
def test_sigkill_is_said_to_come_from_the_kernel_or_from_somebody(shortage, meaning):
    assert f": {meaning}" in sentence(death("trainer-1", -signal.SIGKILL, 9), shortage)
    child = "its process scheduler_0 (pid 7) was killed by SIGKILL"
    server = death("server-0", -signal.SIGKILL, 9, child, shut_itself_down=True)
    assert sentence(server, shortage).startswith(
        f"server-0 shut itself down 9 s after the start: {child}; {meaning}"
    )


def test_memory_that_ran_out_explains_nothing_but_sigkill():
    assert "memory" not in sentence(death("a", 1, 1, "KeyError: 1"), "machine")
    stumbled = death("server-0", -9, 9, "its Scheduler: ValueError: x", shut_itself_down=True)
    assert sentence(stumbled, "machine") == (
        "server-0 shut itself down 9 s after the start: its Scheduler: ValueError: x"
    )


@pytest.mark.parametrize("code", [128 + signal.SIGTERM, -signal.SIGTERM])
def test_sigterm_came_from_outside_whether_it_was_heeded_or_not(code):
    said = sentence(death("sampler-0", code, 4))
    assert "by SIGTERM 4 s after the start: no part of the run sent it" in said


def test_signals_with_a_usual_cause_have_it_named():
    assert "/dev/shm" in sentence(death("trainer-0", -signal.SIGBUS, 4))
    assert "processor" in sentence(death("trainer-0", -signal.SIGILL, 4))
    assert "ulimit -t" in sentence(death("trainer-0", -signal.SIGXCPU, 4))
    assert "ulimit -f" in sentence(death("trainer-0", -signal.SIGXFSZ, 4))


def test_who_is_named_by_the_words_has_the_last_one():
    blaming = death("sampler-0", 1, 9, "server-1 (http://127.0.0.1:2) died or cannot be reached")
    said = sentence(blaming, None, {"server-1": "its process scheduler_0 was killed by SIGKILL"})
    assert "cannot be reached; server-1: its process scheduler_0 was killed by SIGKILL; no" in said
