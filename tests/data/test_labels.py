"""Label files of other kinds than the one that is asked for."""

import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from gss.data.images import read_native_label
from gss.errors import DataError
from tests.data.sets import ids


def grey_png(values: np.ndarray, bits: int) -> bytes:
    """A grayscale PNG of 1, 2 or 4 bits, which Pillow does not write."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    places = np.unpackbits(values[..., None], axis=2)[..., 8 - bits :]  # [H, W, bits]
    rows = np.packbits(places.reshape(len(values), -1), axis=1)
    header = struct.pack(">IIBBBBB", values.shape[1], len(values), bits, 0, 0, 0, 0)
    pixels = zlib.compress(b"".join(b"\0" + row.tobytes() for row in rows))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_ids_of_few_bits_are_ids(tmp_path, bits):
    values = (np.arange(24 * 31).reshape(24, 31) % 2**bits).astype(np.uint8)
    (tmp_path / "a.png").write_bytes(grey_png(values, bits))
    np.testing.assert_array_equal(read_native_label(tmp_path / "a.png"), values)


@pytest.mark.parametrize(
    ("picture", "options", "said"),
    [
        (np.float32(1) * ids(0), {}, r"a floating point label with values 0\.0\.\.2\.0"),
        (ids(0).astype(np.int32), {}, r"a 32-bit label with values 0\.\.2"),
        (ids(0), {"save_all": True, "append_images": [Image.fromarray(ids(1))]}, "holds 2 pictures"),
        (ids(0), {"exif": {274: 3}}, r"carries an EXIF orientation \(3\)"),
        (ids(0), {"tiffinfo": {262: 0}}, "stored inverted"),
    ],
)
def test_labels_that_would_be_read_otherwise_than_meant_are_refused(tmp_path, picture, options, said):
    if "exif" in options:
        options = {"exif": Image.Exif()}
        options["exif"][274] = 3
    Image.fromarray(picture).save(tmp_path / "a.tif", **options)
    with pytest.raises(DataError, match=said):
        read_native_label(tmp_path / "a.tif")
