"""Add the CPU server's attention and experts to SGLang through its own plug-in hooks.

SGLang finds :func:`register` by its entry point (group ``sglang.srt.plugins`` in pyproject.toml)
and calls it in every process of a server, but it swallows what a plug-in raises. So that nothing is
missing silently, ``serve`` calls :func:`require_registered`, and the attention backend refuses to
be built where a hook did not take.
"""

from __future__ import annotations

import gc
import multiprocessing
import os
from collections.abc import Callable
from typing import Any

ATTENTION_BACKEND = "cpu_batched"


def register() -> None:
    """Add the attention backend and the hooks; does nothing where SGLang runs on a GPU."""
    if os.environ.get("SGLANG_USE_CPU_ENGINE") != "1":
        return
    from sglang.srt.arg_groups.choices import add_attention_backend_choices
    from sglang.srt.layers.attention.attention_registry import register_attention_backend
    from sglang.srt.plugins.hook_registry import HookRegistry, HookType

    add_attention_backend_choices([ATTENTION_BACKEND])
    register_attention_backend(ATTENTION_BACKEND)(_attention)
    for target, hook, kind in (
        ("sglang.srt.entrypoints.engine._set_envs_and_config", _fork, HookType.AFTER),
        ("sglang.srt.utils.common.support_triton", _support_triton, HookType.AROUND),
        ("sglang.srt.layers.moe.fused_moe_native.moe_forward_native", _experts, HookType.AROUND),
    ):
        HookRegistry.register(target, hook, kind)


def require_registered() -> None:
    """Raise RuntimeError unless SGLang has called :func:`register` in this process."""
    from sglang.srt.layers.attention.attention_registry import ATTENTION_BACKENDS

    if ATTENTION_BACKENDS.get(ATTENTION_BACKEND) is not _attention:
        raise RuntimeError(
            "SGLang has not loaded the plug-in r1_cpu_batched: expected the distribution r1-engine "
            "to be installed (pip install --no-deps -e .) and SGLANG_PLUGINS not to exclude it"
        )


def _attention(runner: Any) -> Any:
    """Build the backend for SGLang's model runner, once every hook is seen to be in place."""
    from sglang.srt.layers.moe import fused_moe_native
    from sglang.srt.utils import common

    from engine.platform.sglang_cpu.attention import BatchedAttention

    for hooked in fused_moe_native.moe_forward_native, common.support_triton:
        if not hasattr(hooked, "__wrapped__"):
            raise RuntimeError(f"SGLang did not apply our hook to {hooked.__name__}; see its log")
    _freeze()  # the model and what it was loaded with
    return BatchedAttention(runner)


def _fork(result: Any, server_args: Any) -> None:
    """Fork the scheduler from the process that has imported everything, instead of spawning it.

    SGLang spawns because a CUDA context does not survive a fork. Without one, spawning only means
    that torch and every model are imported three times: 20 s of CPU time per server instead of 9.
    The processes go on sharing the memory of what was imported.
    """
    _freeze()
    multiprocessing.set_start_method("fork", force=True)


def _freeze() -> None:
    """Keep the garbage collector from walking what is here to stay.

    SGLang collects each time that it flushes its caches, after every push: 0.4 s without this.
    """
    gc.collect()
    gc.freeze()


def _support_triton(original: Callable[[str], bool], backend: str) -> bool:
    """Return that Triton cannot be used with our backend; SGLang concludes it from the name."""
    return backend != ATTENTION_BACKEND and original(backend)


def _experts(original: Callable[..., Any], *args: Any) -> Any:
    from engine.platform.sglang_cpu.experts import grouped_experts

    return grouped_experts(original, *args)
