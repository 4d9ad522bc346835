"""OpenAI's two files as their publisher wrote them: whole pickled modules, here around given tensors."""

import sys
import types
from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

CLASSES = {"encoder": ("Encoder", "EncoderBlock"), "decoder": ("Decoder", "DecoderBlock"), "utils": ("Conv2d",)}


def save_pickled(
    folder: Path, state: dict[str, Tensor], monkeypatch: pytest.MonkeyPatch, *, is_zip: bool, last: object = None
) -> tuple[str, str]:
    """Write encoder.pkl and decoder.pkl, in PyTorch's zip or legacy format.

    Args:
        state: of a dVAE of this project.
        monkeypatch: takes the classes of the published package away again.
        last: pickled behind everything else.
    """
    dall_e = _package(monkeypatch)
    for part in ("encoder", "decoder"):
        own = {name.removeprefix(f"{part}."): value for name, value in state.items() if name.startswith(part)}
        module = _module(dall_e, part, own)
        module.last = last
        torch.save(module, folder / f"{part}.pkl", _use_new_zipfile_serialization=is_zip)
    return str(folder / "encoder.pkl"), str(folder / "decoder.pkl")


def _package(monkeypatch: pytest.MonkeyPatch) -> types.ModuleType:
    """Modules under the names of the published package, with classes that can be pickled like its own."""
    package = types.ModuleType("dall_e")
    monkeypatch.setitem(sys.modules, "dall_e", package)
    for module, names in CLASSES.items():
        made = types.ModuleType(f"dall_e.{module}")
        for name in names:
            setattr(made, name, type(name, (nn.Module,), {"__module__": made.__name__}))
        setattr(package, module, made)
        monkeypatch.setitem(sys.modules, made.__name__, made)
    return package


def _module(dall_e: types.ModuleType, part: str, tensors: dict[str, Tensor]) -> nn.Module:
    """The module tree that the publisher pickled, around given tensors."""
    root = getattr(getattr(dall_e, part), part.capitalize())()
    root.n_hid, root.device, root.requires_grad, root.names = 8, torch.device("cpu"), False, {"w", "b"}
    for name, value in tensors.items():
        *path, last = name.split(".")
        module = root
        for depth, child in enumerate(path):
            if child not in module._modules:
                if depth == len(path) - 1:
                    made = dall_e.utils.Conv2d()
                elif child.startswith("block_"):
                    made = getattr(getattr(dall_e, part), f"{part.capitalize()}Block")()
                else:
                    made = nn.Sequential(
                        OrderedDict(
                            relu=nn.ReLU(), pool=nn.MaxPool2d(2), up=nn.Upsample(scale_factor=2), same=nn.Identity()
                        )
                        if child == "output"
                        else OrderedDict()
                    )
                module.add_module(child, made)
            module = module._modules[child]
        module.register_parameter(last, nn.Parameter(value, requires_grad=last == "w"))
    return root
