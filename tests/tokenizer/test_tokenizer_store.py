"""The tokenizer's file: round trip, identity, clear errors."""

import pytest
import torch
from procedural import CASE_A, picture, procedural_dvae
from safetensors.torch import load_file, save_file

from gss.errors import TokenizerError
from gss.modelfile import tensors_sha256
from gss.recipes.gss.tokenizer.store import load_tokenizer, read_meta, save_tokenizer


def test_round_trip_keeps_weights_shape_and_identity(tmp_path):
    dvae, path = procedural_dvae(CASE_A), tmp_path / "tokenizer.safetensors"
    sha256 = save_tokenizer(path, dvae, {"source": "train"})
    loaded = load_tokenizer(path)
    assert loaded.sha256 == dvae.sha256 == sha256 == tensors_sha256(dvae.state_dict())
    assert torch.equal(loaded.encode(picture()), dvae.encode(picture()))
    assert not loaded.training and not any(p.requires_grad for p in loaded.parameters())
    meta = read_meta(path)
    assert meta["source"] == "train" and meta["shape"]["vocab_size"] == 32 and meta["shape"]["blocks_per_group"] == 2


def test_identity_follows_the_weights_alone(tmp_path):
    dvae = procedural_dvae(CASE_A)
    first = save_tokenizer(tmp_path / "a", dvae, {"source": "train"})
    second = save_tokenizer(tmp_path / "b", dvae.to(memory_format=torch.channels_last), {"source": "other"})
    dvae.decoder.blocks.output.conv.b[0] += 1e-3
    assert first == second != tensors_sha256(dvae.state_dict())


def test_wrong_files_are_clear_errors(tmp_path):
    with pytest.raises(TokenizerError, match="not found"):
        load_tokenizer(tmp_path / "gone")
    (tmp_path / "text").write_text("text")
    with pytest.raises(TokenizerError, match="not readable"):
        load_tokenizer(tmp_path / "text")
    save_file({"x": torch.zeros(1)}, tmp_path / "foreign")
    with pytest.raises(TokenizerError, match="not readable as a tokenizer: it is a safetensors file"):
        load_tokenizer(tmp_path / "foreign")


def test_changed_weights_are_noticed(tmp_path):
    from safetensors import safe_open

    path = tmp_path / "tokenizer.safetensors"
    save_tokenizer(path, procedural_dvae(CASE_A), {})
    tensors = load_file(path)
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
    tensors["decoder.blocks.output.conv.b"][0] += 1
    save_file(tensors, path, metadata)
    with pytest.raises(TokenizerError, match="the weights hash to"):
        load_tokenizer(path)
