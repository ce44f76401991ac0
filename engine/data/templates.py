"""Prompt templates for base models, which know no chat."""

from __future__ import annotations

# DeepSeek-R1 (arXiv 2501.12948 v1), table 1, word for word, the full stop after the question
# included. The paper's word "prompt", which the question replaces, is the one slot.
_R1_ZERO = (
    "A conversation between User and Assistant. The user asks a question, and the Assistant solves"
    " it. The assistant first thinks about the reasoning process in the mind and then provides the"
    " user with the answer. The reasoning process and answer are enclosed within <think> </think>"
    " and <answer> </answer> tags, respectively, i.e., <think> reasoning process here </think>"
    " <answer> answer here </answer>. User: {prompt}. Assistant:"
)
_PLAIN = "{prompt}"
_TEMPLATES = {"plain": _PLAIN, "r1_zero": _R1_ZERO}


CHAT_TEMPLATES = {
    "plain": "{% for message in messages %}{{ message['content'] }}{% endfor %}",
    "r1_zero": _R1_ZERO.replace("{prompt}", "{{ messages[-1]['content'] }}"),
}
"""Each template as the Jinja text of a model folder's ``chat_template.jinja``."""


def apply_template(name: str, prompt: str) -> str:
    """Return the text to tokenize for a question.

    Args:
        name: ``plain`` (the question as it is) or ``r1_zero`` (the template of DeepSeek-R1-Zero).
            The configuration admits no other; KeyError here.
        prompt: the question. Braces in it are left alone.
    """
    return _TEMPLATES[name].replace("{prompt}", prompt)
