"""Compute the layers of each pipeline stage, for planning and for building alike.

Stage s of pp * vpp stages is on pipeline rank s % pp, as its virtual stage s // pp (the
interleaved schedule of Narayanan et al., arXiv 2104.04473, section 2.2).
"""

from __future__ import annotations


def stage_layers(
    layers: int, stages: int, first: int | None = None, last: int | None = None
) -> list[range]:
    """Return the layers of each stage, in the order in which they are computed.

    Layers are spread evenly. What does not divide goes to stages that hold neither the embedding
    nor the output layer, as long as there are such.

    Args:
        layers: number of the model's layers.
        stages: pp * vpp.
        first, last: layers of the first and of the last stage, where they are to differ.

    Raises:
        ValueError: the layers do not fill the stages; says what was expected.
    """
    given = {0: first, stages - 1: last}
    fixed = {stage: count for stage, count in given.items() if count is not None}
    free = [stage for stage in range(stages) if stage not in fixed]
    rest = layers - sum(fixed.values())
    if rest < len(free) or (rest and not free):
        raise ValueError(
            f"expected the model's {layers} layers to fill {stages} pipeline stages, found "
            f"{_shape(layers, stages, first, last)}"
        )
    even, extra = divmod(rest, len(free)) if free else (0, 0)
    middle_first = sorted(free, key=lambda stage: (stage in (0, stages - 1), stage))
    counts = {**fixed, **{stage: even + (i < extra) for i, stage in enumerate(middle_first)}}
    bounds = [0]
    for stage in range(stages):
        bounds.append(bounds[-1] + counts[stage])
    return [range(bounds[stage], bounds[stage + 1]) for stage in range(stages)]


def _shape(layers: int, stages: int, first: int | None, last: int | None) -> str:
    ends = [f"{n} in the {end}" for n, end in ((first, "first"), (last, "last")) if n is not None]
    if not ends:
        return f"fewer layers than stages ({layers} < {stages})"
    return (
        f"{' and '.join(ends)}, which leaves {layers - (first or 0) - (last or 0)} for the others"
    )
