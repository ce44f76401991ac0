"""Save a run's checkpoints while training goes on, and find, verify and load them."""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from engine.checkpoint import loading, manifest, optimizer_state, random_state, training_state
from engine.checkpoint.files import Files, Planning, Written
from engine.checkpoint.folders import CheckpointFolders
from engine.checkpoint.forked_writer import Done, Failed, ForkedWriter, run_here
from engine.checkpoint.training_state import TrainingState
from engine.config.trainer import CheckpointConfig
from engine.errors import RunError

PAUSE_SECONDS = 0.01
"""Between two looks at a save that is waited for."""


@dataclass(frozen=True)
class Save:
    """A checkpoint being written."""

    step: int
    files: Files
    writing: ForkedWriter[Written] | Done[Written] | Failed

    def outcome(self) -> Done[Written] | Failed | None:
        """Return the outcome of this rank's writing; None while it goes on."""
        return self.writing.outcome() if isinstance(self.writing, ForkedWriter) else self.writing


class Checkpoints:
    """The checkpoints of a run, as one trainer rank sees them.

    Every method is called by all ranks at the same point of their programs. At most one save is in
    flight. A failure on any rank is raised on all of them, as the same sentence.
    """

    def __init__(self, root: Path, config: CheckpointConfig, seed: int) -> None:
        """Args:
        root: the run's ``checkpoints/`` folder, on a file system that all ranks share.
        seed: the run's; see :func:`engine.checkpoint.random_state.reseed`.
        """
        self.folders = CheckpointFolders(root, config.keep)
        self._config, self._seed = config, seed
        self._planning = Planning()
        self._in_flight: Save | None = None
        self._untried: int | None = None  # step of a save whose weights no update has begun with
        self._surplus = False  # whether there are checkpoints beyond ``keep``
        self._verified: set[int] = set()

    def save(self, step: int, training: TrainingState, progress: dict[str, Any]) -> None:
        """Begin the checkpoint of ``step``; the one before it is finished first.

        When this returns, ``training`` may change again. With ``checkpoint.asynchronous`` the
        checkpoint becomes whole in a later :meth:`poll`, otherwise before this returns. The ones
        before it stay, whatever ``checkpoint.keep`` says, until :meth:`trained_on`.

        Args:
            step: the step that the next start begins with.
            progress: plain JSON values that the recipe wants back: weight version, data position,
                counters.

        Raises:
            RunError: this or the previous checkpoint cannot be written; earlier ones stay whole.
        """
        self.finish()
        folder = self._on_first_rank(lambda: self.folders.begin(step), f"checkpoint of step {step}")
        self._untried = step
        state = training_state.sharded(training, with_random=True)
        record = {
            "step": step,
            "layout": random_state.layout(),
            "updates": optimizer_state.updates(training.optimizer),
            "progress": progress,
        }
        files = self._planning.plan(state, record, folder)
        files.take_snapshot()
        if self._config.asynchronous:
            child = ForkedWriter(files.write, self._config.write_seconds)
            self._in_flight = Save(step, files, child)
        else:
            self._in_flight = Save(step, files, run_here(files.write))
            self.finish()

    def poll(self) -> None:
        """Make the checkpoint whole if every rank has written its files; to be called once a step.

        Raises:
            RunError: some rank could not write them. What it wrote is gone, earlier checkpoints
                stay whole.
        """
        if self._in_flight is None:
            return
        outcome = self._in_flight.outcome()
        seen = torch.tensor(
            [outcome is None, isinstance(outcome, Failed)],
            dtype=torch.int32,
            device=torch.cuda.current_device(),
        )
        dist.all_reduce(seen)
        running, failed = seen.tolist()
        if failed:
            self._give_up(outcome)
        elif not running:
            assert isinstance(outcome, Done)
            self._complete(outcome.value)

    def trained_on(self) -> None:
        """Note that the newest checkpoint is good: its weights gave a finite loss and gradient.

        Only now do older ones beyond ``checkpoint.keep`` go.

        Raises:
            RunError: they cannot be deleted.
        """
        self._untried = None
        if self._surplus:
            self._on_first_rank(self.folders.retain, "deleting old checkpoints")
            self._surplus = False

    def drop_untried(self) -> None:
        """Delete the newest checkpoint if :meth:`trained_on` was not called since it was saved.

        A save that is in flight is given up with it; if it is a good one, it is finished.

        Raises:
            RunError: see :meth:`poll`; or it cannot be deleted.
        """
        step, self._untried = self._untried, None
        if step is None:
            self.finish()
            return
        if (save := self._in_flight) is not None:
            self._in_flight = None
            if isinstance(save.writing, ForkedWriter):
                save.writing.kill()
            dist.barrier()  # no rank writes any more
            self._on_first_rank(self.folders.clean, "deleting a checkpoint half written")
        else:
            self._on_first_rank(
                partial(self.folders.remove, step), f"deleting the checkpoint of step {step}"
            )

    def finish(self) -> None:
        """Wait until no save is in flight.

        Raises:
            RunError: see :meth:`poll`.
        """
        while self._in_flight is not None:
            self.poll()
            if self._in_flight is not None:
                time.sleep(PAUSE_SECONDS)

    def latest(self) -> int | None:
        """Return the step of the newest checkpoint that verifies; None where none was ever written.

        Newer ones that are damaged are set aside as ``*.damaged``, with a warning on stderr.

        Raises:
            RunError: there are checkpoints, but all are damaged. To start again from nothing, a
                person has to move them away.
        """
        steps = self._on_first_rank(self._tidied_steps, "looking for the last checkpoint")
        damaged: list[tuple[int, str]] = []
        for step in reversed(steps):
            if (problem := self._verify(step)) is None:
                self._pass_over(damaged, step)
                return int(step)
            damaged.append((step, problem))
        if damaged:
            raise RunError(
                f"no checkpoint in {self.folders.root} is whole: {damaged[0][1]}; "
                f"move the folder away to start from the beginning"
            )
        return None

    def load(self, step: int, training: TrainingState) -> dict[str, Any]:
        """Restore ``training`` and the random generators as ``save`` found them.

        The layout may be another one than that of ``save``; the random generators are then seeded
        afresh, which rank 0 says.

        Returns:
            The recipe's ``progress``.

        Raises:
            RunError: the checkpoint is damaged, another step's, or belongs to another model.
        """
        if step not in self._verified and (problem := self._verify(step)) is not None:
            raise RunError(f"checkpoint of step {step} cannot be loaded: {problem}")
        if says := self.folders.misnamed(step):
            raise RunError(says)
        return loading.load(self.folders.folder(step), training, self._seed)

    def _give_up(self, outcome: Done[Written] | Failed | None) -> None:
        """Stop the writing on every rank and tell all of them why."""
        save = self._in_flight
        assert save is not None
        if isinstance(save.writing, ForkedWriter):
            save.writing.kill()
        mine = outcome.reason if isinstance(outcome, Failed) else None
        reasons: list[str | None] = [None] * dist.get_world_size()
        dist.all_gather_object(reasons, mine)
        rank, why = next((rank, why) for rank, why in enumerate(reasons) if why is not None)
        self._discard(save, f"{why}, on rank {rank}" if len(reasons) > 1 else str(why))

    def _complete(self, written: Written) -> None:
        """Give the checkpoint, which all ranks have written, its index, manifest and name."""
        save = self._in_flight
        assert save is not None
        all_written: list[Any] = [None] * dist.get_world_size()
        dist.gather_object(written, all_written if dist.get_rank() == 0 else None)
        failure: list[str | None] = [None]
        if dist.get_rank() == 0:
            outcome = run_here(partial(self._make_whole, save, all_written))
            failure = [outcome.reason if isinstance(outcome, Failed) else None]
        dist.broadcast_object_list(failure)
        if failure[0] is not None:
            self._discard(save, failure[0])
        self._in_flight = None
        self._surplus = self._untried is not None

    def _make_whole(self, save: Save, written: list[Written]) -> None:
        folder = save.files.folder
        manifest.write(folder, save.files.finish(written))
        self.folders.commit(save.step, folder)
        if self._untried is None:  # training went on from it while it was written
            self.folders.retain()

    def _discard(self, save: Save, why: str) -> None:
        self._in_flight = None
        dist.barrier()  # no rank writes any more
        if dist.get_rank() == 0:
            run_here(self.folders.clean)
        dist.barrier()
        raise RunError(
            f"the checkpoint of step {save.step} cannot be written to {self.folders.root}: {why}; "
            f"the checkpoints before it are whole"
        )

    def _verify(self, step: int) -> str | None:
        """Return what is wrong with the checkpoint of ``step``; each rank reads a part of it."""
        problem = loading.problem(self.folders.folder(step))
        if problem is None:
            self._verified.add(step)
        return problem

    def _tidied_steps(self) -> list[int]:
        self.folders.clean()
        return self.folders.steps()

    def _pass_over(self, damaged: list[tuple[int, str]], step: int) -> None:
        for newer, problem in damaged:
            aside = self._on_first_rank(
                partial(self.folders.quarantine, newer), f"the damaged checkpoint of step {newer}"
            )
            loading.say(
                f"the checkpoint of step {newer} is damaged: {problem}; it now lies in {aside}, "
                f"and the run goes on from step {step}"
            )

    def _on_first_rank(self, function: Any, what: str) -> Any:
        """Return on all ranks what ``function`` returns on rank 0; its OSError becomes RunError."""
        answer: list[Any] = [run_here(function) if dist.get_rank() == 0 else None]
        dist.broadcast_object_list(answer)
        if isinstance(answer[0], Failed):
            raise RunError(f"{what}: {self.folders.root} does not allow it: {answer[0].reason}")
        return answer[0].value
