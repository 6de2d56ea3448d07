"""Write the made projects' constraints.txt anew: the newest versions that fit all answers, for every Python."""

import functools
import itertools
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path

from cookiecutter.generate import generate_context
from cookiecutter.prompt import prompt_for_config
from cookiecutter.utils import create_env_with_context

ROOT = Path(__file__).parents[1]
CONSTRAINTS = ROOT / "{{cookiecutter.__folder_name}}" / "constraints.txt"
QUESTIONS = json.loads((ROOT / "cookiecutter.json").read_text())
OLDEST_PYTHON = min(QUESTIONS["python_version"], key=lambda version: int(version.partition(".")[2]))


def lock() -> None:
    """Write the file, below its first line."""
    with tempfile.TemporaryDirectory() as folder:
        projects = []
        for answers in itertools.product(*map(QUESTIONS.get, ("example", "accelerator", "cluster"))):
            projects.append(Path(folder, *answers, "pyproject.toml"))
            projects[-1].parent.mkdir(parents=True)
            projects[-1].write_text(pyproject(*answers))
        written = resolve([*map(str, projects), *(f"--group={project}:dev" for project in projects)])
    comment = CONSTRAINTS.read_text().partition("\n")[0]
    # Which build of torch it is, 2.13.0+cpu or another, the project's own index says; its version is the same.
    CONSTRAINTS.write_text(f"{comment}\n{written.replace('+cpu', '')}")


def pyproject(example: str, accelerator: str, cluster: str) -> str:
    """The pyproject.toml of a project with these answers, rendered as cookiecutter does; no other file is needed."""
    answers = {"example": example, "accelerator": accelerator, "cluster": cluster, "python_version": OLDEST_PYTHON}
    context = generate_context(str(ROOT / "cookiecutter.json"), extra_context=answers)
    context["cookiecutter"] = prompt_for_config(context, no_input=True)
    source = CONSTRAINTS.with_name("pyproject.toml").read_text()
    return str(create_env_with_context(context).from_string(source).render(**context))


def resolve(arguments: list[str], requirements: Iterable[str] = ()) -> str:
    """The newest versions that go together, as lines of a requirements file, for all systems and Pythons.

    Raises:
        ValueError: nothing goes together, or the package index did not answer; with uv's own words.
    """
    command = [sys.executable, "-m", "uv", "pip", "compile", "--universal", "--python-version", OLDEST_PYTHON]
    options = ["--upgrade", "--no-annotate", "--no-header", "--quiet", "--color=never"]
    result = subprocess.run(
        [*command, *options, *arguments],
        cwd=ROOT,
        env=os.environ | package_sources(),
        input="\n".join(requirements),
        capture_output=True,
        text=True,
        check=False,
    )
    if result.returncode:
        raise ValueError(" ".join(result.stderr.split()))
    return result.stdout


@functools.cache
def package_sources() -> dict[str, str]:
    """What uv, which reads no pip settings, must be told of this machine's."""
    sources = {"UV_NO_SOURCES_PACKAGE": "torch"}
    if index := pip_setting("index-url"):
        sources["UV_DEFAULT_INDEX"] = index
    if links := pip_setting("find-links"):
        sources["UV_FIND_LINKS"] = ",".join(links.split())
    return {name: value for name, value in sources.items() if name not in os.environ}


def pip_setting(name: str) -> str:
    """A setting of pip's, from the environment or from its files."""
    if value := os.environ.get("PIP_" + name.replace("-", "_").upper()):
        return value
    command = [sys.executable, "-m", "pip", "config", "get", f"global.{name}"]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()


if __name__ == "__main__":
    lock()
