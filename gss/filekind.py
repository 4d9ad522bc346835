"""What a file is that somebody gave in place of another one: told from its first bytes, and of a pickle from what it
would build. Nothing in it is executed."""

import io
import json
import pickle
import re
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Literal

HEAD = 2**14  # bytes looked at first
_MOST = 2**26  # bytes of a pickle or of a header; those of checkpoints are a few MB: tensors are kept apart
_SHOWN = 3  # names of tensors
_AGAIN = "copy or download it again, and compare its size with the original's"
_WEIGHTS = "name it in an experiment, as `weights` of the section `backbone`"
_LEGACY = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."  # torch.save before 1.6
_PICTURES = {b"\x89PNG": "PNG", b"\xff\xd8\xff": "JPEG", b"GIF8": "GIF", b"II*\0": "TIFF", b"MM\0*": "TIFF"}
_ARCHIVES = {
    b"\x1f\x8b": "gzip",
    b"BZh": "bzip2",
    b"\xfd7zXZ": "xz",
    b"7z\xbc\xaf": "7z",
    b"Rar!": "RAR",
    b"\x28\xb5\x2f\xfd": "zstandard",
}
_PUBLISHED = {  # keys that tell whose code trained
    "GSS": re.compile(r"(module\.)?decode_head\.(d_vae|convs_pixel|conv_before_seg|post_swin_ln|cls_segmap)\."),
    "CAE": re.compile(r"(module\.)?backbone\.fpn1\.0\."),
    "MSeg": re.compile(r"(module\.)?last_layer\.3\."),
}
_CHECKPOINTS = (  # keys that tell who wrote a checkpoint
    ({"pytorch-lightning_version"}, "PyTorch Lightning"),
    ({"network_weights", "trainer_name"}, "nnU-Net"),
    ({"model", "ema", "train_args"}, "Ultralytics"),
    ({"model", "optimizer", "meter", "settings", "buffers"}, "a training of this project"),
    ({"meta", "state_dict"}, "mmsegmentation"),
)
_STATES = ("state_dict", "model_state_dict", "network_weights", "model", "net", "module")


@dataclass(frozen=True)
class FileKind:
    """What a file is.

    Args:
        name: in words that follow "this is".
        todo: what helps whatever the file was wanted for; None where that decides.
        sort: `model`: one of this project; `published`: a checkpoint that `gss import` reads; `dalle`: half of DALL-E's
            dVAE; `object`: any other pickled object.
    """

    name: str
    todo: str | None = None
    sort: Literal["model", "published", "dalle", "object", "other"] = "other"


def file_kind(path: Path) -> FileKind:
    """What a file or folder is, as far as can be seen without executing anything in it.

    Raises:
        OSError: it cannot be read.
    """
    if path.is_dir():
        return FileKind("a folder")
    with path.open("rb") as file:
        return content_kind(file)


def content_kind(file: BinaryIO) -> FileKind:
    """Like `file_kind`, of an open file."""
    size = file.seek(0, io.SEEK_END)
    file.seek(0)
    head = file.read(HEAD)
    if not size:
        return FileKind("an empty file (0 bytes)", _AGAIN)
    if not head.strip(b"\0"):
        return FileKind(f"a file of zeros ({size} bytes, as an interrupted copy leaves it)", _AGAIN)
    found = _picture(head) or _safetensors(file, head, size) or _torch(file, head, size) or _text(head, size)
    return found or FileKind(f"{size} bytes of no known kind, the first of which are {head[:8].hex(' ')}")


def _text(head: bytes, size: int) -> FileKind | None:
    """Pointers, pages and other text."""
    try:
        text = head.decode("utf-8-sig", "strict" if size <= HEAD else "ignore").lstrip()
    except UnicodeDecodeError:
        return None
    if "\0" in text:
        return None
    start = text[:200].lower()
    if start.startswith("version https://git-lfs"):
        stored = re.search(r"^size (\d+)", text, re.MULTILINE)
        of = f" of {stored[1]} bytes" if stored else ""
        return FileKind(
            f"a Git LFS pointer, which stands for a file{of} that was not fetched",
            "fetch the file itself: `git lfs pull` in its repository, or the download button of the site",
        )
    if start.startswith("/annex/objects") or "/.git/annex/objects" in start:
        return FileKind("a git-annex pointer to a file that was not fetched", "fetch the file itself: `git annex get`")
    if re.match(r"<(!doctype|html|\?xml|head|body)", start):
        title = re.search(r"<title[^>]*>(.*?)</title>", text, re.DOTALL | re.IGNORECASE)
        named = f" with the title {_quoted(title[1])}" if title else ""
        return FileKind(
            f"a web page{named}: the download met a login, an error or a page about the file",
            "download it again, by the address of the file itself",
        )
    line = _quoted(text.splitlines()[0] if text else "")
    if re.match(r"index,name,r,g,b\b", start):
        return FileKind("a palette or a class table (CSV)")
    what = "JSON" if start.startswith(("{", "[")) else "text"
    return FileKind(f"{what} that begins with {line}")


def _picture(head: bytes) -> FileKind | None:
    found = next((name for magic, name in _PICTURES.items() if head.startswith(magic)), "")
    if head.startswith(b"RIFF") and head[8:12] == b"WEBP":
        found = "WebP"
    if head[4:8] == b"ftyp":  # ISO media: the brand follows
        if head[8:11] in (b"hei", b"hev", b"mif", b"msf"):
            return FileKind("a HEIC picture, whatever its name says", "convert it to JPEG")
        if head[8:11] != b"avi":
            return FileKind("a film, or another kind of ISO media", "take single pictures from it")
        found = "AVIF"
    return FileKind(f"a picture ({found})") if found else None


def _safetensors(file: BinaryIO, head: bytes, size: int) -> FileKind | None:
    length = int.from_bytes(head[:8], "little")
    if head[8:9] != b"{" or length > _MOST:
        return None
    file.seek(8)
    try:
        header = json.loads(file.read(length))
        said = header.pop("__metadata__", None) or {}
        end = 8 + length + max([entry["data_offsets"][1] for entry in header.values()], default=0)
    except (ValueError, KeyError, TypeError, IndexError, AttributeError):
        return FileKind("a damaged or truncated safetensors file", _AGAIN) if length + 8 > size else None
    if end > size:
        return FileKind(f"a truncated safetensors file: {size} of {end} bytes", _AGAIN)
    if "gss" in said:
        return FileKind("a tokenizer of this project")
    return FileKind(f"a safetensors file of {_tensors(header)}")


def _torch(file: BinaryIO, head: bytes, size: int) -> FileKind | None:
    """Files of torch.save, other pickles, and what else is mistaken for them."""
    if head.startswith(b"PK"):
        return _zip(file, size)
    if head.startswith(_LEGACY):
        return _checkpoint(lambda: _legacy(file))
    archive = next((name for magic, name in _ARCHIVES.items() if head.startswith(magic)), "")
    if archive or head[257:262] == b"ustar":
        return FileKind(f"an archive ({archive or 'tar'})", "unpack it and give the file inside")
    if head.startswith(b"\x93NUMPY"):
        return FileKind("a NumPy array")
    if head.startswith(b"\x89HDF"):
        return FileKind("an HDF5 file, such as Keras writes")
    if re.match(rb"\x80[\x02-\x05]", head):
        return _checkpoint(lambda: _load(file)) if size <= _MOST else FileKind(f"a pickle of {size} bytes")
    if re.match(rb"\x08[\x01-\x20][\x10-\x3a]", head):
        return FileKind("an ONNX file, most likely", "onnxruntime runs it; here give the model file it was made of")
    return None


def _zip(file: BinaryIO, size: int) -> FileKind:
    if not zipfile.is_zipfile(file):
        return FileKind(f"a truncated file: the end of its {size} bytes is missing", _AGAIN)
    try:
        with zipfile.ZipFile(file) as archive:
            names = archive.namelist()
            pickled = next((name for name in names if name.rpartition("/")[2] == "data.pkl"), None)
            if any("/code/" in name for name in names):
                return FileKind("a TorchScript program", "give the state dict it was made of")
            if pickled is None:
                inside = ", ".join(map(_quoted, names[:_SHOWN]))
                return FileKind(f"an archive (zip) of {inside or 'nothing'}", "unpack it and give the file inside")
            content = archive.open(pickled).read(_MOST)
    except (zipfile.BadZipFile, OSError, EOFError, NotImplementedError, RuntimeError) as error:
        return FileKind(f"a damaged file of torch.save ({error})", _AGAIN)
    return _checkpoint(lambda: sight(content))


def _checkpoint(load: Callable[[], Any]) -> FileKind:
    try:
        content = load()
    except Exception as error:  # of a damaged pickle there is no saying which
        return FileKind(f"a damaged or truncated pickle ({type(error).__name__})", _AGAIN)
    if isinstance(content, _Tensor):
        return FileKind("a single tensor")
    if isinstance(content, _Inert):
        kind = type(content)
        if kind.__module__.startswith("dall_e."):
            return FileKind(
                f"one half of DALL-E's dVAE ({kind.__module__}.{kind.__name__})",
                "name both files in the experiment: tokenizer.encoder and tokenizer.decoder",
                "dalle",
            )
        name = _quoted(f"{kind.__module__}.{kind.__name__}")
        return FileKind(
            f"a whole pickled object ({name}), which could only be loaded by executing it",
            "in the program that wrote it save the tensors alone: torch.save(model.state_dict(), FILE)",
            "object",
        )
    if not isinstance(content, dict):
        return FileKind(f"a pickled {type(content).__name__}, no checkpoint")
    if {"format", "kind", "tensors", "meta"} <= content.keys():
        return FileKind(f"a model file of this project ({_quoted(content['kind'])})", sort="model")
    return _trained(content)


def _trained(content: Mapping[Any, Any]) -> FileKind:
    state = next((content[key] for key in _STATES if isinstance(content.get(key), dict)), content)
    tensors = {str(key): value for key, value in state.items() if isinstance(value, _Tensor)}
    if code := next((code for code, keys in _PUBLISHED.items() if any(map(keys.match, tensors))), ""):
        return FileKind(
            f"a checkpoint of the published {code} code",
            "make a model file of it: gss import EXPERIMENT FILE",
            "published",
        )
    if any(key.startswith("encoder.blocks.") for key in tensors):
        return FileKind(f"a checkpoint of a pre-training such as CAE's, of {_tensors(tensors)}", _WEIGHTS)
    for keys, program in _CHECKPOINTS:
        if keys <= content.keys():
            return FileKind(f"a checkpoint of {program}, of {_tensors(tensors)}")
    if state is content and len(tensors) == len(content) > 0:
        return FileKind(f"a bare state dict of {_tensors(tensors)}")
    named = ", ".join(map(_quoted, list(content)[: 2 * _SHOWN]))
    return FileKind(f"a pickled dictionary ({named or 'empty'}) with {_tensors(tensors)}")


def _tensors(named: Mapping[str, Any]) -> str:
    examples = ", ".join(_quoted(name) for name in list(named)[:_SHOWN])
    more = ", ..." if len(named) > _SHOWN else ""
    return f"{len(named)} tensor{'s' * (len(named) != 1)}" + (f" ({examples}{more})" if examples else "")


def _quoted(text: object, length: int = 60) -> str:
    """In quotation marks, on one line, shortened."""
    text = " ".join(str(text).split())
    return repr(text if len(text) <= length else text[: length - 3] + "...")


class _Inert:
    """Stands for an object of any class: is made of anything, keeps nothing, does nothing."""

    def __new__(cls, *_: Any, **__: Any) -> "_Inert":
        return object.__new__(cls)

    def __init__(self, *_: Any, **__: Any) -> None: ...

    def __setstate__(self, state: Any) -> None: ...

    def __setitem__(self, key: Any, value: Any) -> None: ...

    def append(self, item: Any) -> None: ...

    def extend(self, items: Any) -> None: ...


class _Tensor(_Inert):
    """Stands for a tensor."""


class _Sight(pickle.Unpickler):
    """Builds plain values; of all else there is a stand-in that knows only what it stands for."""

    def __init__(self, file: BinaryIO) -> None:
        super().__init__(file, encoding="latin1")

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if module in ("torch._utils", "torch._tensor", "torch.nn.parameter") or (module, name) == ("torch", "Tensor"):
            return _Tensor
        return type(name, (_Inert,), {"__module__": module})

    def persistent_load(self, pid: Any) -> Any:
        # before 1.6 the storage of a module is ('module', class, its source code)
        return pid[1] if isinstance(pid, tuple) and pid and pid[0] == "module" else None


def sight(content: bytes) -> Any:
    """What a pickle would build: plain values, and stand-ins for all else. Nothing in it is executed."""
    return _Sight(io.BytesIO(content)).load()


def _load(file: BinaryIO) -> Any:
    file.seek(0)
    return _Sight(file).load()


def _legacy(file: BinaryIO) -> Any:
    """The object of a file of torch.save before 1.6: magic number, version and system come before it."""
    file.seek(0)
    return [_Sight(file).load() for _ in range(4)][-1]
