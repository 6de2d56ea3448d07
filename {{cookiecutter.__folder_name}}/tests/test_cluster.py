"""The cluster's file for `ray up`, checked with Ray's own code and against the project."""

import re
import sys
import tomllib
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import yaml
from ray.autoscaler._private.util import prepare_config, validate_config

from {{ cookiecutter.__package_name }} import settings

PROJECT = Path(__file__).parents[1]
(FILE,) = (PROJECT / "cluster").glob("*.yaml")
CLUSTER: dict[str, Any] = yaml.safe_load(FILE.read_text(encoding="utf-8"))
PROVIDER = CLUSTER["provider"]["type"]
TYPES: dict[str, dict[str, Any]] = CLUSTER["available_node_types"]
HEAD = TYPES[CLUSTER["head_node_type"]]
WORKERS = [node for name, node in TYPES.items() if name != CLUSTER["head_node_type"]]


@pytest.fixture(scope="module")
def prepared() -> dict[str, Any]:
    """The file as Ray works with it: with Ray's defaults where it says nothing."""
    config: dict[str, Any] = prepare_config(yaml.safe_load(FILE.read_text(encoding="utf-8")))
    validate_config(config)
    return config


def spot(node: dict[str, Any]) -> bool:
    """Whether the cloud may take the machine back: each of them has its own word for it."""
    config = node["node_config"]
    said = {
        "aws": config.get("InstanceMarketOptions", {}).get("MarketType"),
        "gcp": config.get("scheduling", {}).get("provisioningModel"),
        "azure": config.get("azure_arm_parameters", {}).get("priority"),
    }[PROVIDER]
    return said in ("spot", "SPOT", "Spot")


def test_ray_accepts_it(prepared: dict[str, Any]) -> None:
    assert prepared["cluster_name"] == CLUSTER["cluster_name"]


def test_its_image_is_the_projects_and_the_projects_is_rays() -> None:
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    name, _, tag = CLUSTER["docker"]["image"].rpartition(":")
    assert (name.rpartition("/")[2], tag) == (project["name"], project["version"])
    base = re.search(r"^FROM (\S+)$", (PROJECT / "Dockerfile").read_text(encoding="utf-8"), re.MULTILINE)
    assert base
    python = f"py{sys.version_info.major}{sys.version_info.minor}"
    assert base[1].startswith(f"rayproject/ray:{version('ray')}-{python}-")
    readme = (PROJECT / "cluster" / "README.md").read_text(encoding="utf-8")
    assert f"docker push {CLUSTER['docker']['image']}\n" in readme


def test_no_machine_installs_another_ray(prepared: dict[str, Any]) -> None:
    """Ray's defaults install a nightly build of it in these commands, where a file leaves them out."""
    assert prepared["setup_commands"] == []
    assert prepared["head_setup_commands"] == []
    assert prepared["worker_setup_commands"] == []
    assert not re.search(r"ray-wheels|pip install|:latest", yaml.safe_dump(prepared))


def test_its_dashboard_is_on_the_head_only(prepared: dict[str, Any]) -> None:
    starts = [command for command in prepared["head_start_ray_commands"] if "ray start" in command]
    assert len(starts) == 1
    assert re.findall(r"--dashboard-host=(\S+)", starts[0]) == ["127.0.0.1"]
    assert not any("dashboard" in command for command in prepared["worker_start_ray_commands"])


def test_it_opens_nothing_to_the_whole_internet(prepared: dict[str, Any]) -> None:
    assert "0.0.0.0" not in yaml.safe_dump(prepared)
    node_configs = [node["node_config"] for node in prepared["available_node_types"].values()]
    if PROVIDER == "aws":  # without a group of one's own, Ray makes one that is open
        assert all(config["SecurityGroupIds"] for config in node_configs)
    elif PROVIDER == "gcp":  # without a subnet, Ray takes any, and its network's rules
        assert all(each["subnetwork"] for config in node_configs for each in config["networkInterfaces"])
    else:  # Ray makes an open group: the one of the network, which is made beforehand, must be found by its name
        provider = prepared["provider"]
        network = f"ray-{prepared['cluster_name']}-{provider['unique_id']}"
        (create,) = re.findall(
            r"^ +az network vnet create .*$",
            (PROJECT / "cluster" / "README.md").read_text(encoding="utf-8"),
            re.MULTILINE,
        )
        assert f"--resource-group {provider['resource_group']} --name {network}-vnet " in create
        assert f"--subnet-name {network}-subnet " in create
        assert f"--address-prefixes {provider['subnet_mask']} " in create
        assert " --network-security-group " in create


def test_every_machine_must_show_the_token() -> None:
    """Inside its container, that is: what `initialization_commands` export does not get in."""
    assert "-e RAY_AUTH_MODE=token" in CLUSTER["docker"]["run_options"]
    assert CLUSTER["file_mounts"]["/home/ray/.ray/auth_token"] == "~/.ray/auth_token"


def test_every_container_may_open_many_files() -> None:
    (limits,) = re.findall(r"--ulimit nofile=(\d+):(\d+)", " ".join(CLUSTER["docker"]["run_options"]))
    assert min(map(int, limits)) >= 65536


def test_its_head_takes_no_work_and_stays() -> None:
    assert HEAD["resources"] == {"CPU": 0}
    assert not spot(HEAD)


def test_its_workers_are_spot_capacity() -> None:
    assert WORKERS
    assert all(spot(worker) for worker in WORKERS)


def test_the_numbers_of_its_workers_agree(prepared: dict[str, Any]) -> None:
    """Ray takes a type's `max_workers` that the cluster's forbids, and then starts fewer, in silence."""
    assert all(0 <= worker["min_workers"] <= worker["max_workers"] for worker in WORKERS)
    assert CLUSTER["max_workers"] == sum(worker["max_workers"] for worker in WORKERS)
    assert prepared["idle_timeout_minutes"] > 0


def test_machines_that_are_returned_are_deleted() -> None:
    assert CLUSTER["provider"]["cache_stopped_nodes"] is False


def test_disks_are_encrypted_and_take_the_image() -> None:
    for node in TYPES.values():
        config = node["node_config"]
        if PROVIDER == "aws":
            volumes = [disk["Ebs"] for disk in config["BlockDeviceMappings"]]
            assert all(volume["Encrypted"] is True and volume["VolumeType"] == "gp3" for volume in volumes)
            sizes = [volume["VolumeSize"] for volume in volumes]
        elif PROVIDER == "gcp":  # encrypted unless it is told how
            assert not any("rawKey" in disk.get("diskEncryptionKey", {}) for disk in config["disks"])
            sizes = [disk["initializeParams"]["diskSizeGb"] for disk in config["disks"]]
        else:  # encrypted always
            sizes = [config["azure_arm_parameters"]["osDiskSize"]]
        assert len(sizes) == 1
        assert sizes[0] >= 100


def test_its_workers_fit_the_settings() -> None:
    """GPUs, and the commands that wait for their driver, where predictors use them by default, and nowhere else."""
    gpus = settings.GPUS_PER_PREDICTOR > 0
    assert all((worker["resources"].get("GPU", 0) > 0) == gpus for worker in WORKERS)
    assert all(worker["resources"]["CPU"] >= 2 for worker in WORKERS)
    assert any("nvidia-smi" in command for command in CLUSTER["initialization_commands"]) == gpus
    assert ("nvidia" in FILE.read_text(encoding="utf-8").lower()) == gpus
