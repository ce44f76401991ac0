"""Section ``layout``: the trainer's parallel dimensions.

What each dimension splits:

- tp, tensor parallel: every layer's heads and hidden columns; sequences between layers, too.
- pp, pipeline parallel: the layers, into stages. vpp: each process holds that many stages.
- cp, context parallel: every sample, into 2 * cp chunks, so that each process gets an early and a
  late one (attention to the past is cheap early and dear late).
- ep, expert parallel: the experts. etp, expert tensor parallel: every expert's columns.
- dp, data parallel: the samples. It is what remains: processes / (tp * pp * cp).

Dense layers are on tp * pp processes, copied cp * dp times; experts on etp * ep * pp, copied
processes / (etp * ep * pp) times. Ranks count in the order tp, cp, dp, pp for dense layers and etp,
ep, copies, pp for experts, the fastest first: tensor parallel ranks are neighbours on one machine.
"""

from __future__ import annotations

from pydantic import Field, ValidationInfo, field_validator

from engine.config.layout_rules import Sizes, nearest_processes, proposal
from engine.config.section import Section


class LayoutConfig(Section):
    """Trainer processes and the parallel dimensions they form."""

    processes: int = Field(ge=1, description="trainer processes, one per GPU (or per CPU core)")
    tp: int = Field(1, ge=1, description="tensor parallel size: processes that share each layer")
    pp: int = Field(1, ge=1, description="pipeline parallel size: stages the layers are cut into")
    vpp: int = Field(
        1, ge=1, description="virtual stages of each pipeline process (interleaved schedule)"
    )
    cp: int = Field(1, ge=1, description="context parallel size: processes that share each sample")
    ep: int = Field(
        1,
        ge=1,
        description="expert parallel size: processes that share the experts; auto: all of a stage",
    )
    etp: int = Field(
        1, ge=1, description="expert tensor parallel size: processes that share each expert"
    )
    first_stage_layers: int | None = Field(
        None, ge=0, description="layers of the first stage, beside the embedding; default: even"
    )
    last_stage_layers: int | None = Field(
        None, ge=0, description="layers of the last stage, beside the output layer; default: even"
    )

    @property
    def dp(self) -> int:
        """Data parallel size: copies of the dense parameters, each with its share of a batch."""
        return self.processes // (self.tp * self.pp * self.cp)

    @property
    def expert_dp(self) -> int:
        """Copies of each expert's parameters."""
        return self.processes // (self.pp * self.ep * self.etp)

    @property
    def stages(self) -> int:
        """Pipeline stages, virtual ones included."""
        return self.pp * self.vpp

    @property
    def sizes(self) -> Sizes:
        """The dimensions without the processes' number and uneven stages."""
        return Sizes(self.tp, self.pp, self.vpp, self.cp, self.ep, self.etp)

    @property
    def sample_multiple(self) -> int:
        """Tokens; each sample of a packed row is padded to a multiple of it (cp chunks)."""
        return 2 * self.cp if self.cp > 1 else 1

    @property
    def row_multiple(self) -> int:
        """Tokens; each packed row is padded to a multiple of it, for tp ranks split its parts.

        Section ``training`` may ask for more: ``engine.config.training_layout.row_multiple``.
        """
        return self.sample_multiple * self.tp

    @property
    def microbatch_multiple(self) -> int:
        """Divisor of the number of microbatches: the interleaved schedule fills the pipeline."""
        return self.pp if self.vpp > 1 else 1

    @field_validator("vpp")
    @classmethod
    def _virtual_stages_need_a_pipeline(cls, vpp: int, info: ValidationInfo) -> int:
        if vpp > 1 and info.data.get("pp") == 1:
            raise ValueError(f"expected 1 where pp is 1, found {vpp}; nearest possible: 1, or pp=2")
        return vpp

    @field_validator("ep", mode="before")
    @classmethod
    def _auto_is_a_whole_stage(cls, ep: object, info: ValidationInfo) -> object:
        processes, pp = info.data.get("processes"), info.data.get("pp")
        return processes // pp if ep == "auto" and processes and pp else ep

    @field_validator("cp")
    @classmethod
    def _model_copies_fill_the_processes(cls, cp: int, info: ValidationInfo) -> int:
        processes, tp, pp = (info.data.get(key) for key in ("processes", "tp", "pp"))
        if processes and tp and pp and processes % (tp * pp * cp):
            wanted = Sizes(tp=tp, pp=pp, cp=cp)
            raise ValueError(
                f"expected tp * pp * cp to divide processes, found {tp} * {pp} * {cp} and "
                f"processes = {processes}; nearest possible: {proposal(processes, wanted)}, or "
                f"processes={nearest_processes(processes, tp * pp * cp)}"
            )
        return cp

    @field_validator("etp")
    @classmethod
    def _expert_groups_fill_a_stage(cls, etp: int, info: ValidationInfo) -> int:
        # An expert is on ep * etp of the processes of one pipeline stage, whatever tp is there.
        processes, pp, ep = (info.data.get(key) for key in ("processes", "pp", "ep"))
        if processes and pp and ep and processes % pp == 0 and (processes // pp) % (ep * etp):
            wanted = Sizes(pp=pp, ep=ep, etp=etp)
            raise ValueError(
                f"expected ep * etp to divide processes / pp = {processes // pp}, found {ep} * "
                f"{etp}; nearest possible: {proposal(processes, wanted)}"
            )
        return etp
