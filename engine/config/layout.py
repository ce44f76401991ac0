"""Section ``layout``: how the trainer's processes share the model and the data."""

from __future__ import annotations

from pydantic import Field, ValidationInfo, field_validator

from engine.config.section import Section


class LayoutConfig(Section):
    """Trainer processes and the parallel dimensions they form."""

    processes: int = Field(ge=1, description="trainer processes, one per GPU (or per CPU core)")
    tp: int = Field(1, ge=1, description="tensor parallel size: processes that share each layer")
    pp: int = Field(1, ge=1, description="pipeline parallel size: stages the layers are cut into")
    ep: int = Field(1, ge=1, description="expert parallel size: processes that share the experts")

    @property
    def dp(self) -> int:
        """Data parallel size: copies of the dense parameters, each with its share of a batch."""
        return self.processes // (self.tp * self.pp)

    @field_validator("pp")
    @classmethod
    def _model_copies_fill_the_processes(cls, pp: int, info: ValidationInfo) -> int:
        processes, tp = info.data.get("processes"), info.data.get("tp")
        if processes and tp and processes % (tp * pp):
            raise ValueError(
                f"expected tp * pp to divide processes, found tp * pp = {tp * pp} and "
                f"processes = {processes}; {_nearest(processes, tp * pp)}"
            )
        return pp

    @field_validator("ep")
    @classmethod
    def _expert_groups_fill_a_stage(cls, ep: int, info: ValidationInfo) -> int:
        # An expert lives on ep of the processes of one pipeline stage, whatever tp is there.
        processes, pp = info.data.get("processes"), info.data.get("pp")
        if processes and pp and processes % pp == 0 and (processes // pp) % ep:
            stage = processes // pp
            possible = [size for size in range(1, stage + 1) if stage % size == 0]
            raise ValueError(
                f"expected a divisor of processes / pp = {stage}, found {ep}; nearest possible: "
                f"{min(possible, key=lambda size: abs(size - ep))}"
            )
        return ep


def _nearest(processes: int, needed: int) -> str:
    below = processes // needed * needed
    choices = f"{below} or {below + needed}" if below else str(needed)
    return f"nearest possible processes: {choices}"
