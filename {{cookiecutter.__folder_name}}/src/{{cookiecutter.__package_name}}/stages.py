"""Where the time of a run went: reading, decoding, predicting or writing."""

from collections.abc import Iterator
from typing import Any

from . import settings
from .preflight import Plan

STAGES = {"decode_row": "decode", "PredictBatch": "predict", "Write": "write"}  # by names of Ray Data's operators


def stage_of(operator: str) -> str:
    """The stage that one of Ray Data's operators belongs to, by its name."""
    return next((stage for name, stage in STAGES.items() if name in operator), "read")


def measure(stats: Any, plan: Plan, rows: int) -> dict[str, Any]:
    """Say where the time went, from Ray Data's statistics of a run.

    Returns:
        rows_per_second_steady: since the first prediction; busy_seconds: by stage, summed over its tasks; held_up_by:
        the stage that its tasks kept busiest.
    """
    busy = dict.fromkeys(("read", "decode", "predict", "write"), 0.0)
    first, last = [], []
    for operator in _operators(stats):
        if operator.wall_time is None:
            continue
        stage = stage_of(operator.operator_name)
        busy[stage] += operator.wall_time.sum
        last.append(operator.latest_end_time)
        if stage == "predict":
            first.append(operator.earliest_start_time)
    steady = max(last) - min(first)
    slots = {
        "read": 1.0,
        "decode": max(1.0, plan.free_cpus // settings.CPUS_PER_DECODER),
        "predict": float(plan.largest),
        "write": max(1.0, plan.free_cpus),
    }
    return {
        "rows_per_second_steady": round(rows / steady, 3),
        "busy_seconds": {stage: round(time_, 3) for stage, time_ in busy.items()},
        "held_up_by": max(busy, key=lambda stage: busy[stage] / slots[stage]),
    }


def _operators(stats: Any) -> Iterator[Any]:
    for parent in stats.parents:
        yield from _operators(parent)
    yield from stats.operators_stats
