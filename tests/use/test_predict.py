"""`gss predict` on a folder of everything people have: what it writes, what it names, what it refuses."""

import csv
import hashlib
import os
import re
import shutil
import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

import gss
from gss.cli import main
from gss.data.images import read_image
from gss.errors import DataError
from gss.modelfile import load_model, save_model
from gss.use.predictor import Predictor

from .models import write_models

PIXELS = np.random.default_rng(0).integers(0, 256, (24, 32, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_models(tmp_path_factory.mktemp("results")) / "gss_ft.pth"


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    for name in ("a.png", "deeper/a.jpg", "deeper/b.JPG", "über uns/c 1.webp"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(PIXELS).save(folder / name)
    (folder / "notes.txt").write_text("no image")
    return folder


def written(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def ids_of(path: Path) -> np.ndarray:
    found = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    assert found is not None and found.ndim == 2 and found.dtype == np.uint8
    return found


def test_what_is_written_can_be_read(model: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    out = tmp_path / "out"
    assert (
        main(["predict", str(model), str(photos), "-o", str(out), "--scores", "--uncertainty", "--device", "cpu"]) == 0
    )
    stems = ("a", "deeper/a", "deeper/b", "über uns/c 1")
    endings = (".png", "_colour.png", "_overlay.png", "_uncertainty.png", "_scores.npz")
    assert written(out) == {"classes.csv", *(stem + ending for stem in stems for ending in endings)}
    loaded = gss.load(model)
    with (out / "classes.csv").open(encoding="utf-8") as file:
        rows = list(csv.reader(file))
    assert rows == [
        ["index", "name", "r", "g", "b"],
        *(
            [str(index), name, *map(str, colour)]
            for index, (name, colour) in enumerate(zip(loaded.classes, loaded.colours.tolist(), strict=True))
        ),
    ]
    ids = ids_of(out / "a.png")
    np.testing.assert_array_equal(ids, loaded.predict(PIXELS))
    colour = np.asarray(Image.open(out / "a_colour.png"))
    np.testing.assert_array_equal(colour, loaded.colours[ids])
    overlay = np.asarray(Image.open(out / "a_overlay.png")).astype(int)
    assert abs(overlay - (PIXELS.astype(int) + colour) / 2).max() <= 0.5
    with np.load(out / "a_scores.npz") as stored:
        assert stored["probabilities"].dtype == np.uint8
        np.testing.assert_allclose(stored["probabilities"] / 255, loaded.scores(PIXELS), atol=0.5 / 255 + 1e-6)
    grey = ids_of(out / "a_uncertainty.png")
    np.testing.assert_array_equal(grey, np.round(loaded.uncertainty(PIXELS) * 255).astype(np.uint8))
    assert grey.min() > 0 and len(np.unique(grey)) > 5
    said = capsys.readouterr().out
    assert re.search(r"predict 4/4  [\d.]+ img/s  in 0:\d\d", said) and f"4 of 4 images predicted, see {out}" in said


def test_broken_inputs_are_named_and_the_rest_is_done(
    model: Path, tmp_path: Path, capfd: pytest.CaptureFixture
) -> None:
    folder, out = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    picture = Image.fromarray(PIXELS)
    exif = Image.Exif()
    exif[0x0112] = 6
    picture.save(folder / "turned.jpg", exif=exif)
    picture.save(folder / "plain.jpg")
    picture.convert("L").save(folder / "grey.png")
    picture.convert("CMYK").save(folder / "cmyk.jpg")
    picture.quantize(16).save(folder / "palette.png")
    picture.convert("RGBA").save(folder / "alpha.png")
    picture.save(folder / "animated.webp", save_all=True, append_images=[picture.rotate(180)], lossless=True)
    cv2.imwrite(str(folder / "deep.png"), PIXELS.astype(np.uint16) * 257)
    for width, height in ((1, 1), (37, 1024)):
        Image.fromarray(np.resize(PIXELS, (height, width, 3))).save(folder / f"{width}x{height}.png")
    good = len(list(folder.iterdir()))
    (folder / "cut_off.jpg").write_bytes((folder / "plain.jpg").read_bytes()[:500])
    (folder / "cut_off.png").write_bytes((folder / "grey.png").read_bytes()[:300])
    (folder / "cut_off.png").rename(folder / "half.png")
    (folder / "text.jpg").write_text("this is no picture")
    (folder / "empty.png").touch()
    (folder / "gone.png").symlink_to(tmp_path / "nowhere.png")
    before = {path: hashlib.sha256(path.read_bytes()).digest() for path in folder.iterdir() if path.exists()}
    assert main(["predict", str(model), *map(str, sorted(folder.iterdir())), "-o", str(out)]) == 3
    assert before == {path: hashlib.sha256(path.read_bytes()).digest() for path in before}
    said = capfd.readouterr()
    failed = re.findall(r"^failed: (.*): the image cannot be (?:decoded|read).*$", said.err, re.MULTILINE)
    assert failed == [str(folder / name) for name in ("cut_off.jpg", "empty.png", "gone.png", "half.png", "text.jpg")]
    assert f"{good} of {good + 5} images predicted" in said.out
    assert len(written(out)) == 1 + 3 * good  # no temporary file, nothing of a broken input
    for path in sorted(folder.glob("*")):
        if str(path) not in failed:
            height, width = (32, 24) if path.stem == "turned" else cv2.imread(str(path)).shape[:2]
            assert ids_of(out / f"{path.stem}.png").shape == (height, width), path
    plain = ids_of(out / "alpha.png")  # transparency is ignored, 16 bits lose their low byte, of a film the first shows
    for name in ("deep", "animated"):
        np.testing.assert_array_equal(ids_of(out / f"{name}.png"), plain)


@pytest.mark.parametrize(
    ("pattern", "stems"),
    [
        ("deeper", {"a", "b"}),
        ("deeper/a.jpg", {"a"}),
        ("*/*", {"deeper/a", "deeper/b", "über uns/c 1"}),
        ("deep*", {"deeper/a", "deeper/b"}),
        ("**/a.*", {"a", "deeper/a"}),
    ],
)
def test_images_keep_their_path(pattern: str, stems: set[str], model: Path, photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert main(["predict", str(model), str(photos / pattern), "-o", str(out)]) == 0
    assert written(out) == {"classes.csv"} | {s + end for s in stems for end in (".png", "_colour.png", "_overlay.png")}


def test_predictions_are_no_inputs_of_the_next_run(model: Path, photos: Path) -> None:
    command = ["predict", str(model), str(photos), "-o", str(photos / "predicted")]
    assert main(command) == 0
    first = written(photos)
    assert main(command) == 0
    assert written(photos) == first


def test_a_name_with_brackets_is_a_name(model: Path, photos: Path, tmp_path: Path) -> None:
    shutil.copy(photos / "a.png", photos / "a[1].png")
    assert main(["predict", str(model), str(photos / "a[1].png"), str(photos / "a[1].png"), "-o", str(tmp_path)]) == 0
    assert (tmp_path / "a[1].png").is_file()


def refused(command: list[str], capsys: pytest.CaptureFixture, out: Path) -> str:
    assert main(command) == 2
    assert not (out / "classes.csv").exists()
    return capsys.readouterr().err


def test_what_would_be_written_twice_is_refused(
    model: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    out = tmp_path / "out"
    command = ["predict", str(model), str(photos), "-o", str(out)]
    twice = ["predict", str(model), str(photos / "deeper"), str(photos / "a.png"), "-o", str(out)]
    assert f"{photos}/deeper/a.jpg and {photos}/a.png would write the same file" in refused(twice, capsys, out)
    again = [*command, str(photos / "deeper" / "a.jpg")]  # the argument stands for `deeper/a` already
    again.insert(3, again.pop())
    assert "is given twice" in refused(again, capsys, out)
    Image.fromarray(PIXELS).save(photos / "a_colour.jpg")
    assert "a_colour.jpg would write the same file" in refused(command, capsys, out)


def test_a_name_too_long_for_the_predictions_is_refused_before_any_is_made(
    model: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    out = tmp_path / "out"
    Image.fromarray(PIXELS).save(photos / ("图" * 82 + ".png"))
    command = ["predict", str(model), str(photos), "-o", str(out)]
    assert "would have a name of more than 255 bytes" in refused(command, capsys, out)
    out.mkdir()
    assert "would have a name of more than 255 bytes" in refused(command, capsys, out)


def test_formats_that_are_not_read_are_told(
    model: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    (photos / "IMG_1.HEIC").write_bytes(b"x")
    command = ["predict", str(model), str(photos), "-o", str(tmp_path / "out"), "--device", "cpu"]
    assert main(command) == 0
    assert f"are passed over: 1 *.HEIC in {photos}" in capsys.readouterr().err
    for path in (*photos.rglob("*.*g"), *photos.rglob("*.JPG"), *photos.rglob("*.webp")):
        path.unlink()
    assert "no image found; files in formats that are not read" in refused(command, capsys, tmp_path)


def test_no_input_is_overwritten(model: Path, photos: Path, capsys: pytest.CaptureFixture) -> None:
    before = (photos / "a.png").read_bytes()
    said = refused(["predict", str(model), str(photos), "-o", str(photos)], capsys, photos)
    assert f"the prediction of {photos}/a.png would overwrite an input" in said
    assert (photos / "a.png").read_bytes() == before


@pytest.mark.parametrize("name", ["gone.jpg", "", "*.gif"])
def test_no_image_is_an_error(name: str, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    (tmp_path / "empty").mkdir()
    given = str(tmp_path / "empty" / name)
    assert f"no image found\n  where: {given}" in refused(["predict", str(model), given, "-o", "x"], capsys, Path("x"))


def test_output_that_cannot_be_written_ends_the_run(
    model: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    (tmp_path / "out").write_text("a file")
    assert main(["predict", str(model), str(photos), "-o", str(tmp_path / "out")]) == 2
    assert "a file stands where a folder is expected" in capsys.readouterr().err


@pytest.mark.parametrize("pattern", ["", "**", "**/*.*", "**/*.png"])
def test_folders_are_looked_through_as_the_check_does(
    pattern: str, model: Path, tmp_path: Path, capfd: pytest.CaptureFixture
) -> None:
    folder, elsewhere, out = tmp_path / "photos", tmp_path / "elsewhere", tmp_path / "out"
    for path in (
        folder / "frame.0001.png",
        folder / "frame.0002.png",
        folder / "day" / "a.png",
        elsewhere / "b.png",
        folder / ".cache" / "no.png",
        folder / "day" / "@eaDir" / "no.png",
    ):
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(PIXELS).save(path)
    shutil.copy(folder / "frame.0001.png", os.fsencode(folder) + b"/stra\xdfe.png")
    (folder / "more").symlink_to(elsewhere)
    (folder / "again").symlink_to(elsewhere)
    (folder / "day" / "up").symlink_to(folder)
    (folder / "all").symlink_to(tmp_path)
    (folder / "day" / "gone.png").symlink_to("nowhere.png")
    command = ["predict", str(model), str(folder / pattern) if pattern else str(folder), "-o", str(out)]
    assert main(command) == 3
    stems = ["frame.0001", "frame.0002", "day/a", "again/b", os.fsdecode(b"stra\xdfe")]
    assert {name for name in written(out) if "_" not in name} == {"classes.csv", *(f"{stem}.png" for stem in stems)}
    said = capfd.readouterr().err
    assert said.count("note: hidden folders are no data: 2 passed over (.cache, @eaDir)") == 1
    assert said.count("note: links to folders that are looked at anyway: 3 passed over") == 1
    assert f"failed: {folder}/day/gone.png: the image cannot be read" in said


def test_names_without_a_known_ending_are_kept(model: Path, tmp_path: Path) -> None:
    for name in ("frame.0001", "frame.0002"):
        Image.fromarray(PIXELS).save(tmp_path / name, "PNG")
    frames = [str(tmp_path / name) for name in ("frame.0001", "frame.0002")]
    assert main(["predict", str(model), *frames, "-o", str(tmp_path / "out")]) == 0
    assert {"frame.0001.png", "frame.0002.png"} <= written(tmp_path / "out")


@pytest.mark.parametrize("pattern", ["", "*", "**/*.jpg"])
def test_a_folder_that_cannot_be_read_is_an_error(
    pattern: str,
    model: Path,
    photos: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    real = os.scandir

    def scandir(path: str) -> object:  # chmod keeps nobody out who is root
        if str(path).endswith("deeper"):
            raise PermissionError(13, "Permission denied")
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    said = refused(["predict", str(model), str(photos / pattern), "-o", str(tmp_path / "o")], capsys, tmp_path / "o")
    assert f"{photos}/deeper: the folder cannot be read: Permission denied" in said


def test_orientations_are_read_as_those_it_was_trained_on(tmp_path: Path) -> None:
    folder = write_models(tmp_path / "results")
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(PIXELS).save(tmp_path / "a.png", exif=exif)
    file = load_model(folder / "gss_ft.pth")
    for setting, shape in (("apply", (32, 24)), ("stored", (24, 32)), (None, (32, 24))):
        file.meta["provenance"]["config"]["data"]["exif_orientation"] = setting
        save_model(folder / "gss_ft.pth", file.kind, file.tensors, file.meta)
        predictor = gss.load(folder / "gss_ft.pth")
        assert predictor.predict(tmp_path / "a.png").shape == shape
        assert predictor.predict(Image.open(tmp_path / "a.png")).shape == shape
        assert main(["predict", str(folder / "gss_ft.pth"), str(tmp_path / "a.png"), "-o", str(tmp_path / "out")]) == 0
        assert ids_of(tmp_path / "out" / "a.png").shape == shape


def test_what_an_earlier_run_left_is_taken_away(model: Path, photos: Path, tmp_path: Path) -> None:
    """No file lies beside one of another run; of an image that cannot be read any more nothing is left."""
    out = tmp_path / "out"
    command = ["predict", str(model), str(photos), "-o", str(out)]
    assert main([*command, "--scores", "--uncertainty"]) == 0
    assert {"a_scores.npz", "a_uncertainty.png"} <= written(out)
    (photos / "deeper" / "b.JPG").write_bytes(b"broken")
    assert main(command) == 3
    endings = (".png", "_colour.png", "_overlay.png")
    left = {stem + ending for stem in ("a", "deeper/a", "über uns/c 1") for ending in endings}
    assert written(out) == {"classes.csv"} | left


def test_no_folder_holds_predictions_of_other_classes(
    model: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    other, out = write_models(tmp_path / "other", num_classes=4) / "gss_ft.pth", tmp_path / "out"
    assert main(["predict", str(model), str(photos / "a.png"), "-o", str(out)]) == 0
    before = (out / "classes.csv").read_bytes()
    assert main(["predict", str(other), str(photos / "deeper"), "-o", str(out)]) == 2
    assert "a table of other classes or colours" in capsys.readouterr().err
    assert (out / "classes.csv").read_bytes() == before and not (out / "b.png").exists()


def test_no_file_that_is_no_prediction_is_replaced(
    model: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    """Such as the label of the same name, or a photograph that the pattern does not take."""
    (tmp_path / "labels").mkdir()
    (tmp_path / "labels" / "b.png").write_bytes(b"a label")
    command = ["predict", str(model), str(photos / "deeper" / "*.JPG"), "-o", str(tmp_path / "labels")]
    said = refused(command, capsys, tmp_path / "labels")
    assert f"a file is there that no earlier prediction wrote\n  where: {tmp_path}/labels/b.png" in said
    assert (tmp_path / "labels" / "b.png").read_bytes() == b"a label"


def test_predictions_do_not_lie_among_the_images(model: Path, photos: Path, capsys: pytest.CaptureFixture) -> None:
    deeper = photos / "deeper"  # no name of its outputs is that of an image
    said = refused(["predict", str(model), str(deeper), "-o", str(deeper)], capsys, deeper)
    assert "the next call would take the predictions for images" in said and f"-o: {deeper}/predicted" in said


def test_a_second_model_is_no_image(model: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    command = ["predict", str(model), str(model.with_name("gss_ff.pth")), str(photos), "-o", str(tmp_path / "out")]
    assert "one model at a time" in refused(command, capsys, tmp_path / "out")


def test_an_image_that_does_not_fit_into_memory_is_named(
    model: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    Image.fromarray(np.resize(PIXELS, (99, 32, 3))).save(photos / "large.png")
    launch = Predictor.launch

    def limited(self: Predictor, pixels: np.ndarray, **options: object) -> torch.Tensor:
        if len(pixels) > 50:
            raise RuntimeError("[enforce fail at alloc_cpu.cpp:117] data. DefaultCPUAllocator: can't allocate memory")
        return launch(self, pixels, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(Predictor, "launch", limited)
    assert main(["predict", str(model), str(photos), "-o", str(tmp_path / "out")]) == 3
    said = capsys.readouterr()
    assert f"failed: {photos}/large.png: it does not fit into memory" in said.err
    assert "4 of 5 images predicted" in said.out


def test_more_pixels_than_can_be_read_are_called_so(tmp_path: Path) -> None:
    size = struct.pack(">II", 40000, 40000) + b"\x08\x02\0\0\0"
    chunks = [(b"IHDR", size), (b"IDAT", zlib.compress(b"\0" * 99)), (b"IEND", b"")]
    with (tmp_path / "vast.png").open("wb") as file:
        file.write(b"\x89PNG\r\n\x1a\n")
        for name, content in chunks:
            file.write(struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content)))
    with pytest.raises(DataError, match=r"more than the 2\*\*30 pixels"):
        read_image(tmp_path / "vast.png")


def test_what_a_model_of_another_version_asks_for_is_said(
    model: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    write_models(tmp_path, angles=[1, 2])
    assert main(["predict", str(tmp_path / "gss_ft.pth"), str(photos / "a.png"), "-o", str(tmp_path / "out")]) == 0
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"note: {tmp_path}/gss_ft.pth was made by gss") and "asks for angles" in line


def test_twelve_bits_in_sixteen_are_noted(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    for name in "ab":
        cv2.imwrite(str(tmp_path / f"{name}.png"), PIXELS.astype(np.uint16) * 16)
    assert main(["predict", str(model), str(tmp_path), "-o", str(tmp_path / "out"), "--device", "cpu"]) == 0
    said = capsys.readouterr().err
    assert said.count("nearly black, no value is above 15 of 255") == 1 and "a.png: nearly black" in said
    with pytest.warns(UserWarning, match="nearly black"):
        gss.load(model).predict(tmp_path / "a.png")
