import copy
import threading
import time

import pytest
import torch
from tiny_disk import tiny_disk
from torch import nn

from gss.errors import GssError
from gss.train.checkpoint import CheckpointFolder
from gss.train.saver import HostMemory, Saver

CPU = torch.device("cpu")


class SlowDisk:
    """In place of a journal: its lines reach the disk when the test says so."""

    def __init__(self):
        self.ready = threading.Event()

    def sync(self):
        assert self.ready.wait(60)


def test_a_copy_shares_nothing_and_uses_the_same_memory_again():
    module = nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3)).to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(module.parameters())
    memory = HostMemory()
    module(torch.randn(2, 2, 5, 5)).sum().backward()
    optimizer.step()
    content = {"model": module.state_dict(), "optimizer": optimizer.state_dict(), "list": [torch.ones(2), 3, "x"]}
    expected, copied = copy.deepcopy(content), memory.copy(content)
    first = copied["model"]["0.weight"]
    assert first.stride() == module[0].weight.stride()
    assert copied["model"]._metadata == content["model"]._metadata
    optimizer.step()
    content["list"][0].zero_()
    assert not first.equal(module[0].weight) and first.equal(expected["model"]["0.weight"])
    assert copied["optimizer"]["state"][0]["exp_avg"].equal(expected["optimizer"]["state"][0]["exp_avg"])
    assert copied["optimizer"]["state"][0]["step"] == 1 and optimizer.state_dict()["state"][0]["step"] == 2
    assert copied["optimizer"]["param_groups"] == expected["optimizer"]["param_groups"]
    assert copied["list"][0].equal(torch.ones(2)) and copied["list"][1:] == [3, "x"]
    again = memory.copy(content)["model"]["0.weight"]
    assert again.equal(module[0].weight) and again.data_ptr() == first.data_ptr()


def test_the_training_goes_on_while_a_checkpoint_is_written(tmp_path):
    disk, folder = SlowDisk(), CheckpointFolder(tmp_path)
    weights = torch.full((3,), 5.0)
    with Saver(folder, disk) as saver:
        saver.save(5, {"weights": weights})
        weights += 1
        saver.check()
        assert folder.find_latest() == (None, [])  # not before the lines of the journal
        threading.Timer(0.2, disk.ready.set).start()
        began = time.perf_counter()
        saver.save(6, {"weights": weights})  # one at a time
        assert time.perf_counter() - began > 0.1
    assert "step_00000006" in saver.last_good() and saver.longest > 0.2
    assert [folder.load(step, map_location=CPU)["weights"][0] for step in (5, 6)] == [5, 6]


def test_what_cannot_be_written_is_raised_at_the_next_check_and_once(tmp_path):
    with tiny_disk(tmp_path / "disk") as disk:
        folder = CheckpointFolder(disk / "checkpoints")
        with Saver(folder, None) as saver:
            saver.save(5, {"weights": torch.zeros(100)})
            saver.wait()
            saver.save(6, {"weights": torch.zeros(200_000)})
            with pytest.raises(GssError, match="No space left on device"):
                for _ in range(6000):
                    saver.check()
                    time.sleep(0.01)
            saver.check()
            assert "step_00000005" in saver.last_good()
            saver.save(7, {"weights": torch.zeros(100)})
        assert folder.find_latest()[0].step == 7


def test_what_cannot_be_written_at_the_end_is_raised_there(tmp_path, capsys):
    with tiny_disk(tmp_path / "disk") as disk:
        with pytest.raises(GssError, match="No space left"), Saver(CheckpointFolder(disk), None) as saver:
            saver.save(6, {"weights": torch.zeros(200_000)})
        with pytest.raises(KeyError), Saver(CheckpointFolder(disk), None) as saver:
            saver.save(6, {"weights": torch.zeros(200_000)})
            raise KeyError("the cause")
        assert "warning: cannot write: No space left" in capsys.readouterr().out
