"""A made project takes up a newer template with cruft, and its answers again with `cookiecutter --replay`."""

import json
import re
import shutil
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from conftest import TEMPLATE, copy_template, error_lines, run

RELEASED = "88746ab577cd72baaf8240d6620852411bab3da3"  # 0.1.0, which has no tag
PROJECT = "{{cookiecutter.__folder_name}}"
PACKAGE = "src/{{cookiecutter.__package_name}}"
DOCUMENT = (TEMPLATE / "docs/updating.md").read_text(encoding="utf-8")
ANSWERS = {"project_slug": "digit-reader", "description": 'a "quoted" \\ text', "author_name": "it's 🚀"}
OTHER_ANSWERS = {"example": "tables", "accelerator": "gpu", "cluster": "kubernetes", "python_version": "3.13"}


def do(*command: str | Path, folder: Path) -> str:
    result = run(*command, folder=folder)
    assert result.returncode == 0, result.stdout
    return result.stdout


def replace(path: Path, old: str, new: str) -> None:
    text = path.read_text(encoding="utf-8")
    assert old in text, path
    path.write_text(text.replace(old, new, 1), encoding="utf-8")


def contents(folder: Path) -> dict[str, tuple[bytes, int]]:
    """Every file with its bytes and its mode, but for git's own."""
    paths = [path for path in folder.rglob("*") if path.is_file() and ".git" not in path.relative_to(folder).parts]
    return {str(path.relative_to(folder)): (path.read_bytes(), path.stat().st_mode) for path in paths}


def make_older(template: Path) -> None:
    """Take back what a release may bring: files, lines, pins, questions, and files that an answer has."""
    project, options = template / PROJECT, template / PROJECT / "options"
    questions = json.loads((template / "cookiecutter.json").read_text(encoding="utf-8"))
    ray = questions["__ray_version"]
    questions |= {"__ray_version": "2.59.0", "colour": ["red", "blue"]}
    (template / "cookiecutter.json").write_text(json.dumps(questions), encoding="utf-8")
    replace(project / "constraints.txt", f"\nray=={ray}\n", "\nray==2.59.0\n")
    replace(project / "pyproject.toml", '\n[tool.ray-template]\nversion = "', '\n[tool.ray-template]\nversion = "0.0.')
    (project / "docs/retired.md").write_text("{{ cookiecutter.colour }}\n", encoding="utf-8")
    (project / "docs/interoperation.md").unlink()
    replace(project / PACKAGE / "cli.py", '"""', '"""An older line. ')
    (project / "Dockerfile").rename(options / "accelerator/cpu/Dockerfile")
    for example in ("images", "tables"):
        replace(options / "example" / example / PACKAGE / "predictor.py", '"""', '"""An older line. ')
        (options / "example" / example / "docs/retired-too.md").write_text("older\n", encoding="utf-8")
        (options / "example" / example / PACKAGE / "model.py").unlink()


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """This repository: its history, the working tree as it is as the newest commit, and `older`, the one before."""
    folder = tmp_path_factory.mktemp("updates")
    clone = folder / "ray-template"
    with pytest.MonkeyPatch.context() as patch:
        for who in ("AUTHOR", "COMMITTER"):
            patch.setenv(f"GIT_{who}_NAME", "A. Person")
            patch.setenv(f"GIT_{who}_EMAIL", "person@example.com")
        (folder / "tmp").mkdir()
        patch.setenv("TMPDIR", str(folder / "tmp"))  # cookiecutter leaves the hooks as it ran them there
        shallow = do("git", "rev-parse", "--is-shallow-repository", folder=TEMPLATE).strip() == "true"
        # `cruft check` clones without the files' contents, which never ends where the clone is of a shallow one.
        start = ("init", "--quiet", clone) if shallow else ("clone", "--quiet", TEMPLATE, clone)
        do("git", *start, folder=folder)
        empty(clone)
        copy_template(clone)
        shutil.copytree(clone, folder / "present", ignore=shutil.ignore_patterns(".git"))
        make_older(clone)
        commit(clone)
        do("git", "tag", "older", folder=clone)
        empty(clone)
        shutil.copytree(folder / "present", clone, dirs_exist_ok=True)
        commit(clone)
        yield clone


def empty(folder: Path) -> None:
    for each in folder.iterdir():
        if each.name != ".git":
            shutil.rmtree(each) if each.is_dir() else each.unlink()


def commit(folder: Path) -> None:
    do("git", "add", "--all", folder=folder)
    do("git", "-c", "commit.gpgSign=false", "commit", "--quiet", "--message", "A state", folder=folder)


def create(template: Path, folder: Path, checkout: str, answers: dict[str, str]) -> Path:
    """A project made by cruft, and committed."""
    extra = ("--no-input", "--extra-context", json.dumps(answers), "--output-dir", folder)
    do("cruft", "create", template, "--checkout", checkout, *extra, folder=template.parent)
    (project,) = folder.iterdir()
    do("git", "init", "--quiet", folder=project)
    commit(project)
    return project


def fresh(template: Path, folder: Path, answers: dict[str, str]) -> Path:
    """A project of the template's newest commit, made by cookiecutter."""
    folder.mkdir()
    given = [f"{name}={answer}" for name, answer in answers.items()]
    do("cookiecutter", "--no-input", template, *given, folder=folder)
    (project,) = folder.iterdir()
    return project


def released(template: Path) -> str:
    """The newest tag of a release, or else the commit of 0.1.0; a shallow clone may have neither."""
    tags = do("git", "tag", "--list", "v*", "--sort=-creatordate", folder=template).split()
    found = tags[0] if tags else RELEASED
    if run("git", "cat-file", "-e", f"{found}^{{commit}}", folder=template).returncode:
        pytest.skip(f"this clone's history has no {found}: only the older state that the test makes itself is tried")
    return found


@pytest.mark.parametrize(
    ("state", "answers"),
    [("released", ANSWERS), ("older", ANSWERS), ("older", OTHER_ANSWERS)],
    ids=["released", "older", "older-other-answers"],
)
def test_an_untouched_project_becomes_a_new_one(
    template: Path, tmp_path: Path, state: str, answers: dict[str, str]
) -> None:
    project = create(template, tmp_path / "made", released(template) if state == "released" else state, answers)
    old, new = contents(project), contents(fresh(template, tmp_path / "fresh", answers))
    assert new.keys() - old.keys()
    assert old.keys() - new.keys() - {".cruft.json"}
    assert run("cruft", "check", folder=project).returncode == 1

    do("cruft", "update", "--skip-apply-ask", folder=project)
    updated = contents(project)
    assert json.loads(updated.pop(".cruft.json")[0])["checkout"] is None
    assert updated == new  # so there is no .rej, either
    assert not do("git", "ls-files", "--unmerged", folder=project)
    do("cruft", "check", folder=project)
    assert do("cruft", "diff", folder=project) == ""  # and the hooks, which ran in other folders, print no commands


def test_an_own_predictor_survives(template: Path, tmp_path: Path) -> None:
    project = create(template, tmp_path / "made", "older", ANSWERS)
    predictor = project / "src/digit_reader/predictor.py"
    own = "\n\ndef own() -> str:\n    return 'mine'\n"
    predictor.write_text(predictor.read_text() + own)
    (project / "src/digit_reader/mine.py").write_text("MINE = True\n")
    replace(project / "pyproject.toml", 'version = "0.1.0"', 'version = "7.0.0"')
    commit(project)
    do("cruft", "update", "--skip-apply-ask", folder=project)
    new = fresh(template, tmp_path / "fresh", ANSWERS)
    replace(new / "pyproject.toml", 'version = "0.1.0"', 'version = "7.0.0"')
    (new / "src/digit_reader/predictor.py").write_text((new / "src/digit_reader/predictor.py").read_text() + own)
    (new / "src/digit_reader/mine.py").write_text("MINE = True\n")
    updated = contents(project)
    del updated[".cruft.json"]
    assert updated == contents(new)


def test_where_both_changed_a_line_both_are_in_the_file(template: Path, tmp_path: Path) -> None:
    project = create(template, tmp_path / "made", "older", ANSWERS)
    predictor = project / "src/digit_reader/predictor.py"
    replace(predictor, "An older line.", "A line of my own.")
    commit(project)
    run("cruft", "update", "--skip-apply-ask", folder=project)
    new = contents(fresh(template, tmp_path / "fresh", ANSWERS))
    updated = contents(project)
    assert set(updated) == {*new, ".cruft.json"}
    assert {name for name in new if new[name] != updated[name]} == {"src/digit_reader/predictor.py"}
    merged = predictor.read_text()
    marked = re.search(r"^<<<<<<< ours\n(.*)^=======\n(.*)^>>>>>>> theirs\n", merged, re.MULTILINE | re.DOTALL)
    assert marked
    assert "A line of my own." in marked[1]
    assert marked[2].splitlines()[0] == new["src/digit_reader/predictor.py"][0].decode().splitlines()[0]


def test_a_file_that_was_there_before_the_template_stays_and_what_does_not_fit_lies_beside(
    template: Path, tmp_path: Path
) -> None:
    do("git", "clone", "--quiet", "--branch", "older", template, "ray-template", folder=tmp_path)
    project = tmp_path / "my-ray-project"
    project.mkdir()
    (project / "pyproject.toml").write_text("# Mine\n")
    options = ("--no-input", "--overwrite-if-exists", "--skip-if-file-exists")
    do("cookiecutter", *options, tmp_path / "ray-template", folder=tmp_path)
    do("git", "init", "--quiet", folder=project)
    do("bash", "-c", f"cruft link --checkout older '{template}' < <(yes '')", folder=project)
    commit(project)
    do("cruft", "update", "--skip-apply-ask", folder=project)
    new = contents(fresh(template, tmp_path / "fresh", {}))
    updated = contents(project)
    assert set(updated) == {*new, ".cruft.json", "pyproject.toml.rej"}
    assert {name for name in new if new[name] != updated[name]} == {"pyproject.toml"}
    assert (project / "pyproject.toml").read_text() == "# Mine\n"


def test_what_is_to_be_left_alone_is(template: Path, tmp_path: Path) -> None:
    answers = {"project_slug": "my-ray-project"}
    project = create(template, tmp_path / "made", "older", answers)
    (table,) = re.findall(r"^    (\[tool\.cruft\])\n    (.*)$", DOCUMENT, re.MULTILINE)
    with (project / "pyproject.toml").open("a") as file:
        file.write("\n" + "\n".join(table) + "\n")
    (project / "src/my_ray_project/predictor.py").write_text("MINE = True\n")
    commit(project)
    do("cruft", "update", "--skip-apply-ask", folder=project)
    new = contents(fresh(template, tmp_path / "fresh", answers))
    updated = contents(project)
    differing = {name for name in new if new[name] != updated[name]}
    assert differing == {"pyproject.toml", "src/my_ray_project/predictor.py"}
    assert (project / "src/my_ray_project/predictor.py").read_text() == "MINE = True\n"


def test_the_documents_commands(template: Path, tmp_path: Path) -> None:
    """Word for word, and Enter wherever they ask; the template moves on before the update."""
    address = "https://github.com/org/ray-template"
    commands = re.findall(r"^    ((?:pip|cruft|cd|git) .*)$", DOCUMENT, re.MULTILINE)
    create_, update, link = (
        [command for command in commands if re.match(f"cruft {word}", command)] for word in ("create", "check", "link")
    )
    assert (create_, update, link) == (
        [f"cruft create {address}"],
        ["cruft check || cruft update --skip-apply-ask"],
        [f"cruft link {address}"],
    )
    do("git", "clone", "--quiet", template, "ray-template", folder=tmp_path)
    mirror = tmp_path / "ray-template"
    do("git", "reset", "--quiet", "--hard", "older", folder=mirror)
    script = ["set -e"]
    for command in commands[: commands.index(*link)]:
        if command in update:
            script.append(f"git -C '{mirror}' merge --quiet --ff-only origin/HEAD")
        script.append(f"{{ {command.replace(address, str(mirror))}; }} < <(yes '')")
    do("bash", "-c", "\n".join(script), folder=tmp_path)
    project = tmp_path / "my-ray-project"
    new = fresh(template, tmp_path / "fresh", {})
    updated = contents(project)
    recorded = json.loads(updated.pop(".cruft.json")[0])
    assert updated == contents(new)
    assert do("git", "status", "--short", folder=project) == ""

    do("bash", "-c", f"{link[0].replace(address, str(mirror))} < <(yes '')", folder=new)
    assert json.loads((new / ".cruft.json").read_text()) == recorded
    do("cruft", "check", folder=new)


def test_the_projects_own_linters_have_nothing_to_do_in_what_cruft_wrote(template: Path, tmp_path: Path) -> None:
    project = create(template, tmp_path / "made", "HEAD", ANSWERS)
    do("env", "SKIP=mypy", "pre-commit", "run", "--all-files", folder=project)  # mypy needs the project's environment
    assert do("git", "status", "--short", folder=project) == ""


def test_replay_makes_the_same_project_again(template: Path, tmp_path: Path) -> None:
    answers = ANSWERS | {"cluster": "onprem", "example": "text"}
    first = fresh(template, tmp_path / "first", answers)
    do("cookiecutter", "--replay", "--output-dir", tmp_path / "again", template, folder=tmp_path)
    assert contents(tmp_path / "again" / first.name) == contents(first)


@pytest.mark.parametrize(
    ("name", "value"), [("__ray_version", "2.59.0"), ("cluster", "mainframe"), ("_copy_without_render", ["*/source/*"])]
)
def test_replay_of_answers_that_do_not_fit_is_refused(
    template: Path, tmp_path: Path, name: str, value: str | list[str]
) -> None:
    """Cookiecutter takes all from the last time, and Ray's version would then not be that of constraints.txt."""
    fresh(template, tmp_path / "first", {})
    settings = yaml.safe_load(Path(do("printenv", "COOKIECUTTER_CONFIG", folder=tmp_path).strip()).read_text())
    replayed = Path(settings["replay_dir"]) / "ray-template.json"
    context = json.loads(replayed.read_text())
    assert name in context["cookiecutter"]
    context["cookiecutter"][name] = value
    replayed.write_text(json.dumps(context))
    (tmp_path / "again").mkdir()
    for where in (str(template), "../ray-template"):  # as a person types it, and the hook runs in another folder
        if not Path(where).is_absolute():
            (tmp_path / "ray-template").symlink_to(template)
        again = run("bash", "-c", f"cd again && cookiecutter --replay '{where}'", folder=tmp_path)
        assert again.returncode != 0
        errors = error_lines(again.stdout)
        assert len(errors) == 1, again.stdout
        assert errors[0].startswith(f"error: {name}={value} is of another version of the template")
        assert list((tmp_path / "again").iterdir()) == []


def test_the_version_is_the_same_everywhere(template: Path, tmp_path: Path) -> None:
    project = tomllib.loads((fresh(template, tmp_path / "made", {}) / "pyproject.toml").read_text(encoding="utf-8"))
    headings = re.findall(r"^## (\S+)", (TEMPLATE / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    citation = yaml.safe_load((TEMPLATE / "CITATION.cff").read_text(encoding="utf-8"))
    assert project["tool"]["ray-template"]["version"] == headings[0] == citation["version"]
    assert len(set(headings)) == len(headings)
