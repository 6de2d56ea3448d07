"""The hooks: bad answers are refused in one line, and good ones come out as they were typed."""

import re
import tomllib
from pathlib import Path

import pytest
from conftest import PYTHON, TEMPLATE, bake, run


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
        ("project_name=two\nlines", "project_name has a line break"),
        ("description=two\nlines", "description has a line break"),
        ("author_name=a\tb", "author_name has a line break or another control character"),
        ("author_name= ", "author_name is empty"),
        ("author_email=nobody", "author_email 'nobody' is no e-mail address"),
    ],
)
def test_a_bad_answer_is_refused_and_nothing_is_left(tmp_path: Path, answer: str, reason: str) -> None:
    result = cookiecutter(tmp_path, answer)
    assert result.returncode != 0
    errors = [line for line in result.stdout.splitlines() if line.startswith("error: ")]
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


@pytest.mark.parametrize(
    "text",
    [
        'a "quoted" text',
        "it's",
        "back\\slash \\n \\",
        "{braces} }} %} #%",
        "$(touch pwned) `touch pwned` ; touch pwned",
        "# no comment: [x] = y",
        '"""',
        "🚀 Fast, für 中文 עברית",
    ],
)
def test_text_comes_out_as_it_was_typed(tmp_path: Path, text: str) -> None:
    project = bake(tmp_path, project_name=text, project_slug="typed", description=text, author_name=text)
    table = tomllib.loads((project / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert table["description"] == text
    assert table["authors"][0]["name"] == text
    assert text in (project / "README.md").read_text(encoding="utf-8")
    assert not list(tmp_path.rglob("pwned"))


def test_a_folder_that_is_there_is_not_touched(tmp_path: Path) -> None:
    project = bake(tmp_path)
    (project / "README.md").write_text("mine")
    result = cookiecutter(tmp_path)
    assert result.returncode != 0
    assert (project / "README.md").read_text() == "mine"


def test_the_last_lines_are_the_next_commands_and_they_work(tmp_path: Path) -> None:
    (tmp_path / "with a space").mkdir()
    made = cookiecutter(tmp_path / "with a space", f"python_version={PYTHON}")
    commands = [line.strip() for line in made.stdout.splitlines() if line.startswith("    ")]
    assert commands[0].startswith("cd " + "'" + str(tmp_path / "with a space"))
    assert made.stdout.rstrip().endswith(commands[-1])
    finished = run("bash", "-ec", "\n".join(commands), folder=tmp_path)
    assert finished.returncode == 0, finished.stdout
    assert re.search(r"Accuracy on 360 held-out rows: (9[7-9]|100)", finished.stdout)
