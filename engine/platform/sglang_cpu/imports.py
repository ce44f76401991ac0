"""Stand-ins for packages that SGLang imports at its top level but a CPU server never uses.

SGLang imports Triton, its CUDA kernels, torchvision and the tools of its chat interfaces wherever
it is started. On a machine without a GPU some of them do not exist, and the others are hundreds of
megabytes for nothing. A stand-in lets such an import pass: whatever is looked up in it can be
subclassed, used as a decorator or named in a type while modules are being imported. Using it later,
when the server runs, is an error that says so; nothing is answered silently.
"""

from __future__ import annotations

import sys
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import FrameType, ModuleType
from typing import Any

STOOD_IN = frozenset(
    {
        # GPU kernels and compilers
        "sgl_kernel",
        "triton",
        # images and sound
        "soundfile",
        "timm",
        "torchvision",
        # the OpenAI-compatible interface and constrained decoding; we ask /generate for token ids
        "openai",
        "xgrammar",
        # checkpoint formats that no recipe writes
        "compressed_tensors",
        "gguf",
        # notebooks
        "IPython",
    }
)

# Parts of them that SGLang does without when they are missing, but would call when they are there.
ABSENT = frozenset({"triton.knobs"})


class _StandInType(type):
    """The type of every name that is looked up in a stand-in module."""

    def __getattr__(cls, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        found = _name(f"{cls.__module__}.{cls.__qualname__}", name)
        setattr(cls, name, found)
        return found

    def __call__(cls, *args: Any, **kwargs: Any) -> Any:
        if "_stands_in" not in cls.__dict__:  # a class of SGLang's own that derives from one
            return super().__call__(*args, **kwargs)
        if not _importing():
            raise RuntimeError(
                f"{cls.__module__}.{cls.__qualname__} was called, but on the CPU {cls.__module__} "
                "is only a stand-in (engine.platform.sglang_cpu.imports)"
            )
        decorated = len(args) == 1 and not kwargs and callable(args[0])
        return args[0] if decorated else cls

    def __getitem__(cls, item: Any) -> Any:
        return cls

    def __iter__(cls) -> Any:
        return iter(())


def _name(module: str, name: str) -> _StandInType:
    """Make what is found as ``name`` in the stand-in ``module``: a class with no behaviour."""
    return _StandInType(
        name,
        (),
        {
            "__module__": module,
            "_stands_in": True,
            "__init_subclass__": classmethod(lambda cls, **options: None),
            "__get_pydantic_core_schema__": classmethod(_any_schema),
        },
    )


def _any_schema(cls: type, source: Any, handler: Any) -> Any:
    """Let pydantic models have fields of stand-in types; a request never fills them."""
    from pydantic_core import core_schema

    return core_schema.any_schema()


def _importing() -> bool:
    """Whether some module is being imported on this thread's stack."""
    frame: FrameType | None = sys._getframe()
    while frame is not None:
        if frame.f_code.co_filename == "<frozen importlib._bootstrap>":
            return True
        frame = frame.f_back
    return False


class _StandInModule(ModuleType):
    __version__ = "999.0.0"  # newer than any minimum that SGLang asks for

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        found = _name(self.__name__, name)
        setattr(self, name, found)
        return found


class _Finder(MetaPathFinder, Loader):
    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        if fullname.partition(".")[0] in STOOD_IN and fullname not in ABSENT:
            return ModuleSpec(fullname, self, is_package=True)
        return None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return _StandInModule(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        pass


def install() -> None:
    """Put the stand-ins before everything that is installed; call before importing sglang."""
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())
