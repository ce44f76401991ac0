"""Random sound configurations of recipe Zero."""

from __future__ import annotations

import string
from pathlib import Path

from hypothesis import strategies as st

from engine.algorithms.table import ALGORITHMS
from recipes.zero import Config as Config

positive = st.floats(1e-9, 1e6)
count = st.integers(1, 10_000)
# Everything that a YAML writer could mistake for something else: "1:30", "yes", "~", "é".
paths = st.text(string.ascii_letters + string.digits + "._-~:# é/", min_size=1).map(Path)
run_dirs = paths.map(lambda path: Path(f"runs/of {path}")).filter(lambda p: ".." not in p.parts)


@st.composite
def layouts(draw: st.DrawFn) -> dict[str, int]:
    tp, pp, cp, dp = (draw(st.integers(1, 4)) for _ in range(4))
    stage = tp * cp * dp
    ep = draw(st.sampled_from(divisors(stage)))
    etp = draw(st.sampled_from(divisors(stage // ep)))
    vpp = draw(st.integers(1, 3)) if pp > 1 else 1
    return {
        "processes": stage * pp,
        "tp": tp,
        "pp": pp,
        "vpp": vpp,
        "cp": cp,
        "ep": ep,
        "etp": etp,
    }


def divisors(number: int) -> list[int]:
    return [size for size in range(1, number + 1) if number % size == 0]


@st.composite
def zero_configs(draw: st.DrawFn) -> Config:
    steps, max_new_tokens, minibatches = (draw(count) for _ in range(3))
    lr = draw(positive)
    return Config.model_validate(
        {
            "seed": draw(st.integers(0, 2**31)),
            "run_dir": draw(run_dirs),
            "model": draw(paths),
            "steps": steps,
            "layout": draw(layouts()),
            "training": {
                "dtype": draw(st.sampled_from(["float32", "bfloat16"])),
                "tokens_per_microbatch": max_new_tokens + draw(count),
            },
            "optimizer": {
                "lr": lr,
                "betas": draw(st.tuples(*[st.floats(0, 1, exclude_max=True)] * 2)),
                "eps": draw(positive),
                "warmup_steps": draw(st.integers(0, steps)),
                "schedule": draw(st.sampled_from(["constant", "linear", "cosine"])),
                "min_lr": lr * draw(st.floats(0, 1)),
            },
            "prompts": {
                "train": draw(paths) / "train",
                "held_out": draw(paths) / "held_out",
                "template": draw(st.sampled_from(["plain", "r1_zero"])),
            },
            "rollout": {
                "prompts_per_step": draw(count),
                "group_size": 2 * minibatches,
                "max_new_tokens": max_new_tokens,
                "temperature": draw(st.floats(1e-6, 1e6)),
            },
            "servers": {
                "count": draw(st.integers(1, 64)),
                "port": draw(st.integers(0, 65_000)),
                "max_total_tokens": max_new_tokens + draw(count),
            },
            "rewards": {"accuracy": {"weight": draw(positive)}, "format": {"weight": 0}},
            "algorithm": {
                "name": draw(st.sampled_from(sorted(ALGORITHMS))),
                "kl_coefficient": draw(positive),
            },
            "minibatches": minibatches,
            "reference": {"refresh_steps": draw(count)},
            "evaluation": {"every": draw(count), "prompts": draw(count)},
            "parity": {"max_logprob_difference": draw(positive)},
            "checkpoint": {"every": draw(count)},
            "monitoring": {"samples_every": draw(count), "samples": draw(st.integers(0, 9))},
        }
    )
