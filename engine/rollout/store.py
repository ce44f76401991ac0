"""Rollout store: one folder per step on a file system that trainer and sampler share.

A step begins with ``000012/made_by.json``, the settings that it is sampled with. While it is
sampled, ``000012/groups/000003.parquet`` appears by rename for every group that is finished. When
all are in, they are merged into ``000012/samples.parquet``, ``done.json`` is written last, and
``groups/`` is removed. So whatever is killed at whatever moment: a step with a ``done.json`` is
whole, and one without keeps its finished groups for the next start. Evaluations are stored by the
same class.
"""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from engine.errors import RunError
from engine.platform.files import digest, folders_named, remove_folder, replace_json, replacing
from engine.rollout.columns import reward_names, samples_to_table, table_to_samples
from engine.rollout.made_by import Settings
from engine.rollout.parquet import open_parquet, read_rows, write_tables
from engine.rollout.sample import Sample

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class FinishedGroup:
    """What a restart has to know of a group that was finished before it."""

    prompt_id: str
    samples: int
    weight_versions: tuple[int, ...]
    rewards: tuple[str, ...]  # names, sorted


@dataclass(frozen=True)
class StepSummary:
    """The content of ``done.json``; ``bytes`` and ``digest`` are of ``samples.parquet``."""

    step: int
    groups: int
    samples: int
    tokens: int  # of the responses
    seconds: float  # that sampling and scoring took, since the last start
    weight_versions: list[int]
    bytes: int
    digest: str = ""  # BLAKE3; stores of older versions have none


class RolloutStore:
    """Groups of samples by step under ``root``; one process writes, any number read."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def folder(self, step: int) -> Path:
        """Return the folder of ``step``, which need not exist."""
        return self.root / f"{step:06d}"

    def steps(self) -> list[int]:
        """Return all finished steps in ascending order."""
        names = [path.parent.name for path in self.root.glob("*/done.json")]
        return sorted(step for step in map(int, filter(str.isdigit, names)) if self.is_done(step))

    def stored(self) -> list[int]:
        """Return all steps of which anything is stored, finished or not, in ascending order."""
        return sorted(int(folder.name) for folder in folders_named(r"\d{6,}", self.root))

    def has(self, step: int) -> bool:
        """Return whether anything of ``step`` is stored."""
        return self.folder(step).is_dir()

    def begin(self, step: int, made_by: Settings) -> None:
        """Write down what makes ``step``, where that is not known yet; comes before its groups.

        Raises:
            RunError: the file system refuses.
        """
        if self.made_by(step) is None:
            replace_json(self.folder(step) / "made_by.json", dict(made_by))

    def made_by(self, step: int) -> Settings | None:
        """Return what made ``step``; None where it does not say, or the file is damaged."""
        return _object(self.folder(step) / "made_by.json")

    def groups_stored(self, step: int) -> int:
        """Return how many groups of ``step`` are finished, of a whole one all."""
        summary = self.summary(step)
        return summary.groups if summary else len(list(self._groups_folder(step).glob("*.parquet")))

    def is_done(self, step: int) -> bool:
        """Return whether ``step`` is finished: all of its groups can be read."""
        return self.summary(step) is not None

    def summary(self, step: int) -> StepSummary | None:
        """Return the summary of a finished step, None while it is not; made for polling.

        A ``done.json`` that is another step's, or whose ``samples.parquet`` is missing or cut
        short, counts as not finished.

        Raises:
            RunError: the file system does not let it be read.
        """
        content = _object(self.folder(step) / "done.json")
        try:
            summary = StepSummary(**content or {})
            whole = self._samples_path(step).stat().st_size == summary.bytes
        except (FileNotFoundError, TypeError):
            return None
        counts = (summary.groups, summary.samples, summary.tokens)
        right = summary.step == step and all(isinstance(count, int) for count in counts)
        return summary if whole and right else None

    def damage(self, step: int) -> str | None:
        """Return what is wrong with the samples of a finished step: a clause; None if nothing is.

        Reads them whole.
        """
        if (summary := self.summary(step)) is None or not summary.digest:
            return None
        same = digest(self._samples_path(step)) == summary.digest
        return None if same else "is damaged (its digest is another one)"

    def finished_groups(self, step: int) -> dict[int, FinishedGroup]:
        """Return the groups of an unfinished step that need not be sampled again, by group id.

        Every file is read whole; one that a crash or a disk has damaged is removed with a warning.
        """
        finished = {}
        for path in sorted(self._groups_folder(step).glob(f"{'[0-9]' * 6}.parquet")):
            try:
                table = open_parquet(path).read(use_threads=False)
                finished[int(path.stem)] = _describe(table)
            except (OSError, ValueError, IndexError, KeyError) as error:
                _log.warning("%s is damaged and will be sampled again (%s)", path, error)
                path.unlink()
        return finished

    def write_group(self, step: int, samples: Sequence[Sample]) -> None:
        """Store one finished group: samples of one group with indices 0, 1, ... in order.

        Raises:
            RunError: the file system refuses, for instance because it is full; nothing that was
                finished before is touched.
            ValueError: ``samples`` is not one whole group.
        """
        group = samples[0].group
        if [(s.group, s.index) for s in samples] != [(group, i) for i in range(len(samples))]:
            raise ValueError(f"group {group} of step {step}: not one whole group in order")
        file = io.BytesIO()
        write_tables(file, [samples_to_table(samples)], compression="none")  # soon merged
        # No sync: what a power cut leaves of a group is recognised, and the group asked again.
        size = file.getbuffer().nbytes
        with replacing(self._group_path(step, group), size, durable=False) as out:
            out.write(file.getbuffer())

    def finish(self, step: int, groups: int, seconds: float) -> StepSummary:
        """Merge groups 0 .. ``groups`` - 1, mark the step as done and return its summary.

        A step that is done already only loses what a crash has left of its ``groups/``.

        Raises:
            RunError: groups are missing or disagree in their rewards, or the disk is full.
        """
        if (summary := self.summary(step)) is None:
            paths = [self._group_path(step, group) for group in range(groups)]
            if missing := [group for group, path in enumerate(paths) if not path.exists()]:
                raise RunError(f"{self.folder(step)}: groups {missing} are not finished")
            summary = self._merge(step, paths, seconds)
            line = json.dumps(asdict(summary)).encode()
            with replacing(self.folder(step) / "done.json", len(line)) as out:
                out.write(line)
        remove_folder(self._groups_folder(step))
        return summary

    def read(
        self, step: int, columns: Sequence[str] | None = None, rows: Sequence[int] | None = None
    ) -> pa.Table:
        """Return a finished step's samples, ordered by group and index, as columns.

        Args:
            step: a finished step.
            columns: only these, in this order; see :mod:`engine.rollout.columns`.
            rows: only these row numbers, in this order: of the file only the parts that hold them
                are read, so each trainer rank can take its share of a large step.

        Raises:
            RunError: the step is not finished, has no such column, or its file is damaged.
            IndexError: a row number is outside 0 .. samples - 1.
        """
        if (summary := self.summary(step)) is None:
            raise RunError(f"{self.folder(step)} is not finished: it has no valid done.json")
        path = self._samples_path(step)
        try:
            file = open_parquet(path)
            if unknown := set(columns or ()) - set(file.schema_arrow.names):
                known = ", ".join(file.schema_arrow.names)
                raise RunError(f"{path} has no column {sorted(unknown)[0]}; it has {known}")
            wanted = range(summary.samples) if rows is None else rows
            table = read_rows(file, columns, wanted)
        except (OSError, pa.ArrowInvalid) as error:
            what = " ".join(str(error).split())  # Arrow's sentences have line ends
            raise RunError(
                f"{path} is damaged ({what}); remove {path.parent} to have step {step} sampled "
                f"again"
            ) from None
        return table if columns is None else table.select(list(columns))

    def samples(self, step: int, rows: Sequence[int] | None = None) -> list[Sample]:
        """Return the samples of a finished step (or some rows of it); raises as :meth:`read`."""
        return table_to_samples(self.read(step, rows=rows))

    def discard(self, step: int) -> None:
        """Remove ``step``, finished or not, so that it is sampled from the beginning."""
        (self.folder(step) / "done.json").unlink(missing_ok=True)  # first: never done in part
        remove_folder(self.folder(step))

    def _merge(self, step: int, paths: Sequence[Path], seconds: float) -> StepSummary:
        """Write ``samples.parquet`` from the group files, holding few of them at a time."""
        samples = tokens = 0
        versions: set[int] = set()
        rewards: dict[tuple[str, ...], Path] = {}  # names -> the first group that they scored

        def tables() -> Iterable[pa.Table]:
            nonlocal samples, tokens
            for path in paths:
                table = open_parquet(path).read(use_threads=False)
                rewards.setdefault(tuple(reward_names(table.schema)), path)
                if len(rewards) > 1:
                    raise RunError(_disagreement(rewards))
                samples += table.num_rows
                tokens += sum(map(len, table["tokens"]))
                versions.update(table["weight_version"].to_pylist())
                yield table

        merged = self._samples_path(step)
        size = sum(path.stat().st_size for path in paths)
        with replacing(merged, size) as out:
            write_tables(out, tables(), compression="zstd")
        size = merged.stat().st_size
        return StepSummary(
            step, len(paths), samples, tokens, seconds, sorted(versions), size, digest(merged)
        )

    def _groups_folder(self, step: int) -> Path:
        return self.folder(step) / "groups"

    def _group_path(self, step: int, group: int) -> Path:
        return self._groups_folder(step) / f"{group:06d}.parquet"

    def _samples_path(self, step: int) -> Path:
        return self.folder(step) / "samples.parquet"


def _object(file: Path) -> dict[str, Any] | None:
    """Return the JSON object in ``file``; None where there is none.

    Raises:
        RunError: the file system does not let it be read. What is stored is no less whole then.
    """
    try:
        content = json.loads(file.read_bytes())
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError, ValueError, RecursionError):
        return None
    except OSError as error:
        raise RunError(f"{file} cannot be read: {error.strerror or error}") from None
    return content if isinstance(content, dict) else None


def _describe(table: pa.Table) -> FinishedGroup:
    return FinishedGroup(
        prompt_id=table["prompt_id"][0].as_py(),
        samples=table.num_rows,
        weight_versions=tuple(sorted(set(table["weight_version"].to_pylist()))),
        rewards=tuple(reward_names(table.schema)),
    )


def _disagreement(rewards: dict[tuple[str, ...], Path]) -> str:
    (names, path), (others, other) = rewards.items()
    return (
        f"{path} was scored by {', '.join(names)} and {other.name} by {', '.join(others)}: the "
        f"rewards were changed in the middle of a step; restore them or remove {path.parent.parent}"
    )
