"""Fixes for parts of published code that transformers 5.12 leaves out, SGLang not.

DeepSeek-V2: its experts' router reads ``num_experts``, which its mixture lacks, where experts are
in groups; and its attention leaves out the factor that YaRN with ``mscale_all_dim`` puts on the
scores. From some version on (5.17 is one) transformers has both: what is right already stays as it
is. DeepSeek-R1-0528-Qwen3-8B: YaRN's ``attn_factor`` (``engine.models.rope_settings``).
"""

from __future__ import annotations

from torch import nn
from transformers.models.deepseek_v2.modeling_deepseek_v2 import DeepseekV2Attention, DeepseekV2Moe
from transformers.models.deepseek_v3.modeling_deepseek_v3 import yarn_get_mscale


def mend(model: nn.Module) -> None:
    """Make a new model of transformers compute what its published code computes, in place."""
    for module in model.modules():
        if isinstance(module, DeepseekV2Attention):
            rope = module.config.rope_parameters
            if rope["rope_type"] == "yarn" and rope.get("mscale_all_dim"):
                mscale = yarn_get_mscale(rope["factor"], rope["mscale_all_dim"])
                module.scaling = module.qk_head_dim**-0.5 * mscale**2
        if isinstance(module, DeepseekV2Moe):
            module.num_experts = module.experts.num_experts
        if hasattr(module, "attention_scaling"):  # a rotary embedding
            rope = module.config.rope_parameters
            if rope["rope_type"] == "yarn":
                module.attention_scaling *= rope.get("attn_factor") or 1.0
