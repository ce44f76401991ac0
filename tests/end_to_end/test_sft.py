"""Supervised fine-tuning from the launcher's command to what the next recipe takes."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from launched import assert_nothing_left, leftovers
from transformers import AutoModelForCausalLM, AutoTokenizer
from zero_runs import QUICKSTART, final_weights, zero_command

from engine.monitoring.metrics_file import read_metrics
from engine.run.placement import VARIABLE
from recipes.chain_task.traces import write_traces

pytestmark = [pytest.mark.slow, pytest.mark.serial]

STEPS = 24


def sft_command(base: Path, run_dir: Path, *overrides: str) -> list[str]:
    return [
        *(sys.executable, "-m", "launchers.local", "recipes.sft", str(QUICKSTART / "sft.yaml")),
        *(f"run_dir={run_dir}", f"model={base}", f"data.train=[{base.parent / 'traces.jsonl'}]"),
        *("epochs=2", "batch_size=32", "checkpoint.every=4"),
        *("validation_every=8", "record_every=4", *overrides),
    ]


@pytest.fixture(scope="module")
def tuned(base: Path) -> Path:
    """The folder of a fine-tuning that nothing disturbed."""
    write_traces(base.parent / "traces.jsonl", count=400, seed=3)
    folder = base.parent / "tuned"
    subprocess.run(sft_command(base, folder), check=True, timeout=300)
    return folder


def test_the_validation_loss_falls_and_the_result_says_so(tuned: Path):
    lines = read_metrics(tuned / "metrics.jsonl")
    losses = [line["validation/loss"] for line in lines if "validation/loss" in line]
    assert losses[-1] < losses[0] - 0.1
    result = json.loads((tuned / "result.json").read_text())
    assert result["evaluation"]["validation_loss"] == losses[-1]
    assert result["steps"] == lines[-1]["step"] == STEPS
    assert set(result["inputs"]) == {"model", "data.train.0"}


def test_the_model_is_a_complete_folder_that_transformers_loads(tuned: Path):
    folder = tuned / "model"
    for name in ("tokenizer.json", "generation_config.json", "chat_template.jinja"):
        assert (folder / name).is_file(), name
    tokenizer = AutoTokenizer.from_pretrained(folder)
    question = [{"role": "user", "content": "<bos> 3 a + 4 b * 7 = ?"}]
    text = tokenizer.apply_chat_template(question, tokenize=False)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    tokens = tokenizer(text, return_tensors="pt")["input_ids"]
    answer = model.generate(tokens, max_new_tokens=40, do_sample=False)[0, tokens.shape[1] :]
    assert tokenizer.decode(answer).startswith("<think>")


def test_a_run_killed_in_the_middle_ends_with_the_same_weights(base, tuned, tmp_path, launch):
    run_dir = tmp_path / "killed"
    first = launch(sft_command(base, run_dir))
    deadline = time.monotonic() + 200
    while not (run_dir / "checkpoints" / "000008").is_dir():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    for process in leftovers(run_dir):
        if json.loads(process.environ().get(VARIABLE, "{}")).get("index") == 1:
            process.send_signal(signal.SIGKILL)
    assert first.wait(limit=15) == 1
    assert_nothing_left(run_dir, limit=5)
    second = launch(sft_command(base, run_dir))
    assert second.wait(limit=200) == 0, second.output
    assert "going on from the checkpoint" in second.output
    assert final_weights(run_dir) == final_weights(tuned)


def test_zero_takes_the_finished_run_as_its_model(base, tuned, tmp_path):
    run_dir = tmp_path / "zero"
    command = zero_command(base, run_dir, f"model={tuned}", "steps=1", "parity.routing_tie=1e-3")
    subprocess.run(command, check=True, timeout=280)
    made = json.loads((tuned / "result.json").read_text())["model"]["blake3"]
    result = json.loads((run_dir / "result.json").read_text())
    assert result["inputs"]["model"] == {"path": str(tuned / "model"), "blake3": made}
