"""Find the process whose death is the root cause of a failed run, and describe it."""

from __future__ import annotations

import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from launchers.last_words import is_consequence, last_words, shut_itself_down
from launchers.process_tree import signal_name

# How a process ends when something else has failed: gloo and NCCL abort when a peer is gone.
_USUAL_CONSEQUENCES = {-signal.SIGABRT, -signal.SIGTERM}

Shortage = Literal["job", "machine"]
"""Where memory ran out: the kernel killed a process of this job or container, or another here."""

_KILLED_FOR_MEMORY: dict[Shortage | None, str] = {
    "job": "the kernel did it: the memory of this job or container ran out",
    "machine": "most likely the kernel did it, since this machine ran out of memory meanwhile",
    None: "no part of the run did it, and the kernel counts no process killed for want of memory; "
    "a person or another program did",
}
_FROM_OUTSIDE = "no part of the run sent it; a person or another program did"
_MEANINGS: dict[int, str] = {
    signal.SIGTERM: _FROM_OUTSIDE,
    signal.SIGINT: _FROM_OUTSIDE,
    signal.SIGHUP: _FROM_OUTSIDE,
    signal.SIGQUIT: _FROM_OUTSIDE,
    signal.SIGBUS: "a full disk or a full /dev/shm under a mapped file does this",
    signal.SIGILL: "a library was built for another processor than this machine has",
    signal.SIGXCPU: "its limit of CPU seconds is used up (ulimit -t)",
    signal.SIGXFSZ: "its limit on the size of a file is reached (ulimit -f)",
}


@dataclass(frozen=True)
class Death:
    """One process that has ended by itself."""

    name: str
    service: bool
    code: int
    """Exit status, or minus the number of the signal that killed it."""
    at: float
    """Seconds since the start of the run."""
    words: str | None = None
    """The reason that it named itself."""
    shut_itself_down: bool = False
    """It killed itself with its children: the signal says nothing."""

    @property
    def bad(self) -> bool:
        """Whether this stops a run: any failure, and any end of a service."""
        return self.service or self.code != 0

    @property
    def signum(self) -> int | None:
        """The signal that ended it: it was killed, or left with 128 + the signal's number."""
        if self.shut_itself_down:
            return None
        if self.code < 0:
            return -self.code
        return self.code - 128 if 128 < self.code <= 128 + signal.SIGTERM else None

    @property
    def is_consequence(self) -> bool:
        """Whether its own words say only that another process is gone."""
        return is_consequence(self.words)


def with_words(death: Death, lines: Sequence[str]) -> Death:
    """Add what the process said itself; of one that was killed in mid-work nothing counts.

    Args:
        lines: of its log, of its latest start.
    """
    itself = death.code < 0 and shut_itself_down(lines)
    killed = death.code == -signal.SIGKILL and not itself
    return replace(death, words=None if killed else last_words(lines), shut_itself_down=itself)


def root_cause(deaths: Sequence[Death]) -> Death:
    """Return the likeliest first cause among bad ``deaths`` of about the same moment.

    Consequences can be seen before their cause: the sampler leaves on a broken connection while
    the server that broke it still unwinds. So one that only says that another is gone comes last;
    a service's end, or a death by a signal that nothing in the run sends (out of memory, a fault),
    goes before ordinary failures; then the earliest.
    """

    def rank(death: Death) -> tuple[bool, bool, float]:
        killed = death.code < 0 and death.code not in _USUAL_CONSEQUENCES
        return (death.is_consequence, not (death.service or killed), death.at)

    return min((death for death in deaths if death.bad), key=rank)


def sentence(
    death: Death, shortage: Shortage | None = None, others: Mapping[str, str] | None = None
) -> str:
    """Return one sentence that describes ``death`` and ends with its cause.

    Args:
        death: what ended.
        shortage: where the kernel has killed processes for want of memory during the run.
        others: what other processes, which the words of this one name, said themselves.
    """
    if death.shut_itself_down:
        how = f"{death.name} shut itself down"
    elif death.code < 0:
        how = f"{death.name} was killed by {signal_name(-death.code)}"
    elif death.signum is not None:
        how = f"{death.name} was ended by {signal_name(death.signum)}"
    elif death.code == 0:
        how = f"{death.name}, which should run until it is stopped, ended with exit status 0"
    else:
        how = f"{death.name} failed with exit status {death.code}"
    reasons = [death.words, *(f"{name}: {words}" for name, words in (others or {}).items())]
    said = "; ".join(reason for reason in reasons if reason)
    meaning = _MEANINGS.get(death.signum or 0)
    if death.signum == signal.SIGKILL or "was killed by SIGKILL" in said:
        meaning = _KILLED_FOR_MEMORY[shortage]
    causes = "; ".join(cause for cause in (said, meaning) if cause)
    what = f"{how} {death.at:.0f} s after the start"
    return f"{what}: {causes}" if causes else what
