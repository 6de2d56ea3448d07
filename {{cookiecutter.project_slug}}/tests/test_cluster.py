"""The cluster's files, checked with Ray's own code and against each other."""

import re
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import yaml
from ray.autoscaler._private.util import prepare_config, validate_config

from {{ cookiecutter.__package_name }} import settings
from {{ cookiecutter.__package_name }}.runtime import MALLOC

PROJECT = Path(__file__).parents[1]
CLUSTERS = sorted((PROJECT / "cluster").glob("*.yaml"))
IMAGE = re.search(r"^FROM (\S+)$", (PROJECT / "Dockerfile").read_text(), re.MULTILINE)


def load(path: Path) -> dict[str, Any]:
    config: dict[str, Any] = yaml.safe_load(path.read_text())
    return config


def test_there_is_a_cluster() -> None:
    assert CLUSTERS


@pytest.mark.parametrize("path", CLUSTERS, ids=lambda path: path.name)
def test_ray_accepts_it(path: Path) -> None:
    validate_config(prepare_config(load(path)))


@pytest.mark.parametrize("path", CLUSTERS, ids=lambda path: path.name)
def test_it_has_the_projects_ray_and_keeps_its_dashboard_to_itself(path: Path) -> None:
    config = load(path)
    assert IMAGE
    assert config["docker"]["image"] == IMAGE[1]
    assert f"ray:{version('ray')}-" in IMAGE[1]
    assert any("--dashboard-host=127.0.0.1" in command for command in config["head_start_ray_commands"])


@pytest.mark.parametrize("path", CLUSTERS, ids=lambda path: path.name)
def test_its_workers_fit_the_settings(path: Path) -> None:
    config = load(path)
    workers = [node for name, node in config["available_node_types"].items() if name != config["head_node_type"]]
    assert workers
    for worker in workers:
        assert worker["max_workers"] <= config["max_workers"]
        assert (worker["resources"].get("GPU", 0) > 0) == (settings.GPUS_PER_PREDICTOR > 0)


def test_the_image_has_the_allocators_settings() -> None:
    (line,) = re.findall(r"^ENV (MALLOC.*)$", (PROJECT / "Dockerfile").read_text(), re.MULTILINE)
    assert dict(each.split("=") for each in line.split()) == MALLOC
