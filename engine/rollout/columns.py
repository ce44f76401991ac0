"""Convert samples to the columns of an Arrow table, and back; rewards are stored as float32.

Columns: the fields of :class:`~engine.rollout.sample.Sample` under their own names, token ids as
``list<int32>``, log-probabilities as ``list<float32>``, and for every reward ``score_<name>``
(float32) and ``outcome_<name>`` (string).
"""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa

from engine.rewards.score import Score
from engine.rollout.sample import Sample

FIELDS = pa.schema(
    [
        ("prompt_id", pa.string()),
        ("group", pa.int32()),
        ("index", pa.int32()),
        ("prompt_tokens", pa.list_(pa.int32())),
        ("tokens", pa.list_(pa.int32())),
        ("logprobs", pa.list_(pa.float32())),
        ("weight_version", pa.int64()),
        ("finish_reason", pa.string()),
        ("text", pa.string()),
        ("answer", pa.string()),
        ("reward", pa.float64()),
        ("requested_at", pa.float64()),
        ("finished_at", pa.float64()),
        ("scored_at", pa.float64()),
    ]
)
_SCORE, _OUTCOME = "score_", "outcome_"


def samples_to_table(samples: Sequence[Sample]) -> pa.Table:
    """Return one row per sample, in the order given.

    Raises:
        ValueError: the samples were not all scored by the same rewards.
    """
    rewards = sorted(samples[0].scores) if samples else []
    for sample in samples:
        if sorted(sample.scores) != rewards:
            raise ValueError(
                f"samples {samples[0].index} and {sample.index} of prompt {sample.prompt_id} were "
                f"scored by different rewards: {rewards} and {sorted(sample.scores)}"
            )
    columns = {
        field.name: pa.array([getattr(sample, field.name) for sample in samples], field.type)
        for field in FIELDS
    }
    for name in rewards:
        scores = [sample.scores[name] for sample in samples]
        columns[_SCORE + name] = pa.array([score.value for score in scores], pa.float32())
        columns[_OUTCOME + name] = pa.array([score.outcome for score in scores], pa.string())
    return pa.table(columns)


def table_to_samples(table: pa.Table) -> list[Sample]:
    """Return the samples of a table that has all the columns of :func:`samples_to_table`."""
    columns = {field.name: table[field.name].to_pylist() for field in FIELDS}
    values = {name: table[_SCORE + name].to_pylist() for name in reward_names(table.schema)}
    outcomes = {name: table[_OUTCOME + name].to_pylist() for name in values}
    return [
        Sample(
            **{name: column[row] for name, column in columns.items()},
            scores={name: Score(values[name][row], outcomes[name][row]) for name in values},
        )
        for row in range(table.num_rows)
    ]


def reward_names(schema: pa.Schema) -> list[str]:
    """Return the names of the rewards that scored the rows of a table with this schema."""
    return [name.removeprefix(_SCORE) for name in schema.names if name.startswith(_SCORE)]
