"""Where the work runs: Ray on this machine, or the cluster that RAY_ADDRESS names."""

import logging
import os
import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import ray
from ray.data import DataContext


@contextmanager
def ray_session(num_cpus: int | None = None, verbose: bool = False) -> Iterator[None]:
    """Connect to the cluster at RAY_ADDRESS ("auto" on one of its machines), or else start Ray here; end it on leaving.

    Args:
        num_cpus: the CPUs that a Ray started here counts with: slots for tasks, not cores. One more than there are
            cores by default: on two, the stages that only pass blocks on would wait ten seconds for one another.
        verbose: show what Ray and its workers log, too. It is in /tmp/ray/session_latest/logs in any case.
    """
    # Ray's own wish for the future, set now: it leaves CUDA_VISIBLE_DEVICES alone where no GPU was asked for.
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    # Ray Train takes a worker's report in at its health checks, two seconds apart: longer than an epoch here.
    os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.2")
    # Ray starts some of its workers through a shell and does not quote the path of Python, which may have spaces.
    quoted = shlex.quote(sys.executable)
    environment = None if quoted == sys.executable else {"py_executable": quoted}
    level = logging.INFO if verbose else logging.ERROR
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
    logging.getLogger("ray.data").setLevel(logging.INFO if verbose else logging.CRITICAL)  # what it logs, it raises too
    context = DataContext.get_current()
    context.enable_progress_bars = sys.stderr.isatty()  # bars for people; a log stays readable
    try:
        yield
    finally:
        ray.shutdown()


def _cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
