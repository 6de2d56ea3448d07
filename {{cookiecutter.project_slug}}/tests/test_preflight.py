"""Plans that can run are made, and those that never could are refused. No Ray needed."""

import pytest

from {{ cookiecutter.__package_name }}.errors import UserError
from {{ cookiecutter.__package_name }}.preflight import Node, Plan, check_training, make_plan


@pytest.mark.parametrize(("cpus", "predictors", "num_cpus"), [(1, 1, 0), (2, 1, 1), (4, 2, 1), (64, 32, 1)])
def test_default_plan_leaves_cpus_for_the_other_stages(cpus: int, predictors: int, num_cpus: float) -> None:
    plan = make_plan([Node(cpus, 0)])
    assert (plan.smallest, plan.largest, plan.num_cpus) == (predictors, predictors, num_cpus)
    assert cpus - plan.largest * plan.num_cpus >= 1


def test_one_predictor_a_gpu() -> None:
    plan = make_plan([Node(8, 2), Node(8, 2)], default_num_gpus=1)
    assert (plan.largest, plan.num_gpus) == (4, 1)


def test_without_a_gpu_the_default_falls_back_to_the_cpu() -> None:
    assert make_plan([Node(4, 0)], default_num_gpus=1).num_gpus == 0


@pytest.mark.parametrize(
    ("nodes", "arguments", "reason"),
    [
        ([Node(2, 0)], {"num_gpus": 1}, "0 GPUs"),
        ([Node(2, 0)], {"num_cpus": 3}, "the largest has 2 CPUs"),
        ([Node(4, 0), Node(4, 0)], {"num_cpus": 8}, "the largest has 4 CPUs"),
        ([Node(2, 0)], {"num_cpus": 2}, "no whole CPU"),
        ([Node(2, 0)], {"concurrency": (2, 2)}, "--concurrency 2 can't run: 1 is the most"),
        ([Node(2, 0)], {"concurrency": (2, 2), "num_cpus": 0.9}, "--concurrency 2 can't run: 1 is the most"),
        ([Node(4, 0)] * 3, {"concurrency": (3, 3), "num_cpus": 4}, "--concurrency 3 can't run: 2 is the most"),
        ([Node(0, 0)], {}, "wait for the cluster's workers"),
        ([Node(8, 2)], {"concurrency": (3, 3), "num_gpus": 0.6}, "--concurrency 3 can't run: 2 is the most"),
        ([Node(8, 1)], {"concurrency": (2, 2), "num_gpus": 1}, "--concurrency 2 can't run: 1 is the most"),
    ],
)
def test_a_plan_that_never_could_run_is_refused(nodes: list[Node], arguments: dict[str, float], reason: str) -> None:
    with pytest.raises(UserError, match=reason):
        make_plan(nodes, **arguments)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("nodes", "arguments", "largest"),
    [
        ([Node(2, 0)], {"concurrency": (2, 2), "num_cpus": 0.5}, 2),
        ([Node(2, 0)], {"concurrency": (1, 9)}, 1),
        ([Node(4, 0)] * 3, {"concurrency": (2, 2), "num_cpus": 4}, 2),
        ([Node(1, 4)], {"concurrency": (4, 4), "num_cpus": 0, "num_gpus": 1}, 4),
    ],
)
def test_a_plan_that_can_run_is_kept(nodes: list[Node], arguments: dict[str, float], largest: int) -> None:
    assert make_plan(nodes, **arguments).largest == largest  # type: ignore[arg-type]


def test_the_plan_reads_as_one_line() -> None:
    assert str(Plan(1, 2, 1, 0, 4)) == "1 to 2 predictor(s) with 1 CPU each; 2 of 4 CPUs read, decode and write"


def test_training_that_never_could_start_is_refused() -> None:
    with pytest.raises(UserError, match="--num-workers 3"):
        check_training([Node(2, 0)], num_workers=3, want_gpu=False)
    assert check_training([Node(2, 0)], num_workers=2, want_gpu=True) is False
    assert check_training([Node(2, 1)], num_workers=1, want_gpu=True) is True
