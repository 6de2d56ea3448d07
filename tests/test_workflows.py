"""What GitHub reads of the template and of made projects: zizmor and the schemas find nothing to say."""

import json
import re
from pathlib import Path

import pytest
import yaml
from conftest import CHOICES, TEMPLATE, bake, run

PINNED = re.compile(r"[\w.-]+/[\w./-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+")
SCHEMAS = {
    ".github/workflows/*.yml": ("vendor.github-workflows", "custom.github-workflows-require-timeout"),
    ".github/dependabot.yml": ("vendor.dependabot",),
    ".github/ISSUE_TEMPLATE/*.yml": ("vendor.github-issue-forms",),
    "CITATION.cff": ("vendor.citation-file-format",),
}


@pytest.fixture(scope="module", params=["template", *CHOICES["python_version"]])
def house(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The template, and a project for each Python."""
    if request.param == "template":
        return TEMPLATE
    return bake(tmp_path_factory.mktemp("house"), python_version=request.param)


def zizmor(folder: Path) -> tuple[int, str]:
    arguments = ("--offline", "--no-progress", "--color=never", "--strict-collection", "--persona=auditor")
    result = run("zizmor", *arguments, folder / ".github", folder=folder)
    return result.returncode, result.stdout


def broken_schemas(folder: Path) -> list[str]:
    """What the schemas that check-jsonschema brings find."""
    found = []
    for pattern, schemas in SCHEMAS.items():
        if files := sorted(folder.glob(pattern)):
            for schema in schemas:
                result = run("check-jsonschema", "--builtin-schema", schema, *files, folder=folder)
                found += [result.stdout] * bool(result.returncode)
    return found


def test_zizmor_finds_nothing(house: Path) -> None:
    code, printed = zizmor(house)
    assert code == 0, printed
    assert "audit: zizmor: 🌈 completed" in printed


def test_the_schemas_find_nothing(house: Path) -> None:
    assert broken_schemas(house) == []


def test_the_python_is_the_only_answer_that_a_workflow_knows() -> None:
    """So that a project for each Python is every workflow that there is."""
    made = TEMPLATE / "{{cookiecutter.__folder_name}}"
    assert not list(made.glob("options/**/.github"))
    for file in made.glob(".github/**/*.yml"):
        assert set(re.findall(r"cookiecutter\.(\w+)", file.read_text(encoding="utf-8"))) <= {"python_version"}, file


def test_every_action_has_its_hash_and_its_version(house: Path) -> None:
    used = [
        line.partition("uses: ")[2]
        for file in house.glob(".github/workflows/*.yml")
        for line in file.read_text(encoding="utf-8").splitlines()
        if "uses: " in line
    ]
    assert used
    assert all(PINNED.fullmatch(each) for each in used), used


def test_commands_of_workflows_are_bash(house: Path) -> None:
    for file in house.glob(".github/workflows/*.yml"):
        for name, job in yaml.safe_load(file.read_text(encoding="utf-8"))["jobs"].items():
            for step in job["steps"]:
                result = run("bash", "-n", "-c", step.get("run", ""), folder=house)
                assert result.returncode == 0, (file.name, name, result.stdout)


def test_the_devcontainer_has_the_projects_python(house: Path) -> None:
    file = house / ".devcontainer/devcontainer.json"
    if house == TEMPLATE:
        assert not file.exists()  # Python and pip are all that it needs
        return
    container = json.loads(re.sub(r"^\s*//.*", "", file.read_text(encoding="utf-8"), flags=re.MULTILINE))
    python = yaml.safe_load((house / ".github/workflows/ci.yml").read_text(encoding="utf-8"))["jobs"]["nox"]["steps"][1]
    assert container["image"].endswith(f":{python['with']['python-version']}")


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (r"@[0-9a-f]{40} # v[\d.]+", "@v6", "unpinned-uses"),
        (r"persist-credentials: false", "persist-credentials: true", "artipacked"),
        (r"permissions: \{\}", "permissions: write-all", "excessive-permissions"),
    ],
)
def test_zizmor_is_asked_about_all_of_it(tmp_path: Path, old: str, new: str, said: str) -> None:
    code, printed = zizmor(spoilt(tmp_path, old, new))
    assert code != 0
    assert f"[{said}]" in printed


@pytest.mark.parametrize(("old", "new"), [("runs-on:", "run-on:"), (r"    timeout-minutes: \d+\n", "")])
def test_a_wrong_workflow_is_found(tmp_path: Path, old: str, new: str) -> None:
    assert broken_schemas(spoilt(tmp_path, old, new))


def spoilt(folder: Path, old: str, new: str) -> Path:
    """A folder with the template's ci.yml, in which something is another."""
    file = folder / ".github/workflows/ci.yml"
    file.parent.mkdir(parents=True, exist_ok=True)
    text, times = re.subn(old, new, (TEMPLATE / ".github/workflows/ci.yml").read_text(encoding="utf-8"))
    assert times
    file.write_text(text, encoding="utf-8")
    return folder
