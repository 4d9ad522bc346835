"""A verb of several stages in several processes, such as the evaluation on all test sets."""

import json
from pathlib import Path

import pytest

from gss.cluster.launch import launch

HERE = Path(__file__).resolve().parent


@pytest.mark.slow
@pytest.mark.parametrize(("last", "code"), [("ends", 0), ("fails", 2)])
def test_processes_meet_for_every_stage(
    last: str, code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PYTHONPATH", f"{HERE}:{HERE.parents[1]}")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert launch(2, [str(tmp_path), last], work=tmp_path, module="several_groups") == code
    assert len(list(tmp_path.glob("[012]_[01]"))) == 6
    if last == "fails":  # told by the launcher, whose work folder is another one than the stage's
        assert json.loads((tmp_path / "exit.json").read_text())["reason"] == "error: the last one failed"
        assert capfd.readouterr().err.count("error: the last one failed") == 1
