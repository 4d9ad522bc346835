"""OpenAI's pickles: read in both formats, and nothing in them is ever executed."""

import functools
import hashlib
import http.server
import os
import pickle
import threading
from pathlib import Path

import pytest
import torch
from pickled import save_pickled
from procedural import CASE_A, procedural_dvae
from torch import nn

from gss.errors import TokenizerError
from gss.recipes.gss.tokenizer.unpickle import import_openai, read_module

pytestmark = pytest.mark.filterwarnings("ignore:Couldn't retrieve source code")  # of the classes made here


@pytest.fixture(params=["zip", "legacy"])
def files(request, tmp_path, monkeypatch) -> tuple[str, str]:
    state = procedural_dvae(CASE_A).state_dict()
    return save_pickled(tmp_path, state, monkeypatch, is_zip=request.param == "zip")


def sha256(path: str) -> str:
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


def test_wrong_sha256_names_both_hashes(files):
    import_openai(*files, encoder_sha256=sha256(files[0]), decoder_sha256=sha256(files[1]).upper())
    with pytest.raises(TokenizerError, match=f"SHA-256 is {sha256(files[1])}, expected {'0' * 64}") as error:
        import_openai(*files, decoder_sha256="0" * 64)
    assert error.value.where == files[1]


def test_url_is_read_only_with_a_pinned_hash(files):
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(Path(files[0]).parent))
    handler.func.log_message = lambda *_: None
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        base = f"http://127.0.0.1:{server.server_port}/"
        hashes = {"encoder_sha256": sha256(files[0]), "decoder_sha256": sha256(files[1])}
        assert import_openai(f"{base}encoder.pkl", f"{base}decoder.pkl", **hashes).vocab_size == 32
        with pytest.raises(TokenizerError, match="only with a pinned SHA-256"):
            import_openai(f"{base}encoder.pkl", files[1])
        with pytest.raises(TokenizerError, match="expected 111"):
            import_openai(f"{base}encoder.pkl", files[1], encoder_sha256="1" * 64)
        with pytest.raises(TokenizerError, match="cannot be read"):
            import_openai(f"{base}missing.pkl", files[1], encoder_sha256="1" * 64)
        server.shutdown()


class Trap:
    """Unpickling it makes a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = str(folder)

    def __reduce__(self):
        return os.mkdir, (self.folder,)


@pytest.mark.parametrize("is_zip", [True, False])
def test_foreign_global_is_refused_and_nothing_executed(tmp_path, is_zip):
    module = nn.Sequential(nn.ReLU())
    module.trap = Trap(tmp_path / "executed")
    path = tmp_path / "encoder.pkl"
    torch.save(module, path, _use_new_zipfile_serialization=is_zip)
    with pytest.raises(TokenizerError, match=r"refers to (posix|nt)\.mkdir") as error:
        import_openai(str(path), str(path))
    assert error.value.where == str(path)
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_plain_pickles_of_any_protocol_are_refused(tmp_path, protocol):
    with pytest.raises(TokenizerError):
        read_module(pickle.dumps(Trap(tmp_path / "executed"), protocol))
    assert not (tmp_path / "executed").exists()


def test_foreign_global_is_found_before_the_first_object_is_built(files, monkeypatch):
    built = []
    monkeypatch.setattr("gss.recipes.gss.tokenizer.unpickle._Reader.rebuild_tensor", lambda *_: built.append(1))
    content = (
        Path(files[0])
        .read_bytes()
        .replace(b"torch.nn.modules.pooling\nMaxPool2d", b"torch.nn.modules.pooling\nMaxPool9d")
    )
    with pytest.raises(TokenizerError, match=r"MaxPool9d|not readable"):
        read_module(content)
    assert not built


@pytest.mark.parametrize("content", [b"", b"no pickle", b"PK\x03\x04 damaged"])
def test_damaged_file_is_a_clear_error(tmp_path, content):
    path = tmp_path / "encoder.pkl"
    path.write_bytes(content)
    with pytest.raises(TokenizerError, match="not readable as a pickled DALL-E module") as error:
        import_openai(str(path), str(path))
    assert error.value.where == str(path)


def test_truncated_file_is_a_clear_error(files):
    content = Path(files[0]).read_bytes()
    with pytest.raises(TokenizerError, match="not readable"):
        read_module(content[: len(content) // 2])


def test_missing_file_is_a_clear_error(files):
    with pytest.raises(TokenizerError, match="cannot be read"):
        import_openai(files[0], files[1] + ".gone")


def test_two_encoders_form_no_dvae(files):
    with pytest.raises(TokenizerError, match="form no DALL-E dVAE"):
        import_openai(files[0], files[0])
