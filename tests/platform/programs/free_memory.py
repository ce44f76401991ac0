"""What SGLang finds for its cache if others take nine tenths of the memory while it starts.

``free_memory.py FRACTION``: prints bytes, or fails as the server would. Only the reading of the
machine's memory is replaced.
"""

from __future__ import annotations

import sys
from types import SimpleNamespace
from unittest import mock

from engine.platform.sglang_cpu import imports


def main(fraction: float) -> None:
    """Print the bytes that are left where 10 GiB were free at first, and 1 GiB still is."""
    imports.install()
    from sglang.srt.mem_cache import kv_cache_configurator as configurator

    schedule = SimpleNamespace(mem_fraction_static=fraction)
    alone = SimpleNamespace(world_size=1, cpu_group=None)
    text_only = SimpleNamespace(mm_feature_transport=None)
    server = SimpleNamespace(
        device="cpu",
        gpu_id=0,
        mambaish_config=None,
        model_config=SimpleNamespace(is_multimodal=False),
    )
    with (
        mock.patch.object(configurator, "get_available_gpu_memory", lambda *_, **__: 1.0),
        mock.patch.object(configurator, "get_schedule", lambda: schedule),
        mock.patch.object(configurator, "get_world_group", lambda: alone),
        mock.patch.object(configurator, "get_mm", lambda: text_only),
    ):
        profile = configurator.KVCacheConfigurator._profile_available_bytes
        print(profile(server, pre_model_load_memory=10.0))


if __name__ == "__main__":
    main(float(sys.argv[1]))
