"""What goes wrong around the making of a project: one clear line each, and nothing is left behind."""

import ast
import os
import re
import signal
import sys
from pathlib import Path

import pexpect
import pytest
from conftest import TEMPLATE, WITHOUT_NETWORK, error_lines, own_environment, run

COOKIECUTTER = Path(sys.executable).with_name("cookiecutter")


@pytest.mark.parametrize("answered", [0, 3, 6])
def test_ctrl_c_in_the_questions_leaves_nothing(tmp_path: Path, answered: int) -> None:
    environment = {**os.environ, "TERM": "dumb"}
    screen = pexpect.spawn(str(COOKIECUTTER), [str(TEMPLATE)], cwd=tmp_path, env=environment, encoding="utf-8")
    for number in range(1, answered + 1):
        screen.expect_exact(f"[{number}/9]")
        screen.expect(r"\): ")
        screen.sendline("")
    screen.expect_exact(f"[{answered + 1}/9]")
    screen.expect(r"\): ")
    screen.sendintr()
    screen.expect(pexpect.EOF)
    screen.wait()
    assert screen.before.replace("^C", "").split() == ["Aborted!"]
    assert screen.exitstatus == 1
    assert screen.signalstatus != signal.SIGINT
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_exists(tmp_path: Path) -> None:
    (tmp_path / "my-ray-project").mkdir()
    result = run(COOKIECUTTER, "--no-input", TEMPLATE, folder=tmp_path)
    assert result.returncode == 1
    assert re.fullmatch(r'Error: "\S*my-ray-project" directory already exists\n', result.stdout)
    assert list((tmp_path / "my-ray-project").iterdir()) == []


def test_no_git_and_no_uv_are_needed(tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    result = run(COOKIECUTTER, "--no-input", TEMPLATE, folder=tmp_path, PATH=str(tmp_path / "bin"))
    assert result.returncode == 0, result.stdout
    assert (tmp_path / "my-ray-project/README.md").is_file()


def test_no_network_is_needed(tmp_path: Path) -> None:
    result = run(*WITHOUT_NETWORK, COOKIECUTTER, "--no-input", TEMPLATE, folder=tmp_path)
    assert result.returncode == 0, result.stdout
    assert "Your project is ready" in result.stdout


def test_a_folder_whose_name_the_terminal_cannot_show(tmp_path: Path) -> None:
    (tmp_path / "日本").mkdir()
    result = run(COOKIECUTTER, "--no-input", TEMPLATE, folder=tmp_path / "日本", PYTHONIOENCODING="ascii")
    assert result.returncode == 0, result.stdout
    assert (tmp_path / "日本/my-ray-project/README.md").is_file()


def test_the_oldest_cookiecutter_makes_the_same_project(tmp_path: Path) -> None:
    made = {"new": COOKIECUTTER, "old": own_environment(tmp_path / "old", "cookiecutter==2.1.0") / "cookiecutter"}
    files = {}
    for name, command in made.items():
        (tmp_path / name / "made").mkdir(parents=True)
        result = run(command, "--no-input", TEMPLATE, folder=tmp_path / name / "made")
        assert result.returncode == 0, result.stdout
        paths = [path for path in (tmp_path / name / "made").rglob("*") if path.is_file()]
        files[name] = {path.relative_to(tmp_path / name): path.read_bytes() for path in paths}
    assert files["old"] == files["new"]


def test_a_cookiecutter_that_is_too_old_is_refused(tmp_path: Path) -> None:
    old = own_environment(tmp_path / "old", "cookiecutter==1.7.3") / "cookiecutter"
    (tmp_path / "made").mkdir()
    result = run(old, "--no-input", TEMPLATE, folder=tmp_path / "made")
    assert result.returncode != 0
    errors = error_lines(result.stdout)
    assert errors == [
        "error: this cookiecutter is too old for the template: pip install --upgrade cookiecutter (2.1 or newer)"
    ]
    assert list((tmp_path / "made").iterdir()) == []


@pytest.mark.parametrize("hook", ["pre_gen_project", "post_gen_project"])
def test_the_hooks_are_python_of_3_7(hook: str) -> None:
    """Older ones must come as far as the line that refuses them."""
    ast.parse((TEMPLATE / "hooks" / f"{hook}.py").read_text(), feature_version=(3, 7))


def test_an_old_python_is_refused_before_its_missing_names_matter(tmp_path: Path) -> None:
    """Python 3.9 is hard to come by: this one is made to look like it."""
    rendered = (TEMPLATE / "hooks/pre_gen_project.py").read_text()
    rendered = rendered.replace("{{ cookiecutter | tojson }}", '{"__package_name": "a"}')
    rendered = rendered.replace("{{ _cookiecutter | default({}) | tojson }}", "{}")
    (tmp_path / "hook.py").write_text(rendered)
    old = "import runpy, sys; sys.version_info = (3, 9, 0); del sys.stdlib_module_names"
    result = run(sys.executable, "-c", f"{old}; runpy.run_path('hook.py', run_name='__main__')", folder=tmp_path)
    assert result.returncode == 1
    assert result.stdout == "error: cookiecutter runs on Python 3.9 here: install it with Python 3.10 or newer\n"
