"""Read DALL-E's encoder.pkl and decoder.pkl, which are whole pickled modules, without executing anything from them."""

import hashlib
import io
import pickle
import pickletools
import struct
import urllib.request
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gss.errors import TokenizerError
from gss.filekind import content_kind
from gss.proxy import by_proxy
from gss.recipes.gss.tokenizer.dvae import DVAE

LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
INERT = {
    "dall_e.encoder": {"Encoder", "EncoderBlock"},
    "dall_e.decoder": {"Decoder", "DecoderBlock"},
    "dall_e.utils": {"Conv2d"},
    "torch.nn.modules.container": {"Sequential"},
    "torch.nn.modules.activation": {"ReLU"},
    "torch.nn.modules.pooling": {"MaxPool2d"},
    "torch.nn.modules.upsampling": {"Upsample"},
    "torch.nn.modules.linear": {"Identity"},
}
STORAGES = {"FloatStorage": torch.float32, "HalfStorage": torch.float16}
# Every other opcode that names a class does so through the stack; torch's protocol 2 uses none of them.
FORBIDDEN_OPCODES = {"STACK_GLOBAL", "INST", "OBJ", "EXT1", "EXT2", "EXT4"}


@dataclass(frozen=True)
class _Stored:
    """A tensor whose numbers are still in the file: key and type of its storage, and how to look at it."""

    key: str
    dtype: torch.dtype
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]


class _Reader(pickle.Unpickler):
    """Knows the globals of the published files and nothing else; modules become empty objects with a `__dict__`."""

    def __init__(self, content: bytes) -> None:
        super().__init__(io.BytesIO(content))
        inert = type("Inert", (), {})  # without __setstate__, so that pickle's BUILD only fills __dict__
        self.known: dict[tuple[str, str], Any] = {(m, n): inert for m, names in INERT.items() for n in names}
        self.known |= {("torch", name): dtype for name, dtype in STORAGES.items()}
        self.known |= {
            ("collections", "OrderedDict"): OrderedDict,
            ("__builtin__", "set"): set,
            ("builtins", "set"): set,
            ("torch", "device"): self.keep_arguments,
            ("torch._utils", "_rebuild_tensor_v2"): self.rebuild_tensor,
            ("torch._utils", "_rebuild_parameter"): self.rebuild_parameter,
        }

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in self.known:
            raise TokenizerError(
                f"the pickle refers to {module}.{name}, which no DALL-E tokenizer needs",
                todo="use OpenAI's encoder.pkl and decoder.pkl; nothing of this file was executed",
            )
        return self.known[module, name]

    def persistent_load(self, pid: Any) -> Any:
        if pid[0] == "module":  # legacy format: ('module', class, file and text of its source code)
            return pid[1]
        _, dtype, key, *_ = pid  # ('storage', type, key, location, number of elements[, view])
        return key, dtype

    def keep_arguments(self, *arguments: Any) -> Any:
        return arguments

    def rebuild_tensor(self, storage: Any, offset: int, size: Any, stride: Any, *_: Any) -> _Stored:
        return _Stored(storage[0], storage[1], offset, tuple(size), tuple(stride))

    def rebuild_parameter(self, data: _Stored, *_: Any) -> _Stored:
        return data

    def read(self, opcodes: Iterator[tuple[Any, Any, Any]]) -> Any:
        """Check every global of the stream before the first object of it is built."""
        for opcode, argument, _ in opcodes:
            if opcode.name in FORBIDDEN_OPCODES:
                raise TokenizerError(f"the pickle uses the opcode {opcode.name}, which DALL-E's files do not contain")
            if opcode.name == "GLOBAL":
                self.find_class(*argument.split(" ", 1))
        return self.load()


def read_module(content: bytes) -> dict[str, Tensor]:
    """Tensors of a pickled DALL-E module, by dotted name such as `blocks.group_1.block_1.res_path.conv_1.w`.

    Args:
        content: the file, in PyTorch's zip or legacy format.

    Returns:
        float32 tensors.

    Raises:
        TokenizerError: not such a file, damaged, or with any other global; nothing was constructed then.
    """
    try:
        if zipfile.is_zipfile(io.BytesIO(content)):
            module, storage = _read_zip(content)
        else:
            module, storage = _read_legacy(content)
        return dict(_tensors(module, "", storage))
    except (
        pickle.UnpicklingError,
        zipfile.BadZipFile,
        EOFError,
        ValueError,
        TypeError,
        KeyError,
        AttributeError,
        IndexError,
        RuntimeError,
        struct.error,
        UnicodeError,
        ImportError,
    ) as error:
        kind = content_kind(io.BytesIO(content))
        found = f"damaged: {error}" if kind.sort == "dalle" else f"it is {kind.name}"
        raise TokenizerError(
            f"not readable as a pickled DALL-E module: {found}",
            todo=(kind.sort == "other" and kind.todo) or "use OpenAI's encoder.pkl and decoder.pkl, complete",
        ) from error


def _load(content: bytes) -> Any:
    return _Reader(content).read(pickletools.genops(content))


def _read_zip(content: bytes) -> tuple[Any, Callable[[str], bytes]]:
    archive = zipfile.ZipFile(io.BytesIO(content))
    member = next((name for name in archive.namelist() if name.endswith("/data.pkl")), None)
    if member is None:
        raise ValueError("the archive has no data.pkl")
    root = member.removesuffix("data.pkl")
    return _load(archive.read(member)), lambda key: archive.read(f"{root}data/{key}")


def _read_legacy(content: bytes) -> tuple[Any, Callable[[str], bytes]]:
    stream = io.BytesIO(content)

    def next_pickle() -> Any:
        start = stream.tell()
        for _ in pickletools.genops(stream):  # leaves the stream behind the pickle's end
            pass
        return _load(content[start : stream.tell()])

    if next_pickle() != LEGACY_MAGIC:
        raise ValueError("no PyTorch file")
    next_pickle(), next_pickle()  # protocol version, byte order and sizes of the writer
    module, keys = next_pickle(), next_pickle()
    widths = {stored.key: stored.dtype.itemsize for _, stored in _stored(module, "")}
    data = {}
    for key in keys:
        (count,) = struct.unpack("<q", stream.read(8))
        data[key] = stream.read(count * widths.get(key, 4))
    return module, data.__getitem__


def _stored(module: Any, prefix: str) -> Iterator[tuple[str, _Stored]]:
    for name, value in module._parameters.items():
        if value is not None:
            yield prefix + name, value
    for name, child in module._modules.items():
        yield from _stored(child, f"{prefix}{name}.")


def _tensors(module: Any, prefix: str, storage: Callable[[str], bytes]) -> Iterator[tuple[str, Tensor]]:
    for name, stored in _stored(module, prefix):
        flat = torch.frombuffer(bytearray(storage(stored.key)), dtype=stored.dtype)
        yield name, flat.as_strided(stored.size, stored.stride, stored.offset).float().contiguous()


def import_openai(
    encoder: str, decoder: str, *, encoder_sha256: str | None = None, decoder_sha256: str | None = None
) -> DVAE:
    """The dVAE in OpenAI's two files; its size follows from the tensors.

    Args:
        encoder: path or http(s) URL of encoder.pkl.
        decoder: path or http(s) URL of decoder.pkl.
        encoder_sha256: expected SHA-256 of the file, 64 hex digits; a URL needs it.
        decoder_sha256: the same of decoder.pkl.

    Raises:
        TokenizerError: missing file, wrong hash, foreign content (see `read_module`), or tensors that form no dVAE.
    """
    tensors: dict[str, Tensor] = {}
    for part, source, sha256 in (("encoder", encoder, encoder_sha256), ("decoder", decoder, decoder_sha256)):
        try:
            module = read_module(_fetch(source, sha256))
        except TokenizerError as error:
            raise TokenizerError(error.what, where=error.where or source, todo=error.todo) from error
        tensors |= {f"{part}.{name}": value for name, value in module.items()}
    return _assemble(tensors, where=f"{encoder}, {decoder}")


def _fetch(source: str, sha256: str | None) -> bytes:
    is_url = source.startswith(("http://", "https://"))
    if is_url and not sha256:
        raise TokenizerError(
            "a tokenizer is downloaded only with a pinned SHA-256",
            where=source,
            todo="set tokenizer.encoder_sha256 and tokenizer.decoder_sha256, or give local paths",
        )
    try:
        if is_url:
            with urllib.request.urlopen(source, timeout=60) as answer:
                content = answer.read()
        else:
            content = Path(source).read_bytes()
    except OSError as error:
        raise TokenizerError(
            f"cannot be read: {error}{by_proxy(source)}",
            where=source,
            todo="check tokenizer.encoder and tokenizer.decoder in the experiment",
        ) from error
    found = hashlib.sha256(content).hexdigest()
    if sha256 and found != sha256.lower():
        raise TokenizerError(
            f"SHA-256 is {found}, expected {sha256}",
            where=source,
            todo="the file is damaged or another one: fetch it again or correct the pinned hash",
        )
    return content


def _assemble(tensors: dict[str, Tensor], *, where: str) -> DVAE:
    try:
        first, last = tensors["encoder.blocks.input.w"], tensors["encoder.blocks.output.conv.w"]
        parts = {tuple(name.split(".")[2:4]) for name in tensors if name.startswith("encoder.blocks.group_")}
        dvae = DVAE(
            vocab_size=last.shape[0],
            n_hid=first.shape[0],
            n_init=tensors["decoder.blocks.input.w"].shape[0],
            blocks_per_group=sum(group == "group_1" for group, _ in parts),
            group_count=len({group for group, _ in parts}),
        )
        dvae.load_state_dict(tensors)
    except (KeyError, RuntimeError, ZeroDivisionError) as error:
        raise TokenizerError(f"the tensors form no DALL-E dVAE: {error}", where=where) from error
    return dvae.requires_grad_(False).eval()
