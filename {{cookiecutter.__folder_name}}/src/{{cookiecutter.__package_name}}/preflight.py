"""Can this run work here? What can never be scheduled is refused in seconds: left alone, Ray waits for it in silence.

The textbook's plan, an actor for every CPU, is such a case: nothing is left to read, decode and write with.
"""

import math
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from . import settings
from .errors import UserError


@dataclass(frozen=True)
class Node:
    """What one machine of the cluster has for work."""

    cpus: float
    gpus: float
    memory: float = math.inf  # bytes


@dataclass(frozen=True)
class Plan:
    """How many predictors run (from `smallest` to `largest`), and what each of them holds."""

    smallest: int
    largest: int
    num_cpus: float
    num_gpus: float
    total_cpus: float

    def __str__(self) -> str:
        count = f"{self.smallest}" if self.smallest == self.largest else f"{self.smallest} to {self.largest}"
        holds = f"{self.num_cpus:g} CPU" + (f" and {self.num_gpus:g} GPU" if self.num_gpus else "")
        free = f"{self.free_cpus:g} of {self.total_cpus:g} CPUs read, decode and write"
        return f"{count} predictor(s) with {holds} each; {free}"

    @property
    def free_cpus(self) -> float:
        """What the predictors leave for the other stages."""
        return self.total_cpus - self.smallest * self.num_cpus


def cluster_nodes() -> list[Node]:
    """The live machines of the connected cluster."""
    import ray

    return [_node(each["Resources"]) for each in ray.nodes() if each["Alive"]]


def nodes_to_come() -> list[Node]:
    """The machines that an autoscaler may still add. Ray itself does not say; on the head of a cluster there is either
    the file that `ray up` leaves, or CLUSTER_MAX_WORKERS, as in cluster/people/kustomization.yaml, for workers like
    those that are there."""
    file = Path("~/ray_bootstrap_config.yaml").expanduser()
    most = os.environ.get("CLUSTER_MAX_WORKERS")
    if not os.environ.get("RAY_ADDRESS") or not (most or file.exists()):
        return []
    live = cluster_nodes()
    if most:
        workers = [node for node in live if node.cpus]
        return workers[:1] * (int(most) - len(workers))
    config = yaml.safe_load(file.read_text())
    types = {name: each for name, each in config["available_node_types"].items() if name != config["head_node_type"]}
    to_come = [_node(each["resources"]) for each in types.values() for _ in range(each.get("max_workers", 0))]
    for node in live:
        same = [each for each in to_come if (each.cpus, each.gpus) == (node.cpus, node.gpus)]
        to_come = [each for each in to_come if each not in same] + same[1:]
    return to_come[: max(0, config.get("max_workers", len(to_come)) - (len(live) - 1))]


def _node(resources: dict[str, float]) -> Node:
    return Node(resources.get("CPU", 0), resources.get("GPU", 0), resources.get("memory", math.inf))


def plan_for_cluster(concurrency: tuple[int, int] | None = None, **asked: Any) -> Plan:
    """The plan for the machines that are there, whose largest number of predictors may need those to come.

    What runs from the start leaves the machines that are there a free CPU, whether or not others come.

    Args:
        concurrency: see `make_plan`, which has the other arguments, too.

    Raises:
        UserError: the plan could never run, even on all of the machines.
    """
    live, to_come = cluster_nodes(), nodes_to_come()
    if settings.CPUS_PER_DECODER > 1:
        raise UserError("settings.py: CPUS_PER_DECODER is 1 at the most, as a plan keeps no more free for it")
    asked = {"default_num_gpus": settings.GPUS_PER_PREDICTOR, **asked}
    whole = make_plan([*live, *to_come], concurrency, **asked)
    if not to_come:
        return whole
    try:
        now = make_plan(live, concurrency and (1, concurrency[1]), **asked)
    except UserError:
        return whole  # nothing can run before a machine comes
    return replace(whole, smallest=min(whole.smallest, now.largest), total_cpus=now.total_cpus)


def make_plan(
    nodes: list[Node],
    concurrency: tuple[int, int] | None = None,
    num_cpus: float | None = None,
    num_gpus: float | None = None,
    *,
    default_num_gpus: float = 0,
    predict_share: float = 0.5,
    memory: float = 0,
) -> Plan:
    """Choose what was not asked for, and check that the whole can run.

    Args:
        concurrency: smallest and largest number of predictors; as many as `predict_share` says by default.
        num_cpus: CPUs a predictor; 1 by default, or 0 where the machine has only one.
        num_gpus: GPUs a predictor; `default_num_gpus` by default, or 0 where there are none.
        predict_share: of the time that a row takes, the part that the model takes; the rest is decoding.
        memory: bytes that a predictor holds.

    Raises:
        UserError: the plan could never run; the message has the numbers and the flag to change.
    """
    total_cpus, total_gpus = sum(node.cpus for node in nodes), sum(node.gpus for node in nodes)
    if num_gpus is None:
        num_gpus = default_num_gpus if total_gpus >= default_num_gpus else 0
    if num_cpus is None:
        num_cpus = 1 if total_cpus > 1 else 0

    if total_cpus == 0:
        raise UserError("no machine has CPUs for work yet: wait for the cluster's workers, `ray status` shows them")
    if not any(_fits(node, num_cpus, num_gpus) for node in nodes):
        wanted = f"--num-cpus {num_cpus:g} --num-gpus {num_gpus:g}"
        largest_cpus, largest_gpus = max(node.cpus for node in nodes), max(node.gpus for node in nodes)
        raise UserError(
            f"no machine can hold a predictor of {wanted}: the largest has {largest_cpus:g} CPUs and "
            f"{largest_gpus:g} GPUs. Ask for less, or point RAY_ADDRESS at a cluster that has more"
        )
    room = sum(_fits(node, num_cpus, num_gpus, memory) for node in nodes)
    if room == 0:
        largest = max(node.memory for node in nodes)
        raise UserError(
            f"no machine can hold a predictor: it takes {memory / 2**30:.1f} GiB, and the largest has "
            f"{largest / 2**30:.1f} GiB for work. Lower --batch-size, or take a smaller model or larger machines"
        )
    limit = min(room, _most_predictors_with_a_free_cpu(nodes, num_cpus, num_gpus, memory))
    if limit == 0:
        raise UserError(
            f"a predictor of --num-cpus {num_cpus:g} leaves no whole CPU to read and write with: "
            f"there are {total_cpus:g} CPUs. Lower --num-cpus"
        )
    if concurrency is None:
        # With GPUs, one predictor for each; else the CPUs are shared out as the work is.
        wish = room if num_gpus else total_cpus * predict_share / num_cpus if num_cpus else 1
        chosen = max(1, min(limit, int(wish)))
        concurrency = (chosen, chosen)
    if concurrency[0] > limit:
        size = f" and {memory / 2**30:.1f} GiB" if room == limit and memory else ""
        raise UserError(
            f"--concurrency {concurrency[0]} can't run: {limit} is the most predictors of {num_cpus:g} CPU, "
            f"{num_gpus:g} GPU{size} that {total_cpus:g} CPUs and {total_gpus:g} GPUs can hold with one CPU left "
            "to read, decode and write. Lower --concurrency or --num-cpus"
        )
    return Plan(concurrency[0], min(concurrency[1], limit), num_cpus, num_gpus, total_cpus)


def check_training(live: list[Node], to_come: list[Node], num_workers: int, want_gpu: bool) -> bool:
    """Check that Ray Train's workers, with a CPU each, can all be placed, and say if machines are waited for.

    Returns:
        Whether each of them can have a GPU as well: `want_gpu`, unless the cluster can have none at all.

    Raises:
        UserError: there is never room for all of them.
    """
    use_gpu = want_gpu and any(node.gpus for node in [*live, *to_come])
    room, kind = _room_for_workers([*live, *to_come], use_gpu), "a CPU and a GPU" if use_gpu else "a CPU"
    if num_workers > room:
        raise UserError(f"--num-workers {num_workers} can't run: there is room for {room} with {kind} each")
    if num_workers > _room_for_workers(live, use_gpu):
        print(f"Waiting for the cluster to grow: --num-workers {num_workers} needs {kind} for each.", flush=True)
    return use_gpu


def trials_at_once(nodes: list[Node], num_workers: int, use_gpu: bool) -> int:
    """How many of Ray Tune's trials, with so many workers each, run beside one another; there is room for one."""
    # A CPU stays free, for what feeds the workers.
    most = min(_room_for_workers(nodes, use_gpu), int(sum(node.cpus for node in nodes)) - 1)
    return max(1, most // num_workers)


def _room_for_workers(nodes: list[Node], use_gpu: bool) -> int:
    return sum(_fits(node, 1, 1 if use_gpu else 0) for node in nodes)


def _fits(node: Node, num_cpus: float, num_gpus: float, memory: float = 0) -> int:
    """How many predictors the node can hold at once."""
    limits = [1_000]
    if memory and node.memory < math.inf:
        limits.append(math.floor(node.memory / memory))
    if num_cpus:
        limits.append(math.floor(node.cpus / num_cpus + 1e-9))
    if 0 < num_gpus < 1:  # a part of a GPU is a part of one GPU: three times 0.6 do not fit on two
        limits.append(math.floor(node.gpus) * math.floor(1 / num_gpus + 1e-9))
    elif num_gpus:
        limits.append(math.floor(node.gpus / num_gpus))
    return min(limits)


def _most_predictors_with_a_free_cpu(nodes: list[Node], num_cpus: float, num_gpus: float, memory: float) -> int:
    """The most predictors that, however Ray places them, leave a whole CPU on at least one node."""
    if not num_cpus:
        return 1_000 if any(node.cpus >= 1 for node in nodes) else 0
    blocking = 0  # how many it takes to leave less than one CPU on every node
    for node in nodes:
        needed = max(0, math.floor((node.cpus - 1) / num_cpus + 1e-9) + 1)
        if needed > _fits(node, num_cpus, num_gpus, memory):
            return 1_000  # this node runs out of GPUs or memory first, so it always has a CPU to spare
        blocking += needed
    return max(0, blocking - 1)
