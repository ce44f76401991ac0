"""Convert checkpoints between Hugging Face and megatron, and verify that nothing was lost.

  hf-to-megatron  a Hugging Face folder becomes a checkpoint that trainer ranks load in any layout
  megatron-to-hf  a checkpoint, or a training run's, becomes a Hugging Face folder
  reshard         a checkpoint becomes one whose files are cut for another layout
  verify          two checkpoints of any kind hold the same model, tensor by tensor
  inspect         family, size, dtypes and files of a checkpoint

Every tensor of the source is used once and every tensor of the target is written once; each file is
read again from the disk and its tensors' digests are compared with the source's. The exit status is
0 only when all of that holds; otherwise one sentence names the file or tensor. A target appears
under its name only when it is whole. An interrupted conversion leaves NAME.partial; the same
command goes on from there.

examples:
  python -m tools.convert hf-to-megatron --from Qwen3-30B-A3B --to qwen3-mcore --tp 2 --pp 2 --ep 8
  python -m tools.convert megatron-to-hf runs/zero --step 200 --dtype bfloat16
  python -m tools.convert verify --from Qwen3-30B-A3B --to qwen3-mcore
  python -m tools.convert inspect qwen3-mcore

A recipe needs no conversion: its key `model` takes a Hugging Face folder as it is.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.errors import RunError, clear_errors

if TYPE_CHECKING:  # torch and the families are imported when there is something to do
    from tools.convert.sources import Source
    from tools.convert.targets import Target

DEFAULT_WORKERS = min(8, os.cpu_count() or 1)


def main(arguments: list[str] | None = None) -> None:
    """Run the subcommand that the command line names."""
    options = _parser().parse_args(arguments)
    try:
        with clear_errors():
            options.run(options)
    except KeyboardInterrupt:
        more = "; the same command goes on where this one stopped"
        print(f"interrupted{more if options.run is _convert else ''}", file=sys.stderr)
        sys.exit(130)


def _convert(options: argparse.Namespace) -> None:
    from tools.convert.conversion import Conversion
    from tools.convert.leftovers import refuse_existing
    from tools.convert.opening import checkpoint_of_run, open_source, place_in_run
    from tools.convert.progress import bar

    step, named = getattr(options, "step", None), options.source or options.run_dir
    if options.to is None:  # found once: the run may go on and save another
        named, step = checkpoint_of_run(named, step), None
    to = options.to or place_in_run(named)
    refuse_existing(to)  # before everything is read
    source = open_source(named, step, workers=options.workers)
    if source.kind != options.kind:
        kinds = {"megatron": "a megatron checkpoint", "hugging_face": "a Hugging Face folder"}
        raise RunError(
            f"--from: expected {kinds[options.kind]}, found {kinds[source.kind]} at {source.path}"
        )
    target = options.target(source, options)
    begun = time.monotonic()
    with bar(source, options.command) as progress:
        record = Conversion(source, target, to, options.workers, progress).run()
    seconds = time.monotonic() - begun
    size = sum(part.bytes for m in source.maps.values() for part in source.describe(m))
    rounded = record["options"].get("dtype")
    print(
        f"{to}: {len(record['tensors'])} tensors, each written once and equal to its source"
        f"{f' rounded to {rounded}' if rounded else ''}; {size / 1e9:.3f} GB in {seconds:.1f} s, "
        f"{size / 1e9 / seconds:.2f} GB/s"
    )


def _verify(options: argparse.Namespace) -> None:
    from tools.convert.opening import open_source
    from tools.convert.progress import bar
    from tools.convert.verification import verify

    prompts = _prompts(options.prompts)
    first = open_source(options.source, workers=options.workers)
    second = open_source(options.to, workers=options.workers)
    with bar(first, "verify") as progress:
        found = verify(first, second, options.workers, progress)
    how = f" after rounding to {found.dtype}" if found.dtype else ""
    record = "; its own record says the same" if found.recorded else ""
    print(f"{options.to}: {found.tensors} tensors equal those of {options.source}{how}{record}")
    if options.logits:
        from tools.convert.logits import LIMIT, compare_logits, random_prompts

        words = int(first.companions.config["vocab_size"])
        compared = compare_logits(first, second, prompts or random_prompts(words))
        said = (
            f"logits of {compared.tokens} tokens differ by {compared.worst:.1e} at most, "
            f"their spread is {compared.spread:.2g}"
        )
        if not compared.equal:
            raise RunError(f"{said}; expected a difference below {LIMIT:g} of it")
        print(said)


def _prompts(file: Path | None) -> list[list[int]] | None:
    if file is None:
        return None
    try:
        found = json.loads(file.read_text())
    except (OSError, ValueError) as error:
        raise RunError(f"--prompts: cannot read {file}: {error}") from None
    listed = isinstance(found, list) and all(isinstance(prompt, list) for prompt in found)
    if not listed or not all(type(token) is int for prompt in found for token in prompt):
        raise RunError(f"--prompts: expected lists of token ids in {file}, such as [[3, 7], [11]]")
    return found or None


def _inspect(options: argparse.Namespace) -> None:
    from tools.convert.inspection import lines
    from tools.convert.opening import open_source

    for line in lines(open_source(options.folder, options.step, digests=False)):
        print(line)


def _megatron_target(source: Source, options: argparse.Namespace) -> Target:
    from tools.convert.cuts import Cuts
    from tools.convert.megatron_target import MegatronTarget

    return MegatronTarget(source, Cuts(options.tp, options.pp, options.ep), _file_bytes(options))


def _hugging_face_target(source: Source, options: argparse.Namespace) -> Target:
    from tools.convert.hugging_face_target import HuggingFaceTarget
    from tools.convert.precision import Precision

    return HuggingFaceTarget(source, Precision(options.dtype), _file_bytes(options))


def _file_bytes(options: argparse.Namespace) -> int:
    return int(options.file_size * 1e9)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tools.convert",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, kind, target, text in (
        ("hf-to-megatron", "hugging_face", _megatron_target, "a Hugging Face folder to megatron"),
        ("megatron-to-hf", "megatron", _hugging_face_target, "megatron to a Hugging Face folder"),
        ("reshard", "megatron", _megatron_target, "a checkpoint in files for another layout"),
    ):
        command = commands.add_parser(name, help=text, description=text)
        command.set_defaults(run=_convert, kind=kind, target=target)
        if kind == "megatron":
            _step(command)
        if target is _megatron_target:
            _places(command)
            _sizes(command)
        else:
            _places_or_run(command)
            command.add_argument(
                "--dtype",
                choices=("float32", "bfloat16", "fp8"),
                help="of the written weights; fp8: in blocks, as DeepSeek-V3 is published; "
                "default: as they are, bit for bit",
            )
        command.add_argument(
            "--file-size", type=_gigabytes, default=5.0, metavar="GB", help="largest file"
        )
    _add_verify(commands)
    inspect = commands.add_parser("inspect", help="what a checkpoint is")
    inspect.set_defaults(run=_inspect)
    inspect.add_argument("folder", type=Path, help="a checkpoint of either kind, or a run's folder")
    _step(inspect)
    return parser


def _add_verify(commands: Any) -> None:
    verify = commands.add_parser("verify", help="two checkpoints hold the same model")
    verify.set_defaults(run=_verify)
    _places(verify, to="the checkpoint that is looked at, of either kind")
    verify.add_argument(
        "--logits", action="store_true", help="run both models in float32, too (both in memory)"
    )
    verify.add_argument(
        "--prompts", type=Path, help="JSON list of lists of token ids; default: random ones"
    )


def _places(command: argparse.ArgumentParser, to: str = "a folder that does not exist yet") -> None:
    command.add_argument("--from", dest="source", type=Path, required=True, help="what to read")
    command.add_argument("--to", type=Path, required=True, help=to)
    _workers(command)


def _places_or_run(command: argparse.ArgumentParser) -> None:
    source = command.add_mutually_exclusive_group(required=True)
    source.add_argument("run_dir", metavar="RUN_DIR", nargs="?", type=Path, help="a training run")
    source.add_argument("--from", dest="source", type=Path, help="a run, or one checkpoint")
    command.add_argument(
        "--to",
        type=Path,
        help="a folder that does not exist yet; default: RUN_DIR/hugging_face/STEP",
    )
    _workers(command)


def _workers(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--workers",
        type=_count,
        default=DEFAULT_WORKERS,
        help="files at once; each holds about four copies of its largest tensor in memory "
        "(default: %(default)s)",
    )


def _step(command: argparse.ArgumentParser) -> None:
    command.add_argument("--step", type=int, help="of a run's checkpoints; default: the newest")


def _sizes(command: argparse.ArgumentParser) -> None:
    for name, text in (
        ("tp", "pieces of each split tensor"),
        ("pp", "pipeline stages, with files of their own"),
        ("ep", "shares of the experts, with files of their own"),
    ):
        command.add_argument(f"--{name}", type=_count, default=1, help=f"{text} (default: 1)")


def _count(text: str) -> int:
    if (value := int(text)) < 1:
        raise argparse.ArgumentTypeError(f"expected a number from 1, found {text}")
    return value


def _gigabytes(text: str) -> float:
    if not (value := float(text)) > 0:
        raise argparse.ArgumentTypeError(f"expected a size above 0, found {text}")
    return value


if __name__ == "__main__":
    main()
