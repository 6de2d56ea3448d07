"""`submit`: runs one of the project's commands on a cluster, as a Ray job, and shows its logs here."""

import asyncio
import logging
import os
import shlex
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from upath import UPath

from .errors import UserError
from .tokens import has_token

if TYPE_CHECKING:
    from ray.job_submission import JobSubmissionClient

PACKAGE = Path(__file__).parent
PATIENCE = 60.0  # seconds in which a cluster may not answer: a tunnel breaks, a dashboard is busy
DASHBOARD = "http://127.0.0.1:8265"  # where `ray dashboard` and `kubectl port-forward` bring the cluster's


def submit(command: Sequence[str], paths: Sequence[str], address: str | None = None, follow: bool = True) -> int:
    """Run `command` on the cluster behind `address`, with this project's source as it is here, and nothing else of it.

    The cluster needs the project's dependencies, as its image or its `setup_commands` bring them. Ctrl-C leaves the
    job running.

    Args:
        command: a command of this project with its arguments, such as ["predict", "--input", ...].
        paths: those among the arguments that the cluster will have to reach.
        address: of the cluster's dashboard; RAY_API_SERVER_ADDRESS by default, or else `DASHBOARD`.
        follow: show the job's logs until it ends.

    Returns:
        The job's exit code; 3 if it has none, as it was stopped or never started; 0 if it is not followed.

    Raises:
        UserError: no cluster answers, the token is not its own, or a path is one that only this machine has.
    """
    for path in paths:
        if not UPath(path).is_absolute():
            raise UserError(
                f"{path}: the cluster does not see this folder. Name storage that all of its machines reach"
            )
    address = address or os.environ.get("RAY_API_SERVER_ADDRESS") or DASHBOARD
    # To a cluster that is named by its address, Ray shows its token only when it is told to, before it is loaded.
    if has_token():
        os.environ.setdefault("RAY_AUTH_MODE", "token")

    from aiohttp import ClientError
    from ray.job_submission import JobSubmissionClient

    for name in ("dashboard_sdk", "job.sdk"):
        logging.getLogger(f"ray.dashboard.modules.{name}").setLevel(logging.WARNING)

    entrypoint = shlex.join(["python", "-m", PACKAGE.name, *command])
    try:
        client = JobSubmissionClient(address)
        job = client.submit_job(entrypoint=entrypoint, runtime_env={"py_modules": [str(PACKAGE)]})
    except (ConnectionError, RuntimeError) as problem:
        reason = str(problem).strip().splitlines()[-1]
        raise UserError(f"no job for {address}: {reason} See cluster/README.md for how to reach the cluster") from None
    hints = (
        f"follow it: ray job logs --address {address} --follow {job}\nstop it:   ray job stop --address {address} {job}"
    )
    try:
        print(f"Job {job} runs on {address}\n{hints}", file=sys.stderr, flush=True)
        if not follow:
            return 0
        return _follow(client, job)
    except KeyboardInterrupt:
        print(f"\nThe job goes on.\n{hints}", file=sys.stderr)
        return 0
    except (OSError, RuntimeError, ClientError):
        raise UserError(f"{address} answers no more; the job may go on.\n{hints}") from None


def _follow(client: "JobSubmissionClient", job: str) -> int:
    """Show the job's logs until it ends, through breaks of the connection of a minute and less; return its exit code.

    Raises:
        OSError, RuntimeError, aiohttp.ClientError: the cluster answers no more.
    """
    from aiohttp import ClientError

    shown = 0
    lost: float | None = None  # since when nothing is heard

    async def show() -> None:
        nonlocal shown, lost
        sent = 0  # the logs come from their beginning each time
        async for text in client.tail_job_logs(job):
            sent, lost = sent + len(text), None
            if sent > shown:
                print(text[shown - sent :], end="", flush=True)
                shown = sent

    while True:
        try:
            asyncio.run(show())
            info, lost = client.get_job_info(job), None
            if info.status.is_terminal():
                break
        except (OSError, RuntimeError, ClientError):
            lost = lost or time.monotonic()
            if time.monotonic() > lost + PATIENCE:
                raise
        time.sleep(0.5)
    if info.driver_exit_code is None:
        print(f"error: the job is {info.status.lower()}: {info.message}", file=sys.stderr)
        return 3
    return int(info.driver_exit_code)
