"""Looks on while Ray Data runs: says what a run that does not move waits for, and how much memory it took."""

import time
from typing import Any

import psutil
import ray
from ray.data._internal.execution.execution_callback import ExecutionCallback

from .errors import UserError
from .stages import stage_of

PATIENCE = 30.0  # seconds without progress before a line says so, and between one such line and the next
LOOK_EVERY = 2.0  # seconds
WEIGH_EVERY = 5.0  # seconds: to add up the memory of a dozen processes takes 50 ms of a CPU
MOST_DEATHS = 5  # of predictors' processes, while nothing else moves
AGAIN = "Give the same command again: it makes a new plan, and what is finished is kept"


class Watch(ExecutionCallback):
    """Ray Data makes one for each execution of a dataset that has it in its context, and calls it some times a second.

    The class is Ray Data's own way to look on, if not yet a documented one.
    """

    peak_memory = 0  # bytes, of this process and those that it started: with Ray on this machine, all of it

    def __init__(self) -> None:
        self.cpus = ray.cluster_resources().get("CPU", 0)
        self.progress: list[Any] = []
        self.moved = self.looked = time.monotonic()
        self.weighed = 0.0
        self.restarting = self.deaths = 0

    def on_execution_step(self, executor: Any) -> None:
        now = time.monotonic()
        if now < self.looked + LOOK_EVERY:
            return
        self.looked = now
        if now > self.weighed + WEIGH_EVERY:
            self.weighed, Watch.peak_memory = now, max(Watch.peak_memory, _memory())
        operators = executor._topology or {}
        progress = [(op.metrics.num_tasks_finished, op.metrics.num_task_outputs_generated) for op in operators]
        restarting = sum(operator.get_actor_info().restarting for operator in operators)
        self.deaths += restarting > self.restarting
        self.restarting = restarting
        if progress != self.progress:
            self.progress, self.moved, self.deaths = progress, now, 0
        elif self.deaths >= MOST_DEATHS:
            # Ray starts it again without end, with the same rows, and map_batches has no setting for that.
            raise RuntimeError(
                f"the predictor's process died {self.deaths} times on the same rows: one of them crashes the model's "
                "code, or there is too little memory. Its last words are in /tmp/ray/session_latest/logs"
            )
        elif now > self.moved + PATIENCE:
            print(f"No progress for {PATIENCE:.0f} s. {describe(operators)}", flush=True)
            left = ray.cluster_resources().get("CPU", 0)
            # What counts as at work may be waiting for a CPU that predictors hold, or for rows that were lost.
            stuck = not any(operator.num_active_tasks() for operator in operators) or left < sum(
                operator.current_logical_usage().cpu for operator in operators
            )
            if left < self.cpus and stuck:
                raise UserError(
                    f"the cluster lost {self.cpus - left:g} CPUs, and what is left may not do for this plan. {AGAIN}"
                )
            self.moved = now


def describe(operators: Any) -> str:
    """Which stage waits for what, in one line."""
    said = []
    for operator, state in operators.items():
        stage, waiting = stage_of(operator.name), state.total_enqueued_input_blocks()
        running, pending = operator.num_active_tasks(), operator.get_actor_info().pending
        if pending:
            said.append(f"{stage} waits for {pending} predictor(s) to start")
        if running:
            said.append(f"{stage} is at work on {running} block(s)")
        elif waiting and not pending:
            said.append(f"{stage} has {waiting} block(s) and waits")
    return f"{'; '.join(said)}. {free_resources()}."


def free_resources() -> str:
    """What of the cluster is free."""
    free, all_ = ray.available_resources(), ray.cluster_resources()
    names = [name for name in ("CPU", "GPU") if all_.get(name)]
    return "Free: " + ", ".join(f"{free.get(name, 0):g} of {all_[name]:g} {name}s" for name in names)


def _memory() -> int:
    """Bytes that this process and its descendants hold, what they share counted once."""
    total, this = 0, psutil.Process()
    for process in [this, *this.children(recursive=True)]:
        try:
            details = process.memory_full_info()
        except psutil.Error:  # it ended, or is another user's
            continue
        total += getattr(details, "pss", details.uss)  # macOS and Windows do not tell shares
    return total
