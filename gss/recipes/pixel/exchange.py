"""Published checkpoints in and out: the segmentation networks that CAE's authors trained with mmseg, and MSeg's.

Of our names, those of `PixelNetwork` are others there; of CAE's networks also those of the encoder's pyramid (`fpn1` to
`fpn4`) and of the heads.
"""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from gss.checkpoints import read_checkpoint, read_checkpoint_meta
from gss.config import data_folder
from gss.data.manifest import read_manifest
from gss.errors import CheckpointError, ConfigError, GssError
from gss.files import sha256_file
from gss.layout import MANIFEST
from gss.modelfile import load_model
from gss.nets.keys import COUNTER, INDEX, KeyReport, Names, copy_published
from gss.recipes.pixel.assemble import build_network, build_segmenter, describe
from gss.recipes.pixel.experiment import PixelExperiment
from gss.recipes.pixel.heads import HRNetHead, UPerNetHead
from gss.recipes.pixel.network import PixelNetwork
from gss.stages.exchange import Imported, refuse_other_classes, require_kind, write_imported, write_published
from gss.stages.run import Run

_AUXILIARY = "auxiliary_head."
_WRAPPED = "module."  # before every key in MSeg's files: its code loads them into a wrapped network
_DECIDED_BY = [
    (r"encoder\.", "the file with those of a pre-training, which pixel.backbone.weights names"),
    (r"backbone\.", "the backbone (pixel.backbone)"),
    (r"(decode|auxiliary)_head\.conv_seg\.", "the classes"),
    (r"decode_head\.", "pixel.head and channels"),
    (r"auxiliary_head\.", "pixel.auxiliary"),
]
_MSEG_DECIDED_BY = [
    (r"last_layer\.3\.", "the classes"),
    (r"last_layer\.", "pixel.head and channels"),
    (r"(conv1|bn1|layer1|stage\d|transition\d)\.", "pixel.backbone.name, which is hrnet_w48"),
]


def _is_of_mseg(network: PixelNetwork) -> bool:
    is_hrnet = network.backbone.architecture.startswith("hrnet_") and isinstance(network.head, HRNetHead)
    return is_hrnet and network.auxiliary is None


def _mseg_name(name: str) -> str:
    return name.removeprefix("backbone.features.").removeprefix("head.")


def _cae_name(name: str) -> str:
    part, _, rest = name.partition(".")
    if part == "head":
        return f"decode_head.{rest}"
    if part == "auxiliary":
        return f"{_AUXILIARY}{rest}"
    part, _, rest = rest.partition(".")
    if part == "features":
        return f"backbone.{rest}"
    level, _, rest = rest.partition(".")
    return f"backbone.fpn{int(level) + 1}.{rest}"


def load_published(state: Mapping[str, Tensor], network: PixelNetwork, *, where: str | Path) -> KeyReport:
    """Load a published state dict into a network built for it; every tensor must be there but counters of BatchNorm.

    Args:
        state: tensors under published names. Without an auxiliary head in the network, one there is left out.
        where: named in errors.

    Raises:
        CheckpointError: no network of this kind was published; or keys are missing, unexpected, or of another shape,
            and nothing was loaded.
    """

    def left_out(key: str) -> str:
        without = key.startswith(_AUXILIARY) and network.auxiliary is None
        return "the model has no auxiliary head" if without else ""

    of_mseg = _is_of_mseg(network)
    names = Names(
        published=_mseg_name if of_mseg else _cae_name,
        left_out=left_out,
        decided_by=_MSEG_DECIDED_BY if of_mseg else _DECIDED_BY,
        otherwise=f"use a checkpoint of {'MSeg' if of_mseg else 'CAE'}'s segmentation code",
        optional=(COUNTER,),
    )
    return copy_published(state, _tensors(network), names, where=where)


def to_published(network: PixelNetwork) -> dict[str, Tensor]:
    """State dict under published names, as the published code would have saved it, index buffers included.

    Returns:
        Tensors that share memory with the network's.

    Raises:
        CheckpointError: no network of this kind was published.
    """
    published = _mseg_name if _is_of_mseg(network) else _cae_name
    return {published(name): value for name, value in _tensors(network).items()}


def _tensors(network: PixelNetwork) -> dict[str, Tensor]:
    """Parameters and buffers by our name, and the derived index buffers that published checkpoints hold, too."""
    architecture = network.backbone.architecture
    of_cae = architecture.startswith("beit") and isinstance(network.head, UPerNetHead)
    if not (of_cae or _is_of_mseg(network)):
        beside = " and an auxiliary head" if network.auxiliary is not None else ""
        raise CheckpointError(
            "published are transformers of BEiT's kind with UPerNet, and HRNet with its own head alone, not "
            f"{architecture} with {type(network.head).__name__}{beside}",
            where="pixel.backbone.name, pixel.head and pixel.auxiliary",
            todo="choose a timm model named beit... and `head: upernet`, or hrnet_w48 and `head: hrnet`",
        )
    buffers = network.named_buffers(remove_duplicate=False)  # BEiT's blocks share theirs
    index = {name: value for name, value in buffers if name.endswith(INDEX)}
    return {**network.state_dict(), **index}


def import_checkpoint(run: Run[PixelExperiment], path: Path | None = None, kind: str | None = None) -> None:
    """Make `pixel.pth` of a published checkpoint, with a table of what became of every key of it.

    Args:
        path: the checkpoint; None: that of `pixel.checkpoint`.
        kind: what to make of it: `pixel`, which is all that is made here.

    Raises:
        ConfigError: no checkpoint is named, or no such kind.
        CheckpointError: the checkpoint cannot be read, or is of another architecture. Nothing was written then.
    """
    require_kind(run, kind, ("pixel",))
    named = run.experiment.pixel.checkpoint
    if path is None and named is None:
        raise ConfigError(
            "no checkpoint to import is named",
            where=f"experiment {run.name}",
            todo="name a file, or set pixel.checkpoint",
        )
    path = path or data_folder() / str(named)
    state, manifest = read_checkpoint(path), run.folder / MANIFEST
    inputs = {**run.inputs(manifest), "checkpoint": sha256_file(path)}
    meta = describe(run, read_manifest(run.file(manifest)).space)
    refuse_other_classes(read_checkpoint_meta(path), meta["classes"], path)
    network = build_network(meta)
    report = load_published(state, network, where=path)
    meta["provenance"] = {**run.provenance("import", inputs), "checkpoint": path.name}
    tensors = {f"pixel.{name}": value for name, value in network.state_dict().items()}
    write_imported(run, Imported(path, "pixel", tensors, meta, inputs, report), reads="pixel")


def export(
    run: Run[PixelExperiment], name: str, output: Path, *, with_pixel_branch: bool = True, with_tokenizer: bool = False
) -> None:
    """Write a model file as a checkpoint of the published code.

    Args:
        name: `pixel`.
        output: the checkpoint to write.
        with_pixel_branch: keep the auxiliary head, which only training uses, where the model has one.
        with_tokenizer: asks for what there is none of.

    Raises:
        CheckpointError: the model file is missing or foreign, or of a kind that was not published.
        GssError: `with_tokenizer`.
    """
    if with_tokenizer:
        raise GssError("a per-pixel network has no tokenizer", where=output, todo="leave --with-tokenizer out")
    path = run.file(run.folder / f"{name}.pth")
    file = load_model(path, name)
    network = build_segmenter(file, None, protocol={}, where=path, device=torch.device("cpu"))
    state = to_published(network)
    prefix = _WRAPPED if _is_of_mseg(network) else ""
    kept = {
        f"{prefix}{key}": value for key, value in state.items() if with_pixel_branch or not key.startswith(_AUXILIARY)
    }
    write_published(run, path, file, kept, output, colours=file.meta["colours"])
