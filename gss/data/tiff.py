"""Tags of TIFF files, and of EXIF data, which are a TIFF without pixels."""

import contextlib
import struct
from collections.abc import Iterator
from pathlib import Path

from gss.errors import DataError

ORIENTATION = 274  # EXIF tag: 1 upright, 2..4 mirrored or upside down, 5..8 turned by a quarter
_MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")  # the last two: BigTIFF
_BITS, PHOTOMETRIC, _SAMPLES, _EXTRA_SAMPLES = 258, 262, 277, 338  # TIFF tags; the last two: channels, those beside
_GREY, _COLOURS = (0, 1), {2: 3, 5: 4, 6: 3, 8: 3}  # photometric values; channels that make a colour
_OPACITY = 2  # an extra sample that the stored colours do not hold yet


def is_tiff(content: bytes) -> bool:
    """Whether a file is a TIFF or BigTIFF, by its first bytes."""
    return content.startswith(_MAGIC)


def exif_orientation(exif: bytes) -> int:
    """1..8, as OpenCV reads it. EXIF data are a TIFF without pixels."""
    orientation = _values(exif).get(ORIENTATION, 1)
    return orientation if 1 <= orientation <= 8 else 1


def _values(tiff: bytes) -> dict[int, int]:
    """The tags of a TIFF that are one number of 16 bits; others come with a number that means nothing."""
    return {tag: value for _, tag, value in _tags(tiff)}


def _tags(tiff: bytes) -> Iterator[tuple[int, int, int]]:
    """Of the entries in the first directory of a TIFF or BigTIFF: place and tag, and the value as a 16-bit number.

    The place is that of the value.
    """
    with contextlib.suppress(struct.error, OverflowError):
        order = "<" if tiff.startswith(b"II") else ">"
        is_big = struct.unpack_from(f"{order}H", tiff, 2) == (43,)
        number, entries, size = ("Q", "Q", 20) if is_big else ("I", "H", 12)
        (start,) = struct.unpack_from(order + number, tiff, 8 if is_big else 4)
        (count,) = struct.unpack_from(order + entries, tiff, start)
        start += struct.calcsize(entries)
        for entry in range(start, start + count * size, size):
            place = entry + size - struct.calcsize(number)
            (tag,), (value,) = (struct.unpack_from(f"{order}H", tiff, at) for at in (entry, place))
            yield place, tag, value


def refuse_misread(tiff: bytes, path: Path) -> None:
    """Raise DataError for a TIFF that OpenCV makes something else of."""
    tags = _values(tiff)
    channels, kind = tags.get(_SAMPLES, 1), tags.get(PHOTOMETRIC, 1)
    what, todo = "", "save three of them, scaled to 0..255, as an RGB picture of 8 bits"
    if channels > 4:
        what = f"the image has {channels} channels, not 1, 3 or 4"
    elif channels > 2 and kind in _GREY:
        what = f"the image has {channels} channels that its TIFF does not call colours: the first alone would be read"
    elif (channels, kind, tags.get(_BITS)) == (1, 0, 16):
        what = "the image is a TIFF of 16 bits whose values are stored inverted (MinIsWhite), and would be read so"
        todo = "save it with 0 for black"
    if what:
        raise DataError(what, where=path, todo=todo)


def extra_channels(tiff: bytes) -> int:
    """Channels beside grey or colours."""
    tags = _values(tiff)
    return tags.get(_SAMPLES, 1) - _COLOURS.get(tags.get(PHOTOMETRIC, 1), 1)


def with_plain_colours(tiff: bytes) -> bytes:
    """A TIFF whose channel of opacity is called an unknown one: OpenCV darkens the colours by an opacity."""
    for place, tag, value in _tags(tiff):
        if tag == _EXTRA_SAMPLES and value == _OPACITY:
            return tiff[:place] + bytes(2) + tiff[place + 2 :]
    return tiff
