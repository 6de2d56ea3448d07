"""The cluster's files, checked with Ray's own code and against each other."""

import platform
import re
import tomllib
from importlib.metadata import version
from pathlib import Path

import yaml
from packaging.requirements import Requirement
from ray.autoscaler._private.util import prepare_config, validate_config

from {{ cookiecutter.__package_name }}.runtime import NODE_ENVIRONMENT

PROJECT = Path(__file__).parents[1]
SETTINGS = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]
CONFIG = yaml.safe_load((PROJECT / "cluster/onprem.yaml").read_text())
NODE = (PROJECT / "cluster/node.sh").read_text()
DOCKERFILE = (PROJECT / "Dockerfile").read_text()


def test_ray_accepts_it() -> None:
    config = prepare_config(CONFIG)
    validate_config(config)
    workers = len(CONFIG["provider"]["worker_ips"])
    assert config["available_node_types"]["local.cluster.node"]["max_workers"] == config["max_workers"] == workers


def test_the_machines_get_the_same_versions_as_the_laptop() -> None:
    mounted = set(CONFIG["file_mounts"].values())
    assert {"pyproject.toml", "constraints.txt", "src"} <= mounted
    assert all((PROJECT / path).exists() for path in mounted if not path.startswith("~"))
    (install,) = (each for each in CONFIG["setup_commands"] if "--editable" in each)
    python = ".".join(platform.python_version_tuple()[:2])
    assert f"--python {python} " in install
    assert "--constraint constraints.txt --editable ." in install
    pins = dict(re.findall(r"^([\w.-]+)==(\S+)", (PROJECT / "constraints.txt").read_text(), re.MULTILINE))
    (ray,) = (each for each in map(Requirement, SETTINGS["dependencies"]) if each.name == "ray")
    assert str(ray.specifier) == f"=={pins['ray']}" == f"=={version('ray')}"
    assert f"ray:{version('ray')}-py{python.replace('.', '')}-" in DOCKERFILE


def test_it_keeps_its_dashboard_to_itself_and_asks_for_the_token() -> None:
    assert any("--dashboard-host=127.0.0.1" in command for command in CONFIG["head_start_ray_commands"])
    assert f". ~/{SETTINGS['name']}/node.sh" in CONFIG["setup_commands"][-1]
    assert CONFIG["file_mounts"][f"~/{SETTINGS['name']}/node.sh"] == "cluster/node.sh"
    assert "export RAY_AUTH_MODE=token\n" in NODE
    assert CONFIG["file_mounts"]["~/.ray/auth_token"] == "~/.ray/auth_token"


def test_the_head_takes_no_work() -> None:
    (start,) = (command for command in CONFIG["head_start_ray_commands"] if "ray start" in command)
    assert "--num-cpus=0 --num-gpus=0" in start


def test_the_machines_have_the_settings_of_this_one() -> None:
    (settings,) = re.findall(r"^export (MALLOC(?:.*\\\n)*.*)$", NODE, re.MULTILINE)
    assert dict(each.split("=") for each in settings.replace("\\", "").split()) == NODE_ENVIRONMENT
