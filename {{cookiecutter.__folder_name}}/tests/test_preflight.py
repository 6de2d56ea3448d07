"""Plans that can run are made, and those that never could are refused. No Ray needed."""

import json
from pathlib import Path

import pytest

from {{ cookiecutter.__package_name }} import preflight, settings
from {{ cookiecutter.__package_name }}.errors import UserError
from {{ cookiecutter.__package_name }}.preflight import Node, Plan, check_training, make_plan, nodes_to_come, plan_for_cluster


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


def test_a_decoder_of_more_cpus_than_a_plan_keeps_free_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settings, "CPUS_PER_DECODER", 2)
    monkeypatch.setattr(preflight, "cluster_nodes", lambda: [Node(8, 0)])
    with pytest.raises(UserError, match="CPUS_PER_DECODER is 1 at the most"):
        plan_for_cluster()


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
    assert str(Plan(1, 2, 1, 0, 4)) == "1 to 2 predictor(s) with 1 CPU each; 3 of 4 CPUs read, decode and write"


def test_training_that_never_could_start_is_refused() -> None:
    with pytest.raises(UserError, match="--num-workers 3"):
        check_training([Node(2, 0)], [], num_workers=3, want_gpu=False)
    assert check_training([Node(2, 0)], [], num_workers=2, want_gpu=True) is False
    assert check_training([Node(2, 1)], [], num_workers=1, want_gpu=True) is True


def test_training_waits_for_machines_that_may_come_and_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    assert check_training([Node(0, 0)], [Node(2, 1)] * 2, num_workers=2, want_gpu=True) is True
    assert "Waiting for the cluster to grow: --num-workers 2 needs a CPU and a GPU for each" in capsys.readouterr().out
    with pytest.raises(UserError, match="room for 4"):
        check_training([Node(0, 0)], [Node(2, 0)] * 2, num_workers=5, want_gpu=False)


def test_machines_that_an_autoscaler_may_add_count_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small, large = {"resources": {"CPU": 2}, "max_workers": 2}, {"resources": {"CPU": 8, "GPU": 1}, "max_workers": 3}
    types = {"head": {"resources": {"CPU": 0}}, "small": small, "large": large}
    config = {"max_workers": 4, "head_node_type": "head", "available_node_types": types}
    (tmp_path / "ray_bootstrap_config.yaml").write_text(json.dumps(config))  # JSON is YAML
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(preflight, "cluster_nodes", lambda: [Node(0, 0), Node(8, 1)])  # the head, and a worker
    assert nodes_to_come() == []  # Ray on this machine has no autoscaler
    monkeypatch.setenv("RAY_ADDRESS", "auto")
    assert nodes_to_come() == [Node(2, 0), Node(2, 0), Node(8, 1)]
    monkeypatch.setenv("CLUSTER_MAX_WORKERS", "3")  # where there is no such file, on Kubernetes: more of the same
    assert nodes_to_come() == [Node(8, 1), Node(8, 1)]
    monkeypatch.setattr(preflight, "cluster_nodes", lambda: [Node(0, 0)])
    assert nodes_to_come() == []


def test_a_machine_holds_as_many_predictors_as_its_memory() -> None:
    machine = Node(8, 0, memory=10 * 2**30)
    assert make_plan([machine], predict_share=0.9, memory=3 * 2**30).largest == 3
    with pytest.raises(UserError, match="3 is the most predictors of 1 CPU, 0 GPU and 3"):
        make_plan([machine], concurrency=(4, 4), memory=3 * 2**30)
    with pytest.raises(UserError, match="and the largest has 10"):
        make_plan([machine], memory=11 * 2**30)


@pytest.mark.parametrize(("cpus", "share", "predictors"), [(3, 0.85, 2), (64, 0.85, 54), (64, 0.1, 6), (64, 0, 1)])
def test_the_cpus_are_shared_out_as_the_work_is(cpus: int, share: float, predictors: int) -> None:
    assert make_plan([Node(cpus, 0)], predict_share=share).largest == predictors


def test_what_starts_at_once_leaves_the_machines_that_are_there_a_free_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preflight, "cluster_nodes", lambda: [Node(0, 0), Node(8, 0), Node(8, 0)])
    monkeypatch.setattr(preflight, "nodes_to_come", lambda: [Node(8, 0)] * 2)
    plan = plan_for_cluster(predict_share=0.9)
    assert (plan.smallest, plan.largest) == (14, 28)  # of 16 CPUs, and of 32
    assert plan_for_cluster((30, 30)).smallest == 15
    with pytest.raises(UserError, match="31 is the most"):
        plan_for_cluster((32, 32))
