"""Tokenize conversations once, into datasets on disk that a restart or another run finds.

A dataset's folder is named by a digest of all that decides its tokens: the contents of the files,
the template, the tokenizer, the options. Every rank computes the digest by itself. Rank 0 takes
what is not there from the user's cache, where the checks before a start have put it, or makes it;
the others look for it again and again, with a limit, and are in no collective meanwhile.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from engine.config.sft_data import SftDataConfig
from engine.data.sft_folder import SampleCounts, is_whole, read_counts, take_from_cache, unfinished
from engine.data.sft_source import Part, SftSource, part_records, parts
from engine.data.sft_tokenizing import Tokenizing
from engine.data.token_dataset import TokenDataset
from engine.data.tokenizer import Tokenizer
from engine.platform.waiting import wait_for


@dataclass(frozen=True)
class SftDataset:
    """One part of the data, ready to be trained on.

    Attributes:
        tokens: the samples.
        counts: what became of the conversations that were read.
    """

    part: Part
    folder: Path
    tokens: TokenDataset
    counts: SampleCounts

    def line(self) -> str:
        """Return one line for a log."""
        return f"{self.part}: {self.counts} ({self.folder})"


@dataclass(frozen=True)
class SftDatasets:
    """What is learned, and what is only measured (None where nothing is held back)."""

    train: SftDataset
    validation: SftDataset | None


def open_sft_datasets(
    config: SftDataConfig, model: Path, folder: Path, *, rank: int
) -> SftDatasets:
    """Tokenize what is not yet, or wait for rank 0 to do so, and open the datasets.

    Args:
        model: a Hugging Face folder, for its tokenizer and chat template.
        folder: of all datasets of the run, usually ``RUN_DIR/data``, seen by all ranks.
        rank: among all processes of the trainer.
    Raises:
        RunError: a file, record or answer is not as it should be, samples are too long, nothing is
            left to learn or to measure, or rank 0 is not done after ``config.wait_seconds``.
    """
    source = SftSource(config, model, Tokenizer.load(model))
    found = {part: _open(source, part, folder, rank) for part in parts(config)}
    return SftDatasets(found["train"], found.get("validation"))


def _open(source: SftSource, part: Part, folder: Path, rank: int) -> SftDataset:
    place = folder / source.name(part)
    if rank == 0:
        if not is_whole(place) and not take_from_cache(place):
            made = Tokenizing(source, part, part_records(source.config, part))
            made.write(place)
            made.check()
    else:
        wait_for(
            f"the tokenized {part} data in {place}",
            lambda: is_whole(place) or None,
            source.config.wait_seconds,
            who=lambda: _progress(place),
        )
    return SftDataset(part, place, TokenDataset(place), read_counts(place))


def _progress(place: Path) -> str:
    """One clause about rank 0, who writes."""
    written = [file.stat() for file in place.parent.glob(f"{unfinished(place, '*')}/tokens.bin")]
    if written:
        newest = max(written, key=lambda state: state.st_mtime)
        ago = time.time() - newest.st_mtime
        return f"rank 0 has written {newest.st_size} bytes of tokens, the last {ago:.0f} s ago"
    part, _, _ = place.name.partition("-")
    if others := sorted(other.name for other in place.parent.glob(f"{part}-*")):
        return (
            f"rank 0, who writes it, has not begun with this one, there is {', '.join(others)}; do"
            " all ranks see the same files?"
        )
    return "rank 0, who writes it, has not begun"
