"""The clusters of the clouds: Ray makes Amazon's against moto's imitation of EC2; the others go as far as they can.

Of the READMEs, the `aws` and `ray` commands are run or parsed by the real programs; those of `gcloud` and `az` are held
against what these say with `--help`. `gcloud` is on no package registry: where it is missing, its test is skipped.
"""

import itertools
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import types
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
import yaml
from azure.core.exceptions import ResourceNotFoundError
from conftest import CHOICES, bake, own_environment, run
from googleapiclient.discovery_cache import get_static_doc
from imitation import amazon, credentials
from ray.autoscaler import tags
from ray.autoscaler._private import _azure, commands
from ray.autoscaler._private._azure import config as azure_config
from ray.autoscaler._private.aws import config as aws_config
from ray.autoscaler._private.event_summarizer import EventSummarizer
from ray.autoscaler._private.node_launcher import BaseNodeLauncher
from ray.autoscaler._private.node_provider_availability_tracker import NodeProviderAvailabilityTracker
from ray.autoscaler._private.providers import _get_node_provider
from ray.autoscaler._private.util import ConcurrentCounter, prepare_config, validate_config
from ray.scripts.scripts import cli as ray_cli

CLOUDS = ("aws", "gcp", "azure")
SLUG = "digit-reader"
AZURE_CLI = "azure-cli>=2.90,<3"
REGION = "us-east-1"
ADDRESS = "203.0.113.7"  # reserved for documentation
# Two of each, as an account sees them: README's command must take the newest of the right ones.
IMAGES = {
    "ami-10000000000000001": ("099720109477", "ubuntu/images/hvm-ssd-gp3/ubuntu-noble-24.04-amd64-server-20260301", 3),
    "ami-10000000000000002": ("099720109477", "ubuntu/images/hvm-ssd-gp3/ubuntu-noble-24.04-amd64-server-20260901", 9),
    "ami-10000000000000003": ("099720109477", "ubuntu/images/hvm-ssd-gp3/ubuntu-noble-24.04-arm64-server-20261001", 10),
    "ami-20000000000000001": (
        "898082745236",
        "Deep Learning Base OSS Nvidia Driver GPU AMI (Ubuntu 24.04) 20260301",
        3,
    ),
    "ami-20000000000000002": (
        "898082745236",
        "Deep Learning Base OSS Nvidia Driver GPU AMI (Ubuntu 24.04) 20260901",
        9,
    ),
    "ami-20000000000000003": (
        "898082745236",
        "Deep Learning Base OSS Nvidia Driver GPU AMI (Ubuntu 22.04) 20261001",
        10,
    ),
}
NEWEST = {"cpu": "ami-10000000000000002", "gpu": "ami-20000000000000002"}
# Ray and the clouds' own libraries warn of themselves.
pytestmark = pytest.mark.filterwarnings("default")


@pytest.fixture(scope="module")
def projects(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], Path]:
    folder = tmp_path_factory.mktemp("clouds")
    return {
        (cloud, accelerator): bake(
            folder / cloud / accelerator, project_slug=SLUG, cluster=cloud, accelerator=accelerator
        )
        for cloud in CLOUDS
        for accelerator in CHOICES["accelerator"]
    }


@pytest.fixture(params=CHOICES["accelerator"])
def accelerator(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=CLOUDS)
def cloud(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def load(project: Path) -> dict[str, Any]:
    (file,) = (project / "cluster").glob("*.yaml")
    config: dict[str, Any] = yaml.safe_load(file.read_text())
    return config


def to_type(project: Path) -> list[str]:
    """What README.md tells a person to type."""
    return re.findall(r"^ {4}(\S.*)$", (project / "cluster/README.md").read_text(), re.MULTILINE)


@pytest.fixture(scope="module")
def moto(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of an imitation of Amazon's services, with the images of `IMAGES`."""
    folder = tmp_path_factory.mktemp("moto")
    amis = [
        {
            "ami_id": ami,
            "architecture": "arm64" if "arm64" in name else "x86_64",
            "creation_date": f"2026-{month:02}-01T00:00:00.000Z",
            "description": name,
            "hypervisor": "xen",
            "image_location": name,
            "image_type": "machine",
            "name": name,
            "owner_id": owner,
            "platform": None,
            "public": True,
            "root_device_name": "/dev/sda1",
            "root_device_type": "ebs",
            "sriov": "simple",
            "state": "available",
            "virtualization_type": "hvm",
        }
        for ami, (owner, name, month) in IMAGES.items()
    ]
    (folder / "amis.json").write_text(json.dumps(amis))
    with amazon(folder, MOTO_AMIS_PATH=str(folder / "amis.json"), MOTO_IAM_LOAD_MANAGED_POLICIES="true") as address:
        yield address


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home folder of its own, for the keys that Ray makes and for its token."""
    folder = tmp_path / "home"
    folder.mkdir()
    monkeypatch.setenv("HOME", str(folder))
    monkeypatch.setenv("USERPROFILE", str(folder))
    monkeypatch.delenv("RAY_AUTH_TOKEN_PATH")  # of conftest.py
    return folder


@pytest.fixture
def account(moto: str, home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty account at the imitation, for this process and those that it starts; a folder of programs for shells."""
    urllib.request.urlopen(urllib.request.Request(f"{moto}/moto-api/reset", method="POST")).close()
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    for name, value in credentials(moto).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(aws_config, "time", types.SimpleNamespace(sleep=lambda _: None))  # for a new role to get about
    programs = home / "programs"
    programs.mkdir()
    curl = programs / "curl"
    curl.write_text(f"#!/bin/sh\necho {ADDRESS}\n")
    curl.chmod(0o755)
    caches = (aws_config.resource_cache, aws_config._get_subnets_or_die)
    for cache in caches:
        cache.cache_clear()
    yield programs
    for cache in caches:
        cache.cache_clear()


class DoneUpdater:
    """What sets a machine up by SSH, which moto's machines do not have: takes the orders, and says that it is done."""

    exitcode = 0
    orders: dict[str, Any]

    def __init__(self, **orders: Any) -> None:
        type(self).orders = orders

    def start(self) -> None: ...

    def join(self) -> None: ...


def prepare_account(project: Path, programs: Path) -> dict[str, Any]:
    """Type README.md's `aws` commands, and write what they print into aws.yaml, as it says; return that file."""
    typed = [line for line in to_type(project) if re.match(r"export |[A-Z]+=\$\(aws |aws |echo ", line)]
    assert sum("aws ec2 " in line for line in typed) == 4
    path = os.pathsep.join([str(programs), str(Path(sys.executable).parent), os.environ["PATH"]])
    result = subprocess.run(
        ["bash", "-euc", "\n".join(typed)], env=os.environ | {"PATH": path}, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    group, image = result.stdout.splitlines()[-1].split()
    file = project / "cluster/aws.yaml"
    text = file.read_text()
    assert (text.count("sg-REPLACE"), text.count("ami-REPLACE")) == (1, 1)
    file.write_text(text.replace("sg-REPLACE", group).replace("ami-REPLACE", image))
    return load(project)


def start_worker(config: dict[str, Any]) -> None:
    """Start a worker as the autoscaler does on the head. One: Ray asks for 1 to N, and moto then gives 1."""
    pending = ConcurrentCounter()
    pending.inc("worker", 1)
    BaseNodeLauncher(
        provider=_get_node_provider(config["provider"], config["cluster_name"]),
        pending=pending,
        event_summarizer=EventSummarizer(),
        node_provider_availability_tracker=NodeProviderAvailabilityTracker(),
        session_name="test",
        node_types=config["available_node_types"],
    ).launch_node(config, 1, "worker")


def machines(ec2: Any) -> dict[str, list[dict[str, Any]]]:
    """All machines of the account, heads and workers, with their tags as a dictionary."""
    found: dict[str, list[dict[str, Any]]] = {"head": [], "worker": []}
    for reservation in ec2.describe_instances()["Reservations"]:
        for machine in reservation["Instances"]:
            machine["Tags"] = {tag["Key"]: tag["Value"] for tag in machine.get("Tags", [])}
            found[machine["Tags"][tags.TAG_RAY_NODE_KIND]].append(machine)
    return found


def test_aws_starts_what_the_file_promises(
    projects: dict[tuple[str, str], Path],
    accelerator: str,
    account: Path,
    home: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    project = tmp_path / SLUG
    (project / "cluster").mkdir(parents=True)
    for name in ("aws.yaml", "README.md"):
        (project / "cluster" / name).write_text((projects["aws", accelerator] / "cluster" / name).read_text())
    written = prepare_account(project, account)
    assert written["available_node_types"]["worker"]["node_config"]["ImageId"] == NEWEST[accelerator]
    subprocess.run(
        [sys.executable, "-m", "ray.scripts.scripts", "get-auth-token", "--generate"],
        check=True,
        stdout=subprocess.DEVNULL,
    )

    monkeypatch.setattr(commands, "NodeUpdaterThread", DoneUpdater)
    commands.create_or_update_cluster(
        str(project / "cluster/aws.yaml"),
        override_min_workers=None,
        override_max_workers=None,
        no_restart=False,
        restart_only=False,
        yes=True,
        no_config_cache=True,
    )
    orders = DoneUpdater.orders
    assert orders["setup_commands"] == []
    assert orders["docker_config"]["image"] == f"registry.example.com/{SLUG}:0.1.0"
    token = Path(orders["file_mounts"]["/home/ray/.ray/auth_token"]).expanduser()
    assert token == home / ".ray/auth_token"
    assert token.read_text()
    assert sum("--dashboard-host=127.0.0.1" in command for command in orders["ray_start_commands"]) == 1
    config = commands._bootstrap_config(written, no_config_cache=True)
    for _ in range(2):
        start_worker(config)

    ec2 = boto3.client("ec2", region_name=REGION)
    found = machines(ec2)
    (head,) = found["head"]
    assert len(found["worker"]) == 2
    assert head["InstanceType"] == "m7i.xlarge"
    assert {worker["InstanceType"] for worker in found["worker"]} == {
        "m7i.2xlarge" if accelerator == "cpu" else "g6.2xlarge"
    }
    assert "InstanceLifecycle" not in head
    assert {worker["InstanceLifecycle"] for worker in found["worker"]} == {"spot"}
    assert "IamInstanceProfile" in head
    for kind, made in found.items():
        for machine in made:
            assert machine["ImageId"] == NEWEST[accelerator]
            assert machine["MetadataOptions"]["HttpTokens"] == "required"
            assert machine["KeyName"] == head["KeyName"]
            assert machine["Tags"][tags.TAG_RAY_CLUSTER_NAME] == SLUG
            assert machine["Tags"][tags.TAG_RAY_USER_NODE_TYPE] == kind
            assert machine["Tags"]["Name"] == f"ray-{SLUG}-{kind}"
            ids = [each["Ebs"]["VolumeId"] for each in machine["BlockDeviceMappings"]]
            (volume,) = ec2.describe_volumes(VolumeIds=ids)["Volumes"]
            assert (volume["Encrypted"], volume["VolumeType"], volume["Size"]) == (True, "gp3", 200)
            (group,) = machine["SecurityGroups"]
            assert group["GroupName"] == f"ray-{SLUG}"
    assert (home / ".ssh" / f"{head['KeyName']}.pem").stat().st_mode & 0o077 == 0

    ours = [each for each in ec2.describe_security_groups()["SecurityGroups"] if each["GroupName"] != "default"]
    assert [each["GroupName"] for each in ours] == [f"ray-{SLUG}"]  # and none that Ray made
    rules = {
        (
            rule["IpProtocol"],
            rule.get("FromPort"),
            rule.get("ToPort"),
            *(each["CidrIp"] for each in rule["IpRanges"]),
            *(each["GroupId"] for each in rule["UserIdGroupPairs"]),
        )
        for rule in ours[0]["IpPermissions"]
    }
    inside = next(rule for rule in rules if rule[0] == "-1")
    assert rules == {("tcp", 22, 22, f"{ADDRESS}/32"), inside}
    assert inside[3:] == (ours[0]["GroupId"],)

    monkeypatch.setattr(commands, "exec_cluster", lambda *_, **__: None)  # `ray stop` on the head, by SSH
    commands.teardown_cluster(
        str(project / "cluster/aws.yaml"),
        yes=True,
        workers_only=False,
        override_cluster_name=None,
        keep_min_workers=False,
    )
    left = {machine["State"]["Name"] for made in machines(ec2).values() for machine in made}
    assert left == {"terminated"}  # a stopped machine goes on costing its disk


def test_aws_without_a_group_of_ones_own_is_open(projects: dict[tuple[str, str], Path], account: Path) -> None:
    """What README.md's group is there for. When this fails, Ray has changed, and the group may no longer be needed."""
    del account
    config = prepare_config(load(projects["aws", "cpu"]))
    for node in config["available_node_types"].values():
        del node["node_config"]["SecurityGroupIds"]
    aws_config.bootstrap_aws(config)
    groups = boto3.client("ec2", region_name=REGION).describe_security_groups()["SecurityGroups"]
    (made,) = [group for group in groups if group["GroupName"] == f"ray-autoscaler-{SLUG}"]
    ssh = [rule for rule in made["IpPermissions"] if rule.get("FromPort") == 22]
    assert [each["CidrIp"] for rule in ssh for each in rule["IpRanges"]] == ["0.0.0.0/0"]


def test_ray_accepts_every_file(projects: dict[tuple[str, str], Path], cloud: str, accelerator: str) -> None:
    config = load(projects[cloud, accelerator])
    validate_config(prepare_config(config))
    worker = config["available_node_types"]["worker"]
    assert (worker["resources"].get("GPU", 0) > 0) == (accelerator == "gpu")
    text = (projects[cloud, accelerator] / f"cluster/{cloud}.yaml").read_text().lower()
    assert ("gpu" in text) == (accelerator == "gpu")


def misfits(value: Any, schema: dict[str, Any], schemas: dict[str, Any], where: str) -> Iterator[str]:
    """Where a value is not as Google's description of its API has it."""
    schema = schemas[schema["$ref"]] if "$ref" in schema else schema
    kind = {"object": dict, "array": list, "boolean": bool, "string": (str, int), "integer": int}[schema["type"]]
    if not isinstance(value, kind):
        yield f"{where}: {value!r} is no {schema['type']}"
    elif isinstance(value, dict):
        for name, each in value.items():
            if name in schema.get("properties", {}):
                yield from misfits(each, schema["properties"][name], schemas, f"{where}.{name}")
            else:
                yield f"{where}.{name}: no such field"
    elif isinstance(value, list):
        for each in value:
            yield from misfits(each, schema["items"], schemas, where)
    elif value not in schema.get("enum", [value]):
        yield f"{where}: {value!r} is none of {schema['enum']}"


def test_google_has_the_fields_that_gcp_asks_for(projects: dict[tuple[str, str], Path], accelerator: str) -> None:
    schemas = json.loads(get_static_doc("compute", "v1"))["schemas"]
    for name, node in load(projects["gcp", accelerator])["available_node_types"].items():
        assert not [*misfits(node["node_config"], schemas["Instance"], schemas, name)]
    wrong = {"scheduling": {"provisioningModel": "CHEAP"}, "disk": []}
    assert len([*misfits(wrong, schemas["Instance"], schemas, "wrong")]) == 2  # the check can fail


def test_azures_template_has_the_parameters_that_azure_gives(
    projects: dict[tuple[str, str], Path], accelerator: str
) -> None:
    template = json.loads((Path(_azure.__file__).parent / "azure-vm-template.json").read_text())["parameters"]
    types_ = {"string": str, "int": int}
    for node in load(projects["azure", accelerator])["available_node_types"].values():
        for name, value in node["node_config"]["azure_arm_parameters"].items():
            assert isinstance(value, types_[template[name]["type"]]), name


class Azure:
    """As much of Azure's resource manager as Ray's bootstrap talks to, with a network or without one."""

    def __init__(self, network: dict[str, Any] | None) -> None:
        self.network = network
        self.sent: dict[str, Any] = {}
        self.resource_groups = self.resources = self.deployments = self
        self.providers = types.SimpleNamespace(get=lambda _: types.SimpleNamespace(resource_types=[]))

    def list_by_resource_group(self, _: str, condition: str) -> list[types.SimpleNamespace]:
        (part,) = re.findall(r"^substringof\('(.*)', name\)", condition)
        there = self.network and part in self.network["name"] and "virtualNetworks" in condition
        return [types.SimpleNamespace(id="the network", name=self.network["name"])] if self.network and there else []

    def get_by_id(self, name: str, _: str) -> types.SimpleNamespace:
        if self.network and name == "the network":
            return types.SimpleNamespace(properties=self.network["properties"])
        raise ResourceNotFoundError(name)

    def delete_by_id(self, *names: str) -> None:
        raise AssertionError(f"nothing is there to delete: {names}")

    def create_or_update(self, **arguments: Any) -> Any:
        self.sent = arguments.get("parameters", {}).get("properties", self.sent)
        outputs = {name: {"value": name} for name in ("msi", "nsg", "subnet")}
        return types.SimpleNamespace(
            result=lambda: types.SimpleNamespace(properties=types.SimpleNamespace(outputs=outputs))
        )


def option(line: str, name: str) -> str:
    words = shlex.split(line)
    return words[words.index(name) + 1]


@pytest.mark.parametrize("made", [True, False], ids=["network", "no-network"])
def test_azure_keeps_the_rules_of_readmes_network(
    projects: dict[tuple[str, str], Path], home: Path, monkeypatch: pytest.MonkeyPatch, made: bool
) -> None:
    """Ray's subnet gets the rules of the one that is there, and without one its own, which open SSH to all."""
    del home
    project = projects["azure", "cpu"]
    (create,) = [line for line in to_type(project) if line.startswith("az network vnet create ")]
    group = option(create, "--network-security-group")
    network = {
        "name": option(create, "--name"),
        "properties": {
            "subnets": [
                {
                    "name": option(create, "--subnet-name"),
                    "properties": {
                        "addressPrefix": option(create, "--subnet-prefixes"),
                        "networkSecurityGroup": {"id": group},
                    },
                }
            ]
        },
    }
    azure = Azure(network if made else None)
    monkeypatch.setattr(azure_config, "ResourceManagementClient", lambda *_: azure)
    monkeypatch.setattr(azure_config, "AzureCliCredential", lambda: None)
    azure_config.bootstrap_azure(prepare_config(load(project)))

    parameters = {name: each["value"] for name, each in azure.sent["parameters"].items()}
    resources = {each["type"]: each for each in azure.sent["template"]["resources"]}
    (subnet,) = resources["Microsoft.Network/virtualNetworks"]["properties"]["subnets"]
    (ssh,) = resources["Microsoft.Network/networkSecurityGroups"]["properties"]["securityRules"]
    assert ssh["properties"]["sourceAddressPrefix"] == "*"  # when this fails, Ray has changed, and all this may be over
    assert (subnet["properties"]["networkSecurityGroup"]["id"] == group) == made
    variables = azure.sent["template"]["variables"]
    for name, word in (("vnetName", "--name"), ("subnetName", "--subnet-name")):
        assert variables[name].startswith("[concat('ray-', parameters('clusterId'), '-")
        ending = variables[name].rpartition("'-")[2].removesuffix("')]")
        assert option(create, word) == f"ray-{parameters['clusterId']}-{ending}"
    assert parameters["subnet"] == option(create, "--address-prefixes") == option(create, "--subnet-prefixes")
    typed = "\n".join(to_type(project))
    assert f" --name {parameters['msiName']} " in typed
    assert f"az network nsg create --resource-group ray-{SLUG} --name {group}\n" in typed


def test_every_ray_command_is_one(projects: dict[tuple[str, str], Path], cloud: str, accelerator: str) -> None:
    """Ray's own parser takes every `ray` command of README.md and of the cluster's file."""
    project = projects[cloud, accelerator]
    readme = (project / "cluster/README.md").read_text()
    config = load(project)
    lines = [
        *(line for line in to_type(project) if line.startswith("ray ")),
        *re.findall(r"`(ray [^`]* [^`]*)`", readme),
        *config["head_start_ray_commands"],
        *config["worker_start_ray_commands"],
    ]
    names = set()
    for line in lines:
        program, name, *arguments = shlex.split(line.partition(" > ")[0])
        assert program == "ray"
        ray_cli.commands[name].make_context(name, arguments)
        names.add(name)
    assert names == {"get-auth-token", "up", "down", "dashboard", "monitor", "start", "stop"}
    with pytest.raises(Exception, match="no-such-flag"):
        ray_cli.commands["up"].make_context("up", ["cluster/aws.yaml", "--no-such-flag"])


def test_every_shell_line_parses(projects: dict[tuple[str, str], Path], cloud: str, accelerator: str) -> None:
    project = projects[cloud, accelerator]
    for line in [*to_type(project), *load(project)["initialization_commands"]]:
        result = subprocess.run(["bash", "-n", "-c", line], capture_output=True, text=True, check=False)
        assert result.returncode == 0, (line, result.stderr)


@pytest.fixture(params=("gcloud", "az"))
def program(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    if request.param == "az":
        return own_environment(tmp_path, AZURE_CLI) / "az"
    if not (found := shutil.which("gcloud")):
        pytest.skip("no gcloud on the PATH: the options in gcp's README.md are not checked")
    return Path(found)


def test_gcloud_and_az_have_every_option_of_the_readmes(
    projects: dict[tuple[str, str], Path], program: Path, tmp_path: Path
) -> None:
    cloud = {"gcloud": "gcp", "az": "azure"}[program.name]
    checked = 0
    for line in to_type(projects[cloud, "cpu"]):
        # A line, and those whose answer is an argument of it.
        for typed in (re.sub(r"\$\([^()]*\)", "ANSWER", line), *re.findall(r"\$\(([^()]*)\)", line)):
            words = shlex.split(typed)
            if words[0] != program.name:
                continue
            command = itertools.takewhile(lambda word: not word.startswith("--"), words[1:])
            said = run(program, *command, "--help", folder=tmp_path, AZURE_CONFIG_DIR=str(tmp_path))
            assert said.returncode == 0, (typed, said.stdout)
            # Bold and underlined, in escape sequences or by backspaces.
            known = set(re.findall(r"--[a-z][a-z-]+", re.sub(r"\x1b\[[0-9;]*m|.\x08", "", said.stdout)))
            assert {word.partition("=")[0] for word in words if word.startswith("--")} <= known, typed
            assert "--no-such-option" not in known
            checked += 1
    assert checked >= 8
