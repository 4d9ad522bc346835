"""Reading one image, one label; and what else stands in their files, for the check."""

import contextlib
import io
import re
import struct
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, NamedTuple

import cv2
import numpy as np
from PIL import Image

from gss.data.classes import ClassSpace
from gss.errors import DataError, is_no_memory

_ID_MODES = ("L", "P", "1")
_TO_IDS = "save labels as one-channel 8-bit PNG whose values are class ids (255 = ignored)"
_ORIENTATION = 274  # EXIF tag: 1 upright, 2..4 mirrored or upside down, 5..8 turned by a quarter, see `_turned_back`
NEARLY_BLACK = 16  # of 255: 12 bits in a 16-bit file give no value as large as this
_SAMPLES, _EXTRA_SAMPLES = 277, 338  # TIFF tags: number of channels, and what those beside colours are
_OPACITY = 2  # one that the stored colours do not hold yet
_TIFF = (b"II*\0", b"MM\0*")

Orientation = Literal["apply", "stored"]
"""Whether photographs are turned and mirrored as their EXIF orientation says, as viewers do, or read as stored."""


class ImageFacts(NamedTuple):
    """What the check wants to know of an image beside its pixels.

    Args:
        orientation: EXIF orientation, 1..8; 1 where there is none.
        pictures: pages or frames in the file, of which the first is the image.
        brightest: largest value of all channels, as read, 0..255.
        bits: of a 16-bit file those its values fill where that is no more than 14, else 16; of others 0.
    """

    orientation: int
    pictures: int
    brightest: int
    bits: int


def read_image(path: Path, orientation: Orientation = "apply") -> np.ndarray:
    """Decode an image.

    Args:
        orientation: what to do with an EXIF orientation.

    Returns:
        uint8 [H, W, 3], RGB, 0..255; of 16 bits the upper eight.

    Raises:
        DataError: missing, truncated or damaged file, or no image at all.
    """
    content = _read_bytes(path)
    if orientation == "apply":
        return _decoded(content, path, cv2.IMREAD_COLOR_RGB)
    image = _decoded(content, path, cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION)
    # OpenCV turns these all the same
    return _turned_back(image, _exif_orientation(content)) if content.startswith(_TIFF) else image


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
    content = _read_bytes(path)
    try:
        image, kinds, found = cv2.imdecodeWithMetadata(np.frombuffer(content, np.uint8), flags=cv2.IMREAD_COLOR_RGB)
    except cv2.error as error:
        raise _undecodable(content, path, error) from error
    if image is None:
        raise _undecodable(content, path)
    metadata = {kind: data.tobytes() for kind, data in zip(kinds, found, strict=True)}
    exif = content if content.startswith(_TIFF) else metadata.get(cv2.IMAGE_METADATA_EXIF, b"")
    brightest, (pictures, bits) = int(image.max()), _header(content)
    if bits and brightest < 2**6:  # of the upper eight: 14 at most
        bits = int(_decoded(content, path, cv2.IMREAD_COLOR_RGB | cv2.IMREAD_ANYDEPTH).max()).bit_length()
    return image.shape[:2], ImageFacts(_exif_orientation(exif), pictures, brightest, bits)


def read_native_label(path: Path) -> np.ndarray:
    """Decode a label file as it is: ids of a one-channel file, indices of a palette file.

    Returns:
        uint8 [H, W], native ids.

    Raises:
        DataError: missing or damaged file, 16-bit, more than one channel, more than one picture, turned by an EXIF
            orientation, or JPEG (its ids are not exact).
    """
    with _label(path) as file:
        return _ids(file, path)


def inspect_label(path: Path) -> tuple[np.ndarray, np.ndarray | None]:
    """A label as `read_native_label` gives it, and the palette of an indexed file: uint8 [256, 3], RGB.

    Raises:
        DataError: see `read_native_label`.
    """
    with _label(path) as file:
        ids = _ids(file, path)
        colours = bytes(file.getpalette("RGB") or ()) if file.mode == "P" else None
    if colours is None:
        return ids, None
    return ids, np.frombuffer(colours.ljust(3 * 256, b"\0"), np.uint8).reshape(256, 3)


def read_label(path: Path, space: ClassSpace) -> np.ndarray:
    """Decode a label file into class ids.

    Returns:
        uint8 [H, W], 0..N-1 or 255.

    Raises:
        DataError: see `read_native_label`; or ids that are no class.
    """
    native = read_native_label(path)
    try:
        return space.to_classes(native)
    except DataError as error:
        raise DataError(error.what, where=path, todo=error.todo) from error


def _read_bytes(path: Path) -> bytes:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"the image cannot be read: {error.strerror}", where=path) from error
    return _with_plain_colours(content) if content.startswith(_TIFF) else content


def _with_plain_colours(content: bytes) -> bytes:
    """A TIFF whose channel of opacity is called an unknown one: OpenCV darkens the colours by an opacity."""
    for place, tag, value in _tags(content):
        if tag == _EXTRA_SAMPLES and value == _OPACITY:
            return content[: place + 8] + bytes(2) + content[place + 10 :]
    return content


def _decoded(content: bytes, path: Path, flags: int) -> np.ndarray:
    try:
        image = cv2.imdecode(np.frombuffer(content, np.uint8), flags)
    except cv2.error as error:  # of a file without content, too
        raise _undecodable(content, path, error) from error
    if image is None:
        raise _undecodable(content, path)
    return image


def _undecodable(content: bytes, path: Path, error: cv2.error | None = None) -> DataError:
    reason = "truncated, damaged, or not an image"
    if "MAX_IMAGE_PIXELS" in str(error):
        reason = "more than the 2**30 pixels that OpenCV reads"
    elif error is not None and is_no_memory(error):
        reason = "its picture does not fit into memory"
    else:
        with _opened(content) as file:
            if file is not None and file.mode in ("F", "I"):
                kind = "floating point" if file.mode == "F" else "32 bits"
                reason = f"values of {kind}, not of 8 or 16 bits"
        channels = next((value for _, tag, value in _tags(content) if tag == _SAMPLES), 1)  # TIFF's default
        if content.startswith(_TIFF) and channels not in (1, 3, 4):
            reason = f"{channels} channels, not 1, 3 or 4"
    return DataError(
        f"the image cannot be decoded ({len(content)} bytes: {reason})",
        where=path,
        todo="replace the file, or remove the image and its label",
    )


@contextlib.contextmanager
def _opened(content: bytes) -> Iterator[Image.Image | None]:
    """The header of a file as Pillow reads it; None where it knows no such format."""
    with warnings.catch_warnings(), contextlib.ExitStack() as stack:
        warnings.simplefilter("ignore")
        file = None
        with contextlib.suppress(OSError, SyntaxError, ValueError):
            file = stack.enter_context(Image.open(io.BytesIO(content)))
        yield file


def _header(content: bytes) -> tuple[int, int]:
    """Number of pictures in an image file, and 16 where it has 16 bits, else 0."""
    if content.startswith(b"\xff\xd8"):  # JPEG has 8 bits; further pictures in it are previews or depths
        return 1, 0
    with _opened(content) as file:
        return (1, 0) if file is None else (getattr(file, "n_frames", 1), 16 if ";16" in _raw_mode(file) else 0)


def _exif_orientation(exif: bytes) -> int:
    """1..8, as OpenCV reads it. EXIF data are a TIFF without pixels."""
    value = next((value for _, tag, value in _tags(exif) if tag == _ORIENTATION), 1)
    return value if 1 <= value <= 8 else 1


def _tags(tiff: bytes) -> Iterator[tuple[int, int, int]]:
    """Of the entries in the first directory of a TIFF: the place, the tag, and the value as a 16-bit number."""
    with contextlib.suppress(struct.error):
        order = "<" if tiff.startswith(b"II") else ">"
        (start,) = struct.unpack_from(f"{order}I", tiff, 4)
        (entries,) = struct.unpack_from(f"{order}H", tiff, start)
        for place in range(start + 2, start + 2 + 12 * entries, 12):
            tag, _, _, value = struct.unpack_from(f"{order}HHIH", tiff, place)
            yield place, tag, value


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
    except (OSError, SyntaxError, ValueError) as error:  # Pillow raises all three for damaged files
        raise DataError(
            f"the label cannot be decoded: {error}", where=path, todo="replace the file, or remove it and its image"
        ) from error


def _ids(file: Image.Image, path: Path) -> np.ndarray:
    bits = re.match(r"L;([24])", _raw_mode(file))  # looked at first: decoding forgets it
    _refuse_other_than_ids(file, path)
    ids = np.asarray(file, np.uint8)
    # Pillow spreads grey values of two and four bits over 0..255.
    return ids // (255 // (2 ** int(bits[1]) - 1)) if bits else ids


def _raw_mode(file: Image.Image) -> str:
    """How the pixels are stored, as Pillow's decoders name it: `L;4I` are inverted grey values of four bits."""
    tiles = getattr(file, "tile", [])
    arguments = tiles[0].args if tiles else ""
    return arguments if isinstance(arguments, str) else str((arguments or ("",))[0])


def _refuse_other_than_ids(file: Image.Image, path: Path) -> None:
    """Raise DataError for what holds no ids, or not one label alone. Read before the pixels are."""
    pictures = getattr(file, "n_frames", 1)
    if file.format in ("JPEG", "MPO"):
        raise DataError("the label is a JPEG: compression has changed its ids", where=path, todo=_TO_IDS)
    if pictures > 1:
        raise DataError(f"the label file holds {pictures} pictures (pages, frames)", where=path, todo=_TO_IDS)
    if re.match(r"L;\d?I", _raw_mode(file)):
        raise DataError("the label's values are stored inverted (MinIsWhite)", where=path, todo=_TO_IDS)
    if file.mode in _ID_MODES:
        orientation = file.getexif().get(_ORIENTATION, 1)
        if orientation != 1:
            todo = "save it upright or as stored, like its image is read, and without the tag (exiftool -Orientation=)"
            raise DataError(f"the label carries an EXIF orientation ({orientation})", where=path, todo=todo)
        return
    if file.mode == "F" or file.mode.startswith("I"):
        low, high = file.getextrema()
        kind = {"F": "floating point", "I": "32-bit"}.get(file.mode, "16-bit")
        found = f"a {kind} label with values {low}..{high}"
        todo = f"{_TO_IDS}; values up to 255 can be cast, others need a table of ids"
    else:
        colours = file.convert("RGB").getcolors(maxcolors=1 << 12) or []
        examples = ", ".join(str(colour) for _, colour in sorted(colours, reverse=True)[:3]) or "those of a photograph"
        found = f"a label with {len(file.getbands())} channels ({file.mode}), colours such as {examples}"
        todo = f"{_TO_IDS}, every colour replaced by its class: see `Labels as colours` in docs/how-to/check.md"
    raise DataError(found, where=path, todo=todo)
