"""A folder of data sets with the weights of a small encoder, so that nothing would be downloaded."""

from pathlib import Path

import pytest
from safetensors.torch import save_file

from gss._compat import import_timm


@pytest.fixture(scope="session")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "test_resnet.safetensors"
    state = import_timm().create_model("test_resnet").state_dict()
    save_file({key: value.contiguous() for key, value in state.items()}, path)
    return path


@pytest.fixture
def base(tmp_path: Path, weights: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """`GSS_DATA`; tests put their data sets there."""
    base = tmp_path / "data"
    (base / "weights").mkdir(parents=True)
    (base / "weights" / weights.name).symlink_to(weights)
    monkeypatch.setenv("GSS_DATA", str(base))
    monkeypatch.chdir(tmp_path)
    return base
