"""Chat templates: what transformers makes of them, refusals, and the sandbox."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from chat_models import BOS, EOS, TEMPLATES, model_folder

from engine.data.chat_template import ChatTemplate, Message
from engine.data.tokenizer import Tokenizer
from engine.errors import RunError

USER: Message = {"role": "user", "content": " What is 3 + 4?\n"}
THOUGHTFUL: Message = {"role": "assistant", "content": "<think>\n3, 4: 7\n</think>\n\nSeven."}
AGAIN: Message = {"role": "user", "content": "And <b>in</b> Chinese? \"'&"}
SHORT: Message = {"role": "assistant", "content": "七 "}
SYSTEM: Message = {"role": "system", "content": "Be exact."}
CONVERSATIONS: list[list[Message]] = [
    [USER],
    [USER, THOUGHTFUL],
    [USER, THOUGHTFUL, AGAIN],
    [USER, THOUGHTFUL, AGAIN, SHORT],
    [SYSTEM, USER, SHORT, AGAIN],
]


@pytest.mark.parametrize("in_config", [False, True], ids=["file", "config"])
@pytest.mark.parametrize("name", TEMPLATES)
def test_text_and_tokens_are_those_of_transformers(tmp_path: Path, name, in_config) -> None:
    from transformers import PreTrainedTokenizerFast

    folder = model_folder(tmp_path, name, in_config=in_config)
    theirs = PreTrainedTokenizerFast.from_pretrained(folder)
    ours, tokenizer = ChatTemplate.load(folder), Tokenizer.load(folder)
    for messages in CONVERSATIONS:
        if name == "instruct" and messages[0] is SYSTEM:
            continue  # refused by both, see below
        for prompt in (False, True):
            arguments = {"conversation": messages, "add_generation_prompt": prompt}
            text = ours.render(messages, add_generation_prompt=prompt)
            assert text == theirs.apply_chat_template(**arguments, tokenize=False)
            assert tokenizer.encode(text, add_special=False) == theirs.apply_chat_template(
                **arguments, tokenize=True, return_dict=False
            )


def test_templates_differ_in_what_they_show() -> None:
    """The texts that are compared above are not all alike."""
    names = {"bos_token": BOS, "eos_token": EOS}
    shown = {
        name: ChatTemplate(text, names, name=name).render(CONVERSATIONS[2])
        for name, text in TEMPLATES.items()
    }
    assert len(set(shown.values())) == len(TEMPLATES)
    assert "3, 4: 7" in shown["chatml"] and "3, 4: 7" not in shown["reasoning"]


@pytest.mark.parametrize(
    ("decoder", "expected"), [({"added_tokens_decoder": {}}, "<|eos|>"), ({}, "<old>")]
)
def test_special_tokens_of_old_folders(tmp_path: Path, decoder: dict, expected: str) -> None:
    (tmp_path / "chat_template.jinja").write_text("{{ eos_token }}")
    settings = {"eos_token": "<|eos|>", **decoder}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))
    (tmp_path / "special_tokens_map.json").write_text('{"eos_token": {"content": "<old>"}}')
    assert ChatTemplate.load(tmp_path).render([USER]) == expected


@pytest.mark.parametrize(
    ("template", "message"),
    [
        (TEMPLATES["instruct"], "the chat template refuses it: Roles must alternate"),
        ("{{ messages[0].content + none }}", "the chat template refuses it: can only concat"),
        ("{{ messages[0].nothing.at_all }}", "the chat template refuses it: 'dict object' has no"),
        ("{{ messages.append(1) }}", "the chat template refuses it: access to attribute 'append'"),
        ("{{ ''.__class__.__mro__ }}", "the chat template refuses it: access to attribute"),
    ],
)
def test_a_refusal_has_the_templates_words(template: str, message: str) -> None:
    with pytest.raises(RunError) as error:
        ChatTemplate(template, {"bos_token": "", "eos_token": ""}, name="MODEL").render([SHORT])
    assert str(error.value).startswith(f"MODEL: {message}")


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, "expected a chat template"),
        ({"tokenizer_config.json": "{}"}, "expected a chat template"),
        ({"tokenizer_config.json": "{"}, "tokenizer_config.json: cannot read it"),
        ({"tokenizer_config.json": '{"chat_template": 3}'}, "expected a text as chat_template"),
        (
            {"tokenizer_config.json": '{"chat_template": [{"name": "rag", "template": ""}]}'},
            "expected a chat template named default among ['rag']",
        ),
        (
            {"tokenizer_config.json": json.dumps({"chat_template": {"rag": "x" * 9000}})},
            "expected a chat template named default among ['rag']",
        ),
        ({"chat_template.jinja": "{% for %}"}, "the chat template cannot be compiled"),
        ({"chat_template.jinja": "", "special_tokens_map.json": "[]"}, "expected a JSON object"),
    ],
)
def test_a_bad_folder_gets_one_clear_sentence(tmp_path: Path, files: dict, message: str) -> None:
    for name, content in files.items():
        (tmp_path / name).write_text(content)
    with pytest.raises(RunError) as error:
        ChatTemplate.load(tmp_path)
    assert message in str(error.value) and str(tmp_path) in str(error.value)


def test_neither_transformers_nor_torch_nor_pyarrow_is_imported() -> None:
    program = (
        "import sys, engine.data.chat_template, engine.data.sft_records, engine.data.sft_samples;"
        "assert not {'torch', 'transformers', 'numpy', 'pyarrow'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


@pytest.mark.parametrize("as_list", [True, False])
def test_of_several_named_templates_the_default_counts(tmp_path: Path, as_list: bool) -> None:
    named = {"tool_use": "tools", "default": "{{ messages[0].content }}"}
    several = [{"name": k, "template": v} for k, v in named.items()] if as_list else named
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"chat_template": several}))
    assert ChatTemplate.load(tmp_path).render([{"role": "user", "content": "so"}]) == "so"
