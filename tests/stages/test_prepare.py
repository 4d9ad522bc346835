"""Archives become folders of a data set: whole, only what is needed, and nothing of a hostile one."""

import hashlib
import io
import multiprocessing
import os
import signal
import stat
import tarfile
import threading
import time
import unicodedata
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from gss import progress
from gss.cli import main
from gss.data import archives
from gss.data.loader import read_pair
from gss.files import read_json
from gss.stages.prepare import _alone
from gss.stages.run import Run

Files = dict[str, bytes]
FEW = ("data.splits.train.count=2", "data.splits.val.count=1")
UNTRAINED = ("tokenizer={source: train}", "latent_prior.backbone.weights=null")  # no files of OpenAI's and timm's
FOLDERS = ("images/train", "labels/train", "images/val", "labels/val")


def picture(values: np.ndarray, form: str = "PNG") -> bytes:
    file = io.BytesIO()
    Image.fromarray(values.astype(np.uint8)).save(file, form)
    return file.getvalue()


def zip_of(files: Files) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as packed:
        for name, content in files.items():
            packed.writestr(name, content)
    return file.getvalue()


def tar_of(files: Files, mode: str = "w:gz", extra: tuple[tarfile.TarInfo, ...] = ()) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode=mode) as packed:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            packed.addfile(info, io.BytesIO(content))
        for info in extra:
            packed.addfile(info)
    return file.getvalue()


def ade_files() -> Files:
    """Two training pairs, one validation pair, and what else an archive holds."""
    rng = np.random.RandomState(0)
    files: Files = {"ADEChallengeData2016/objectInfo150.txt": b"not needed"}
    for split, names in {"training": "ab", "validation": "c"}.items():
        for name in names:
            image, label = rng.randint(0, 256, (32, 40, 3)), rng.randint(0, 151, (32, 40))
            files[f"ADEChallengeData2016/images/{split}/{name}.jpg"] = picture(image, "JPEG")
            files[f"ADEChallengeData2016/annotations/{split}/{name}.png"] = picture(label)
    return files


def city_files() -> tuple[Files, Files]:
    """Images and labels as the two archives of Cityscapes hold them: two training pairs, one validation pair."""
    rng = np.random.RandomState(1)
    images: Files = {"README": b"", "license.txt": b""}
    labels: Files = {"README": b"", "license.txt": b""}
    for place in ("train/aachen/aachen_000000", "train/ulm/ulm_000001", "val/lindau/lindau_000002"):
        frame = f"{place}_000019"
        ids = rng.randint(0, 34, (32, 64))
        images[f"leftImg8bit/{frame}_leftImg8bit.png"] = picture(rng.randint(0, 256, (32, 64, 3)))
        labels[f"gtFine/{frame}_gtFine_labelIds.png"] = picture(ids)
        labels[f"gtFine/{frame}_gtFine_color.png"] = picture(rng.randint(0, 256, (32, 64, 4)))
        labels[f"gtFine/{frame}_gtFine_instanceIds.png"] = picture(ids)
        labels[f"gtFine/{frame}_gtFine_polygons.json"] = b"{}"
    images["leftImg8bit/test/bonn/bonn_000000_000019_leftImg8bit.png"] = b"not needed"
    return images, labels


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "data"
    folder.mkdir()
    monkeypatch.setenv("GSS_DATA", str(folder))
    return folder


@pytest.fixture
def results(tmp_path: Path) -> Path:
    return tmp_path / "results"


def experiment(tmp_path: Path, **changes: object) -> Path:
    """An experiment with a data set `set` from the archive `set.zip`."""
    folders = {split: {"images": f"images/{split}", "labels": f"labels/{split}"} for split in ("train", "val")}
    content = {
        "data": {
            "root": "set",
            "classes": ["sky", "road"],
            "splits": folders,
            "obtain": "ask the author",
            "archives": [{"file": "set.zip", "into": "set"}],
            **changes,
        },
        "augment": {"base_scale": [32, 32], "crop": [32, 32]},
        "latent_prior": {"backbone": {"name": "test_resnet"}},
    }
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


def small_files() -> Files:
    files = {}
    for split in ("train", "val"):
        for name in ("a", "b"):
            files[f"images/{split}/{name}.png"] = picture(np.full((32, 32, 3), ord(name)))
            files[f"labels/{split}/{name}.png"] = picture(np.arange(1024).reshape(32, 32) % 2)
    return files


def content_of(folder: Path) -> Files:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def run_verb(verb: str, path: Path | str, results: Path, *overrides: str) -> int:
    return main([verb, str(path), *overrides, "--results", str(results)])


# ---- the published data sets


def test_ade20k_from_its_archive_to_the_loader(data: Path, results: Path) -> None:
    files = ade_files()
    (data / "ADEChallengeData2016.zip").write_bytes(zip_of(files))
    counts = (*FEW, *UNTRAINED)
    assert run_verb("prepare", "ade20k", results, *counts, *unchecked("ade20k")) == 0
    expected = {name: content for name, content in files.items() if not name.endswith(".txt")}
    (data / "ADEChallengeData2016.zip").unlink()
    assert content_of(data) == expected
    assert run_verb("check", "ade20k", results, *counts) == 0
    run = Run.open("ade20k", counts, results)
    for pair in run.manifest.pairs("train"):
        native = np.asarray(Image.open(pair.label)).astype(int)
        _, label = read_pair(pair)
        assert (label == np.where(native == 0, 255, native - 1)).all()
    assert run.space.num_classes == 150


def test_cityscapes_from_its_archives_to_the_loader(data: Path, results: Path) -> None:
    images, labels = city_files()
    (data / "leftImg8bit_trainvaltest.zip").write_bytes(zip_of(images))
    (data / "gtFine_trainvaltest.zip").write_bytes(zip_of(labels))
    counts = (*FEW, *UNTRAINED)
    assert run_verb("prepare", "cityscapes", results, *counts, *unchecked("cityscapes")) == 0
    assert sorted(content_of(data / "cityscapes")) == sorted(
        [name for name in images if "/train/" in name or "/val/" in name]
        + [name for name in labels if name.endswith("_labelIds.png")]
    )
    for name, content in labels.items():  # a set that was unpacked by hand has the other files, too
        if name.startswith("gtFine/"):
            (data / "cityscapes" / name).write_bytes(content)
    assert run_verb("check", "cityscapes", results, *counts) == 0
    run = Run.open("cityscapes", counts, results)
    assert [len(run.manifest.pairs(split)) for split in ("train", "val")] == [2, 1]
    evaluated = {
        7: 0,
        8: 1,
        11: 2,
        12: 3,
        13: 4,
        17: 5,
        19: 6,
        20: 7,
        21: 8,
        22: 9,
        23: 10,
        24: 11,
        25: 12,
        26: 13,
        27: 14,
        28: 15,
        31: 16,
        32: 17,
        33: 18,
    }
    train_ids = np.array([evaluated.get(native, 255) for native in range(34)])
    assert (run.space.num_classes, run.space.names[18]) == (19, "bicycle")
    for pair in run.manifest.pairs("train"):
        _, label = read_pair(pair)
        assert (label == train_ids[np.asarray(Image.open(pair.label))]).all()


def unchecked(name: str) -> list[str]:
    """Override that takes the checksums out of an experiment's archives: the ones made here differ."""
    archives = [{"file": a.file, "into": a.into} for a in Run.open(name).experiment.data.archives]
    return [f"data.archives={yaml.safe_dump(archives, default_flow_style=True).strip()}"]


# ---- what it does


@pytest.mark.parametrize(
    ("file", "pack"),
    [
        ("set.zip", zip_of),
        ("set.tar", lambda files: tar_of(files, "w")),
        ("set.tar.gz", tar_of),
        ("set.tar.xz", lambda files: tar_of(files, "w:xz")),
    ],
)
def test_zip_and_tar(file: str, pack: Callable[[Files], bytes], data: Path, results: Path, tmp_path: Path) -> None:
    files = small_files()
    packed = pack(files)
    (data / file).write_bytes(packed)
    digest = f"sha1:{hashlib.sha1(packed).hexdigest()}"
    path = experiment(tmp_path, archives=[{"file": file, "into": "set", "checksum": digest}])
    assert run_verb("prepare", path, results) == 0
    assert content_of(data / "set") == files
    record = read_json(results / "mine" / "data" / "prepared.json")
    assert record["archives"] == [{"file": file, "into": "set", "bytes": len(packed), "checksum": digest}]
    assert record["folders"] == {folder: [file] for folder in FOLDERS}
    assert sorted(os.listdir(data)) == ["set", file], "no folder of work stays"
    assert sorted(os.listdir(data / "set")) == ["images", "labels"]
    assert run_verb("check", path, results) == 0


def test_nothing_to_do(data: Path, results: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, content in small_files().items():
        (data / "set" / name).parent.mkdir(parents=True, exist_ok=True)
        (data / "set" / name).write_bytes(content)
    for folder in [data / "set", *(data / "set").rglob("*")]:
        if folder.is_dir():
            folder.chmod(0o555)  # data of an administrator: nothing is written there
    assert run_verb("prepare", experiment(tmp_path), results) == 0, "the archive is not needed any more"
    assert "nothing is unpacked" in capsys.readouterr().out
    assert read_json(results / "mine" / "data" / "prepared.json")["archives"] == []
    for folder in [data / "set", *(data / "set").rglob("*")]:
        if folder.is_dir():
            folder.chmod(0o755)


def test_only_missing_folders_are_unpacked(data: Path, results: Path, tmp_path: Path) -> None:
    files = small_files()
    (data / "set.zip").write_bytes(zip_of(files))
    (data / "set/images/train").mkdir(parents=True)
    (data / "set/images/train/mine.png").write_bytes(b"kept")
    (data / "set/labels/train").mkdir(parents=True)  # empty: as good as missing
    assert run_verb("prepare", experiment(tmp_path), results) == 0
    expected = {name: content for name, content in files.items() if not name.startswith("images/train")}
    assert content_of(data / "set") == {**expected, "images/train/mine.png": b"kept"}
    assert read_json(results / "mine" / "data" / "prepared.json")["folders"]["images/train"] == []


def test_what_is_hidden_is_neither_content_nor_unpacked(data: Path, results: Path, tmp_path: Path) -> None:
    files, umlaut = small_files(), "f\N{LATIN SMALL LETTER U WITH DIAERESIS}r"
    files |= {f"{kind}/{umlaut}.png": files[f"{kind}/a.png"] for kind in ("images/train", "labels/train")}
    junk = dict.fromkeys(
        ("images/train/.ipynb_checkpoints/a.png", "images/train/@eaDir/a.png", "__MACOSX/images/train/._a.png"),
        files["images/train/a.png"],
    )
    decomposed = {unicodedata.normalize("NFD", name): content for name, content in files.items()}  # as of macOS
    (data / "set.zip").write_bytes(zip_of({**decomposed, **junk}))
    (data / "set/images/train").mkdir(parents=True)
    (data / "set/images/train/.DS_Store").write_text("of macOS")
    assert run_verb("prepare", experiment(tmp_path), results) == 0
    assert content_of(data / "set") == {**files, "images/train/.DS_Store": b"of macOS"}
    assert run_verb("check", experiment(tmp_path), results) == 0


def test_a_folder_may_come_from_two_archives(data: Path, results: Path, tmp_path: Path) -> None:
    files = small_files()
    (data / "one.zip").write_bytes(zip_of({name: files[name] for name in files if name.endswith("a.png")}))
    (data / "two.tar").write_bytes(tar_of({name: files[name] for name in files if name.endswith("b.png")}, "w"))
    archives = [{"file": "one.zip", "into": "set"}, {"file": "two.tar", "into": "set"}]
    path = experiment(tmp_path, archives=archives)
    assert run_verb("prepare", path, results) == 0
    assert content_of(data / "set") == files
    (data / "two.tar").write_bytes(tar_of(files, "w"))
    assert run_verb("prepare", path, results, "data.root=other") == 2, "files that both hold"


def test_an_archive_added_later_is_not_passed_over(
    data: Path, results: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its folders are there, so that nothing would be unpacked; what was unpacked before stays recorded."""
    files = small_files()
    (data / "one.zip").write_bytes(zip_of({name: files[name] for name in files if name.endswith("a.png")}))
    (data / "two.zip").write_bytes(zip_of({name: files[name] for name in files if name.endswith("b.png")}))
    both = [{"file": "one.zip", "into": "set"}, {"file": "two.zip", "into": "set"}]
    assert run_verb("prepare", experiment(tmp_path, archives=both[:1]), results) == 0
    record = read_json(results / "mine" / "data" / "prepared.json")
    assert run_verb("prepare", experiment(tmp_path, archives=both[:1]), results) == 0
    assert read_json(results / "mine" / "data" / "prepared.json") == record, "nothing new, nothing forgotten"
    assert run_verb("prepare", experiment(tmp_path, archives=both), results) == 2
    assert "two.zip" in (said := capsys.readouterr().err) and "added after others were unpacked" in said
    for name in files:
        (data / "set" / name).write_bytes(files[name])
    assert run_verb("prepare", experiment(tmp_path, archives=both), results) == 0, "unpacked by hand"


def test_names_of_windows_archives(data: Path, results: Path, tmp_path: Path) -> None:
    files = small_files()
    (data / "set.zip").write_bytes(zip_of({name.replace("/", "\\"): content for name, content in files.items()}))
    assert run_verb("prepare", experiment(tmp_path), results) == 0
    assert content_of(data / "set") == files


# ---- what it refuses


def link(name: str, target: str, kind: bytes = tarfile.SYMTYPE) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


def zip_link() -> bytes:
    file = io.BytesIO(zip_of(small_files()))
    with zipfile.ZipFile(file, "a") as packed:
        info = zipfile.ZipInfo("images/train/c.png")
        info.external_attr = (stat.S_IFLNK | 0o777) << 16
        packed.writestr(info, "/etc/passwd")
    return file.getvalue()


HOSTILE = {
    "zip that climbs": (lambda: zip_of({**small_files(), "images/train/../../../../evil.png": b"x"}), "leads out"),
    "zip that climbs with backslashes": (lambda: zip_of({**small_files(), "..\\..\\evil.png": b"x"}), "leads out"),
    "zip with an absolute path": (lambda: zip_of({**small_files(), "/tmp/evil.png": b"x"}), "leads out"),
    "zip with a link": (zip_link, "a link or a device"),
    "zip with a file twice": (lambda: twice(), "more than once"),
    "tar that climbs": (lambda: tar_of({**small_files(), "../evil.png": b"x"}), "leads out"),
    "tar with an absolute path": (lambda: tar_of({**small_files(), "/tmp/evil.png": b"x"}), "leads out"),
    "tar with a symbolic link": (
        lambda: tar_of(small_files(), extra=(link("images/train/c.png", "/etc/passwd"),)),
        "a link or a device",
    ),
    "tar with a linked folder": (
        lambda: tar_of(small_files(), extra=(link("elsewhere", "/tmp"),)),
        "a link or a device",
    ),
    "tar with a hard link": (
        lambda: tar_of(small_files(), extra=(link("c", "/etc/passwd", tarfile.LNKTYPE),)),
        "a link or a device",
    ),
    "tar with a device": (
        lambda: tar_of(small_files(), extra=(link("null", "", tarfile.CHRTYPE),)),
        "a link or a device",
    ),
    "truncated zip": (lambda: zip_of(small_files())[:-200], "cannot be read"),
    "damaged zip": (lambda: damaged(zip_of(small_files())), "cannot be read"),
    "truncated tar.gz": (lambda: tar_of(small_files())[:-300], "cannot be read"),
    "truncated tar": (lambda: tar_of(small_files(), "w")[:5000], "cannot be read"),
    "no archive": (lambda: b"<html>please log in</html>", "cannot be read"),
    "empty file": (lambda: b"", "cannot be read"),
    "another archive": (lambda: zip_of({"elsewhere/a.png": b"x"}), "no archive holds files for"),
}


def twice() -> bytes:
    file = io.BytesIO(zip_of(small_files()))
    with zipfile.ZipFile(file, "a") as packed, pytest.warns(UserWarning, match="Duplicate name"):
        packed.writestr("images/train/a.png", b"another")
    return file.getvalue()


def damaged(packed: bytes) -> bytes:
    """A bit of the first file's content is flipped."""
    place = 30 + len("images/train/a.png") + 20
    return packed[:place] + bytes([packed[place] ^ 1]) + packed[place + 1 :]


@pytest.mark.parametrize("case", HOSTILE)
def test_bad_archives_leave_nothing(
    case: str, data: Path, results: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pack, reason = HOSTILE[case]
    (data / "set.zip").write_bytes(pack())
    before = sorted(tmp_path.rglob("*"))
    path = experiment(tmp_path)
    assert run_verb("prepare", path, results) == 2
    error = capsys.readouterr().err
    assert reason in error and "set.zip" in error and "Traceback" not in error, error
    assert sorted(tmp_path.rglob("*")) == sorted([*before, path])
    assert not Path("/tmp/evil.png").exists()


@pytest.mark.parametrize(
    ("expected", "reason"),
    [
        ("sha1:" + 40 * "0", "expected sha1:0000"),
        ("md5:" + 32 * "0", "found md5:"),
        ("crc32:00000000", "data.archives.0.checksum"),
    ],
)
def test_wrong_checksum(
    expected: str, reason: str, data: Path, results: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (data / "set.zip").write_bytes(zip_of(small_files()))
    path = experiment(tmp_path, archives=[{"file": "set.zip", "into": "set", "checksum": expected}])
    assert run_verb("prepare", path, results) == 2
    assert reason in capsys.readouterr().err
    assert os.listdir(data) == ["set.zip"]


def test_missing_archive_and_folder_are_named_with_the_source(
    data: Path, results: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_verb("prepare", experiment(tmp_path), results) == 2
    error = capsys.readouterr().err
    assert "4 of 4 folders" in error
    assert f"{data / 'set.zip'}  (missing)" in error
    assert f"{data / 'set/images/train'}  (missing)" in error
    assert "ask the author" in error
    assert not results.exists() and not os.listdir(data)
    assert run_verb("prepare", experiment(tmp_path, archives=[]), results) == 2
    assert "no data.archives" in capsys.readouterr().err


def test_space_is_looked_at_first(
    data: Path, results: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (data / "set.zip").write_bytes(zip_of(small_files()))
    monkeypatch.setattr(archives.shutil, "disk_usage", lambda _: _Usage(8 * 4096 - 1))
    assert run_verb("prepare", experiment(tmp_path), results) == 2
    assert "free are" in capsys.readouterr().err
    assert os.listdir(data) == ["set.zip"]
    monkeypatch.setattr(archives.shutil, "disk_usage", lambda _: _Usage(8 * 4096))
    assert run_verb("prepare", experiment(tmp_path), results) == 0


class _Usage:
    def __init__(self, free: int) -> None:
        self.free = free


def test_progress_says_how_long_it_takes(
    data: Path, results: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(progress, "LINE_SECONDS", 0.0)
    monkeypatch.setattr(archives, "_MEGABYTE", 1)
    (data / "set.zip").write_bytes(zip_of(small_files()))
    assert run_verb("prepare", experiment(tmp_path), results) == 0
    lines = capsys.readouterr().out.splitlines()
    assert any(line.startswith("verify set.zip, MB: ") and " MB/s  in 0:0" in line for line in lines)
    assert any(line.startswith("unpack, MB: ") and " MB/s  ETA 0:0" in line for line in lines)


# ---- interruption and company


def slow_prepare(path: Path, results: Path, seconds: float) -> None:
    """The verb in a process of its own, with a pause before each folder is moved into place."""
    rename = os.rename

    def later(source: Path, target: Path) -> None:
        time.sleep(seconds)
        rename(source, target)

    archives.os.rename = later
    os._exit(run_verb("prepare", path, results))


def test_a_killed_call_leaves_whole_folders_and_the_next_goes_on(data: Path, results: Path, tmp_path: Path) -> None:
    files = small_files()
    (data / "set.zip").write_bytes(zip_of(files))
    path = experiment(tmp_path)
    process = multiprocessing.get_context("fork").Process(target=slow_prepare, args=(path, results, 0.4))
    process.start()
    first = data / "set" / "images" / "train"
    while not first.is_dir():
        assert process.is_alive()
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    done = [folder for folder in FOLDERS if (data / "set" / folder).exists()]
    assert 0 < len(done) < 4
    for folder in done:
        assert len(os.listdir(data / "set" / folder)) == 2
    moment = first.stat().st_mtime_ns
    assert run_verb("prepare", path, results) == 0
    assert content_of(data / "set") == files
    assert first.stat().st_mtime_ns == moment, "what was complete stays as it is"


def test_callers_wait_for_one_another(data: Path, results: Path, tmp_path: Path) -> None:
    (data / "set.zip").write_bytes(zip_of(small_files()))
    path = experiment(tmp_path)
    context = multiprocessing.get_context("fork")
    callers = [context.Process(target=slow_prepare, args=(path, tmp_path / f"results{n}", 0.1)) for n in range(3)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join(60)
    assert [caller.exitcode for caller in callers] == [0, 0, 0]
    assert content_of(data / "set") == small_files()
    records = [read_json(tmp_path / f"results{n}" / "mine" / "data" / "prepared.json")["archives"] for n in range(3)]
    assert sorted(map(len, records)) == [0, 0, 1], "one of them did the work"
    assert sorted(os.listdir(data / "set")) == ["images", "labels"]


def test_the_lock_of_a_caller_that_has_gone_lets_nobody_in_beside_another(tmp_path: Path) -> None:
    inside: list[str] = []
    together: list[tuple[str, ...]] = []
    entered = {name: threading.Event() for name in "abc"}

    def caller(name: str, stay: threading.Event | float) -> None:
        with _alone(tmp_path / "set"):
            inside.append(name)
            together.append(tuple(inside))
            entered[name].set()
            stay.wait() if isinstance(stay, threading.Event) else time.sleep(stay)
            inside.remove(name)

    leave = threading.Event()
    first, second, third = (threading.Thread(target=caller, args=case) for case in (("a", leave), ("b", 1.2), ("c", 0)))
    first.start()
    entered["a"].wait()
    second.start()
    time.sleep(0.2)  # it waits for the lock, which the first will remove
    leave.set()
    entered["b"].wait()
    third.start()
    for thread in (first, second, third):
        thread.join(30)
    assert together == [("a",), ("b",), ("c",)]
