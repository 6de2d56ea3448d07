"""Into a folder that is there already, such as a git repository: no file of it is lost or overwritten unasked."""

import re
import subprocess
from pathlib import Path

import pytest
from conftest import TEMPLATE, bake, error_lines, run

DOCUMENT = (TEMPLATE / "docs/existing-folder.md").read_text(encoding="utf-8")
# Of the template's names: files that all projects have, and files that an answer brings.
SHARED = ("README.md", "pyproject.toml", ".gitignore", "src/my_ray_project/cli.py", "tests/conftest.py")
CHOSEN = (
    "src/my_ray_project/settings.py",
    "src/my_ray_project/predictor.py",
    "tests/test_images.py",
    "cluster/README.md",
    "docs/your-own-model.md",
)
OTHERS = ("LICENSE", "src/my_ray_project/mine.py", "src/another_package/cli.py", "tests/mine.py", "cluster/mine.yaml")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository, all of it committed, with files of the template's names and others; the parent has nothing else."""
    (tmp_path / "tmp").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))  # cookiecutter leaves the hooks as it ran them there
    repository = tmp_path / "there" / "my-ray-project"
    for name in (*SHARED, *CHOSEN, *OTHERS):
        (repository / name).parent.mkdir(parents=True, exist_ok=True)
        (repository / name).write_text(f"mine: {name}\n")
    person = ("-c", "user.name=A. Person", "-c", "user.email=person@example.com", "-c", "commit.gpgSign=false")
    for command in (("init", "--quiet"), ("add", "--all"), (*person, "commit", "--quiet", "--message", "Mine")):
        assert run("git", *command, folder=repository).returncode == 0
    return repository


def contents(folder: Path) -> dict[str, bytes]:
    """Every file but git's own, and every empty folder."""
    paths = [path for path in folder.rglob("*") if ".git" not in path.relative_to(folder).parts]
    found = {str(path.relative_to(folder)): path.read_bytes() for path in paths if path.is_file()}
    return found | {str(path.relative_to(folder)): b"" for path in paths if path.is_dir() and not any(path.iterdir())}


def cookiecutter(folder: Path, *options: str, answers: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    given = (f"project_slug={folder.name}", *answers)
    return run("cookiecutter", "--no-input", *options, TEMPLATE, *given, folder=folder.parent)


def test_what_is_there_stays(folder: Path, tmp_path: Path) -> None:
    mine = contents(folder)
    made = cookiecutter(folder, "--overwrite-if-exists", "--skip-if-file-exists")
    assert made.returncode == 0, made.stdout
    assert contents(folder) == contents(bake(tmp_path / "fresh")) | mine
    changed = run("git", "status", "--short", "--untracked-files=no", folder=folder)
    assert changed.stdout == ""


def test_overwriting_writes_the_templates_own_files_only(folder: Path, tmp_path: Path) -> None:
    mine = contents(folder)
    made = cookiecutter(folder, "--overwrite-if-exists")
    assert made.returncode == 0, made.stdout
    new = contents(bake(tmp_path / "fresh"))
    assert mine.keys() - new.keys() == set(OTHERS)
    assert contents(folder) == mine | new


@pytest.mark.parametrize("options", [("--skip-if-file-exists",), ()])
def test_without_the_option_to_overwrite_the_folder_is_refused(folder: Path, options: tuple[str, ...]) -> None:
    mine = contents(folder)
    assert "directory already exists" in cookiecutter(folder, *options).stdout
    assert contents(folder) == mine


@pytest.mark.parametrize("options", [("--skip-if-file-exists",), ()])
def test_an_own_folder_named_options_is_refused_untouched(folder: Path, options: tuple[str, ...]) -> None:
    (folder / "options/example/images/src/my_ray_project").mkdir(parents=True)
    (folder / "options/example/images/src/my_ray_project/model.py").write_text("mine\n")
    check_refused(folder, "there is a folder options/", *options)


@pytest.mark.parametrize("options", [("--skip-if-file-exists",), ()])
def test_a_file_where_a_folder_must_be_is_refused_untouched(
    folder: Path, tmp_path: Path, options: tuple[str, ...]
) -> None:
    names = {path.name for path in bake(tmp_path / "fresh").iterdir() if path.is_dir()}
    for name in names:
        empty = tmp_path / name / folder.name
        empty.mkdir(parents=True)
        (empty / name).write_text("mine\n")
        check_refused(empty, f"{name} is a file here", *options)
    assert {"src", "tests", "docs", "cluster"} <= names  # the document names these


def test_a_bad_answer_leaves_the_folder_as_it_is(folder: Path) -> None:
    """Cookiecutter removes what a refusing hook leaves, and must not remove a folder that it did not make."""
    check_refused(folder, "author_email 'nobody' is no e-mail address", answers=("author_email=nobody",))


def check_refused(folder: Path, reason: str, *options: str, answers: tuple[str, ...] = ()) -> None:
    mine = contents(folder)
    result = cookiecutter(folder, "--overwrite-if-exists", *options, answers=answers)
    assert result.returncode != 0
    errors = error_lines(result.stdout)
    assert len(errors) == 1, result.stdout
    assert reason in errors[0]
    assert contents(folder) == mine


@pytest.mark.parametrize("options", [("--skip-if-file-exists",), ()])
def test_a_folder_where_a_file_would_be_stays(folder: Path, options: tuple[str, ...]) -> None:
    for name in ("Dockerfile", "cluster/aws.yaml"):  # of all projects, and of an answer
        (folder / name).mkdir()
        (folder / name / "mine").write_text("mine\n")
    made = cookiecutter(folder, "--overwrite-if-exists", *options)
    assert made.returncode == 0, made.stdout
    for name in ("Dockerfile", "cluster/aws.yaml"):
        assert (folder / name / "mine").read_text() == "mine\n"
    assert not (folder / "options").exists()


def test_links_stay_links(folder: Path) -> None:
    """Also those that lead nowhere, which do not exist for os.path.exists."""
    (folder / "cluster/aws.yaml").symlink_to("nowhere.yaml")
    made = cookiecutter(folder, "--overwrite-if-exists", "--skip-if-file-exists")
    assert made.returncode == 0, made.stdout
    assert (folder / "cluster/aws.yaml").is_symlink()


def test_overwriting_again_makes_the_project_anew(tmp_path: Path) -> None:
    """Also the files of the chosen folders, which are copied by the hook and not by cookiecutter."""
    project = bake(tmp_path)
    new = contents(project)
    (project / "README.md").write_text("older\n")
    (project / "src/my_ray_project/settings.py").write_text("older\n")
    made = cookiecutter(project, "--overwrite-if-exists")
    assert made.returncode == 0, made.stdout
    assert contents(project) == new


def test_the_documents_commands(folder: Path, tmp_path: Path) -> None:
    mine = contents(folder)
    commands = re.findall(r"^    (\S.*)$", DOCUMENT, re.MULTILINE)
    said = []
    for command in commands:
        typed = command.replace("gh:org/ray-template", f"'{TEMPLATE}'")
        result = run("bash", "-c", f"{typed} < <(yes '')", folder=folder.parent)
        assert result.returncode == ("--no-index" in command), result.stdout  # of what differs
        said.append(result.stdout)
    new = contents(bake(tmp_path / "fresh"))
    assert contents(folder) == new | mine
    assert contents(folder.parent / "beside" / folder.name) == new
    assert "?? noxfile.py\n" in said[1]
    assert " M " not in said[1]
    differing = set(re.findall(r"^diff --git a/my-ray-project/(\S+) ", said[-1], re.MULTILINE))
    assert differing == {*SHARED, *CHOSEN}
