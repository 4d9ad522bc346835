"""Run by `gss launch` in test_groups.py: stages of one verb, each of which joins the processes anew."""

import faulthandler
import sys
import time
from pathlib import Path

from gss.errors import GssError
from gss.train.distributed import worker


def main(folder: Path, last: str) -> None:
    faulthandler.dump_traceback_later(30, exit=True)  # processes that do not find each other wait for half an hour
    for stage in range(3):
        with worker(folder / str(stage)) as world:
            if world.max(world.rank) != 1:
                raise AssertionError
            (folder / f"{stage}_{world.rank}").touch()
            if last == "fails" and stage == 2:
                raise GssError("the last one failed")
        if world.is_main:
            time.sleep(0.5)  # the other one is there first, where the addresses of the group before still stand


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
