"""The project's tasks, for people and for CI alike: `nox -s demo`, `nox -s tests`, `nox -s lint`."""

import os
import subprocess
import sys
import urllib.request
from pathlib import Path

import nox

nox.needs_version = ">=2025.5.1"
nox.options.default_venv_backend = "uv"
nox.options.reuse_venv = "yes"
nox.options.sessions = ["lint", "tests"]

PROJECT = nox.project.load_toml("pyproject.toml")
PYTHON = nox.project.python_versions(PROJECT)[0]
CONSTRAINTS = Path("constraints.txt")


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


@nox.session(python=PYTHON)
def lock(session: nox.Session) -> None:
    """Write constraints.txt anew: the newest versions that pyproject.toml allows, for this Python on any system."""
    session.install("uv", env=package_sources())
    compile_ = ["uv", "pip", "compile", "pyproject.toml", "--group", "dev", "--universal", "--upgrade"]
    written = session.run(*compile_, "--no-annotate", "--no-header", "--quiet", env=package_sources(), silent=True)
    comment = CONSTRAINTS.read_text().partition("\n")[0]
    # The index says which build of torch it is, for this machine's sake: 2.13.0+cpu. Its version is the same.
    CONSTRAINTS.write_text(f"{comment}\n{str(written).replace('+cpu', '')}")


def install(session: nox.Session) -> None:
    """Install the project and its development tools, torch from wherever this machine can have it."""
    session.install("-e", ".", "--group", "dev", "--constraint", CONSTRAINTS.name, env=package_sources())


def package_sources() -> dict[str, str]:
    """What uv must be told: it reads no pip settings, and gives up where PyTorch's own index does not answer."""
    # Compiled once, here, and not by each of the processes that Ray starts at once.
    sources = {"UV_COMPILE_BYTECODE": "1"}
    if index := pip_setting("index-url"):
        sources["UV_DEFAULT_INDEX"] = index
    if links := pip_setting("find-links"):
        sources["UV_FIND_LINKS"] = ",".join(links.split())
    offline = pip_setting("no-index").lower() in ("1", "true", "yes", "on")
    if offline:
        sources["UV_OFFLINE"] = "1"  # a folder of wheels is read all the same; uv has no variable for --no-index
    for index in PROJECT.get("tool", {}).get("uv", {}).get("index", []):
        if offline or not answers(index["url"] + "/torch/"):
            sources["UV_NO_SOURCES_PACKAGE"] = "torch"
    return {name: value for name, value in sources.items() if name not in os.environ}


def answers(url: str) -> bool:
    """Whether a page is there, in ten seconds at most."""
    try:
        urllib.request.urlopen(url, timeout=10).close()
    except OSError:
        return False
    return True


def pip_setting(name: str) -> str:
    """A setting of pip's, from the environment or, if the Python that runs nox has pip, from its files."""
    if value := os.environ.get("PIP_" + name.replace("-", "_").upper()):
        return value
    command = [sys.executable, "-m", "pip", "config", "get", f"global.{name}"]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
