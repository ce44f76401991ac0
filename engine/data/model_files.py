"""Read the small JSON files of a Hugging Face model folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from engine.errors import RunError
from engine.platform.git_lfs import POINTER_REMARK, is_pointer


def read_object(path: Path) -> dict[str, Any]:
    """Return the JSON object in ``path``.

    Raises:
        RunError: it cannot be read, is no JSON, or no object.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise RunError(f"{path}: cannot read it ({error.strerror})") from error
    except (ValueError, RecursionError) as error:
        why = POINTER_REMARK if is_pointer(path) else error
        raise RunError(f"{path}: expected JSON ({why})") from error
    if not isinstance(content, dict):
        raise RunError(f"{path}: expected a JSON object, found {type(content).__name__}")
    return content


def read_object_if_there(path: Path) -> dict[str, Any]:
    """Return the JSON object in ``path``, an empty one where there is no such file.

    Raises:
        RunError: there is a file and it cannot be read, is no JSON, or no object.
    """
    return read_object(path) if path.exists() else {}
