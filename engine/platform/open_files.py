"""Raise this process's limit of open files, or say that it is too low."""

from __future__ import annotations

import resource

from engine.errors import RunError

SPARE_FILES = 256
"""Beside what is asked for: logs, pipes, files that are read and written."""


def require_open_files(count: int, what: str, key: str | None = None) -> None:
    """Let this process open ``count`` files and ``SPARE_FILES`` more, by its soft limit.

    Args:
        count: files or connections, open at the same time.
        what: what they are, for the message: "512 connections to servers".
        key: the key of the configuration that ``count`` comes from.

    Raises:
        RunError: the hard limit, which only an administrator raises, is lower.
    """
    needed = count + SPARE_FILES
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= needed:
        return
    if hard != resource.RLIM_INFINITY and hard < needed:
        lower = f", or lower {key}" if key else ""
        raise RunError(
            f"{what} need {needed:,} open files, {SPARE_FILES} of them for all else, but the hard "
            f"limit of this process (ulimit -Hn) is {hard:,}; have it raised{lower}"
        )
    resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))
