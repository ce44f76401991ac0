"""Whatever two checkpoints differ in, ``verify`` names it."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from conversions import command, to_hugging_face, to_megatron, verified
from random_models import change

from engine.errors import RunError
from tools.convert.inspection import lines
from tools.convert.opening import open_source

GATE = "model.layers.1.mlp.experts.3.gate_proj.weight"


@pytest.fixture(scope="module")
def there(mixture, tmp_path_factory):
    return to_megatron(mixture, tmp_path_factory.mktemp("verified") / "there", 2, 2, 2)


@pytest.fixture
def changed(mixture, tmp_path):
    return shutil.copytree(mixture, tmp_path / "changed")


def test_equal_checkpoints_of_any_kinds(mixture, there, tmp_path):
    seen = []
    found = verified(mixture, there, seen.append)
    assert found.recorded and found.dtype is None
    assert sum(seen) == found.bytes == 100_380 * 4
    assert not verified(there, mixture).recorded
    assert verified(mixture, mixture).tensors == found.tensors == 93


def test_one_bit_of_one_expert(changed, there):
    def flip(tensor):
        tensor.view(torch.int32)[7, 3] ^= 1
        return tensor

    change(changed, GATE, flip)
    with pytest.raises(RunError, match=rf"^1 tensors differ: {GATE} has other values$"):
        verified(changed, there)


def test_experts_that_changed_places(changed, there):
    from random_models import all_tensors

    other = GATE.replace("experts.3", "experts.4")
    values = all_tensors(changed)
    change(changed, GATE, lambda _: values[other])
    change(changed, other, lambda _: values[GATE])
    with pytest.raises(RunError, match=r"^2 tensors differ: .*experts\.3.*experts\.4"):
        verified(changed, there)


def test_another_dtype_and_another_shape(changed, there):
    change(changed, GATE, lambda tensor: tensor.bfloat16())
    change(changed, GATE.replace("gate", "up"), lambda tensor: tensor.bfloat16())
    with pytest.raises(RunError, match=rf"{GATE} is float32 \(26, 44\), not bfloat16 \(26, 44\)"):
        verified(changed, there)


@pytest.mark.parametrize(
    "name", ["tokenizer.json", "chat_template.jinja", "generation_config.json"]
)
def test_what_travels_along(changed, there, name):
    (changed / name).write_text("{}")
    with pytest.raises(RunError, match=rf"{name} and .*{name} differ"):
        verified(changed, there)
    (changed / name).unlink()
    with pytest.raises(RunError, match=rf"only one of .* has {name}"):
        verified(changed, there)


def test_a_config_that_means_another_model(changed, there):
    config = json.loads((changed / "config.json").read_text())
    (changed / "config.json").write_text(json.dumps({**config, "rms_norm_eps": 1e-5}))
    with pytest.raises(RunError, match="differ in rms_norm_eps"):
        verified(changed, there)


def test_a_record_that_lies(mixture, there, tmp_path):
    back = to_hugging_face(there, tmp_path / "back")
    record = json.loads((back / "conversion.json").read_text())
    record["tensors"][GATE]["blake3"] = "0" * 64
    (back / "conversion.json").write_text(json.dumps(record))
    with pytest.raises(RunError, match=rf"{GATE} is not what .*conversion\.json says"):
        verified(mixture, back)


@pytest.mark.slow
@pytest.mark.parametrize("content", ['["hello"]', "{}", "[[1.5]]", "[", None])
def test_prompts_that_are_none_are_refused_before_anything_is_read(tmp_path, content):
    file = tmp_path / "prompts.json"
    if content is not None:
        file.write_text(content)
    checking = command("verify", "--from", tmp_path, "--to", tmp_path, "--prompts", file)
    _, errors = checking.communicate(timeout=240)
    assert checking.returncode == 1 and errors.startswith("error: --prompts: ")


def test_inspection_of_a_damaged_checkpoint_is_a_sentence(there, tmp_path):
    def inspected(damage):
        folder = shutil.copytree(there, tmp_path / damage.__name__)
        damage(folder)
        return "\n".join(lines(open_source(folder, digests=False)))

    def lost(folder):
        next(folder.glob("*.distcp")).unlink()

    def index_flipped(folder):
        content = bytearray((folder / ".metadata").read_bytes())
        content[len(content) // 2] ^= 16
        (folder / ".metadata").write_bytes(content)

    def another_record(folder):
        (folder / "conversion.json").write_text("[]")

    for damage, message in (
        (lost, r"distcp is missing"),
        (index_flipped, r"\.metadata is damaged"),
        (another_record, r"conversion\.json is damaged"),
    ):
        with pytest.raises(RunError, match=message):
            inspected(damage)


def test_a_record_of_another_version_is_told(mixture, there, tmp_path):
    back = to_hugging_face(there, tmp_path / "back")
    text = (back / "conversion.json").read_text().replace('"blake3"', '"sha256"')
    (back / "conversion.json").write_text(text)
    with pytest.raises(RunError, match="another version wrote it"):
        verified(mixture, back)


def test_inspection(there):
    text = "\n".join(lines(open_source(there)))
    assert "parameters  100,380" in text and "float32     402 kB" in text
    assert "qwen3_moe, 3 layers, 7 experts" in text and "__pp1_ep1_0.distcp" in text
