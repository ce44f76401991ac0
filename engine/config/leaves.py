"""Values of a configuration by dotted key."""

from __future__ import annotations

from typing import Any


def leaves(tree: Any, path: str = "") -> dict[str, Any]:
    """Return the values of a configuration tree by dotted key below ``path``; lists are values."""
    if not isinstance(tree, dict):
        return {path: tree}
    return {
        key: value
        for name, below in tree.items()
        for key, value in leaves(below, f"{path}.{name}".lstrip(".")).items()
    }
