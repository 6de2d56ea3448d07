"""The project's tasks, for people and for CI alike: `nox -s demo`, `nox -s tests`, `nox -s lint`."""

import ast
import os
import subprocess
import sys
import urllib.request

import nox

nox.needs_version = ">=2025.5.1"
nox.options.default_venv_backend = "uv"
nox.options.reuse_venv = "yes"
nox.options.sessions = ["lint", "tests"]

PROJECT = nox.project.load_toml("pyproject.toml")
PYTHON = nox.project.python_versions(PROJECT)[0]


@nox.session(python=PYTHON)
def tests(session: nox.Session) -> None:
    """Run the tests: the units in seconds, then the whole path on a real Ray with two CPUs."""
    install(session)
    session.run("pytest", *session.posargs)


@nox.session(python=PYTHON)
def lint(session: nox.Session) -> None:
    """Check style and types with the commands that pre-commit runs."""
    install(session)
    session.run("ruff", "check")
    session.run("ruff", "format", "--check")
    session.run("mypy")


@nox.session(python=PYTHON)
def demo(session: nox.Session) -> None:
    """Run the whole path on the example's data: predictions, an accuracy, and what to change next."""
    install(session)
    session.run(PROJECT["project"]["name"], "demo")


def install(session: nox.Session) -> None:
    """Install the project and its development tools, torch from wherever this machine can have it."""
    session.install("-e", ".", "--group", "dev", env=package_sources())


def package_sources() -> dict[str, str]:
    """What uv must be told: it reads no pip settings, and gives up where PyTorch's own index does not answer."""
    listed = subprocess.run(
        [sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True, check=False
    )
    pip: dict[str, str] = {}
    for line in listed.stdout.splitlines():  # such as global.index-url='https://...'; environment variables come first
        name, _, value = line.partition("=")
        pip.setdefault(name.rpartition(".")[2], ast.literal_eval(value))
    sources = {}
    if "index-url" in pip:
        sources["UV_DEFAULT_INDEX"] = pip["index-url"]
    if "find-links" in pip:
        sources["UV_FIND_LINKS"] = ",".join(pip["find-links"].split())
    for index in PROJECT.get("tool", {}).get("uv", {}).get("index", []):
        try:
            urllib.request.urlopen(index["url"] + "/torch/", timeout=10).close()
        except OSError:
            sources["UV_NO_SOURCES_PACKAGE"] = "torch"
    return {name: value for name, value in sources.items() if name not in os.environ}
