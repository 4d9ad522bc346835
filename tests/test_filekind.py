"""What a file is that was given in place of a model, a tokenizer or a checkpoint; nothing in it is executed."""

import argparse
import json
import os
import pickle
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

import gss
from gss.checkpoints import read_checkpoint
from gss.errors import GssError
from gss.filekind import file_kind
from gss.modelfile import FORMAT, load_model
from gss.recipes.gss.tokenizer.store import load_tokenizer
from tests.use.models import write_models

LINEAR = torch.nn.Linear(2, 2)
WEIGHTS = LINEAR.state_dict()
LFS = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 1420373\n"
PAGE = "\n<!DOCTYPE html>\n<html><head><title>\n Sign \x1b[31min\n</title></head></html>"


class Trap:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def saved(content: object, *, legacy: bool = False):
    return lambda path: torch.save(content, path, _use_new_zipfile_serialization=not legacy)


def write(content: bytes | str):
    return lambda path: path.write_bytes(content if isinstance(content, bytes) else content.encode())


def cut(make, length: int):
    def make_cut(path: Path) -> None:
        make(path)
        path.write_bytes(path.read_bytes()[:-length])

    return make_cut


def write_zip(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("run 7/gss_ft.pth", "x")


def write_tar(path: Path) -> None:
    with tarfile.open(path, "w") as archive:
        archive.add(__file__, "a.py")


OBJECT = "a whole pickled object ('torch.nn.modules.linear.Linear')"
CASES = {
    "whole module": (saved(LINEAR), OBJECT, "torch.save(model.state"),
    "old module": (saved(LINEAR, legacy=True), OBJECT, "torch.save(model.state"),
    "state dict": (saved(WEIGHTS), "a bare state dict of 2 tensors ('weight', 'bias')", None),
    "old state dict": (saved(WEIGHTS, legacy=True), "a bare state dict of 2 tensors ('weight', 'bias')", None),
    "mmseg": (saved({"meta": {}, "state_dict": {"backbone.w": torch.ones(1)}}), "a checkpoint of mmsegmentation", None),
    "gss": (
        saved({"meta": {}, "state_dict": {"module.decode_head.conv_before_seg.w": torch.ones(1)}}),
        "a checkpoint of the published GSS code",
        "gss import EXPERIMENT FILE",
    ),
    "cae": (
        saved({"meta": {}, "state_dict": {"backbone.fpn1.0.weight": torch.ones(1)}}),
        "a checkpoint of the published CAE code",
        "gss import EXPERIMENT FILE",
    ),
    "mseg": (
        saved({"epoch": 1, "state_dict": {"module.last_layer.3.weight": torch.ones(1)}}),
        "a checkpoint of the published MSeg code",
        "gss import EXPERIMENT FILE",
    ),
    "pre-training": (
        saved({"model": {"encoder.blocks.0.gamma_1": torch.ones(1)}, "args": argparse.Namespace(lr=1)}),
        "a checkpoint of a pre-training such as CAE's, of 1 tensor",
        "`weights` of the section `backbone`",
    ),
    "lightning": (
        saved({"pytorch-lightning_version": "2", "state_dict": {"a": torch.ones(1)}}),
        "a checkpoint of PyTorch Lightning, of 1 tensor ('a')",
        None,
    ),
    "nnunet": (saved({"network_weights": {"a": torch.ones(1)}, "trainer_name": "x"}), "a checkpoint of nnU-Net", None),
    "ultralytics": (saved({"model": LINEAR, "ema": None, "train_args": {}}), "a checkpoint of Ultralytics", None),
    "work": (
        saved({"step": 1, "settings": {}, "model": WEIGHTS, "optimizer": {}, "meter": {}, "buffers": []}),
        "a checkpoint of a training of this project, of 2 tensors",
        None,
    ),
    "other": (saved({"epoch": 3, "weights": [torch.ones(1)]}), "a pickled dictionary ('epoch', 'weights')", None),
    "list": (saved([1]), "a pickled list, no checkpoint", None),
    "tensor": (saved(torch.ones(2)), "a single tensor", None),
    "program": (lambda path: torch.jit.script(LINEAR).save(str(path)), "a TorchScript program", "the state dict"),
    "numpy pickle": (write(pickle.dumps({"model": {"w": np.ones(2)}})), "a pickled dictionary ('model')", None),
    "safetensors": (lambda path: save_file(WEIGHTS, path), "a safetensors file of 2 tensors", None),
    "cut safetensors": (cut(lambda path: save_file(WEIGHTS, path), 5), "a truncated safetensors file: ", "again"),
    "cut": (cut(saved(LINEAR), 300), "a truncated file: the end of its ", "copy or download it again"),
    "cut old": (cut(saved(LINEAR, legacy=True), 900), "a damaged or truncated pickle", "copy or download it again"),
    "empty": (write(""), "an empty file (0 bytes)", "copy or download it again"),
    "zeros": (write(bytes(9000)), "a file of zeros (9000 bytes", "copy or download it again"),
    "lfs": (write(LFS), "a Git LFS pointer, which stands for a file of 1420373 bytes", "git lfs pull"),
    "annex": (write("/annex/objects/SHA256E-s1--a.pth\n"), "a git-annex pointer", "git annex get"),
    "page": (write(PAGE), "a web page with the title 'Sign \\x1b[31min'", "download it again"),
    "answer": (write('{"error":"not found"}'), 'JSON that begins with \'{"error":"not found"}\'', None),
    "experiment": (write("data:\n  root: x\n"), "text that begins with 'data:'", None),
    "palette": (write("index,name,r,g,b\n0,sky,1,2,3\n"), "a palette or a class table", None),
    "photo": (lambda path: Image.new("RGB", (4, 4)).save(path, "JPEG"), "a picture (JPEG)", None),
    "zip": (write_zip, "an archive (zip) of 'run 7/gss_ft.pth'", "unpack it"),
    "tar": (write_tar, "an archive (tar)", "unpack it"),
    "array": (lambda path: np.save(path.open("wb"), np.ones(2)), "a NumPy array", None),
    "bytes": (write(bytes(range(250))), "250 bytes of no known kind, the first of which are 00 01 02", None),
}

# what `gss import` looks into
STATES = {"state dict", "old state dict", "mmseg", "gss", "cae", "mseg", "pre-training", "lightning", "work"}


@pytest.mark.parametrize("case", CASES)
def test_a_foreign_file_is_said_to_be_what_it_is(case: str, tmp_path: Path) -> None:
    make, name, todo = CASES[case]
    path = tmp_path / "given.pth"
    make(path)
    before = path.read_bytes()
    kind = file_kind(path)
    assert kind.name.startswith(name) and kind.name.isprintable()
    assert kind.todo is None if todo is None else todo in kind.todo
    for read in (load_model, load_tokenizer, read_checkpoint):
        if read is not read_checkpoint or case not in STATES:
            with pytest.raises(GssError) as error:
                read(path)
            assert name in str(error.value) and "delete" not in str(error.value) and "\n  where: " in str(error.value)
            assert todo is None or "gss import" in todo or todo in str(error.value)
    assert path.read_bytes() == before


@pytest.mark.parametrize("legacy", [False, True])
def test_nothing_of_a_foreign_file_is_executed(legacy: bool, tmp_path: Path) -> None:
    trap = Trap(tmp_path / "executed")
    for content in (trap, {"state_dict": trap}, {"meta": [trap], "state_dict": {}}):
        saved(content, legacy=legacy)(tmp_path / "trap.pth")
        file_kind(tmp_path / "trap.pth")
        (tmp_path / "plain.pkl").write_bytes(pickle.dumps(content))
        file_kind(tmp_path / "plain.pkl")
    assert not (tmp_path / "executed").exists()


def test_a_damaged_model_file_is_no_foreign_one(tmp_path: Path) -> None:
    path = write_models(tmp_path) / "gss_ft.pth"
    with zipfile.ZipFile(path) as archive, zipfile.ZipFile(tmp_path / "lacking.pth", "w") as lacking:
        for name in archive.namelist():
            if not name.endswith("/data/3"):
                lacking.writestr(name, archive.read(name))
    with pytest.raises(GssError, match=r"(?s)the model file is damaged: .*copy it or build it again"):
        load_model(tmp_path / "lacking.pth")
    with zipfile.ZipFile(path) as archive:
        largest = max(archive.infolist(), key=lambda member: member.file_size)
    content = bytearray(path.read_bytes())
    content[largest.header_offset + largest.file_size // 2] ^= 1  # of a weight: torch would not notice
    (tmp_path / "flipped.pth").write_bytes(content)
    with pytest.raises(GssError, match=f"the model file is damaged: .*check sum of {largest.filename}"):
        load_model(tmp_path / "flipped.pth")
    with pytest.raises(GssError, match=r"(?s)no state dict: it is a model file of this project.*use it as it is"):
        read_checkpoint(path)


def test_files_of_a_later_format_name_the_version(tmp_path: Path) -> None:
    write_models(tmp_path)
    content = torch.load(tmp_path / "gss_ft.pth", weights_only=True)
    torch.save({**content, "format": FORMAT + 1, "version": "7.8"}, tmp_path / "gss_ft.pth")
    said = f"written in format {FORMAT + 1} by gss 7.8; this is gss {gss.__version__}, which reads format {FORMAT}"
    with pytest.raises(GssError, match=said):
        load_model(tmp_path / "gss_ft.pth")
    header = {"format": "gss-tokenizer-2", "environment": {"gss": "7.8"}}
    save_file(WEIGHTS, tmp_path / "t.safetensors", {"gss": json.dumps(header)})
    with pytest.raises(GssError, match=r"written in format gss-tokenizer-2 by gss 7\.8"):
        load_tokenizer(tmp_path / "t.safetensors")
