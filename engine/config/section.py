"""Base class of the sections of a configuration."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Seconds = Annotated[float, Field(gt=0, le=1e9)]
"""A limit of time. Where none is meant, 1e9 (32 years) is as good: clocks of torch and of Python
cannot wait for much more."""


class Section(BaseModel):
    """A part of a configuration: immutable, and no key is accepted that it does not define.

    Rules that relate several keys are field validators on the last of these keys, so that each is
    checked whenever the keys it relates are valid, whatever else is wrong. They raise
    ``ValueError`` with ``expected ..., found ...``; :mod:`engine.config.reader.loading` puts the
    key's dotted path before it.
    """

    model_config = ConfigDict(
        extra="forbid", frozen=True, validate_default=True, allow_inf_nan=False
    )
