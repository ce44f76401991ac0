"""``python -m launchers.local recipes.zero CONFIG [key=value ...]`` runs a recipe on this machine.

Configuration, input files, run folder, ports and GPUs are checked before the first process starts;
all processes of the run start and end together. Exit status: 0 when the run is complete, 1 when it
failed, 130 after Ctrl-C, 143 after SIGTERM, 129 after SIGHUP.
"""

from __future__ import annotations

import argparse
import importlib
import os
import re
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

from pydantic import BaseModel

from engine.config.reader.loading import load
from engine.errors import RunError, clear_errors
from engine.platform.parent_death import die_with_parent
from engine.preflight.preflight import Preflight
from engine.run import result
from engine.run.roles import Role
from engine.run.run_checks import checks
from launchers import log_tail, run_folder
from launchers.failure import Death, Shortage, sentence
from launchers.guardian import GUARDIAN_DIED, run_guarded
from launchers.last_words import last_words
from launchers.machine import check_machine, count_gpus
from launchers.memory_kills import count_memory_kills
from launchers.placing import place
from launchers.ports import LoopbackPorts
from launchers.process import Process
from launchers.supervisor import Ending, Failed, Finished, Stopped, Supervisor

_GOES_ON = "the next start of the same command goes on from the last checkpoint"


class Recipe(Protocol):
    """The parts of a recipe module that a launcher uses.

    Of a ``Config`` it reads ``run_dir``, a path, and where there is one the section ``training``.
    """

    Config: type[BaseModel]
    roles: Callable[[Any], Sequence[Role]]


def main() -> None:
    """Entry point; see the module's docstring."""
    with clear_errors():
        try:
            status = launch(sys.argv[1:])
        except KeyboardInterrupt:  # while checking: nothing has been started
            status = 128 + signal.SIGINT
    raise SystemExit(status)


def launch(arguments: Sequence[str]) -> int:
    """Run the recipe that the command line ``arguments`` name; return the exit status.

    Raises RunError when the run cannot be started.
    """
    parsed = _parser().parse_intermixed_args(arguments)
    if parsed.stop_with_parent:
        die_with_parent(os.getppid(), signal.SIGTERM)
    recipe = find_recipe(parsed.recipe)
    preflight = Preflight(_say, checks(parsed.recipe, recipe.Config))
    config: Any = load(recipe.Config, parsed.config, parsed.overrides, look=preflight)
    run_dir: Path = config.run_dir
    if result.is_complete(parsed.recipe, config):
        _say(f"run folder {run_dir} is complete already: nothing to start")
        return 0
    check_machine(config)
    run_folder.lock(run_dir)
    if result.is_complete(parsed.recipe, config):  # meanwhile, by the launcher that had the lock
        _say(f"run folder {run_dir} is complete already: nothing to start")
        return 0
    file = run_dir / "config.yaml"
    roles = recipe.roles(config)
    gpus = count_gpus() if any(role.gpus for role in roles) else 0
    processes = place(parsed.recipe, file, roles, LoopbackPorts(), gpus)
    for difference in run_folder.write_config(config, run_dir):
        _say(f"this run folder was started with another configuration: {difference}")
    logs = run_folder.make_logs(run_dir)
    names = ", ".join(process.name for process in processes)
    _say(f"run folder {run_dir}: starting {names}; their logs are in {logs}")
    return run_guarded(lambda: _supervise(processes, logs))


def find_recipe(name: str) -> Recipe:
    """Import recipe module ``name``. Raises RunError when there is none of that name."""
    try:
        module = importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise  # the recipe exists; something that it imports does not
        raise RunError(f"no recipe {name!r}; expected a module such as recipes.zero") from None
    if not (hasattr(module, "Config") and hasattr(module, "roles")):
        raise RunError(f"module {name!r} is not a recipe: it has no Config and roles()")
    return module


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m launchers.local",
        description="Run a recipe on this machine; a second start of a run folder resumes it.",
    )
    parser.add_argument("recipe", help="recipe module, for example recipes.zero")
    parser.add_argument("config", type=Path, help="YAML file with the recipe's configuration")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="e.g. optimizer.lr=1e-4")
    parser.add_argument(
        "--stop-with-parent",
        action="store_true",
        help="stop the run when the process that started this one ends (for scripts)",
    )
    return parser


def _supervise(processes: Sequence[Process], logs: Path) -> int:
    """Run ``processes`` to their end, say how it went, and return the exit status."""
    supervisor = Supervisor(logs)
    before = count_memory_kills()
    try:
        ending = supervisor.run(processes, _announce)
        for survivor in supervisor.survivors:
            _say(f"{survivor} does not end, not even by SIGKILL: it hangs in the kernel")
        shortage = count_memory_kills().since(before)
        return _report(ending, logs, [process.name for process in processes], shortage)
    except RunError as error:
        return _fail(str(error))


def _announce(ending: Ending) -> None:
    """Print how the run ends, before the processes are stopped, which may take some seconds."""
    match ending:
        case Stopped(signal.SIGINT):
            _say("stopping (Ctrl-C again kills at once)")
        case Failed(cause):
            _say(f"{cause.name} has ended; stopping the other processes")


def _report(ending: Ending, logs: Path, names: Sequence[str], shortage: Shortage | None) -> int:
    match ending:
        case Finished():
            return 0
        case Stopped(signum):
            by = {signal.SIGINT: "Ctrl-C", GUARDIAN_DIED: "the death of its launcher"}
            _say(f"stopped by {by.get(signum, signum.name)}; {_GOES_ON}")
            return 128 + signum
        case Failed(cause, others):
            for death in others:
                _say(f"also ended: {sentence(death, shortage)}")
            log = logs / f"{cause.name}.log"
            lines = log_tail.tail(log)
            _say(f"all processes are stopped; the end of {log}:")
            print("".join(f"    {line}\n" for line in lines), end="", file=sys.stderr)
            said = _words_of_accused(cause, logs, names)
            return _fail(f"{sentence(cause, shortage, said)} (log: {log})")


def _words_of_accused(cause: Death, logs: Path, names: Sequence[str]) -> dict[str, str]:
    """Return the last words of the processes that the words of ``cause`` name, by name."""
    accused = [
        name
        for name in names
        if name != cause.name and re.search(rf"\b{re.escape(name)}\b", cause.words or "")
    ]
    said = {name: last_words(log_tail.latest(logs / f"{name}.log")) for name in accused}
    return {name: words for name, words in said.items() if words}


def _fail(message: str) -> int:
    print(f"error: {message}", file=sys.stderr, flush=True)
    return 1


def _say(message: str) -> None:
    print(f"launcher: {message}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
