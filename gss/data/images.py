"""Reading one image, one label; what else stands in their files, for the check; and writing a picture."""

import contextlib
import io
import os
import re
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, NamedTuple

import cv2
import numpy as np
from PIL import Image, UnidentifiedImageError

from gss.data import tiff
from gss.data.classes import ClassSpace
from gss.data.native import NativeClasses
from gss.errors import DataError, is_no_memory
from gss.filekind import content_kind, file_kind
from gss.files import write_atomic

_ID_MODES = ("L", "P", "1", "I;16", "I;16B")
_COLOUR_MODES = ("RGB", "RGBA", "P", "PA", "L", "LA", "1")
_TO_IDS = "save labels as one-channel 8-bit PNG whose values are class ids (255 = ignored; above 254 classes 16-bit)"
PAINTED = (
    "labels that are painted are read with `encoding: colours` and a table of their colours: see `Labels as "
    f"colours` in docs/how-to/check.md; or {_TO_IDS}"
)
NEARLY_BLACK = 16  # of 255: 12 bits in a 16-bit file give no value as large as this

Orientation = Literal["apply", "stored"]
"""Whether photographs are turned and mirrored as their EXIF orientation says, as viewers do, or read as stored."""


class ImageFacts(NamedTuple):
    """What the check wants to know of an image beside its pixels.

    Args:
        orientation: EXIF orientation, 1..8; 1 where there is none.
        pictures: pages or frames in the file, of which the first is the image.
        brightest: largest value of all channels, as read, 0..255.
        bits: of a 16-bit file those its values fill where that is no more than 14, else 16; of others 0.
        others: channels beside grey or colours that say something and are not read: transparency, infrared.
        damage: how often the decoder complained of damaged data, of which it made something.
    """

    orientation: int
    pictures: int
    brightest: int
    bits: int
    others: int
    damage: int


def read_image(path: Path, orientation: Orientation = "apply") -> np.ndarray:
    """Decode an image.

    Args:
        orientation: what to do with an EXIF orientation.

    Returns:
        uint8 [H, W, 3], RGB, 0..255; of 16 bits the upper eight.

    Raises:
        DataError: missing, truncated or damaged file, or no image at all.
    """
    content = _content(path)
    if orientation == "apply":
        return _decoded(content, path, cv2.IMREAD_COLOR_RGB)
    image = _decoded(content, path, cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION)
    # OpenCV turns these all the same
    return _turned_back(image, tiff.exif_orientation(content)) if tiff.is_tiff(content) else image


def nearly_black(image: np.ndarray) -> str:
    """What to say of an image, uint8, without a bright pixel; '' of one that has some, and of a black one."""
    brightest = int(image.max())
    if not 0 < brightest < NEARLY_BLACK:
        return ""
    return (
        f"nearly black, no value is above {brightest} of 255; of 16-bit files the upper 8 bits are read: those whose "
        "values fill fewer, 12 perhaps, have to be scaled before"
    )


def inspect_image(path: Path) -> tuple[tuple[int, int], ImageFacts]:
    """Height and width of an image as `read_image` gives it, EXIF orientation applied, and what else is known of it.

    Raises:
        DataError: see `read_image`.
    """
    content = _content(path)
    try:
        with _complaints() as complaints:
            image, kinds, found = cv2.imdecodeWithMetadata(np.frombuffer(content, np.uint8), flags=cv2.IMREAD_COLOR_RGB)
    except cv2.error as error:
        raise _undecodable(content, path, error) from error
    if image is None:
        raise _undecodable(content, path)
    metadata = {kind: data.tobytes() for kind, data in zip(kinds, found, strict=True)}
    exif = content if tiff.is_tiff(content) else metadata.get(cv2.IMAGE_METADATA_EXIF, b"")
    # JPEG has 8 bits and no further channel; further pictures in it are previews or depths.
    header = None if content.startswith(b"\xff\xd8") else _header(content)
    brightest, bits = int(image.max()), 16 if header and ";16" in header.raw else 0
    if bits and brightest < 2**6:  # of the upper eight: 14 at most
        bits = int(_decoded(content, path, cv2.IMREAD_COLOR_RGB | cv2.IMREAD_ANYDEPTH).max()).bit_length()
    pictures, others = (header.pictures, _other_channels(content, header, path)) if header else (1, 0)
    damage = sum(line.startswith("Corrupt JPEG data") for line in complaints)
    return image.shape[:2], ImageFacts(tiff.exif_orientation(exif), pictures, brightest, bits, others, damage)


def read_native_label(path: Path, native: NativeClasses | None = None) -> np.ndarray:
    """Decode a label file as it is: ids of a one-channel file, indices of a palette file, or what its colours mean.

    Args:
        native: the classes that it holds, where they may be colours.

    Returns:
        uint8 or, of a 16-bit file or ids that need it, uint16 [H, W], native ids.

    Raises:
        DataError: missing or damaged file, 32-bit or floating point, more than one picture, turned by an EXIF
            orientation, or JPEG (its ids are not exact); of ids, more than one channel; of colours, one of no class.
    """
    with _label(path) as file:
        return _native(file, path, native)


def inspect_label(path: Path, native: NativeClasses | None = None) -> tuple[np.ndarray, np.ndarray | None]:
    """A label as `read_native_label` gives it, and the palette of a file of indices: uint8 [256, 3], RGB.

    Raises:
        DataError: see `read_native_label`.
    """
    with _label(path) as file:
        ids = _native(file, path, native)
        has_indices = file.mode == "P" and not (native and native.are_painted)
        colours = bytes(file.getpalette("RGB") or ()) if has_indices else None
    if colours is None:
        return ids, None
    return ids, np.frombuffer(colours.ljust(3 * 256, b"\0"), np.uint8).reshape(256, 3)


def label_size(path: Path) -> tuple[int, int]:
    """Height and width of a label file.

    Raises:
        DataError: see `read_native_label`.
    """
    with _label(path) as file:
        return file.height, file.width


def read_colours(path: Path) -> np.ndarray:
    """The colours of a painted label, uint8 [H, W, 4], RGBA; of a palette file those that it shows.

    Raises:
        DataError: see `read_native_label`.
    """
    with _label(path) as file:
        return _rgba(file, path)


def read_label(path: Path, space: ClassSpace) -> np.ndarray:
    """Decode a label file into class ids.

    Returns:
        `space.dtype` [H, W], 0..N-1 or `space.ignore_index`.

    Raises:
        DataError: see `read_native_label`; or ids that are no class.
    """
    native = read_native_label(path, space.native)
    try:
        return space.to_classes(native)
    except DataError as error:
        raise DataError(error.what, where=path, todo=error.todo) from error


def _content(path: Path) -> bytes:
    """The bytes of an image file, if it is none of those that OpenCV misreads without a word."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"the image cannot be read: {error.strerror}", where=path) from error
    if not tiff.is_tiff(content):
        return content
    tiff.refuse_misread(content, path)
    return tiff.with_plain_colours(content)


def _decoded(content: bytes, path: Path, flags: int) -> np.ndarray:
    try:
        image = cv2.imdecode(np.frombuffer(content, np.uint8), flags)
    except cv2.error as error:  # of a file without content, too
        raise _undecodable(content, path, error) from error
    if image is None:
        raise _undecodable(content, path)
    return image


def _undecodable(content: bytes, path: Path, error: cv2.error | None = None) -> DataError:
    size = f"{len(content)} bytes"
    reason, todo = f"({size}: truncated or damaged)", "replace the file, or remove the image and its label"
    if "MAX_IMAGE_PIXELS" in str(error):
        reason = f"({size}: more than the 2**30 pixels that OpenCV reads)"
    elif error is not None and is_no_memory(error):
        reason = f"({size}: its picture does not fit into memory)"
    elif (values := _unusual_values(content)) is not None:
        reason = f"({size}: values of {values}, not of 8 or 16 bits)"
    elif not (kind := content_kind(io.BytesIO(content))).name.startswith("a picture"):
        reason, todo = f"because it is {kind.name}", kind.todo or todo
    return DataError(f"the image cannot be decoded {reason}", where=path, todo=todo)


def _unusual_values(content: bytes) -> str | None:
    """What the values of a picture are that have neither 8 nor 16 bits."""
    with contextlib.suppress(cv2.error):
        image = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)
        if image is not None and image.dtype.itemsize > 2:
            return "floating point" if image.dtype.kind == "f" else f"{8 * image.dtype.itemsize} bits"
    return None


class _Header(NamedTuple):
    """What Pillow says of a file: mode, way in which pixels are stored (see `_raw_mode`), and number of pictures."""

    mode: str
    raw: str
    pictures: int


def _header(content: bytes) -> _Header | None:
    """None where Pillow knows no such format, or the file is damaged: it raises what happens to happen then."""
    with warnings.catch_warnings(), contextlib.suppress(Exception):
        warnings.simplefilter("ignore")
        with Image.open(io.BytesIO(content)) as file:
            return _Header(file.mode, _raw_mode(file), getattr(file, "n_frames", 1))
    return None


def _other_channels(content: bytes, header: _Header, path: Path) -> int:
    """Number of channels beside grey or colours, such as transparency; 0 where all is opaque."""
    if tiff.is_tiff(content):
        others = tiff.extra_channels(content)
    else:
        others = int(header.mode.endswith("A"))
    if others != 1:
        return max(others, 0)
    image = _decoded(content, path, cv2.IMREAD_UNCHANGED)
    is_opaque = image.ndim == 3 and image.shape[2] == 4 and image[..., 3].min() == np.iinfo(image.dtype).max
    return int(not is_opaque)


@contextlib.contextmanager
def _complaints() -> Iterator[list[str]]:
    """The lines that libraries print on standard error in the block; libjpeg tells of damaged data nowhere else.

    For a process that does nothing else meanwhile.
    """
    lines: list[str] = []
    kept = os.dup(2)
    try:
        with open(os.memfd_create("standard error"), "rb") as printed:
            os.dup2(printed.fileno(), 2)
            try:
                yield lines
            finally:
                os.dup2(kept, 2)
                printed.seek(0)
                lines += printed.read().decode(errors="replace").splitlines()
    finally:
        os.close(kept)


def _turned_back(image: np.ndarray, orientation: int) -> np.ndarray:
    """The pixels as stored, uint8 [h, w, 3], of an image that was turned as its EXIF orientation says."""
    if orientation in (6, 8):
        image = np.rot90(image, 1 if orientation == 6 else -1)
    elif orientation in (5, 7):
        image = (image if orientation == 5 else image[::-1, ::-1]).transpose(1, 0, 2)
    else:
        image = image[:: -1 if orientation in (3, 4) else 1, :: -1 if orientation in (2, 3) else 1]
    return np.ascontiguousarray(image)


@contextlib.contextmanager
def _label(path: Path) -> Iterator[Image.Image]:
    """An open label file, to be decoded in the block."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns of odd but harmless metadata
            with Image.open(path) as file:
                yield file
    except FileNotFoundError as error:
        raise DataError("file not found", where=path) from error
    except DataError:
        raise
    except Exception as error:  # of damaged files Pillow raises what happens to happen
        reason, todo = str(error), "replace the file, or remove it and its image"
        if isinstance(error, Image.DecompressionBombError):
            reason, todo = "more pixels than Pillow reads", "cut the image and its label into tiles"
        elif is_no_memory(error):
            reason = "it does not fit into memory"
        elif isinstance(error, UnidentifiedImageError):
            kind = file_kind(path)
            reason, todo = f"it is {kind.name}", kind.todo or todo
        raise DataError(f"the label cannot be decoded: {reason}", where=path, todo=todo) from error


def _native(file: Image.Image, path: Path, native: NativeClasses | None) -> np.ndarray:
    if native is None or not native.are_painted:
        return _ids(file, path)
    try:
        return native.ids(_rgba(file, path))
    except DataError as error:
        raise DataError(error.what, where=path, todo=error.todo) from error


def _rgba(file: Image.Image, path: Path) -> np.ndarray:
    _refuse_inexact(file, path)
    if file.mode not in _COLOUR_MODES or ";16" in _raw_mode(file):
        found = f"a label of mode {file.mode} ({_raw_mode(file)}) where colours of 8 bits are expected"
        raise DataError(found, where=path, todo="save it as PNG in RGB or RGBA, or remove `encoding: colours`")
    return np.asarray(file.convert("RGBA"))


def _ids(file: Image.Image, path: Path) -> np.ndarray:
    bits = re.match(r"L;([24])", _raw_mode(file))  # looked at first: decoding forgets it
    _refuse_other_than_ids(file, path)
    if file.mode.startswith("I;16"):
        return np.asarray(file).astype(np.uint16)  # in this machine's order of bytes
    ids = np.asarray(file, np.uint8)
    # Pillow spreads grey values of two and four bits over 0..255.
    return ids // (255 // (2 ** int(bits[1]) - 1)) if bits else ids


def _raw_mode(file: Image.Image) -> str:
    """How the pixels are stored, as Pillow's decoders name it: `L;4I` are inverted grey values of four bits."""
    tiles = getattr(file, "tile", [])
    arguments = tiles[0].args if tiles else ""
    return arguments if isinstance(arguments, str) else str((arguments or ("",))[0])


def _refuse_inexact(file: Image.Image, path: Path) -> None:
    """Raise DataError for what holds no exact values, or not one label alone and as its image lies."""
    pictures = getattr(file, "n_frames", 1)
    if file.format in ("JPEG", "MPO"):
        raise DataError("the label is a JPEG: compression has changed its ids", where=path, todo=_TO_IDS)
    if pictures > 1:
        raise DataError(f"the label file holds {pictures} pictures (pages, frames)", where=path, todo=_TO_IDS)
    orientation = file.getexif().get(tiff.ORIENTATION, 1)
    if orientation != 1:
        todo = "save it upright or as stored, like its image is read, and without the tag (exiftool -Orientation=)"
        raise DataError(f"the label carries an EXIF orientation ({orientation})", where=path, todo=todo)


def _refuse_other_than_ids(file: Image.Image, path: Path) -> None:
    """Raise DataError for what holds no ids, or not one label alone. Read before the pixels are."""
    _refuse_inexact(file, path)
    is_white_0 = file.mode.startswith("I;16") and file.getexif().get(tiff.PHOTOMETRIC) == 0
    if is_white_0 or re.match(r"L;\d?I", _raw_mode(file)):
        raise DataError("the label's values are stored inverted (MinIsWhite)", where=path, todo=_TO_IDS)
    if file.mode in _ID_MODES:
        return
    if file.mode == "F" or file.mode.startswith("I"):
        low, high = file.getextrema()
        kind = "floating point" if file.mode == "F" else "32-bit"
        found = f"a {kind} label with values {low}..{high}"
        todo = f"{_TO_IDS}; whole numbers up to 65535 can be cast, others need a table of ids"
    else:
        colours = file.convert("RGB").getcolors(maxcolors=1 << 12) or []
        examples = ", ".join(str(colour) for _, colour in sorted(colours, reverse=True)[:3]) or "those of a photograph"
        found = f"a label with {len(file.getbands())} channels ({file.mode}), colours such as {examples}"
        todo = PAINTED
    raise DataError(found, where=path, todo=todo)


def write_png(path: Path, pixels: np.ndarray) -> None:
    """Write a picture without loss, atomically.

    Args:
        pixels: uint8 or uint16 [H, W], ids or grey levels, or uint8 [H, W, 3], RGB.
    """
    done, encoded = cv2.imencode(".png", pixels if pixels.ndim == 2 else pixels[..., ::-1])
    assert done, f"{pixels.dtype} {pixels.shape} is no picture"
    write_atomic(path, lambda file: file.write(encoded.tobytes()))
