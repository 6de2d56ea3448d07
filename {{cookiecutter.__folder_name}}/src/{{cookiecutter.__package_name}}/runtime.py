"""Where the work runs: Ray on this machine, or the cluster that RAY_ADDRESS names.

Ray takes a second to import, and is when it is started: what is wrong before that is said at once.
"""

import logging
import os
import shlex
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from .errors import UserError
from .tokens import token_file

# What Ray is started with on this machine; for a cluster, the Dockerfile says the same.
NODE_ENVIRONMENT = {
    # What glibc gives back to the system after each batch it asks for again in the next, a page at a time: a third of
    # the time of a convolutional network on a CPU.
    "MALLOC_ARENA_MAX": "1",
    "MALLOC_MMAP_THRESHOLD_": str(2**30),
    "MALLOC_TRIM_THRESHOLD_": str(2**30),
    # Where no CPU is free, Ray ends a worker that was idle for a second, and loads another for the next task.
    "RAY_idle_worker_killing_time_threshold_ms": "60000",
}

API_SERVER = "RAY_API_SERVER_ADDRESS"
DASHBOARD_PORTS = range(8266, 8366)  # 8265 is left to a cluster's, where `submit` sends jobs


@contextmanager
def ray_session(num_cpus: int | None = None, verbose: bool = False, dashboard: bool = False) -> Iterator[None]:
    """Connect to the cluster at RAY_ADDRESS ("auto" on one of its machines), or else start Ray here; end it on leaving.

    Args:
        num_cpus: the CPUs that a Ray started here counts with; `cpus_here` by default.
        dashboard: serve Ray's dashboard, on localhost only. Ray Tune needs it: without, the CPUs of the workers of a
            trial that was stopped are never free again. The other steps start faster without. It has port 8266, or
            the next one that is free.
        verbose: show what Ray and its workers log, too. It is in /tmp/ray/session_latest/logs in any case.

    Raises:
        UserError: no Ray answers at RAY_ADDRESS, it asks for another token, or in TMPDIR Ray can't work.
    """
    _check_temporary_folder()
    _check_address(os.environ.get("RAY_ADDRESS", ""))
    import ray
    from ray.data import DataContext

    # Ray Train takes a worker's report in at its health checks, two seconds apart: longer than an epoch here.
    os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.2")
    # Ray starts some of its workers through a shell and does not quote the path of Python, which may have spaces.
    quoted = shlex.quote(sys.executable)
    environment = None if quoted == sys.executable else {"py_executable": quoted}
    level = logging.INFO if verbose else logging.ERROR
    set_environment()
    waiting = "Waiting for Ray to start; what it does is in /tmp/ray/session_latest/logs"
    late = threading.Timer(30, print, [waiting], {"file": sys.stderr})
    late.daemon = True
    late.start()
    api_server = os.environ.get(API_SERVER)
    if address := os.environ.get("RAY_ADDRESS"):
        try:
            ray.init(logging_level=level, log_to_driver=verbose)
        except (ConnectionError, ray.exceptions.AuthenticationError):
            raise UserError(
                f"the cluster at {address} does not let this machine in. Is RAY_AUTH_MODE=token set, and is what "
                f"{token_file()} holds the cluster's token? See cluster/README.md"
            ) from None
    else:
        # The monitor of Ray's first autoscaler takes a second to end, each time; there is nothing to scale here.
        os.environ.setdefault("RAY_enable_autoscaler_v2", "1")
        port = _free_port() if dashboard else None
        if port:
            # Workers that ask the dashboard would else search for it: another Ray on this machine, and they find none.
            os.environ[API_SERVER] = f"http://127.0.0.1:{port}"
        ray.init(
            address="local",
            num_cpus=num_cpus or cpus_here(),
            include_dashboard=dashboard,
            dashboard_port=port,
            logging_level=level,
            log_to_driver=verbose,
            runtime_env=environment,
        )
    late.cancel()
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
        os.environ.pop(API_SERVER, None)
        if api_server:
            os.environ[API_SERVER] = api_server


def set_environment() -> None:
    """For the processes that this one starts: `NODE_ENVIRONMENT`, but for what is set already."""
    for name, value in NODE_ENVIRONMENT.items():
        os.environ.setdefault(name, value)


def cpus_here() -> int:
    """The CPUs that a Ray started here counts with: slots for tasks, not cores.

    One more than there are cores: on two, the stages that only pass blocks on would wait ten seconds for one another.
    """
    return _cores() + 1


def _check_temporary_folder() -> None:
    """Refuse a temporary folder inside of the Python environment: Ray's workers all fail there, and Ray waits on."""
    folder, environment = os.environ.get("RAY_TMPDIR") or os.environ.get("TMPDIR"), os.environ.get("VIRTUAL_ENV")
    if folder and environment and Path(folder).resolve().is_relative_to(Path(environment).resolve()):
        raise UserError(f"TMPDIR {folder} lies in the environment {environment}, where Ray can't work. Set it to /tmp")


def _check_address(address: str) -> None:
    """Refuse an address where nothing answers: Ray would try for two minutes, and end the process."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not port.isdecimal():
        return  # none, "auto", or what only Ray knows
    try:
        socket.create_connection((host, int(port)), timeout=10).close()
    except OSError as problem:
        raise UserError(
            f"RAY_ADDRESS {address} does not answer ({problem}). Is the cluster up, and the port open to this machine?"
        ) from None


def _free_port() -> int:
    for port in DASHBOARD_PORTS:
        with suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port
    raise UserError(f"no port from {DASHBOARD_PORTS[0]} to {DASHBOARD_PORTS[-1]} is free for Ray's dashboard")


def _cores() -> int:
    """The cores that this process may use, in a container as well."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    limit = Path("/sys/fs/cgroup/cpu.max")  # such as "200000 100000", two cores, or "max 100000"
    quota, period = limit.read_text().split() if limit.exists() else ("max", "1")
    return cores if quota == "max" else max(1, min(cores, int(quota) // int(period)))
