"""The Kubernetes manifests of made projects, with real tools: kubectl, KubeRay's CRDs, Kubernetes' schemas, Checkov."""

import copy
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml
from conftest import CHOICES, TEMPLATE, bake, own_environment, run

# ray-operator/config/crd/bases of https://github.com/ray-project/kuberay, 1.7: three megabytes, not copied here.
CRDS = Path(os.environ.get("KUBERAY_CRDS", TEMPLATE.parent / "shared/schemas/kuberay"))
KUBERNETES = "1.32"
OVERLAYS = ("namespace", "people", "batch")
CHECKOV = "checkov>=3.3,<4"
# What is left out, and why.
CHECKOV_SKIPS = {
    "CKV_K8S_8": "liveness: KubeRay adds the probe, with the path for the Ray version",
    "CKV_K8S_9": "readiness: likewise",
    "CKV_K8S_40": "a user ID above 10000: Ray's image has 1000, which owns its home",
    "CKV_K8S_43": "an image by digest: it is known after the push only",
}


@pytest.fixture(scope="module", params=CHOICES["accelerator"])
def project(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("kubernetes")
    return bake(folder, project_slug="digit-reader", cluster="kubernetes", accelerator=request.param)


@cache
def build(project: Path, overlay: str) -> list[dict[str, Any]]:
    """What `kubectl apply -k` would send."""
    assert shutil.which("kubectl"), "this test needs kubectl on the PATH; no cluster"
    made = subprocess.run(
        ["kubectl", "kustomize", f"cluster/{overlay}"], cwd=project, capture_output=True, text=True, check=False
    )
    assert made.returncode == 0, made.stderr
    assert not made.stderr  # kustomize warns about what it will refuse
    return list(yaml.safe_load_all(made.stdout))


def find(project: Path, overlay: str, kind: str) -> dict[str, Any]:
    (found,) = [each for each in build(project, overlay) if each["kind"] == kind]
    return found


def strict(schema: dict[str, Any]) -> dict[str, Any]:
    """A structural schema of Kubernetes as a JSON schema that refuses unknown fields.

    The API server drops them without a word, unless it is asked.
    """
    result = dict(schema)
    if "properties" in schema:
        result["properties"] = {name: strict(each) for name, each in schema["properties"].items()}
        if not schema.get("x-kubernetes-preserve-unknown-fields"):
            result.setdefault("additionalProperties", False)
    for name in ("items", "additionalProperties"):
        if isinstance(schema.get(name), dict):
            result[name] = strict(schema[name])
    if schema.get("x-kubernetes-int-or-string"):
        result["anyOf"] = [{"type": "integer"}, {"type": "string"}]
    return result


@cache
def validator(kind: str, version: str) -> jsonschema.Draft7Validator:
    path = CRDS / f"ray.io_{kind.lower()}s.yaml"
    if not path.is_file():
        pytest.skip(f"NOT TESTED: no {path.name} of KubeRay 1.7 in {CRDS}: set KUBERAY_CRDS to a folder that has it")
    crd = yaml.load(path.read_text(), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    (schema,) = [each["schema"]["openAPIV3Schema"] for each in crd["spec"]["versions"] if each["name"] == version]
    return jsonschema.Draft7Validator(strict(schema))


def errors(resource: dict[str, Any]) -> list[str]:
    _, _, version = resource["apiVersion"].partition("/")
    return [
        f"{'.'.join(map(str, each.absolute_path))}: {each.message}"
        for each in validator(resource["kind"], version).iter_errors(resource)
    ]


def custom(resource: dict[str, Any]) -> bool:
    return bool(resource["apiVersion"].startswith("ray.io/"))


def pods(resource: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The pods that KubeRay makes of a RayCluster or a RayJob."""
    spec = resource["spec"].get("rayClusterSpec", resource["spec"])
    head, *workers = (group["template"] for group in (spec["headGroupSpec"], *spec["workerGroupSpecs"]))
    options = {name: spec["autoscalerOptions"][name] for name in ("resources", "securityContext", "volumeMounts")}
    image, policy = head["spec"]["containers"][0]["image"], spec["autoscalerOptions"]["imagePullPolicy"]
    head = copy.deepcopy(head)
    head["spec"]["containers"].append({"name": "autoscaler", "image": image, "imagePullPolicy": policy, **options})
    templates = {"head": head, **{f"worker-{index}": each for index, each in enumerate(workers)}}
    if "submitterPodTemplate" in resource["spec"]:
        templates["submitter"] = resource["spec"]["submitterPodTemplate"]
    for name, template in templates.items():
        metadata = {
            **template["metadata"],
            "name": f"{resource['metadata']['name']}-{name}",
            "namespace": resource["metadata"]["namespace"],
        }
        yield {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": template["spec"]}


def core(project: Path) -> list[dict[str, Any]]:
    """The core objects of all overlays, with the pods that come of the custom ones."""
    resources = [each for overlay in OVERLAYS for each in build(project, overlay)]
    made = [pod for each in resources if custom(each) for pod in pods(each)]
    return [each for each in resources if not custom(each)] + made


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_each_overlay_is_what_it_should_be(project: Path, overlay: str) -> None:
    expected = {
        "namespace": ["Namespace", "NetworkPolicy", "PersistentVolumeClaim", "ServiceAccount"],
        "people": ["NetworkPolicy", "RayCluster"],
        "batch": ["NetworkPolicy", "RayJob"],
    }
    resources = build(project, overlay)
    assert sorted(each["kind"] for each in resources) == expected[overlay]
    assert {each["metadata"].get("namespace") for each in resources if each["kind"] != "Namespace"} == {"digit-reader"}


def test_no_two_overlays_have_the_same_object(project: Path) -> None:
    """What `kubectl delete -k` of one deletes, no other needs."""
    names = [(each["kind"], each["metadata"]["name"]) for overlay in OVERLAYS for each in build(project, overlay)]
    assert len(set(names)) == len(names)


def test_kuberay_accepts_the_custom_resources(project: Path) -> None:
    resources = [each for overlay in OVERLAYS for each in build(project, overlay) if custom(each)]
    assert len(resources) == 2
    for resource in resources:
        assert errors(resource) == []


@pytest.mark.parametrize(
    ("kind", "path", "value"),
    [
        ("RayCluster", ("spec", "rayVersionn"), "2.60.0"),
        ("RayCluster", ("spec", "authOptions", "mode"), "tokens"),
        ("RayCluster", ("spec", "headGroupSpec", "rayStartParams", "num-cpus"), 0),
        ("RayCluster", ("spec", "headGroupSpec", "template", "spec", "runAsUser"), 1000),
        ("RayCluster", ("spec", "workerGroupSpecs", 0, "maxReplicas"), "4"),
        ("RayJob", ("spec", "activeDeadlineSeconds"), "1d"),
        ("RayJob", ("spec", "rayClusterSpec", "autoscalerOptions", "securityContext", "readOnly"), True),
    ],
)
def test_a_wrong_field_is_found(project: Path, kind: str, path: tuple[str | int, ...], value: Any) -> None:
    resource = copy.deepcopy(find(project, {"RayCluster": "people", "RayJob": "batch"}[kind], kind))
    place: Any = resource
    for name in path[:-1]:
        place = place[name]
    place[path[-1]] = value
    assert len(errors(resource)) == 1


def test_kubernetes_accepts_the_rest_and_the_pods(project: Path) -> None:
    resources = core(project)
    assert sum(each["kind"] == "Pod" for each in resources) == 5
    for resource in resources:
        kubernetes_validate.validate(resource, KUBERNETES, strict=True)


def test_the_image_is_written_once_and_is_everywhere(project: Path) -> None:
    kustomization = project / "cluster/base/kustomization.yaml"
    text = kustomization.read_text()
    folder = project.parent / "another-tag"
    shutil.copytree(project, folder, dirs_exist_ok=True)
    (folder / "cluster/base/kustomization.yaml").write_text(text.replace("newTag: 0.1.0", "newTag: 0.2.0"))
    for place, tag in ((project, "0.1.0"), (folder, "0.2.0")):
        containers = [each for pod in core(place) if pod["kind"] == "Pod" for each in pod["spec"]["containers"]]
        assert len(containers) == 7  # two autoscalers are among them
        assert {each["image"] for each in containers} == {f"registry.example.com/digit-reader:{tag}"}
    yamls = [path for path in (project / "cluster").rglob("*.yaml") if "registry.example.com" in path.read_text()]
    assert yamls == [kustomization]


def test_gpus_are_asked_for_by_the_workers_of_a_gpu_project_only(project: Path) -> None:
    gpu = "GPUS_PER_PREDICTOR = 1.0" in (project / "src/digit_reader/settings.py").read_text()
    for pod in core(project):
        worker = pod["kind"] == "Pod" and "worker" in pod["metadata"]["name"]
        assert ("nvidia.com/gpu" in json.dumps(pod)) == (worker and gpu)
        if worker:
            assert ("tolerations" in pod["spec"]) == gpu


@pytest.mark.parametrize("overlay", ["people", "batch"])
def test_the_pods_of_a_cluster_reach_each_other_and_no_other_cluster(project: Path, overlay: str) -> None:
    policy = find(project, overlay, "NetworkPolicy")["spec"]
    selected = policy["podSelector"]["matchLabels"]
    assert policy["ingress"][0] == {"from": [{"podSelector": {"matchLabels": selected}}]}
    for each in OVERLAYS:
        for resource in filter(custom, build(project, each)):
            for pod in pods(resource):
                assert (selected.items() <= pod["metadata"]["labels"].items()) == (each == overlay)


def test_people_and_batch_have_the_same_pods(project: Path) -> None:
    """But for how many workers there are, and the label that keeps them apart."""
    people = copy.deepcopy(find(project, "people", "RayCluster")["spec"])
    batch = find(project, "batch", "RayJob")["spec"]["rayClusterSpec"]
    (head,) = people["headGroupSpec"]["template"]["spec"]["containers"]
    (told,) = head.pop("env")
    assert told == {"name": "CLUSTER_MAX_WORKERS", "value": str(people["workerGroupSpecs"][0]["maxReplicas"])}
    text = json.dumps(batch).replace('instance": "predict"', 'instance": "ray"').replace('"minReplicas": 4', "")
    assert text == json.dumps(people).replace('"minReplicas": 1', "")


@pytest.fixture(scope="module")
def checkov(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return own_environment(tmp_path_factory.mktemp("checkov"), CHECKOV) / "checkov"


def test_checkov_finds_nothing(project: Path, checkov: Path, tmp_path: Path) -> None:
    # It knows nothing of custom resources: it sees the pods that come of them.
    manifest = tmp_path / "manifests.yaml"
    manifest.write_text(yaml.safe_dump_all(core(project)))
    scan = (checkov, "--file", manifest, "--framework", "kubernetes", "--quiet", "--compact", "--skip-download")
    result = run(*scan, "--skip-check", ",".join(CHECKOV_SKIPS), folder=tmp_path)
    assert result.returncode == 0, result.stdout

    hole = yaml.safe_dump_all(core(project)).replace("readOnlyRootFilesystem: true", "readOnlyRootFilesystem: false")
    manifest.write_text(hole)  # and it does look
    result = run(*scan, "--skip-check", ",".join(CHECKOV_SKIPS), folder=tmp_path)
    assert result.returncode == 1, result.stdout
    assert "CKV_K8S_22" in result.stdout


def commands(project: Path) -> list[list[str]]:
    """The words of the README's commands of kubectl, Ray and the project, also of those within others."""
    text = (project / "cluster/README.md").read_text()
    lines = "\n".join(line for line in text.splitlines() if line.startswith("    "))
    found = re.findall(r"(?:^ {4}|\$\()((?:kubectl|ray|digit-reader) [^|)\n]*)", lines, re.MULTILINE)
    return [shlex.split(each) for each in found]


def test_the_readmes_commands_have_flags_that_exist(project: Path) -> None:
    checked = []
    options = run("kubectl", "options", folder=project).stdout
    for program, *words in commands(project):
        flags = [word.partition("=")[0] for word in words if re.match(r"--?[a-z]", word)]
        if program == "kubectl":
            command = words[: 2 if words[0] == "config" else 1]
            shown = run("kubectl", *command, "--help", folder=project).stdout
            assert re.search(rf"^Usage:\n  kubectl {' '.join(command)}\b", shown, re.MULTILINE), command
            shown += options
        elif program == "ray":
            command = words[: 2 if words[0] == "job" else 1]
            shown = run(program, *command, "--help", folder=project).stdout
            assert f"Usage: ray {' '.join(command)} " in shown
        else:
            command = words[words.index("--") + 1 :][:1]
            shown = ""
            for each in (words[0], *command):
                module = (sys.executable, "-m", "digit_reader", each, "--help")
                result = run(*module, folder=project, PYTHONPATH=str(project / "src"))
                assert result.returncode == 0, result.stdout
                shown += result.stdout
        for flag in flags:
            assert re.search(rf"(?<![\w-]){flag}(?![\w-])", shown), f"{program} {' '.join(command)} has no {flag}"
        checked.append((program, *command))
    assert {("kubectl", "apply"), ("kubectl", "port-forward"), ("digit-reader", "predict")} <= set(checked)


def test_the_readmes_commands_name_what_is_there(project: Path) -> None:
    """KubeRay calls the head's Service and the token's Secret after the RayCluster, and the Job after the RayJob."""
    cluster = find(project, "people", "RayCluster")["metadata"]["name"]
    job = find(project, "batch", "RayJob")["metadata"]["name"]
    text = (project / "cluster/README.md").read_text()
    for each in (
        f"raycluster/{cluster}\n",
        f"service/{cluster}-head-svc 8265:8265",
        f"get secret {cluster} ",
        f"ray.io/cluster={cluster},",
        f"get rayjob {job} ",
        f"logs job/{job}\n",
        "--namespace=digit-reader",
    ):
        assert each in text
    overlays = re.findall(r"kubectl (apply|delete) -k cluster/(\w+)", text)
    assert sorted(overlays) == sorted((verb, each) for verb in ("apply", "delete") for each in OVERLAYS)
    (head,) = [each["spec"]["containers"][0] for each in core(project) if each["metadata"]["name"] == f"{cluster}-head"]
    assert set(re.findall(r"--container=(\S+)", text)) == {head["name"]}
