import threading
from collections.abc import Iterator

import pytest
from slurm_cluster import SlurmCluster, running_cluster

pytest.register_assert_rewrite("scene")


@pytest.fixture(scope="session")
def cluster() -> Iterator[SlurmCluster]:
    """A SLURM cluster that starts requeued jobs after seconds instead of two minutes."""
    if missing := SlurmCluster.missing():
        pytest.skip(f"not installed: {', '.join(missing)} (Debian: slurmctld slurmd slurm-client munge)")
    with running_cluster() as started:
        stop = threading.Event()
        thread = threading.Thread(target=_hurry, args=(started, stop))
        thread.start()
        try:
            yield started
        finally:
            stop.set()
            thread.join()


def _hurry(cluster: SlurmCluster, stop: threading.Event) -> None:
    seen: set[str] = set()
    while not stop.wait(3):
        lines = [line.split() for line in cluster.call("squeue", "-h", "-t", "PENDING", "-o", "%i %r").splitlines()]
        waiting = {job for job, reason in lines if reason == "BeginTime"}
        for job in waiting & seen:  # not at once: SLURM refuses a job that starts in the second it was requeued in
            cluster.call("scontrol", "update", f"JobId={job}", "StartTime=now")
        seen = waiting
