"""The rollout store gives back what was written, by rows and columns, and only what is whole."""

from __future__ import annotations

import json
import logging
import subprocess
import sys

import pyarrow.parquet as pq
import pytest
from blake3 import blake3
from hypothesis import given, settings
from hypothesis import strategies as st
from made_samples import make_group

from engine.errors import RunError
from engine.rewards.score import Score
from engine.rollout.columns import samples_to_table, table_to_samples
from engine.rollout.sample import Sample
from engine.rollout.store import RolloutStore

TOKEN = st.integers(0, 2**31 - 1)
FLOAT32 = st.floats(allow_nan=False, width=32)
TIME = st.floats(0, 4e9)
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
REWARD_NAMES = st.sets(st.sampled_from(["accuracy", "format", "language", "score_a"]), max_size=3)


@st.composite
def groups(draw: st.DrawFn) -> list[Sample]:
    """One group of any size, with any content the types allow."""
    rewards = sorted(draw(REWARD_NAMES))
    group = draw(st.integers(0, 10**6))
    samples = []
    for index in range(draw(st.integers(1, 5))):
        tokens = draw(st.lists(TOKEN, max_size=8))
        outcomes = st.sampled_from(["right", "wrong", "unparsable", "timeout", "crash"])
        samples.append(
            Sample(
                prompt_id=draw(TEXT),
                group=group,
                index=index,
                prompt_tokens=draw(st.lists(TOKEN, max_size=8)),
                tokens=tokens,
                logprobs=draw(st.lists(FLOAT32, min_size=len(tokens), max_size=len(tokens))),
                weight_version=draw(st.integers(0, 2**40)),
                finish_reason=draw(st.sampled_from(["stop", "length", "abort"])),
                text=draw(TEXT),
                answer=draw(TEXT),
                reward=draw(st.floats(allow_nan=False)),
                scores={name: Score(draw(FLOAT32), draw(outcomes)) for name in rewards},
                requested_at=draw(TIME),
                finished_at=draw(TIME),
                scored_at=draw(TIME),
            )
        )
    return samples


def fill(store: RolloutStore, step: int, count: int, size: int = 4) -> list[Sample]:
    everything = []
    for group in reversed(range(count)):  # groups finish in any order
        store.write_group(step, make_group(group, size))
    for group in range(count):
        everything += make_group(group, size)
    store.finish(step, count, seconds=1.5)
    return everything


@given(group=groups())
@settings(deadline=None)
def test_samples_survive_the_way_through_columns(group):
    assert table_to_samples(samples_to_table(group)) == group


@given(group=groups())
@settings(max_examples=30, deadline=None)
def test_samples_survive_the_way_through_a_group_file(group, tmp_path_factory):
    store = RolloutStore(tmp_path_factory.mktemp("rollouts"))
    store.write_group(3, group)
    path = store.folder(3) / "groups" / f"{group[0].group:06d}.parquet"
    assert table_to_samples(pq.read_table(path)) == group


def test_a_step_is_read_back_in_order_of_group_and_index(tmp_path):
    store = RolloutStore(tmp_path)
    written = fill(store, 12, 5)
    assert store.samples(12) == written


def test_done_json_carries_the_totals_and_the_groups_folder_is_gone(tmp_path):
    store = RolloutStore(tmp_path)
    written = fill(store, 12, 5)
    assert sorted(path.name for path in store.folder(12).iterdir()) == [
        "done.json",
        "samples.parquet",
    ]
    done = json.loads((tmp_path / "000012" / "done.json").read_text())
    assert done == {
        "step": 12,
        "groups": 5,
        "samples": 20,
        "tokens": sum(len(sample.tokens) for sample in written),
        "seconds": 1.5,
        "weight_versions": [0],
        "bytes": (tmp_path / "000012" / "samples.parquet").stat().st_size,
        "digest": blake3((tmp_path / "000012" / "samples.parquet").read_bytes()).hexdigest(),
    }


def test_the_columns_are_the_promised_types(tmp_path):
    store = RolloutStore(tmp_path)
    fill(store, 0, 2)
    schema = pq.read_schema(tmp_path / "000000" / "samples.parquet")
    types = {field.name: str(field.type) for field in schema}
    assert types["tokens"] == types["prompt_tokens"] == "list<element: int32>"
    assert types["logprobs"] == "list<element: float>"
    assert types["score_accuracy"] == types["score_format"] == "float"
    assert types["outcome_accuracy"] == types["outcome_format"] == "string"


@given(data=st.data())
@settings(max_examples=25, deadline=None)
def test_any_rows_and_columns_can_be_read_alone(data, tmp_path_factory):
    store = RolloutStore(tmp_path_factory.mktemp("rollouts"))
    written = fill(store, 1, data.draw(st.integers(1, 6)), data.draw(st.sampled_from([1, 7, 40])))
    rows = data.draw(st.lists(st.integers(0, len(written) - 1), max_size=20))
    table = store.read(1, columns=["reward", "index", "tokens"], rows=rows)
    assert table.column_names == ["reward", "index", "tokens"]
    assert table["tokens"].to_pylist() == [written[row].tokens for row in rows]
    assert table["index"].to_pylist() == [written[row].index for row in rows]
    assert store.samples(1, rows=rows) == [written[row] for row in rows]


def test_the_shares_of_all_ranks_are_the_whole_step(tmp_path):
    store = RolloutStore(tmp_path)
    written = fill(store, 1, 16, 16)
    shares = [store.samples(1, rows=range(rank, 256, 4)) for rank in range(4)]
    assert [shares[row % 4][row // 4] for row in range(256)] == written


def test_a_rank_reads_only_the_parts_that_hold_its_rows(tmp_path, monkeypatch):
    store = RolloutStore(tmp_path)
    fill(store, 1, 16, 16)
    asked = []
    read_row_groups = pq.ParquetFile.read_row_groups

    def spy(self, pieces, **options):
        asked.append((list(pieces), self.metadata.num_row_groups))
        return read_row_groups(self, pieces, **options)

    monkeypatch.setattr(pq.ParquetFile, "read_row_groups", spy)
    store.read(1, rows=range(64, 128))
    assert asked == [([1], 4)]


def test_unknown_columns_and_rows_are_refused(tmp_path):
    store = RolloutStore(tmp_path)
    fill(store, 1, 2)
    with pytest.raises(RunError, match="no column score_language; it has prompt_id, group"):
        store.read(1, columns=["score_language"])
    with pytest.raises(IndexError, match=r"rows 3 \.\. 8 wanted of 8"):
        store.read(1, rows=[8, 3])


def test_an_unfinished_step_cannot_be_read_but_its_groups_are_known(tmp_path):
    store = RolloutStore(tmp_path)
    assert store.finished_groups(4) == {}
    store.write_group(4, make_group(2, 3, version=4))
    assert not store.is_done(4)
    assert store.summary(4) is None
    assert store.steps() == []
    with pytest.raises(RunError, match="000004 is not finished"):
        store.read(4)
    group = store.finished_groups(4)[2]
    assert (group.prompt_id, group.samples, group.weight_versions) == ("prompt-2", 3, (4,))
    assert group.rewards == ("accuracy", "format")


def test_a_step_with_missing_groups_is_not_finished(tmp_path):
    store = RolloutStore(tmp_path)
    store.write_group(4, make_group(1))
    with pytest.raises(RunError, match=r"groups \[0, 2\] are not finished"):
        store.finish(4, 3, seconds=0)
    assert not store.is_done(4)
    assert set(store.finished_groups(4)) == {1}


def test_finishing_again_changes_nothing_and_removes_what_a_crash_left(tmp_path):
    store = RolloutStore(tmp_path)
    fill(store, 4, 2)
    before = (tmp_path / "000004" / "samples.parquet").read_bytes()
    store.write_group(4, make_group(0, seed=1))  # as if killed before groups/ was removed
    assert store.finish(4, 2, seconds=99).seconds == 1.5
    assert (tmp_path / "000004" / "samples.parquet").read_bytes() == before
    assert not (tmp_path / "000004" / "groups").exists()


def test_rewards_changed_in_the_middle_of_a_step_are_named(tmp_path):
    store = RolloutStore(tmp_path)
    store.write_group(4, make_group(0))
    other = [
        Sample(**{**vars(sample), "scores": {"accuracy": sample.scores["accuracy"]}})
        for sample in make_group(1)
    ]
    store.write_group(4, other)
    with pytest.raises(RunError, match=r"by accuracy, format and 000001\.parquet by accuracy:"):
        store.finish(4, 2, seconds=0)


def test_what_is_not_one_whole_group_is_refused(tmp_path):
    store = RolloutStore(tmp_path)
    group = make_group(0, 3)
    for wrong in (group[1:], [group[0], group[2]], [*group, make_group(1, 4)[3]]):
        with pytest.raises(ValueError, match="not one whole group"):
            store.write_group(0, wrong)
    with pytest.raises(ValueError, match="scored by different rewards"):
        samples_to_table([group[0], Sample(**{**vars(group[1]), "scores": {}})])
    with pytest.raises(ValueError, match="1 tokens, but 0 log-prob"):
        Sample(**{**vars(group[0]), "tokens": [1], "logprobs": []})


@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_a_group_cut_short_or_zeroed_is_asked_again(data, tmp_path_factory):
    store = RolloutStore(tmp_path_factory.mktemp("rollouts"))
    store.write_group(4, make_group(0))
    store.write_group(4, make_group(1))
    path = store.folder(4) / "groups" / "000001.parquet"
    whole = path.read_bytes()
    start = data.draw(st.integers(0, len(whole) - 1))
    damaged = whole[:start]
    if data.draw(st.booleans()):  # what a power cut leaves of blocks that were not written back
        damaged += bytes(len(whole) - start)
    path.write_bytes(damaged)
    logging.disable(logging.WARNING)
    assert set(store.finished_groups(4)) == {0}
    logging.disable(logging.NOTSET)
    assert not path.exists()


def test_a_damaged_group_is_reported(tmp_path, caplog):
    store = RolloutStore(tmp_path)
    store.write_group(4, make_group(1))
    path = store.folder(4) / "groups" / "000001.parquet"
    path.write_bytes(b"")
    assert store.finished_groups(4) == {}
    assert "000001.parquet is damaged and will be sampled again" in caplog.text


def test_a_file_that_no_sampler_named_is_neither_read_nor_removed(tmp_path):
    store = RolloutStore(tmp_path)
    store.write_group(4, make_group(1))
    mine = store.folder(4) / "groups" / "000001-looked-at.parquet"
    mine.write_bytes(b"")
    assert set(store.finished_groups(4)) == {1} and mine.exists()


def test_a_flipped_bit_in_a_page_of_a_group_is_found(tmp_path):
    store = RolloutStore(tmp_path)
    store.write_group(4, make_group(1))
    path = store.folder(4) / "groups" / "000001.parquet"
    whole = bytearray(path.read_bytes())
    column = pq.ParquetFile(path).metadata.row_group(0).column(5)  # logprobs
    assert column.path_in_schema.startswith("logprobs")
    whole[column.data_page_offset + column.total_compressed_size // 2] ^= 1
    path.write_bytes(whole)
    assert store.finished_groups(4) == {}


@pytest.mark.parametrize("damage", ["missing", "cut", "no json", "other json"])
def test_a_done_step_that_lost_its_samples_counts_as_not_done(tmp_path, damage):
    store = RolloutStore(tmp_path)
    fill(store, 4, 2)
    samples, done = store.folder(4) / "samples.parquet", store.folder(4) / "done.json"
    if damage == "missing":
        samples.unlink()
    elif damage == "cut":
        samples.write_bytes(samples.read_bytes()[:-1])
    else:
        done.write_text("" if damage == "no json" else '{"step": 4}')
    assert not store.is_done(4)
    assert store.steps() == []


def test_a_damaged_page_of_a_done_step_is_named_with_the_remedy(tmp_path):
    store = RolloutStore(tmp_path)
    fill(store, 4, 2)
    path = store.folder(4) / "samples.parquet"
    whole = bytearray(path.read_bytes())
    column = pq.ParquetFile(path).metadata.row_group(0).column(4)
    whole[column.data_page_offset + column.total_compressed_size // 2] ^= 1
    path.write_bytes(whole)
    with pytest.raises(RunError, match=r"samples.parquet is damaged .*; remove .*000004 to have"):
        store.read(4)


def test_a_discarded_step_is_gone_and_can_be_sampled_again(tmp_path):
    store = RolloutStore(tmp_path)
    fill(store, 4, 2)
    store.write_group(5, make_group(0))
    store.discard(4)
    store.discard(5)
    store.discard(6)
    assert not store.is_done(4)
    assert store.finished_groups(5) == {}
    assert fill(store, 4, 2) == store.samples(4)
    assert store.steps() == [4]


def test_finished_steps_are_listed_in_order(tmp_path):
    store = RolloutStore(tmp_path / "evaluations")
    assert store.steps() == []
    for step in (30, 0, 15):
        fill(store, step, 1)
    (store.root / "notes").mkdir()
    assert store.steps() == [0, 15, 30]


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "rollouts").write_text("a file where a folder should be")
    store = RolloutStore(tmp_path / "rollouts")
    with pytest.raises(RunError, match=r"cannot write .*000000.parquet: File exists .*rollouts"):
        store.write_group(0, make_group(0))


def test_the_store_imports_neither_torch_nor_sglang():
    program = (
        "import sys, engine.rollout.store\n"
        "print([name for name in ('torch', 'sglang', 'megatron') if name in sys.modules])"
    )
    output = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    assert output.stdout == b"[]\n"
