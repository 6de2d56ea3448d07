"""The template's tasks, for people and for CI alike: `nox -s demo` and `nox -s tests`."""

import json
import shutil
import sys
from pathlib import Path

import nox

nox.needs_version = ">=2025.5.1"
nox.options.default_venv_backend = "virtualenv"  # pip follows the machine's own settings, such as a mirror; uv does not
nox.options.reuse_venv = "yes"
nox.options.sessions = ["lint", "tests"]

ROOT = Path(__file__).parent
PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"
GROUPS = nox.project.load_toml("pyproject.toml")["dependency-groups"]
QUESTIONS = json.loads((ROOT / "cookiecutter.json").read_text())
RAY = "ray[default]==" + QUESTIONS["__ray_version"]


@nox.session
def demo(session: nox.Session) -> None:
    """Make a project with the default answers in ./my-ray-project, for you to keep, and run its demo."""
    session.install(*GROUPS["demo"])
    project = ROOT / "my-ray-project"
    if project.exists():
        session.log(f"{project} is there already: running the demo in it as it is")
    else:
        answers = [f"python_version={PYTHON}"] if PYTHON in QUESTIONS["python_version"] else []
        session.run("cookiecutter", "--no-input", "--output-dir", str(ROOT), str(ROOT), *answers)
    session.chdir(project)
    session.run("nox", "--session", "demo")


@nox.session
def tests(session: nox.Session) -> None:
    """Test the template, and the projects that it makes with their own tests."""
    session.install(*GROUPS["tests"], RAY)
    session.run("pytest", "--numprocesses=2", *session.posargs)  # the tests with Ray, and the rest: see conftest.py


@nox.session
def generation(session: nox.Session) -> None:
    """Test what comes out of every combination of answers, and nothing that needs Ray: for every system."""
    session.install(*GROUPS["generation"])
    files = ("tests/test_hooks.py", "tests/test_rendering.py")
    session.run("pytest", *files, *session.posargs)


@nox.session
def lint(session: nox.Session) -> None:
    """Check the style of the template's own Python."""
    session.install(*GROUPS["lint"])
    session.run("ruff", "check")
    session.run("ruff", "format", "--check")


@nox.session
def lock(session: nox.Session) -> None:
    """Write the made projects' constraints.txt anew: the newest versions that fit all answers, for every Python."""
    session.install(*GROUPS["demo"])
    session.run("python", "scripts/lock.py")


@nox.session
def upgrade(session: nox.Session) -> None:
    """Raise every pin, of the template and of the made projects, and say what was raised and what could not be."""
    session.install(*GROUPS["demo"], "packaging>=24")
    session.run("python", "scripts/upgrade.py")


@nox.session
def benchmark(session: nox.Session) -> None:
    """Time the making of a project, side by side with another template's."""
    session.install(*GROUPS["demo"], "cookiecutter-pypackage")
    session.run("python", "benchmarks/generation.py", *session.posargs)


@nox.session
def benchmark_inference(session: nox.Session) -> None:
    """Measure `predict` of a made project beside other ways: compare, memory or scale, after `--`."""
    project = make_project(session, "images")
    for module in ("predictor.py", "preprocessing.py"):
        shutil.copy(ROOT / "benchmarks/contenders" / module, project / "src/my_ray_project" / module)
    session.install("--force-reinstall", "--no-deps", str(project))
    session.install(str(project), "daft>=0.7,<0.8")
    session.run("python", "benchmarks/inference.py", *(session.posargs or ["compare"]))


@nox.session
def benchmark_accuracy(session: nox.Session) -> None:
    """Compare each example's model, of its demo, with a plain one of scikit-learn."""
    projects = [make_project(session, example) for example in QUESTIONS["example"]]
    for project in projects:
        with session.chdir(project):
            session.run("nox", "--session", "demo")
    session.run("python", "benchmarks/baselines.py", *map(str, projects))


@nox.session
def benchmark_preprocessing(session: nox.Session) -> None:
    """Measure `preprocess` of a made project with pandas, Modin and Ray Data: compare or limit, after `--`."""
    project = make_project(session, "tables")
    session.install("--force-reinstall", "--no-deps", str(project))
    session.install(str(project))
    session.run("python", "benchmarks/preprocessing.py", *(session.posargs or ["compare"]))


def make_project(session: nox.Session, example: str) -> Path:
    """A made project to measure."""
    session.install(*GROUPS["demo"])
    folder = (
        session.cache_dir / example
    )  # create_tmp() would set TMPDIR to a folder in the environment: no place for Ray
    answers = [f"python_version={PYTHON}", "project_slug=my-ray-project", f"example={example}"]
    session.run("cookiecutter", "--no-input", "--overwrite-if-exists", "--output-dir", str(folder), str(ROOT), *answers)
    return folder / "my-ray-project"
