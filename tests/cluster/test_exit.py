import json
import signal

import pytest

from gss.cluster.exit import TORCHRUN_PID, read_exit, worker_exit, write_exit
from gss.errors import DataError, Interrupted


@pytest.fixture(autouse=True)
def _own_signals(monkeypatch):
    monkeypatch.delenv(TORCHRUN_PID, raising=False)
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize(
    ("error", "code", "step", "deadline"),
    [
        (DataError("bad", where="a.png"), 2, None, False),
        (KeyError("ours"), 1, None, False),
        (Interrupted("later", step=7), 75, 7, False),
        (Interrupted("in a new job", step=7, deadline=True), 75, 7, True),
    ],
)
def test_each_end_leaves_its_code_and_message(tmp_path, capsys, error, code, step, deadline):
    write_exit(tmp_path, 33, "of an earlier run")
    with pytest.raises(SystemExit) as ended, worker_exit(tmp_path):
        raise error
    assert ended.value.code == code
    left = read_exit(tmp_path)
    assert (left["code"], left["step"], left["rank"], left["deadline"]) == (code, step, 0, deadline)
    assert left["reason"] in capsys.readouterr().err
    assert ("Traceback" in left["reason"]) == (code == 1)


def test_success_leaves_nothing(tmp_path):
    with worker_exit(tmp_path):
        pass
    assert read_exit(tmp_path) is None


def test_the_first_of_several_processes_is_the_one_that_counts(tmp_path, monkeypatch):
    assert write_exit(tmp_path, 2, "cause")
    monkeypatch.setenv("RANK", "1")
    assert not write_exit(tmp_path, 1, "connection lost")
    assert read_exit(tmp_path) == {"code": 2, "reason": "cause", "step": None, "rank": 0, "deadline": False}


def test_a_signal_interrupts_in_good_order(tmp_path):
    with pytest.raises(SystemExit) as ended, worker_exit(tmp_path):
        signal.raise_signal(signal.SIGTERM)
    assert ended.value.code == 75 and "stopped by SIGTERM" in read_exit(tmp_path)["reason"]


def test_an_unwritable_folder_does_not_hide_the_message(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    with pytest.raises(SystemExit) as ended, worker_exit(tmp_path / "file"):
        raise DataError("bad")
    assert ended.value.code == 2 and "error: bad" in capsys.readouterr().err
    (tmp_path / "exit.json").write_text('{"code": ')
    assert read_exit(tmp_path) is None
    assert json.dumps(read_exit(tmp_path)) == "null"
