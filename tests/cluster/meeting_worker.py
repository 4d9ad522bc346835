"""A worker that adds up a number with all others and notes where it was: `python -m meeting_worker FOLDER`."""

import json
import os
import sys
from pathlib import Path

import torch

from gss.train.distributed import worker

NOTED = ("SLURMD_NODENAME", "CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS", "SLURM_JOB_ID")


def main(folder: Path) -> None:
    with worker(folder) as world:
        total = int(world.sum(torch.tensor(world.rank + 1)))
        note = {"total": total, **{name: os.environ.get(name) for name in NOTED}}
        (folder / f"note_{world.rank}.json").write_text(json.dumps(note))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
