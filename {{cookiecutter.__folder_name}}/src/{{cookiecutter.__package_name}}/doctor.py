"""`doctor`: is this machine, or the cluster, fit for `predict`? One line a check, with the remedy."""

import os
import platform
import shutil
import socket
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import requires, version
from typing import Any

import psutil
import ray
from packaging.requirements import Requirement
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy
from upath import UPath

from .errors import UserError, reason
from .inputs import absolute
from .preflight import plan_for_cluster
from .tokens import has_token, token_file

DISK_NEEDED = 5 * 2**30  # bytes: what Ray spills and logs on a quiet day
MEMORY_NEEDED = 2 * 2**30  # bytes: Ray itself, and two processes with torch in them
PACKAGES = ("ray", "torch", "pandas")  # whose versions must be what the project asks for, and the same everywhere
PORTS = ("NodeManagerPort", "ObjectManagerPort")  # of each machine, for the others
ANSWER_WITHIN = 60.0  # seconds that a machine has for looking at itself


@dataclass(frozen=True)
class Check:
    """What was looked at, whether it is well, what was seen, and, if it is not well, what to do."""

    name: str
    ok: bool
    seen: str
    remedy: str = ""

    def __str__(self) -> str:
        return f"{'ok  ' if self.ok else 'FAIL'} {self.name}: {self.seen}" + (f". {self.remedy}" if not self.ok else "")


def examine(
    project: str,
    checkpoint: str | None = None,
    output: str | None = None,
    concurrency: tuple[int, int] | None = None,
    num_cpus: float | None = None,
    num_gpus: float | None = None,
) -> Iterator[Check]:
    """Look at the Ray that is running, and at each of its machines.

    Args:
        project: name of the distribution whose requirements are to be met.
        checkpoint, output: what `predict` would be given: every machine must reach them.
        concurrency, num_cpus, num_gpus: of the predictors, see `preflight.make_plan`.
    """
    for name in PACKAGES:
        wanted = next(each for each in map(Requirement, requires(project) or []) if each.name == name)
        fits = wanted.specifier.contains(version(name), prereleases=True)
        yield Check(name, fits, version(name), f"The project asks for {wanted.specifier}: install it anew")

    yield _check_token()
    try:
        plan = plan_for_cluster(concurrency, num_cpus=num_cpus, num_gpus=num_gpus)
        yield Check("plan", True, str(plan))
    except UserError as problem:
        yield Check("plan", False, str(problem), "Nothing would ever run")

    nodes = [node for node in ray.nodes() if node["Alive"]]
    ports = [(node["NodeManagerAddress"], node[name]) for node in nodes for name in PORTS]
    here = _look(None, None, None, [])
    with _probe(output and absolute(output)) as probe:
        looks = [
            ray.remote(_look)
            .options(num_cpus=0, scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False))
            .remote(checkpoint and absolute(checkpoint), output and absolute(output), probe, ports)
            for node in nodes
        ]
        for node, look in zip(nodes, looks, strict=True):
            yield from _check_machine(node["NodeManagerAddress"], look, here)


@contextmanager
def _probe(output: str | None) -> Iterator[UPath | None]:
    """A file in `output`, or the folder where that would be made, for the other machines to see."""
    if output is None:
        yield None
        return
    probe = _existing(output) / f".doctor-{uuid.uuid4().hex}"
    try:
        probe.write_text("")
    except OSError:  # `_look` says so, of this machine, too
        yield None
        return
    try:
        yield probe
    finally:
        probe.unlink()


def _existing(path: str) -> UPath:
    return next(each for each in (UPath(path), *UPath(path).parents) if each.exists())


def _check_machine(address: str, look: Any, here: dict[str, Any]) -> Iterator[Check]:
    name = f"machine {address}"
    try:
        there = ray.get(look, timeout=ANSWER_WITHIN)
    except (ray.exceptions.RayError, TimeoutError) as problem:
        remedy = "Are its ports open to the other machines? Its logs are in /tmp/ray/session_latest there"
        yield Check(name, False, f"no answer ({type(problem).__name__})", remedy)
        return
    same = there["versions"] == here["versions"]
    yield Check(f"{name} versions", same, there["versions"], f"This machine has {here['versions']}: make them the same")
    free, seen = there["free_disk"], f"{there['free_disk'] / 2**30:.0f} GiB free in /tmp"
    yield Check(f"{name} disk", free >= DISK_NEEDED, seen, "Ray spills there: make room")
    free, seen = there["free_memory"], f"{there['free_memory'] / 2**30:.1f} GiB free"
    remedy = "End what else runs there, or take a larger one: Ray ends workers where memory runs out"
    yield Check(f"{name} memory", free >= MEMORY_NEEDED, seen, remedy)
    closed = ", ".join(there["closed"])
    remedy = f"Open them to {address}: Ray's machines talk to each other on all ports"
    yield Check(f"{name} ports", not closed, f"{closed} can't be reached" if closed else "reaches the others", remedy)
    for path, trouble in there["problems"].items():
        yield Check(f"{name} path", not trouble, trouble or path, "Put it on storage that every machine reaches")


def _look(
    checkpoint: str | None, output: str | None, probe: UPath | None, ports: list[tuple[str, int]]
) -> dict[str, Any]:
    """What a machine sees when it looks at itself and around. Runs on each of them."""
    problems = {}
    if checkpoint:
        problems[checkpoint] = "" if UPath(checkpoint).is_file() else f"there is no file {checkpoint}"
    if output:
        try:
            own = _existing(output) / f".doctor-{platform.node()}-{os.getpid()}"
            own.write_text("")
            own.unlink()
            problems[output] = "" if probe is None or probe.exists() else f"{output} is another folder there"
        except OSError as problem:
            problems[output] = f"can't write in {output}: {reason(problem)}"
    versions = {"Python": platform.python_version()} | {name: version(name) for name in PACKAGES}
    return {
        "versions": ", ".join(map(" ".join, versions.items())),
        "free_memory": psutil.virtual_memory().available,
        "free_disk": shutil.disk_usage("/tmp").free,
        "closed": [f"{address}:{port}" for address, port in ports if not _answers(address, port)],
        "problems": problems,
    }


def _answers(address: str, port: int) -> bool:
    try:
        socket.create_connection((address, port), timeout=5).close()
    except OSError:
        return False
    return True


def _check_token() -> Check:
    if not os.environ.get("RAY_ADDRESS"):
        return Check("token", True, "Ray on this machine makes its own")
    remedy = "Whoever reaches this cluster can run code on it: see cluster/README.md, and give it a token"
    return Check("token", has_token(), "this machine has one" if has_token() else f"no file {token_file()}", remedy)
