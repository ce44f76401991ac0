"""Digests are of the contents, and b3sum gives the same."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch.distributed as dist
from blake3 import blake3
from pydantic import BaseModel

from engine.config.inputs import ModelFolder, PromptFile
from engine.run.digests import digest_of, input_digests


@pytest.fixture(scope="module", autouse=True)
def one_rank(tmp_path_factory):
    store = dist.FileStore(str(tmp_path_factory.mktemp("store") / "store"), 1)
    dist.init_process_group("gloo", store=store, rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def test_a_folders_digest_is_of_names_and_contents(tmp_path: Path):
    (tmp_path / "b").write_bytes(b"two")
    (tmp_path / "a").write_bytes(b"one")
    one, two = blake3(b"one").hexdigest(), blake3(b"two").hexdigest()
    before = digest_of(tmp_path)
    assert before == blake3(f"{one}  a\n{two}  b\n".encode()).hexdigest()
    (tmp_path / "b").write_bytes(b"twO")
    assert digest_of(tmp_path) != before
    (tmp_path / "b").write_bytes(b"two")
    assert digest_of(tmp_path) == before
    (tmp_path / "b").rename(tmp_path / "c")
    assert digest_of(tmp_path) != before


class Inner(BaseModel):
    """A section with a list of files."""

    files: list[PromptFile]


class Config(BaseModel):
    """A configuration with inputs, and a path that is none."""

    run_dir: Path
    model: ModelFolder
    inner: Inner
    more: dict[str, Inner]
    several: list[Inner]


def test_every_input_of_a_configuration_has_its_digest(tmp_path: Path):
    for name in "abcd":
        (tmp_path / name).write_text(name)
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}")
    config = Config(
        run_dir=tmp_path,
        model=tmp_path / "model",
        inner=Inner(files=[tmp_path / "a", tmp_path / "b"]),
        more={"x": Inner(files=[tmp_path / "c"])},
        several=[Inner(files=[tmp_path / "d"])],
    )
    found = input_digests(config)
    letters = {
        key: blake3(letter.encode()).hexdigest()
        for key, letter in (
            ("inner.files.0", "a"),
            ("inner.files.1", "b"),
            ("more.x.files.0", "c"),
            ("several.0.files.0", "d"),
        )
    }
    assert found == {**letters, "model": digest_of(tmp_path / "model")}
