"""The hooks: bad answers are refused in one line, and a folder that is there is left alone."""

import ast
import sys
from pathlib import Path

import pytest
from conftest import TEMPLATE, bake, error_lines, run


def cookiecutter(folder: Path, *answers: str):
    return run("cookiecutter", "--no-input", TEMPLATE, *answers, folder=folder)


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ("project_slug=1-digit", "project_slug '1-digit' can't be a package"),
        ("project_slug=My-Project", "can't be a package"),
        ("project_slug=a--b", "can't be a package"),
        ("project_slug=" + "a" * 41, "at most 40"),
        ("project_slug=класс", "can't be a package"),
        ("project_slug=class", "is a keyword of Python"),
        ("project_slug=snake_case", "can't be a package"),
        ("project_slug=json", "would hide the package json"),
        ("project_slug=ray", "would hide the package ray"),
        ("project_slug=scikit-learn", "would hide the package scikit-learn"),
        ("project_slug=xgboost", "would hide the package xgboost"),
        ("project_slug=test", "would hide the package test"),
        ("project_slug=python", "would hide the command python"),
        ("project_slug=null", "is no name in YAML"),
        ("project_slug=con", "can't be a folder on Windows"),
        ("project_name=two\nlines", "project_name has a line break"),
        ("description=two\nlines", "description has a line break"),
        ("author_name=a\tb", "author_name has a line break or another control character"),
        ("author_name= ", "author_name is empty"),
        ("author_name= a", "author_name begins or ends with a space"),
        ("description={{ 7 * 7 }}", "description has Jinja in it"),
        ("description=" + "a" * 201, "type at most 200"),
        ("author_email=nobody", "author_email 'nobody' is no e-mail address"),
        ("author_email=a..b@example.com", "is no e-mail address"),
    ],
)
def test_a_bad_answer_is_refused_and_nothing_is_left(tmp_path: Path, answer: str, reason: str) -> None:
    result = cookiecutter(tmp_path, answer)
    assert result.returncode != 0
    errors = error_lines(result.stdout)
    assert len(errors) == 1, result.stdout
    assert reason in errors[0]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("answer", ["accelerator=tpu", "python_version=2.7"])
def test_a_choice_that_does_not_exist_is_refused(tmp_path: Path, answer: str) -> None:
    """By cookiecutter, before any hook of a template can run."""
    result = cookiecutter(tmp_path, answer)
    assert result.returncode != 0
    assert "but the choices are" in result.stdout
    assert list(tmp_path.iterdir()) == []


def test_the_names_of_all_packages_are_refused() -> None:
    """Those of constraints.txt, and those that the made projects import."""
    project = TEMPLATE / "{{cookiecutter.__folder_name}}"
    names = {line.partition("==")[0] for line in (project / "constraints.txt").read_text().splitlines()[1:]}
    for path in project.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text().replace("{{ cookiecutter.__package_name }}", "this"))):
            if isinstance(node, ast.Import):
                names |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                names.add(str(node.module).partition(".")[0])
    assert {"PIL", "ray", "torch", "nvidia-cublas"} <= names
    hook = (TEMPLATE / "hooks/pre_gen_project.py").read_text()
    refused = hook.partition('PACKAGES = """')[2].partition('"""')[0].split()
    assert {name.lower().replace("_", "-") for name in names - set(sys.stdlib_module_names)} <= set(refused)


def test_a_folder_that_is_there_is_not_touched(tmp_path: Path) -> None:
    project = bake(tmp_path)
    (project / "README.md").write_text("mine")
    result = cookiecutter(tmp_path)
    assert result.returncode != 0
    assert (project / "README.md").read_text() == "mine"
