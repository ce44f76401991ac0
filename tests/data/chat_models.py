"""Small tokenizers with chat templates in the manner of several model families."""

from __future__ import annotations

import json
from pathlib import Path

from tokenizers import AddedToken, Tokenizer, decoders, pre_tokenizers, processors
from tokenizers.models import BPE, WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from tokenizers.trainers import BpeTrainer

CHATML = """\
{%- if messages[0].role != 'system' %}{{ '<|im_start|>system\\nBe brief.<|im_end|>\\n' }}{% endif %}
{%- for message in messages %}
    {{- '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}
"""
"""A system message by default, as Qwen2.5."""

REASONING = """\
{%- set last = namespace(user=0) %}
{%- for message in messages %}
    {%- if message.role == 'user' %}{% set last.user = loop.index0 %}{% endif %}
{%- endfor %}
{%- for message in messages %}
    {%- set content = message.content %}
    {%- if message.role == 'assistant' and '</think>' in content and loop.index0 < last.user %}
        {%- set content = content.split('</think>')[-1].lstrip('\\n') %}
    {%- elif message.role == 'assistant' and '</think>' not in content and loop.last %}
        {%- set content = '<think>\\n\\n</think>\\n\\n' + content %}
    {%- endif %}
    {{- '<|im_start|>' + message.role + '\\n' + content + '<|im_end|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
    {%- if enable_thinking is defined and not enable_thinking %}{{ '<think></think>' }}{% endif %}
{%- endif %}
"""
"""Earlier thoughts are dropped, missing ones of the last answer are put in, as Qwen3."""

OPENED = """\
{{ bos_token }}{% set ns = namespace(system='') %}
{%- for message in messages %}
    {%- if message['role'] == 'system' %}{% set ns.system = message['content'] %}{% endif %}
{%- endfor %}
{{- ns.system }}
{%- for message in messages %}
    {%- if message['role'] == 'user' %}{{ '<|User|>' + message['content'] }}{% endif %}
    {%- if message['role'] == 'assistant' %}
        {{- '<|Assistant|>' + message['content'].split('</think>')[-1] + eos_token }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|Assistant|><think>\\n' }}{% endif %}
"""
"""The thoughts of every answer are dropped and the prompt opens new ones, as DeepSeek-R1."""

HEADERS = """\
{{- bos_token }}
{%- if not date_string is defined %}{% set date_string = strftime_now('%d %b %Y') %}{% endif %}
{{- '<|start|>system<|end|>\\n\\nToday: ' + date_string + '\\n' + (tools | tojson) + '<|eot|>' }}
{%- for message in messages %}
    {{- '<|start|>' + message['role'] + '<|end|>\\n\\n' + message['content'] | trim + '<|eot|>' }}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|start|>assistant<|end|>\\n\\n' }}{% endif %}
"""
"""A date, JSON, trimmed contents and an ending that is not the first eos, as Llama 3."""

INSTRUCT = """\
{{ bos_token }}{% for message in messages %}
{% if message.role not in ['user', 'assistant'] %}{% continue %}{% endif %}
{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}
{{ raise_exception('Roles must alternate: user, assistant, user, ...') }}
{% endif %}
{% if message['role'] == 'user' %}
{{ '[INST] ' + message['content'] + ' [/INST]' }}
{% else %}
{% generation %}{{ ' ' + message['content'] + eos_token }}{% endgeneration %}
{% endif %}
{% endfor %}
"""
"""Refuses wrong orders, marks what is generated and has loop controls, as Mixtral and SmolLM."""

TEMPLATES = {
    "chatml": CHATML,
    "reasoning": REASONING,
    "opened": OPENED,
    "headers": HEADERS,
    "instruct": INSTRUCT,
}
BOS, EOS, EOT, IM_END = "<|bos|>", "<|eos|>", "<|eot|>", "<|im_end|>"
SPECIAL = [
    BOS,
    EOS,
    EOT,
    "<|im_start|>",
    IM_END,
    "<|User|>",
    "<|Assistant|>",
    "<|start|>",
    "<|end|>",
]
ENDINGS = {"chatml": IM_END, "reasoning": IM_END, "opened": EOS, "headers": EOT, "instruct": EOS}
"""What the model writes when it has answered."""
TEXT = [
    "What is three plus four? Think aloud, then say it.",
    "<think>\nThree and four are seven.\n</think>\n\nIt is seven.",
    "The answer is 7. 答案是七。 Naïve? Not at all!",
]


def byte_level() -> Tokenizer:
    """Byte pairs as DeepSeek, Qwen and Llama 3 have them, with a bos in front of plain text."""
    tokenizer = Tokenizer(BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = BpeTrainer(
        vocab_size=340,
        special_tokens=SPECIAL,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(TEXT, trainer)
    tokenizer.add_tokens([AddedToken("<think>", normalized=False), "</think>"])
    bos = tokenizer.token_to_id(BOS)
    tokenizer.post_processor = processors.Sequence(
        [
            processors.ByteLevel(trim_offsets=False),
            processors.TemplateProcessing(single=f"{BOS} $A", special_tokens=[(BOS, bos)]),
        ]
    )
    return tokenizer


def model_folder(folder: Path, name: str, *, in_config: bool = False) -> Path:
    """A folder with config, tokenizer and the template ``name``; only weights are missing."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = byte_level()
    tokenizer.save(str(folder / "tokenizer.json"))
    eos = [tokenizer.token_to_id(token) for token in (EOS, EOT, IM_END)]
    config = {"vocab_size": 400, "eos_token_id": eos, "model_type": "deepseek_v3"}
    (folder / "config.json").write_text(json.dumps(config))
    names = {"bos_token": BOS, "eos_token": {"__type": "AddedToken", "content": EOS}}
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "added_tokens_decoder": {}, **names}
    if in_config:
        settings["chat_template"] = [
            {"name": "tool_use", "template": "tools"},
            {"name": "default", "template": TEMPLATES[name]},
        ]
    else:
        (folder / "chat_template.jinja").write_text(TEMPLATES[name])
        settings["chat_template"] = "the file comes first"
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return folder


def word_folder(folder: Path, words: list[str]) -> Path:
    """A folder whose tokenizer knows ``words`` and nothing else, as a base model without chat."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = Tokenizer(WordLevel({word: token for token, word in enumerate(words)}))
    tokenizer.pre_tokenizer = WhitespaceSplit()
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {"vocab_size": len(words), "eos_token_id": 0}
    (folder / "config.json").write_text(json.dumps(config))
    return folder
