"""Group the requests of a batch that are worth padding to one shape."""

from __future__ import annotations

# One more attention call costs about what this many padded scores per head do.
FREE_SCORES = 8192


def groups(new: list[int], total: list[int]) -> list[list[int]]:
    """Split the requests of a batch into groups, each to be padded to its longest members.

    A group computes at most twice the attention scores that its requests have, plus
    ``FREE_SCORES``. Where that holds for the whole batch there is one group in the batch's order.

    Args:
        new: query tokens of each request.
        total: key tokens of each request, the new ones included.

    Returns:
        Indices of requests, each in exactly one group.
    """
    scores = [n * t for n, t in zip(new, total, strict=True)]
    if _worthwhile(len(new), max(new), max(total), sum(scores)):
        return [list(range(len(new)))]
    result: list[list[int]] = [[]]
    keys = real = 0  # of the group that is being filled: its longest keys, its requests' scores
    for i in sorted(range(len(new)), key=lambda i: (new[i], total[i])):
        keys, real = max(keys, total[i]), real + scores[i]
        if result[-1] and not _worthwhile(len(result[-1]) + 1, new[i], keys, real):
            result.append([])
            keys, real = total[i], scores[i]
        result[-1].append(i)
    return result


def _worthwhile(requests: int, queries: int, keys: int, scores: int) -> bool:
    return requests * queries * keys <= 2 * scores + FREE_SCORES
