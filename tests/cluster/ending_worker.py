"""A worker without torch that ends as it is told: `python -m ending_worker FOLDER HOW`."""

import os
import sys
import time
from pathlib import Path

from gss.cluster.exit import worker_exit
from gss.errors import DataError, Interrupted


def main(folder: Path, how: str) -> None:
    rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    with worker_exit(folder):
        (folder / f"worker_{rank}.pid").write_text(str(os.getpid()))
        print(f"threads {os.environ['OMP_NUM_THREADS']} of {size}", flush=True)
        if how == "done" or (how == "deadline" and os.environ["SLURM_RESTART_COUNT"] == "1"):
            return
        if rank == size - 1:
            match how:
                case "mend":
                    raise DataError("label 7 is unknown", where="a.png", todo="map it")
                case "fault":
                    raise ZeroDivisionError("our own fault")
                case "again":
                    raise Interrupted("come again", step=5)
                case "deadline":
                    raise Interrupted("the time is nearly over", step=5, deadline=True)
                case "kill":
                    os.kill(os.getpid(), 9)
        try:
            time.sleep(600)
        except Interrupted as stop:
            (folder / f"worker_{rank}.stop").write_text(str(stop))
            raise


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
