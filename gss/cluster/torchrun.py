"""torchrun as `gss launch` starts it: quiet about orderly ends, and with the exit code of the worker that failed."""

import logging
import os
import signal
import sys

from gss.cluster.exit import TORCHRUN_PID


def main(arguments: list[str]) -> int:
    """Run torchrun.

    Returns:
        0, or the exit code of the first worker that failed; 1 when a signal ended that one, 75 when a signal came
        to torchrun itself.
    """
    from torch.distributed import run
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    os.environ[TORCHRUN_PID] = str(os.getpid())
    logging.disable(logging.CRITICAL)  # it reports each ended worker with a traceback of its own
    try:
        run.main(arguments)
    except ChildFailedError as error:
        rank, failure = error.get_first_failure()
        if failure.exitcode > 0:
            return failure.exitcode
        print(f"process {rank} (pid {failure.pid}) was ended by {signal.Signals(-failure.exitcode).name}; "
              f"SIGKILL without a cause in sight often means that memory ran out", file=sys.stderr, flush=True)
        return 1
    except SignalException:
        return 75
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
