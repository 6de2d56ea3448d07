"""Where the work runs: Ray on this machine, or the cluster that RAY_ADDRESS names."""

import logging
import os
import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import ray
from ray.data import DataContext

# What glibc gives back to the system after each batch it asks for again in the next, a page at a time: a third of the
# time of a convolutional network on a CPU. Workers inherit this; for a cluster, the Dockerfile says the same.
MALLOC = {"MALLOC_ARENA_MAX": "1", "MALLOC_MMAP_THRESHOLD_": str(2**30), "MALLOC_TRIM_THRESHOLD_": str(2**30)}


@contextmanager
def ray_session(num_cpus: int | None = None, verbose: bool = False) -> Iterator[None]:
    """Connect to the cluster at RAY_ADDRESS ("auto" on one of its machines), or else start Ray here; end it on leaving.

    Args:
        num_cpus: the CPUs that a Ray started here counts with: slots for tasks, not cores. One more than there are
            cores by default: on two, the stages that only pass blocks on would wait ten seconds for one another.
        verbose: show what Ray and its workers log, too. It is in /tmp/ray/session_latest/logs in any case.
    """
    # Ray Train takes a worker's report in at its health checks, two seconds apart: longer than an epoch here.
    os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.2")
    # Ray starts some of its workers through a shell and does not quote the path of Python, which may have spaces.
    quoted = shlex.quote(sys.executable)
    environment = None if quoted == sys.executable else {"py_executable": quoted}
    level = logging.INFO if verbose else logging.ERROR
    for name, value in MALLOC.items():
        os.environ.setdefault(name, value)
    if os.environ.get("RAY_ADDRESS"):
        ray.init(logging_level=level, log_to_driver=verbose)
    else:
        # Nobody looks at the dashboard of a run on one machine, and it makes the start slower.
        ray.init(
            address="local",
            num_cpus=num_cpus or _cores() + 1,
            include_dashboard=False,
            logging_level=level,
            log_to_driver=verbose,
            runtime_env=environment,
        )
    # Ray Data's errors are raised as well as logged; that a task hangs is logged only.
    logging.getLogger("ray.data").setLevel(logging.INFO if verbose else logging.CRITICAL)
    logging.getLogger("ray.data._internal.issue_detection").setLevel(logging.WARNING)
    context = DataContext.get_current()
    context.enable_progress_bars = sys.stderr.isatty()  # bars for people; a log stays readable
    context.use_datasource_v2 = False  # it starts four processes to read the footers of a few Parquet files
    try:
        yield
    finally:
        ray.shutdown()


def _cores() -> int:
    """The cores that this process may use, in a container as well."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    limit = Path("/sys/fs/cgroup/cpu.max")  # such as "200000 100000", two cores, or "max 100000"
    quota, period = limit.read_text().split() if limit.exists() else ("max", "1")
    return cores if quota == "max" else max(1, min(cores, int(quota) // int(period)))
