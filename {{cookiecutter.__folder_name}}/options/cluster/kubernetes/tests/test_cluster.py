"""The cluster's files, checked against each other, without kubectl or a cluster."""

import re
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import yaml

from {{ cookiecutter.__package_name }} import settings
from {{ cookiecutter.__package_name }}.cli import PROGRAM, _parser

PROJECT = Path(__file__).parents[1]
CLUSTER = PROJECT / "cluster"
UNITS = {"Mi": 2**20, "Gi": 2**30, "Ti": 2**40}


def load(name: str) -> dict[str, Any]:
    manifest: dict[str, Any] = yaml.safe_load((CLUSTER / name).read_text())
    return manifest


CLUSTER_SPEC = load("base/ray-cluster.yaml")["spec"]
JOB_SPEC = load("batch/ray-job.yaml")["spec"]
AUTOSCALER = CLUSTER_SPEC["autoscalerOptions"]
HEAD = CLUSTER_SPEC["headGroupSpec"]
(WORKERS,) = CLUSTER_SPEC["workerGroupSpecs"]
GROUPS = {"head": HEAD, "worker": WORKERS}
PODS = {
    **{name: group["template"]["spec"] for name, group in GROUPS.items()},
    "submitter": JOB_SPEC["submitterPodTemplate"]["spec"],
}
CONTAINERS = {
    "autoscaler": AUTOSCALER,
    **{
        f"{pod} {container['name']}": container
        for pod, spec in PODS.items()
        for container in [*spec.get("initContainers", []), *spec["containers"]]
    },
}


def amount(quantity: str) -> int:
    """Bytes, or a count, of a quantity of Kubernetes. Fails on parts of a CPU such as "500m"."""
    number, unit = re.fullmatch(r"(\d+)([A-Z]i)?", quantity).groups()  # type: ignore[union-attr]
    return int(number) * UNITS.get(unit, 1)


def patches(name: str) -> dict[str, Any]:
    """What the JSON patches of a kustomization set, by path."""
    return {each["path"]: each["value"] for patch in load(name)["patches"] for each in yaml.safe_load(patch["patch"])}


def images() -> Iterator[str]:
    for each in load("base/kustomization.yaml")["images"]:
        assert {container["image"] for name, container in CONTAINERS.items() if name != "autoscaler"} == {each["name"]}
        yield f"{each['newName']}:{each['newTag']}"


def test_ray_is_the_same_everywhere() -> None:
    assert CLUSTER_SPEC["rayVersion"] == version("ray")
    (image,) = re.findall(r"^FROM (\S+)$", (PROJECT / "Dockerfile").read_text(), re.MULTILINE)
    assert f"ray:{version('ray')}-" in image


def test_the_image_is_the_one_that_the_readme_builds_and_pushes() -> None:
    (image,) = images()
    commands = re.findall(r"^    docker (build|push) .*?(\S+:\S+)", (CLUSTER / "README.md").read_text(), re.MULTILINE)
    assert commands == [("build", image), ("push", image)]
    assert not image.endswith(":latest")


@pytest.mark.parametrize("name", CONTAINERS)
def test_requests_are_limits_and_cpus_are_whole(name: str) -> None:
    resources = CONTAINERS[name]["resources"]
    assert resources["requests"] == resources["limits"]
    assert {"cpu", "memory", "ephemeral-storage"} <= set(resources["limits"])
    assert all(amount(each) > 0 for each in resources["limits"].values())


@pytest.mark.parametrize("name", CONTAINERS)
def test_containers_are_hardened(name: str) -> None:
    context = CONTAINERS[name]["securityContext"]
    assert context["allowPrivilegeEscalation"] is False
    assert context["capabilities"] == {"drop": ["ALL"]}
    assert context["readOnlyRootFilesystem"] is True
    assert context["runAsNonRoot"] is True
    assert context["runAsUser"] == 1000
    assert context["seccompProfile"] == {"type": "RuntimeDefault"}
    assert not context.get("privileged")
    assert "/tmp" in {mount["mountPath"] for mount in CONTAINERS[name]["volumeMounts"]}


@pytest.mark.parametrize("name", PODS)
def test_pods_have_no_way_to_kubernetes_or_the_node(name: str) -> None:
    pod = PODS[name]
    assert pod["automountServiceAccountToken"] is False
    assert not {"hostNetwork", "hostPID", "hostIPC"} & set(pod)
    assert not [volume for volume in pod["volumes"] if "hostPath" in volume]
    tokens = {volume["name"] for volume in pod["volumes"] if "projected" in volume}
    assert not tokens & {mount["name"] for each in pod["containers"] for mount in each["volumeMounts"]}
    assert load("namespace/namespace.yaml")["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"


@pytest.mark.parametrize("name", PODS)
def test_what_is_mounted_is_there(name: str) -> None:
    there = {volume["name"] for volume in PODS[name]["volumes"]}
    mounted = {mount["name"] for each in PODS[name]["containers"] for mount in each["volumeMounts"]}
    if name == "head":  # where KubeRay puts the autoscaler
        mounted |= {mount["name"] for mount in AUTOSCALER["volumeMounts"]}
    assert mounted == there
    claims = [volume["persistentVolumeClaim"] for volume in PODS[name]["volumes"] if "persistentVolumeClaim" in volume]
    assert all(claim["claimName"] == load("namespace/storage.yaml")["metadata"]["name"] for claim in claims)


@pytest.mark.parametrize("name", GROUPS)
def test_shared_memory_holds_the_object_store_and_fits_the_memory(name: str) -> None:
    (container,) = PODS[name]["containers"]
    (mount,) = [mount["name"] for mount in container["volumeMounts"] if mount["mountPath"] == "/dev/shm"]
    (shm,) = [volume["emptyDir"] for volume in PODS[name]["volumes"] if volume["name"] == mount]
    assert shm["medium"] == "Memory"
    store = int(GROUPS[name]["rayStartParams"]["object-store-memory"])
    assert store < amount(shm["sizeLimit"]) <= amount(container["resources"]["limits"]["memory"]) / 2


@pytest.mark.parametrize("name", PODS)
def test_disks_fit_the_limit(name: str) -> None:
    disks = [volume["emptyDir"] for volume in PODS[name]["volumes"] if "emptyDir" in volume]
    disk = sum(amount(each["sizeLimit"]) for each in disks if each.get("medium") != "Memory")
    (container,) = PODS[name]["containers"]
    assert disk <= amount(container["resources"]["limits"]["ephemeral-storage"])


def test_the_head_takes_no_work() -> None:
    assert HEAD["rayStartParams"]["num-cpus"] == "0"


def test_rays_parameters_are_text() -> None:
    for group in GROUPS.values():
        assert all(isinstance(each, str) for each in group["rayStartParams"].values())


def test_the_cluster_asks_for_a_token() -> None:
    assert CLUSTER_SPEC["authOptions"]["mode"] == "token"


def test_the_policies_let_in_the_clusters_own_pods_and_the_operator_only() -> None:
    assert load("namespace/network-policy.yaml")["spec"] == {"podSelector": {}, "policyTypes": ["Ingress"]}
    policy = load("base/network-policy.yaml")["spec"]
    own, operator = policy["ingress"]
    assert policy["policyTypes"] == ["Ingress"]
    for group in GROUPS.values():
        assert group["template"]["metadata"]["labels"] == policy["podSelector"]["matchLabels"]
    assert own == {"from": [{"podSelector": policy["podSelector"]}]}
    assert operator["ports"] == [{"protocol": "TCP", "port": 8265}]
    (peer,) = operator["from"]
    assert set(peer) == {"namespaceSelector", "podSelector"}
    assert all(each["matchLabels"] for each in peer.values())


@pytest.mark.parametrize("overlay", ["people", "batch"])
def test_its_workers_fit_the_settings(overlay: str) -> None:
    (container,) = PODS["worker"]["containers"]
    gpus = amount(container["resources"]["limits"].get("nvidia.com/gpu", "0"))
    assert (gpus > 0) == (settings.GPUS_PER_PREDICTOR > 0)
    assert gpus >= settings.GPUS_PER_PREDICTOR
    tolerated = [each["key"] for each in PODS["worker"].get("tolerations", [])]
    assert tolerated == (["nvidia.com/gpu"] if gpus else [])
    for name in PODS.keys() - {"worker"}:
        assert "nvidia.com/gpu" not in str(PODS[name])
    workers = patches(f"{overlay}/kustomization.yaml")
    smallest, largest = (workers[f"/spec/workerGroupSpecs/0/{name}"] for name in ("minReplicas", "maxReplicas"))
    assert 0 <= smallest <= largest
    assert largest > 0
    told = workers.get("/spec/headGroupSpec/template/spec/containers/0/env", [{"value": str(smallest)}])
    assert [each["value"] for each in told] == [str(largest)]  # `predict` counts on what may come


def test_the_dashboard_sees_the_autoscalers_logs() -> None:
    """They share Ray's folder: where one of the two does not mount it, KubeRay mounts another."""
    (container,) = PODS["head"]["containers"]
    for at in (container, AUTOSCALER):
        assert {"name": "ray", "mountPath": "/tmp/ray"} in at["volumeMounts"]


def test_the_autoscaler_gives_idle_workers_back() -> None:
    assert CLUSTER_SPEC["enableInTreeAutoscaling"] is True
    assert AUTOSCALER["version"] == "v2"
    assert AUTOSCALER["idleTimeoutSeconds"] > 0


def test_the_batch_run_ends_and_takes_its_cluster_along() -> None:
    assert JOB_SPEC["shutdownAfterJobFinishes"] is True
    assert JOB_SPEC["ttlSecondsAfterFinished"] >= 0
    assert JOB_SPEC["activeDeadlineSeconds"] > 0
    assert JOB_SPEC["backoffLimit"] >= 0


def test_the_batch_run_is_a_command_of_the_project() -> None:
    program, *arguments = JOB_SPEC["entrypoint"].split()
    assert program == PROGRAM
    options = _parser().parse_args(arguments)
    assert options.command == "predict"
    mounts = [mount["mountPath"] for mount in PODS["head"]["containers"][0]["volumeMounts"]]
    for path in (options.input, options.checkpoint, options.output):
        assert "://" in path or path.startswith(f"{mounts[0]}/")


def test_everything_is_in_one_namespace() -> None:
    folders = sorted(path.parent.name for path in CLUSTER.glob("*/kustomization.yaml"))
    assert folders == ["base", "batch", "namespace", "people"]
    namespaces = {load(f"{folder}/kustomization.yaml")["namespace"] for folder in folders}
    assert namespaces == {load("namespace/namespace.yaml")["metadata"]["name"]}
