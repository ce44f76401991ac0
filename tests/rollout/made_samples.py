"""Samples made for the tests of the rollout room."""

from __future__ import annotations

import random

from engine.rewards.score import Score
from engine.rollout.sample import Sample


def make_group(
    group: int, size: int = 4, *, version: int = 0, tokens: int = 30, seed: int = 0
) -> list[Sample]:
    """One finished group, the same for the same arguments."""
    rng = random.Random(f"{group} {seed}")
    samples = []
    for index in range(size):
        length = rng.randint(1, 2 * tokens)
        right = rng.random() < 0.5
        samples.append(
            Sample(
                prompt_id=f"prompt-{group}",
                group=group,
                index=index,
                prompt_tokens=[rng.randrange(48) for _ in range(12)],
                tokens=[rng.randrange(48) for _ in range(length)],
                logprobs=[-rng.randrange(64) / 16 for _ in range(length)],
                weight_version=version,
                finish_reason=rng.choice(["stop", "length"]),
                text=f"start {rng.random()} <answer> 7 </answer>",
                answer="7",
                reward=float(right),
                scores={
                    "accuracy": Score(float(right), "right" if right else "wrong"),
                    "format": Score(0.5, "wrong"),
                },
                requested_at=1e9 + group,
                finished_at=1e9 + group + rng.random(),
                scored_at=1e9 + group + 2,
            )
        )
    return samples
