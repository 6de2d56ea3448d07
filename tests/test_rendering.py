"""Every combination of answers: which files come out, that they parse, and that the linters find nothing to do."""

import ast
import json
import re
import tomllib
from pathlib import Path

import pytest
import yaml
import yamllint.linter
from conftest import CHOICES, COMBINATIONS, QUESTIONS, TEMPLATE, bake, run
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from yamllint.config import YamlLintConfig

# GitHub's key `on` is no truth value here, Dependabot writes one space before a comment, commands make long lines.
YAML_STYLE = """
extends: default
rules:
  braces: {max-spaces-inside: 1}
  comments: {min-spaces-from-content: 1}
  document-start: disable
  line-length: disable
  truthy: {check-keys: false}
"""
FILES = """
.devcontainer/devcontainer.json .github/dependabot.yml AGENTS.md
.dockerignore .github/workflows/ci.yml .gitignore .pre-commit-config.yaml Dockerfile README.md constraints.txt
noxfile.py pyproject.toml
src/PACKAGE/__init__.py src/PACKAGE/__main__.py src/PACKAGE/cli.py src/PACKAGE/doctor.py src/PACKAGE/errors.py
src/PACKAGE/first_try.py src/PACKAGE/pipeline.py
docs/interoperation.md src/PACKAGE/engines.py src/PACKAGE/evaluation.py src/PACKAGE/folders.py src/PACKAGE/inference.py
src/PACKAGE/inputs.py src/PACKAGE/parquet.py src/PACKAGE/plots.py src/PACKAGE/preflight.py src/PACKAGE/progress.py
src/PACKAGE/run_folder.py src/PACKAGE/runtime.py src/PACKAGE/stages.py src/PACKAGE/submit.py src/PACKAGE/tokens.py
src/PACKAGE/training.py src/PACKAGE/training_state.py src/PACKAGE/tuning.py src/PACKAGE/watch.py
src/PACKAGE/workers.py
tests/conftest.py tests/test_cli.py tests/test_cluster.py tests/test_docs.py tests/test_doctor.py
tests/test_image.py tests/test_inference.py tests/test_inputs.py tests/test_kills.py tests/test_parquet.py
tests/test_preflight.py tests/test_submit.py tests/test_training.py
"""
OPTION_FILES = {
    ("example", "images"): """
        docs/your-own-model.md src/PACKAGE/data.py src/PACKAGE/model.py src/PACKAGE/predictor.py
        src/PACKAGE/preprocessing.py src/PACKAGE/train_loop.py tests/test_images.py
        """,
    ("example", "tables"): """
        docs/your-own-model.md src/PACKAGE/data.py src/PACKAGE/model.py src/PACKAGE/predictor.py
        src/PACKAGE/preprocessing.py src/PACKAGE/train_loop.py tests/test_tables.py
        """,
    ("example", "text"): """
        docs/your-own-model.md src/PACKAGE/data.py src/PACKAGE/model.py src/PACKAGE/predictor.py
        src/PACKAGE/preprocessing.py src/PACKAGE/sparse.py src/PACKAGE/train_loop.py tests/test_text.py
        """,
    ("accelerator", "cpu"): "src/PACKAGE/settings.py",
    ("accelerator", "gpu"): "src/PACKAGE/settings.py",
    ("cluster", "aws"): "cluster/README.md cluster/aws.yaml",
    ("cluster", "gcp"): "cluster/README.md cluster/gcp.yaml",
    ("cluster", "azure"): "cluster/README.md cluster/azure.yaml",
    ("cluster", "onprem"): "cluster/README.md cluster/onprem.yaml cluster/node.sh tests/test_cluster.py",
    ("cluster", "kubernetes"): """
        cluster/README.md cluster/base/kustomization.yaml cluster/base/network-policy.yaml cluster/base/ray-cluster.yaml
        cluster/batch/kustomization.yaml cluster/batch/ray-job.yaml cluster/namespace/kustomization.yaml
        cluster/namespace/namespace.yaml cluster/namespace/network-policy.yaml cluster/namespace/service-account.yaml
        cluster/namespace/storage.yaml cluster/people/kustomization.yaml tests/test_cluster.py
        """,
}


def files(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module", params=COMBINATIONS, ids=lambda answers: "-".join(answers.values()))
def rendered(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    answers = {**request.param, "project_slug": "digit-reader"}
    return bake(tmp_path_factory.mktemp("rendered"), **answers), answers


def test_the_files_are_those_that_were_promised(rendered: tuple[Path, dict[str, str]]) -> None:
    folder, answers = rendered
    expected = FILES
    for question in ("example", "accelerator", "cluster"):
        expected += " " + OPTION_FILES[question, answers[question]]
    assert files(folder) == set(expected.replace("PACKAGE", "digit_reader").split())


def test_everything_parses(rendered: tuple[Path, dict[str, str]]) -> None:
    folder, _ = rendered
    for path in map(folder.joinpath, files(folder)):
        text = path.read_text(encoding="utf-8")
        assert text.endswith("\n"), path
        assert not text.endswith("\n\n"), path
        assert not re.search(r"cookiecutter|\{%|^#%", text, re.MULTILINE), path
        if path.suffix == ".py":
            ast.parse(text)
        elif path.suffix == ".toml":
            tomllib.loads(text)
        elif path.suffix in (".yaml", ".yml"):
            assert yaml.safe_load(text)


def test_ruff_finds_nothing_to_do(rendered: tuple[Path, dict[str, str]]) -> None:
    folder, _ = rendered
    for arguments in (("check",), ("format", "--check")):
        result = run("ruff", *arguments, "--no-cache", folder=folder)
        assert result.returncode == 0, result.stdout


def test_yamllint_finds_nothing(rendered: tuple[Path, dict[str, str]]) -> None:
    folder, _ = rendered
    config = YamlLintConfig(YAML_STYLE)
    for name in sorted(each for each in files(folder) if each.endswith((".yaml", ".yml"))):
        assert not list(yamllint.linter.run((folder / name).read_text(), config)), name


def test_the_accelerator_is_the_same_everywhere(rendered: tuple[Path, dict[str, str]]) -> None:
    folder, answers = rendered
    gpu = answers["accelerator"] == "gpu"
    settings = (folder / "src/digit_reader/settings.py").read_text()
    project = tomllib.loads((folder / "pyproject.toml").read_text())
    assert ("GPUS_PER_PREDICTOR = 1.0" in settings) == gpu
    assert ('PRECISION = "bfloat16"' in settings) == gpu
    assert ("torch" in project["tool"].get("uv", {}).get("sources", {})) == (not gpu)
    needed = {Requirement(each).name for each in project["project"]["dependencies"]}
    boosters = {"xgboost" if gpu else "xgboost-cpu"} if answers["example"] == "tables" else set()
    assert needed & {"xgboost", "xgboost-cpu"} == boosters
    assert ("CPU build" in (folder / "Dockerfile").read_text()) == (not gpu)
    cluster = "".join(path.read_text() for path in (folder / "cluster").rglob("*.yaml"))
    # Machines of one's own have the GPUs that they have: nothing to ask for.
    asks = re.search(r"\bGPU: 1|nvidia\.com/gpu|guestAccelerators|: g\d", cluster)
    assert bool(asks) == (gpu and answers["cluster"] != "onprem")


def test_python_and_ray_are_the_same_everywhere(rendered: tuple[Path, dict[str, str]]) -> None:
    folder, answers = rendered
    project = tomllib.loads((folder / "pyproject.toml").read_text())["project"]
    version = next(each for each in project["dependencies"] if each.startswith("ray[")).partition("==")[2]
    assert project["requires-python"] == f"=={answers['python_version']}.*"
    assert f"\nray=={version}\n" in (folder / "constraints.txt").read_text()
    image = f"rayproject/ray:{version}-py{answers['python_version'].replace('.', '')}-{answers['accelerator']}"
    assert f"\nFROM {image}\n" in (folder / "Dockerfile").read_text()
    workflow = yaml.safe_load((folder / ".github/workflows/ci.yml").read_text())
    setup = [step for step in workflow["jobs"]["nox"]["steps"] if "setup-python" in step.get("uses", "")]
    assert [step["with"]["python-version"] for step in setup] == [answers["python_version"]]
    cluster = "".join(path.read_text() for path in (folder / "cluster").rglob("*.yaml"))
    if answers["cluster"] == "onprem":
        assert f"uv venv --quiet --clear --python {answers['python_version']} .venv" in cluster
    else:  # the image that the project's Dockerfile makes
        assert "registry.example.com/digit-reader" in cluster
        assert project["version"] in cluster
    if answers["cluster"] == "kubernetes":
        assert f'rayVersion: "{version}"' in cluster.replace("'", '"')


def test_every_requirement_has_a_version_that_fits(rendered: tuple[Path, dict[str, str]]) -> None:
    folder, answers = rendered
    project = tomllib.loads((folder / "pyproject.toml").read_text())
    pins: dict[str, list[Requirement]] = {}
    for line in (folder / "constraints.txt").read_text().splitlines()[1:]:
        pin = Requirement(line)
        if pin.marker is None or pin.marker.evaluate({"python_full_version": answers["python_version"] + ".0"}):
            pins.setdefault(pin.name, []).append(pin)
    for requirement in map(Requirement, [*project["project"]["dependencies"], *project["dependency-groups"]["dev"]]):
        versions = {next(iter(pin.specifier)).version for pin in pins[canonicalize_name(requirement.name)]}
        assert len(versions) == 1, requirement
        assert requirement.specifier.contains(*versions), requirement


def test_only_the_accelerators_files_know_of_it(tmp_path: Path) -> None:
    """Python is the same for every answer, but for the settings and the example's own modules."""
    made = {
        accelerator: bake(tmp_path / accelerator, accelerator=accelerator) for accelerator in CHOICES["accelerator"]
    }
    differing = {
        path for path in files(made["cpu"]) if (made["cpu"] / path).read_bytes() != (made["gpu"] / path).read_bytes()
    }
    assert differing == {
        "Dockerfile",
        "README.md",
        "pyproject.toml",
        "cluster/README.md",
        "cluster/aws.yaml",
        "src/my_ray_project/settings.py",
    }


def test_only_the_examples_files_know_of_it(tmp_path: Path) -> None:
    """`inference.py`, `training.py`, `tuning.py` and the rest are the same file in all examples, byte for byte."""
    made = {example: bake(tmp_path / example, example=example) for example in CHOICES["example"]}
    own = {
        name.replace("PACKAGE", "my_ray_project")
        for example in made
        for name in OPTION_FILES["example", example].split()
    }
    contents = {
        example: {path: (made[example] / path).read_bytes() for path in files(made[example])} for example in made
    }
    shared = set.intersection(*(set(each) for each in contents.values())) - own
    differing = {path for path in shared if len({contents[example][path] for example in made}) > 1}
    assert differing == {"README.md", "cluster/README.md", "pyproject.toml"}
    assert len({contents[example]["README.md"] for example in made}) == len(made)  # none is described as another
    assert {
        "src/my_ray_project/inference.py",
        "src/my_ray_project/training.py",
        "src/my_ray_project/tuning.py",
    } <= shared


def test_every_answer_has_a_folder_and_a_prompt() -> None:
    options = TEMPLATE / "{{cookiecutter.__folder_name}}" / "options"
    folders = {(path.parent.name, path.name) for path in options.glob("*/*")}
    assert folders == set(OPTION_FILES)
    assert {question for question, _ in folders} == {"example", "accelerator", "cluster"}
    assert all(answer in CHOICES[question] for question, answer in folders)
    asked = {name for name in QUESTIONS if name[0] != "_"}
    assert asked == set(QUESTIONS["__prompts__"])
    for question, answers in CHOICES.items():
        assert set(QUESTIONS["__prompts__"][question]) == {"__prompt__", *answers}


def test_an_unknown_option_fails_the_test(tmp_path: Path) -> None:
    with pytest.raises(KeyError, match="acelerator"):
        bake(tmp_path, acelerator="gpu")


def test_python_in_the_template_is_python() -> None:
    """Jinja stands in Python for the package's name in a test's import, and nowhere else."""
    for path in (TEMPLATE / "{{cookiecutter.__folder_name}}").rglob("*.py"):
        jinja = [line for line in path.read_text().splitlines() if "{{" in line or "{%" in line]
        assert all(re.match(r"from \{\{ cookiecutter.__package_name \}\}[.\w]* import ", line) for line in jinja), path
        if "tests" not in path.parts:
            assert not jinja, path


def test_no_name_is_refused_by_windows() -> None:
    for path in TEMPLATE.rglob("*"):
        assert not re.search(r'["<>:|?*]', path.name), path


def test_the_answers_are_few() -> None:
    assert len([name for name in QUESTIONS if name[0] != "_"]) <= 9
    assert json.dumps(QUESTIONS["__prompts__"]).count("ray[") == 0  # prompts are Rich markup: it would vanish
