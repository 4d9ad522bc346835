"""Repairs of third-party imports, each with the condition under which it can go."""

import contextlib
import importlib
import importlib.util
import sys
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

_COMPILER = "torch._dynamo"
_UNCOMPILED: dict[str, dict[str, Any]] = {  # what torch and torchvision ask of it where nothing is compiled
    _COMPILER: {"disable": lambda function, *_, **__: function, "graph_break": lambda *_: None},
    f"{_COMPILER}.trace_rules": {"clear_lru_cache": lambda: None},
    f"{_COMPILER}.utils": {"get_optimize_ddp_mode": lambda: "ddp_optimizer", "is_compile_supported": lambda _: False},
}


def _declare_torchvision_operators() -> torch.library.Library | None:
    """Declare the operators whose absence stops `import torchvision`, and with it `import timm`.

    torchvision 0.28.0 from the default index is a CUDA build: next to a CPU-only torch its compiled part does not
    load, and its Python part then refuses to import because `nms` is unknown. timm needs only the Python part.
    Can go when `pip install torch torchvision` gives a pair that imports without a GPU.
    """
    found = importlib.util.find_spec("torchvision")
    folders = found.submodule_search_locations if found is not None else None
    for compiled in Path(folders[0]).glob("_C*.so") if folders else ():
        with contextlib.suppress(OSError):
            torch.ops.load_library(compiled)  # as torchvision does: an operator may be declared only once
    if hasattr(torch.ops.torchvision, "nms"):
        return None
    library = torch.library.Library("torchvision", "FRAGMENT")
    for name in ("nms", "qnms"):
        library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    return library  # its declarations live as long as the object


# Here, so that whoever has imported a part of this package that builds models can import timm, too.
_TORCHVISION = _declare_torchvision_operators() if torch.version.cuda is None else None


def import_timm() -> ModuleType:
    """timm, imported at the first call because it takes seconds."""
    import timm

    return timm


class _Postponed(ModuleType):
    """Stands for a module of torch's compiler until more is wanted of any than `_UNCOMPILED`."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") and (self.__name__, name) != (_COMPILER, "__path__"):
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
        if sys.modules.get(self.__name__) is self:
            for postponed in _UNCOMPILED:
                del sys.modules[postponed]
            sys.meta_path.insert(0, _Loaded())
            importlib.import_module(_COMPILER)
        return getattr(sys.modules[self.__name__], name)


class _Loaded(Loader, MetaPathFinder):
    """For an import of a part of the compiler that has just loaded all of it: gives what is there, not a second one."""

    def find_spec(self, name: str, path: object = None, target: object = None) -> ModuleSpec | None:
        return ModuleSpec(name, self) if name.startswith(_COMPILER) and name in sys.modules else None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return sys.modules[spec.name]

    def exec_module(self, module: ModuleType) -> None:
        """Its code has run."""


def postpone_compiler() -> None:
    """Keep torch from loading its compiler for an optimizer, DDP, `meta` or torchvision: a second in every process.

    Whoever compiles gets it all the same. Can go when torch loads it for that alone.
    """
    if _COMPILER not in sys.modules:
        for name, answers in _UNCOMPILED.items():
            sys.modules[name] = module = _Postponed(name)
            vars(module).update(answers)
        package = vars(sys.modules[_COMPILER])
        package |= {name: sys.modules[f"{_COMPILER}.{name}"] for name in ("trace_rules", "utils")}
