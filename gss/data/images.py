"""Reading one image, one label."""

import warnings
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from gss.data.classes import ClassSpace
from gss.errors import DataError, is_no_memory

_ID_MODES = ("L", "P", "1")
_TO_IDS = "save labels as one-channel 8-bit PNG whose values are class ids (255 = ignored)"


def read_image(path: Path) -> np.ndarray:
    """Decode an image; the EXIF orientation is applied.

    Returns:
        uint8 [H, W, 3], RGB, 0..255.

    Raises:
        DataError: missing, truncated or damaged file, or no image at all.
    """
    encoded = np.frombuffer(_read_bytes(path), np.uint8)
    image, reason = None, "truncated, damaged, or not an image"
    try:
        image = cv2.imdecode(encoded, cv2.IMREAD_COLOR_RGB)
    except cv2.error as error:  # of a file without content, too
        if "MAX_IMAGE_PIXELS" in str(error):
            reason = "more than the 2**30 pixels that OpenCV reads"
        elif is_no_memory(error):
            reason = "its picture does not fit into memory"
    if image is None:
        raise DataError(
            f"the image cannot be decoded ({encoded.size} bytes: {reason})",
            where=path,
            todo="replace the file, or remove the image and its label",
        )
    return image


def read_native_label(path: Path) -> np.ndarray:
    """Decode a label file as it is: ids of a one-channel file, indices of a palette file.

    Returns:
        uint8 [H, W], native ids.

    Raises:
        DataError: missing or damaged file, 16-bit, more than one channel, or JPEG (its ids are not exact).
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns of odd but harmless metadata
            with Image.open(path) as file:
                _refuse_other_than_ids(file, path)
                return np.asarray(file, np.uint8)
    except FileNotFoundError as error:
        raise DataError("file not found", where=path) from error
    except (OSError, SyntaxError, ValueError) as error:  # Pillow raises all three for damaged files
        raise DataError(
            f"the label cannot be decoded: {error}", where=path, todo="replace the file, or remove it and its image"
        ) from error


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
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"the image cannot be read: {error.strerror}", where=path) from error


def _refuse_other_than_ids(file: Image.Image, path: Path) -> None:
    if file.format == "JPEG":
        raise DataError("the label is a JPEG: compression has changed its ids", where=path, todo=_TO_IDS)
    if file.mode in _ID_MODES:
        return
    if file.mode.startswith("I"):
        low, high = file.getextrema()
        found = f"a 16-bit label with values {low}..{high}"
        todo = f"{_TO_IDS}; values up to 255 can be cast, others need a table of ids"
    else:
        colours = file.convert("RGB").getcolors(maxcolors=1 << 24) or []
        examples = ", ".join(str(colour) for _, colour in sorted(colours, reverse=True)[:3])
        found = f"a label with {len(file.getbands())} channels ({file.mode}), colours such as {examples}"
        todo = f"{_TO_IDS}: replace every colour by the index of its class"
    raise DataError(found, where=path, todo=todo)
