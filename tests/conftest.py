"""What the tests share: a way to bake projects with real cookiecutter, and one made project each for CPU and GPU."""

import itertools
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from cookiecutter.main import cookiecutter

TEMPLATE = Path(__file__).parents[1]
QUESTIONS = json.loads((TEMPLATE / "cookiecutter.json").read_text())
CHOICES = {name: answer for name, answer in QUESTIONS.items() if isinstance(answer, list) and name[0] != "_"}
COMBINATIONS = [dict(zip(CHOICES, answers, strict=True)) for answers in itertools.product(*CHOICES.values())]
# In these fifteen projects, each answer about example, accelerator and cluster meets each other one.
PAIRS = [
    {"example": example, "accelerator": CHOICES["accelerator"][number % 2], "cluster": cluster}
    for number, (example, cluster) in enumerate(itertools.product(CHOICES["example"], CHOICES["cluster"]))
]
WITHOUT_NETWORK = ("unshare", "--user", "--map-root-user", "--net")  # before a command
EVERY_PAIR = bool(os.environ.get("EVERY_PAIR"))  # at night: each of them passes all of its own nox sessions
PROJECTS = PAIRS if EVERY_PAIR else [PAIRS[0], PAIRS[9], PAIRS[12]]  # an example each, for CPU and GPU, three clusters
WITH_RAY = ("test_docker.py", "test_object_store.py", "test_onprem.py", "test_projects.py", "test_readme.py")
HANGS = 600  # seconds: what takes so long does not come any more, however busy the machine is
RUNNING = f"{sys.version_info.major}.{sys.version_info.minor}"
PYTHON = RUNNING if RUNNING in CHOICES["python_version"] else CHOICES["python_version"][0]


def bake(folder: Path, **answers: str) -> Path:
    """Make a project in `folder`, and return its path.

    Raises:
        KeyError: an answer to a question that does not exist; cookiecutter would ignore it, and a test test nothing.
    """
    if unknown := answers.keys() - {name for name in QUESTIONS if name[0] != "_"}:
        raise KeyError(f"no such question: {unknown}")
    return Path(cookiecutter(str(TEMPLATE), no_input=True, output_dir=str(folder), extra_context=answers))


def run(*command: str | Path, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a command as a person would, outside of the environment that these tests run in."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("NOX_", "UV_", "VIRTUAL_"))}
    return subprocess.run(
        [*map(str, command)],
        cwd=folder,
        env=inherited | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )


def make_model(commands: Path, folder: Path) -> None:
    """Run a made project's steps from raw data to a model in `folder`, the quickest way."""
    for step in (["data"], ["preprocess", "--engine", "pandas"], ["train", "--num-workers", "0"]):
        finished = run(commands / "my-ray-project", *step, folder=folder)
        assert finished.returncode == 0, finished.stdout


def error_lines(said: str) -> list[str]:
    """What the hooks said of what they refuse, without cookiecutter's words around it."""
    return [line for line in said.splitlines() if line.startswith("error: ")]


def copy_template(folder: Path) -> None:
    """Copy the template, as it is in the working tree, without what git ignores and without its history."""
    listed = run("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", folder=TEMPLATE)
    assert listed.returncode == 0, listed.stdout
    for name in listed.stdout.split("\0")[:-1]:
        if (TEMPLATE / name).is_file():  # not in git only
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(TEMPLATE / name, folder / name)


def package_sources(project: Path) -> dict[str, str]:
    """What the project's own noxfile tells uv on this machine."""
    asked = "import json, noxfile; print(json.dumps(noxfile.package_sources()))"
    sources: dict[str, str] = json.loads(run(sys.executable, "-c", asked, folder=project).stdout)
    return sources


def own_environment(folder: Path, requirement: str) -> Path:
    """The commands of a program that pins most of what it depends on, from an environment of its own."""
    sources = package_sources(bake(folder))
    for command in (("venv", "environment"), ("pip", "install", "--python", "environment/bin/python", requirement)):
        made = run(sys.executable, "-m", "uv", *command, "--quiet", folder=folder, **sources)
        assert made.returncode == 0, made.stdout
    return folder / "environment/bin"


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Two processes share the tests: one runs the files that work with Ray; the other the rest, on what these leave
    idle, and then what has a network of its own, and so the ports of Ray's that others ask for, too."""
    from xdist.scheduler import LoadScopeScheduling

    class RayAndTheRest(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return part_of(nodeid)

    return RayAndTheRest(config, log)


def part_of(nodeid: str) -> str:
    file, _, name = nodeid.partition("::")
    if Path(file).name not in WITH_RAY:
        return "the rest"
    alone = Path(file).name == "test_onprem.py" or "without_a_network" in name or name.endswith(("[google]", "[azure]"))
    return "own network" if alone else "Ray"


def pytest_runtest_setup(item: pytest.Item) -> None:
    """The rest is as nice as Ray's own workers: it is to disturb no test in which these have seconds for something."""
    if "PYTEST_XDIST_WORKER" in os.environ:
        with suppress(PermissionError):  # back from nice, which only root may
            os.setpriority(os.PRIO_PROCESS, 0, 15 if part_of(item.nodeid) == "the rest" else 0)


@pytest.fixture(autouse=True, scope="session")
def private_settings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Leave no answers in the person's ~/.cookiecutter_replay and no token in ~/.ray, and no hook in /tmp."""
    folder = tmp_path_factory.mktemp("settings")
    (folder / "cookiecutter.yaml").write_text(f"replay_dir: {folder}\ncookiecutters_dir: {folder}\n")
    token = folder / "auth_token"
    token.write_text("a-token-for-the-tests-of-this-template-only")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COOKIECUTTER_CONFIG", str(folder / "cookiecutter.yaml"))
        patch.setenv("RAY_AUTH_TOKEN_PATH", str(token))
        patch.setattr(tempfile, "tempdir", str(folder))  # cookiecutter leaves the hooks as it ran them there
        yield


def name_of(answers: dict[str, str]) -> str:
    """A project's, in the names of its tests."""
    return "-".join(answers.values())


@pytest.fixture(scope="session", params=PROJECTS, ids=name_of)
def project(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project for each example, in a folder of its name, for the Python that is running."""
    folder = tmp_path_factory.mktemp("made") / request.param["example"]
    folder.mkdir()
    return bake(folder, **request.param, python_version=PYTHON)
