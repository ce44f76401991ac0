"""Seed of a server's random numbers: another one in each start of a run.

SGLang takes seeds of single requests only in its deterministic mode (about 20 % slower, one request
for each sample, and not with the CPU's attention), so that a server has one seed for all that it
samples. It is a function of the run's seed, the server, and the first group that this start has to
sample: step, groups that are there already, and the samples of the step before.
"""

from __future__ import annotations

from hashlib import blake2b
from pathlib import Path

from engine.checkpoint.folders import CheckpointFolders
from engine.rollout.store import RolloutStore


def server_seed(run_dir: Path, seed: int, server: int) -> int:
    """Return the seed of the server with this index, at least 0 and below 2^31."""
    rollouts, evaluations = (
        RolloutStore(run_dir / "rollouts"),
        RolloutStore(run_dir / "evaluations"),
    )
    step = CheckpointFolders(run_dir / "checkpoints", keep=1).latest() or 0
    while rollouts.is_done(step):
        step += 1
    before = rollouts.summary(step - 1) if step else None
    place = (
        seed,
        server,
        step,
        rollouts.groups_stored(step),
        evaluations.groups_stored(step),
        before.digest if before else "",
    )
    return int.from_bytes(blake2b(repr(place).encode(), digest_size=4).digest()) >> 1
