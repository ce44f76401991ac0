"""Print the token ids that transformers and SGLang give texts: a program for a process of its own.

``python reference_tokenizers.py`` reads ``{"folders": [...], "texts": [...]}`` and writes for each
folder the ids by ``auto`` (AutoTokenizer), ``file`` (tokenizer.json alone), ``server`` (SGLang).
"""

from __future__ import annotations

import json
import logging
import sys

from engine.platform.sglang_cpu import imports


def main() -> None:
    imports.install()  # before transformers looks for packages that only stand in
    from sglang.srt.utils.hf_transformers.tokenizer import get_tokenizer
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    logging.disable(logging.CRITICAL)
    asked = json.load(sys.stdin)
    found = []
    for folder in asked["folders"]:
        tokenizers = {
            "auto": AutoTokenizer.from_pretrained(folder),
            "file": PreTrainedTokenizerFast.from_pretrained(folder),
            "server": get_tokenizer(folder),
        }
        found.append(
            {
                name: [one.encode(text) for text in asked["texts"]]
                for name, one in tokenizers.items()
            }
        )
    print(json.dumps(found))


if __name__ == "__main__":
    main()
