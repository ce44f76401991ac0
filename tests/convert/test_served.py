"""Folders in real SGLang servers and in transformers: the same answers, under YaRN.

Its settings have the factor that transformers alone leaves out.
"""

from __future__ import annotations

import asyncio
import copy
import json
from pathlib import Path

import pytest
import torch
from conversions import to_hugging_face, to_megatron
from transformers import AutoConfig, AutoModelForCausalLM

from engine.servers.client import Sampling, connect
from tools.benchmarks.local_servers import local_server, running, urls
from tools.benchmarks.tiny_model import EOS, VOCABULARY, tiny_qwen3_moe
from tools.convert.transformers_fixes import mend

pytestmark = pytest.mark.slow

PROMPTS = [[3, 7, 11], [20, 21, 22, 23, 24, 25, 26], [40]]
TOKENS = 24
YARN = {
    "rope_type": "yarn",
    "rope_theta": 1e4,
    "factor": 8.0,
    "original_max_position_embeddings": 8,
    "beta_fast": 4,
    "mscale": 1.4,
    "mscale_all_dim": 0.6,
    "attn_factor": 1.3,
}


def with_yarn(folder: Path) -> Path:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "rope_parameters": YARN}))
    return folder


def test_the_exported_folder_serves_what_transformers_generates(tmp_path):
    source = with_yarn(tiny_qwen3_moe(tmp_path / "source", seed=3))
    there = to_megatron(source, tmp_path / "there", 2, 2, 2)
    exported = to_hugging_face(there, tmp_path / "exported", file_bytes=400_000)
    assert len(list(exported.glob("model-*.safetensors"))) > 1
    model = AutoModelForCausalLM.from_pretrained(exported, dtype=torch.float32)
    mend(model)
    expected = [
        model.generate(
            torch.tensor([prompt]), max_new_tokens=TOKENS, do_sample=False, eos_token_id=EOS
        )[0, len(prompt) :].tolist()
        for prompt in PROMPTS
    ]
    described = [local_server(exported, max_total_tokens=8192, seed=3)]
    wanted = Sampling(n=1, max_new_tokens=TOKENS, temperature=0.0, stop_token_ids=(EOS,))
    with running(described, tmp_path, 240) as started:

        async def ask() -> list[list[int]]:
            async with connect(urls(started), request_seconds=120) as client:
                answers = await asyncio.gather(*(client.generate(p, wanted) for p in PROMPTS))
                return [list(answer[0].tokens) for answer in answers]

        found = asyncio.run(ask())
    assert found == expected
    assert len({tuple(tokens) for tokens in found}) == len(PROMPTS)


DENSE = {
    "vocab_size": VOCABULARY,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "initializer_range": 0.15,
    "rope_theta": 1e4,
    "rope_scaling": {key: value for key, value in YARN.items() if key != "rope_theta"},
    "eos_token_id": EOS,
    "bos_token_id": None,
}


@torch.no_grad()
def test_dense_families_are_served_as_transformers_computes_them(tmp_path):
    models = {}
    for name in ("qwen2", "llama"):
        torch.manual_seed(5)
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model(name, **copy.deepcopy(DENSE)))
        model.eval().save_pretrained(tmp_path / name)
        mend(model)
        models[name] = model
    described = [
        local_server(tmp_path / name, name, max_total_tokens=2048, seed=3) for name in models
    ]
    wanted = Sampling(n=1, max_new_tokens=50, temperature=1.0, stop_token_ids=())
    with running(described, tmp_path, 240) as started:

        async def ask(name: str) -> list[tuple[list[int], list[float]]]:
            async with connect({name: urls(started)[name]}, request_seconds=120) as client:
                answers = await asyncio.gather(*(client.generate(p, wanted) for p in PROMPTS))
                return [
                    (prompt + one[0].tokens, one[0].logprobs)
                    for prompt, one in zip(PROMPTS, answers, strict=True)
                ]

        found = {name: asyncio.run(ask(name)) for name in models}
    for name, model in models.items():
        assert (
            max(len(tokens) for tokens, _ in found[name]) > 40
        )  # far beyond the length of training
        for tokens, logprobs in found[name]:
            scores = model(torch.tensor([tokens])).logits[0].log_softmax(-1)
            expected = [float(scores[at - 1, tokens[at]]) for at in range(len(tokens))][
                -len(logprobs) :
            ]
            assert logprobs == pytest.approx(expected, abs=1e-4)
