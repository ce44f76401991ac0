"""Write clean traces of the chain task: data for supervised fine-tuning.

    python -m recipes.chain_task.traces FILE [--count N] [--seed S]

JSON lines with ``prompt`` and ``response``: problems that are not held out, and the full trace of
each in one language, every result stated, without a slip.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from random import Random

from engine.errors import clear_errors
from engine.platform.files import replace_text
from recipes.chain_task.answers import full_trace
from recipes.chain_task.problems import ProblemsConfig, different_problems
from recipes.chain_task.vocabulary import EOS, LANGUAGES


def write_traces(file: Path, count: int, seed: int) -> None:
    """Write ``count`` different problems with their traces; languages take turns at random.

    Raises:
        RunError: there are not so many problems, or the file cannot be written.
    """
    problems = different_problems(ProblemsConfig(), held_out=False, count=count, seed=seed)
    draw = Random(f"languages of traces, seed {seed}").random
    lines = []
    for problem in problems:
        words = full_trace(problem, LANGUAGES[int(draw() * 2)])
        assert words[-1] == EOS  # the reader of conversations adds the ending token itself
        prompt, response = " ".join(problem.words), " ".join(words[:-1])
        lines.append(json.dumps({"prompt": prompt, "response": response}, ensure_ascii=False))
    replace_text(file, "".join(line + "\n" for line in lines))


def main() -> None:
    """Command line; see the module's docstring."""
    parser = argparse.ArgumentParser(
        prog="python -m recipes.chain_task.traces", description="Write clean traces as JSON lines."
    )
    parser.add_argument("file", type=Path, help="where to write them")
    parser.add_argument("--count", type=int, default=4000, help="traces (default: %(default)s)")
    parser.add_argument(
        "--seed", type=int, default=1, help="of the problems (default: %(default)s)"
    )
    options = parser.parse_args()
    write_traces(options.file, options.count, options.seed)
    print(f"{options.count} traces in {options.file}")


if __name__ == "__main__":
    with clear_errors():
        main()
