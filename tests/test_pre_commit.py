"""The template's own pre-commit hooks."""

from pathlib import Path

from conftest import copy_template, run


def test_the_hooks_run_on_every_file_and_change_none(tmp_path: Path) -> None:
    folder = tmp_path / "template"
    copy_template(folder)
    for command in (("init", "--quiet"), ("add", "--all")):
        assert run("git", *command, folder=folder).returncode == 0
    result = run("pre-commit", "run", "--all-files", "--color=never", folder=folder, PRE_COMMIT_HOME=str(tmp_path))
    assert result.returncode == 0, result.stdout
    assert [line.rpartition(".")[2] for line in result.stdout.splitlines()] == ["Passed", "Passed"]
    assert run("git", "diff", "--stat", folder=folder).stdout == ""
