"""Find the process whose death is the root cause of a failed run, and describe it."""

from __future__ import annotations

import signal
from collections.abc import Sequence
from dataclasses import dataclass

# How a process ends when something else has failed: gloo and NCCL abort when a peer is gone.
_USUAL_CONSEQUENCES = {-signal.SIGABRT, -signal.SIGTERM}


@dataclass(frozen=True)
class Death:
    """One process that has ended by itself."""

    name: str
    service: bool
    code: int
    """Exit status, or minus the number of the signal that killed it."""
    at: float
    """Seconds since the start of the run."""

    @property
    def bad(self) -> bool:
        """Whether this stops a run: any failure, and any end of a service."""
        return self.service or self.code != 0


def root_cause(deaths: Sequence[Death]) -> Death:
    """Return the likeliest first cause among bad ``deaths`` of about the same moment.

    Consequences can be seen before their cause: the sampler leaves on a broken connection while
    the server that broke it still unwinds. So a service's end, or a death by a signal that nothing
    in the run sends (out of memory, a fault), goes before ordinary failures; then the earliest.
    """

    def rank(death: Death) -> tuple[bool, float]:
        killed = death.code < 0 and death.code not in _USUAL_CONSEQUENCES
        return (not (death.service or killed), death.at)

    return min((death for death in deaths if death.bad), key=rank)


def sentence(death: Death, last_words: str | None, out_of_memory: bool = False) -> str:
    """Return one sentence that describes ``death``.

    ``last_words`` is what the process itself named as the reason; ``out_of_memory``, whether the
    kernel has killed any process for want of memory during the run.
    """
    if death.code < 0:
        how = f"{death.name} was killed by {signal_name(-death.code)}"
    elif death.code == 0:
        how = f"{death.name}, which should run until it is stopped, ended with exit status 0"
    else:
        how = f"{death.name} failed with exit status {death.code}"
    what = f"{how} {death.at:.0f} s after the start"
    if out_of_memory and death.code == -signal.SIGKILL:
        what += " (meanwhile this machine ran out of memory)"
    return f"{what}: {last_words}" if last_words else what


def signal_name(number: int) -> str:
    """Return ``SIGKILL`` for 9; "signal 40" for a real-time signal, which has no name."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
