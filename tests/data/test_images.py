import numpy as np
import pytest
from PIL import Image

from gss.data.classes import ClassSpace
from gss.data.images import read_image, read_label, read_native_label, write_png
from gss.errors import DataError

PIXELS = np.random.RandomState(0).randint(0, 256, (24, 32, 3), dtype=np.uint8)
IDS = np.random.RandomState(1).randint(0, 3, (24, 32), dtype=np.uint8)
SPACE = ClassSpace(("sky", "road", "tree"))


def test_image_is_rgb(tmp_path):
    Image.fromarray(PIXELS).save(tmp_path / "a.png")
    assert (read_image(tmp_path / "a.png") == PIXELS).all()


def test_exif_orientation_is_applied(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # rotate by 90 degrees for display
    Image.fromarray(PIXELS).save(tmp_path / "a.jpg", exif=exif, quality=95)
    assert read_image(tmp_path / "a.jpg").shape == (32, 24, 3)


@pytest.mark.parametrize("progressive", [False, True])
def test_truncated_jpeg_is_refused(tmp_path, progressive):
    path = tmp_path / "a.jpg"
    Image.fromarray(PIXELS).save(path, progressive=progressive)
    whole = path.read_bytes()
    for kept in (len(whole) // 2, len(whole) - 20):
        path.write_bytes(whole[:kept])
        with pytest.raises(DataError, match=f"cannot be decoded \\({kept} bytes: truncated or damaged") as caught:
            read_image(path)
        assert str(path) in str(caught.value)


LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:abc\nsize 12\n"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "it is an empty file"),
        (bytes(99), "it is a file of zeros"),
        (LFS, "(?s)it is a Git LFS pointer.*git lfs pull"),
        (b"<!DOCTYPE html><html></html>", "it is a web page"),
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "(?s)it is a HEIC picture.*convert it to JPEG"),
        (b"\0\0\0\x18ftypmp42\0\0\0\0mp42isom", "it is a film"),
        (b"this is no picture", "it is text that begins with"),
    ],
)
def test_what_is_no_picture_is_said_to_be_what_it_is(tmp_path, content, said):
    (tmp_path / "a.png").write_bytes(content)
    for read in (read_image, read_native_label):
        with pytest.raises(DataError, match=said):
            read(tmp_path / "a.png")


def test_missing_files_are_named(tmp_path):
    for read in (read_image, read_native_label):
        with pytest.raises(DataError, match=r"(?s)[Nn](o such file|ot found).*gone.png"):
            read(tmp_path / "gone.png")


def test_label_is_read_as_it_is(tmp_path):
    Image.fromarray(IDS).save(tmp_path / "grey.png")
    palette = Image.fromarray(IDS, mode="P")
    palette.putpalette([255, 0, 0, 0, 255, 0, 9, 9, 9])
    palette.save(tmp_path / "palette.png")
    for name in ("grey.png", "palette.png"):
        assert (read_label(tmp_path / name, SPACE) == IDS).all()


@pytest.mark.parametrize(("name", "order"), [("a.png", "<u2"), ("a.tif", "<u2"), ("a.tif", ">u2")])
def test_16_bit_label_is_read_as_it_is(tmp_path, name, order):
    ids = IDS.astype(np.uint16) * 1000 + 7
    Image.fromarray(ids.astype(order)).save(tmp_path / name)
    native = read_native_label(tmp_path / name)
    assert native.dtype == np.uint16 and native.dtype.isnative
    assert (native == ids).all()
    space = ClassSpace(SPACE.names, label_map={7: 2, 1007: 1, 2007: 0})
    assert (read_label(tmp_path / name, space) == 2 - IDS).all()


def test_16_bit_label_stored_inverted_is_refused(tmp_path):
    Image.fromarray(IDS.astype(np.uint16)).save(tmp_path / "a.tif", tiffinfo={262: 0})
    with pytest.raises(DataError, match="MinIsWhite"):
        read_native_label(tmp_path / "a.tif")


def test_32_bit_label_is_refused(tmp_path):
    Image.fromarray(IDS.astype(np.int32) * 1000).save(tmp_path / "a.tif")
    with pytest.raises(DataError, match=r"(?s)a 32-bit label with values 0\.\.2000.*one-channel 8-bit PNG"):
        read_native_label(tmp_path / "a.tif")


def test_rgb_label_is_refused_with_its_colours(tmp_path):
    colours = np.array([[10, 20, 30], [0, 0, 0], [0, 0, 0]], np.uint8)
    Image.fromarray(colours[IDS]).save(tmp_path / "a.png")
    with pytest.raises(DataError, match=r"(?s)\(RGB\), colours such as \(0, 0, 0\), \(10, 20, 30\).*Labels as colours"):
        read_native_label(tmp_path / "a.png")


def test_jpeg_label_is_refused(tmp_path):
    Image.fromarray(IDS).save(tmp_path / "a.jpg")
    with pytest.raises(DataError, match="compression has changed its ids"):
        read_native_label(tmp_path / "a.jpg")


def test_damaged_label_is_refused(tmp_path):
    path = tmp_path / "a.png"
    Image.fromarray(IDS).save(path)
    for damaged in (path.read_bytes()[:60], b"text"):
        path.write_bytes(damaged)
        with pytest.raises(DataError, match="the label cannot be decoded"):
            read_native_label(path)


def test_id_out_of_range_is_named_with_its_file(tmp_path):
    Image.fromarray(np.where(IDS == 2, 5, IDS).astype(np.uint8)).save(tmp_path / "a.png")
    with pytest.raises(DataError, match=r"(?s)ids found: 5; allowed: 0..2, 255.*a.png"):
        read_label(tmp_path / "a.png", SPACE)


@pytest.mark.parametrize("shape", [(7, 5), (7, 5, 3)])
def test_pictures_keep_every_pixel_and_the_order_of_colours(tmp_path, shape):
    pixels = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    write_png(tmp_path / "folder" / "a.png", pixels)
    with Image.open(tmp_path / "folder" / "a.png") as read:
        np.testing.assert_array_equal(np.asarray(read), pixels)
