"""`nox -s upgrade`, on a copy of the template, a package index and repositories of actions that are made here."""

import functools
import re
import shutil
import subprocess
import sys
import threading
import zipfile
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from conftest import QUESTIONS, TEMPLATE, copy_template, run
from cookiecutter.main import cookiecutter
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

MADE = "{{cookiecutter.__folder_name}}"
PINNED_ACTION = re.compile(r"uses: ([\w-]+/[\w-]+)[\w./-]*@([0-9a-f]{40}) # (v\S+)")
NEWER = {  # beside the versions that the pins' floors name
    "ray": ["99.1.0"],
    "torch": ["99.4.1"],
    "modin": ["0.99.0"],
    "pandas": ["2.90.1", "98.0.0"],  # modin lets the first in, and not the second
    "numpy": ["98.2.0"],  # scikit-learn does not
    "pillow": ["99.0.0"],
    "ruff": ["0.99.2"],
    "mypy": ["99.0.0"],
    "cookiecutter": ["99.0.0"],
    "daft": ["0.99.0"],
}
REQUIRES = {"modin-0.99.0": ["pandas>=2.2,<2.91"], "scikit-learn": ["numpy<98"]}


def text_of(folder: Path, file: str) -> str:
    return (folder / file).read_text()


def bounds(folder: Path, file: str, name: str) -> set[str]:
    """The bounds of each place in which a file names a package."""
    return set(re.findall(rf'"{name}(?:\[[\w,]+\])?((?:>=|==)[^"]+)"', text_of(folder, file)))


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A package index with everything that the template names, and newer versions of some."""
    folder = tmp_path_factory.mktemp("index")
    found: dict[str, list[str]] = {name: [*versions] for name, versions in NEWER.items()}
    for file in ("pyproject.toml", "noxfile.py", f"{MADE}/pyproject.toml"):
        named = text_of(TEMPLATE, file).replace("{{ cookiecutter.__ray_version }}", QUESTIONS["__ray_version"])
        for each in re.findall(
            r'^[^#\n]*"([A-Za-z][\w.-]*(?:\[[\w,]+\])?(?:(?:>=|==)[^"\s]+)?)",?', named, re.MULTILINE
        ):
            requirement = Requirement(each)
            floors = [bound.version for bound in requirement.specifier if bound.operator in (">=", "==")]
            found.setdefault(canonicalize_name(requirement.name), []).extend(floors or ["1.0"])
    for name, versions in found.items():
        for version in set(versions):
            write_wheel(folder, name, version)
    handler = functools.partial(SilentHandler, directory=str(folder))
    with Server(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


class Server(ThreadingHTTPServer):
    request_queue_size = 100  # uv asks for all packages at once; with five, the others wait seconds to be heard


class SilentHandler(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


def write_wheel(folder: Path, name: str, version: str) -> None:
    """A wheel with nothing in it but what it requires."""
    stem = f"{name.replace('-', '_')}-{version}"
    requires = [*REQUIRES.get(name, []), *REQUIRES.get(f"{name}-{version}", [])]
    metadata = "".join(f"{line}\n" for line in ("Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}"))
    metadata += "".join(f"Requires-Dist: {each}\n" for each in requires)
    wheel = "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    (folder / name).mkdir(exist_ok=True)
    with zipfile.ZipFile(folder / name / f"{stem}-py3-none-any.whl", "w") as archive:
        archive.writestr(f"{stem}.dist-info/METADATA", metadata)
        archive.writestr(f"{stem}.dist-info/WHEEL", wheel)
        archive.writestr(f"{stem}.dist-info/RECORD", "")


@pytest.fixture(scope="module")
def github(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Repositories of all the actions, of one pre-commit hook, and of KubeRay; setup-python alone has nothing newer."""
    folder = tmp_path_factory.mktemp("github")
    actions = {name: tag for file in workflows(TEMPLATE) for name, _, tag in PINNED_ACTION.findall(file.read_text())}
    kuberay = re.search(r"\?ref=(v[\d.]+)", text_of(TEMPLATE, f"{MADE}/options/cluster/kubernetes/cluster/README.md"))
    assert kuberay
    for name, tag in (actions | {"example/hooks": "v1.0.0", "ray-project/kuberay": kuberay[1]}).items():
        repository = folder / name
        repository.mkdir(parents=True)
        git(repository, "init", "--quiet", "--bare")
        tree = git(repository, "mktree")
        old, new = (git(repository, "commit-tree", tree, "-m", each) for each in ("old", "new"))
        git(repository, "tag", tag, old)
        if name != "actions/setup-python":
            git(repository, "tag", "--annotate", "-m", "newest", "v98.1.0", new)
            git(repository, "tag", "v97.5.0", old)
            git(repository, "tag", "v98", new)  # a tag that moves
            git(repository, "tag", "v99.0.0-beta.1", new)
    return folder


def git(repository: Path, *arguments: str) -> str:
    who = ["-c", "user.name=Tests", "-c", "user.email=tests@example.com"]
    command = ["git", *who, "-C", str(repository), *arguments]
    return subprocess.run(command, check=True, input="", capture_output=True, text=True).stdout.strip()


def workflows(folder: Path) -> list[Path]:
    return sorted([*folder.glob(".github/workflows/*.yml"), *folder.glob("*/.github/workflows/*.yml")])


def copy(folder: Path, github: Path) -> Path:
    """The template, with actions at hashes that its repositories here have, a hook of pre-commit, and a held pin."""
    copy_template(folder)
    for file in workflows(folder):
        text = file.read_text()
        for name, commit, tag in PINNED_ACTION.findall(text):
            text = text.replace(commit, git(github / name, "rev-parse", tag))
        file.write_text(text)
    with (folder / ".pre-commit-config.yaml").open("a") as config:
        config.write("  - repo: https://github.com/example/hooks\n    rev: v1.0.0\n    hooks: [{id: example}]\n")
    project = folder / MADE / "pyproject.toml"
    held, times = re.subn(r'("mypy>=2,<3",)', r"\1 # held: stubs are missing", project.read_text())
    assert times == 1
    project.write_text(held)
    return folder


def upgrade(template: Path, index: str, github: Path) -> tuple[int, str]:
    """What `nox -s upgrade` runs, on a machine that knows this index and this github.com only."""
    settings = {"PIP_CONFIG_FILE": "/dev/null", "PIP_INDEX_URL": index, "PIP_FIND_LINKS": "", "UV_NO_CACHE": "1"}
    settings |= {"UV_HTTP_RETRIES": "0", "NO_PROXY": "127.0.0.1", "PYTHONDONTWRITEBYTECODE": "1"}
    settings |= {"GIT_CONFIG_COUNT": "1", "GIT_CONFIG_VALUE_0": "https://github.com/"}
    settings |= {"GIT_CONFIG_KEY_0": f"url.{github.as_uri()}/.insteadOf"}
    result = run(sys.executable, "scripts/upgrade.py", folder=template, **settings)
    return result.returncode, result.stdout


class Report:
    """What was printed: of each pin in a file, from what to what, or where it stays and why."""

    def __init__(self, printed: str) -> None:
        self.text = printed
        self.raised: dict[tuple[str, str], tuple[str, str]] = {}
        self.kept: dict[tuple[str, str], tuple[str, str]] = {}
        table = self.raised
        for line in printed.splitlines():
            if line.startswith("|"):
                pin, file, before, last = (cell.strip() for cell in line.strip("|").split("|"))
                table = self.kept if pin == "not raised" else table
                assert (pin, file) not in table, line
                table[pin, file] = (before, last)


@pytest.fixture(scope="module")
def upgraded(tmp_path_factory: pytest.TempPathFactory, index: str, github: Path) -> tuple[Path, Report]:
    """A raised template, and what was printed."""
    folder = copy(tmp_path_factory.mktemp("upgraded") / "template", github)
    code, printed = upgrade(folder, index, github)
    assert code == 0, printed
    print(printed)
    return folder, Report(printed)


def test_ray_is_raised_in_all_its_places(upgraded: tuple[Path, Report], tmp_path: Path) -> None:
    folder, report = upgraded
    assert report.raised["ray", "cookiecutter.json"] == (f"=={QUESTIONS['__ray_version']}", "==99.1.0")
    project = Path(cookiecutter(str(folder), no_input=True, output_dir=str(tmp_path)))
    assert bounds(project, "pyproject.toml", "ray") == {"==99.1.0"}
    assert "\nray==99.1.0\n" in text_of(project, "constraints.txt")
    assert "\nFROM rayproject/ray:99.1.0-py312-cpu\n" in text_of(project, "Dockerfile")


def test_one_series_moves_as_a_whole_and_several_at_their_end(upgraded: tuple[Path, Report]) -> None:
    folder, report = upgraded
    assert bounds(folder, f"{MADE}/pyproject.toml", "torch") == {">=99.4,<99.5"}
    assert bounds(folder, f"{MADE}/pyproject.toml", "modin") == {">=0.99.0,<0.100"}
    assert bounds(folder, f"{MADE}/pyproject.toml", "pillow") == {">=11,<100"}
    assert report.raised["torch", "made/pyproject.toml"][1] == ">=99.4,<99.5"
    for file in ("pyproject.toml", f"{MADE}/pyproject.toml"):
        assert bounds(folder, file, "ruff") == {">=0.99,<0.100"}
    assert bounds(folder, "pyproject.toml", "cookiecutter") == {">=99.0.0,<100"}
    assert bounds(folder, "noxfile.py", "daft") == {">=0.99,<0.100"}


def test_what_another_package_forbids_is_not_broken_and_is_said(upgraded: tuple[Path, Report]) -> None:
    folder, report = upgraded
    assert bounds(folder, f"{MADE}/pyproject.toml", "pandas") == {">=2.90,<2.91"}
    stays, why = report.kept["pandas", "made/pyproject.toml"]
    assert stays == ">=2.90,<2.91"
    assert re.match(r"98\.0\.0 is there\. Because modin>=0\.99\.0 depends on pandas<2\.91", why), why
    assert bounds(folder, f"{MADE}/pyproject.toml", "numpy") == bounds(TEMPLATE, f"{MADE}/pyproject.toml", "numpy")
    assert "scikit-learn" in report.kept["numpy", "made/pyproject.toml"][1]


def test_a_held_pin_stays_and_its_reason_is_said(upgraded: tuple[Path, Report]) -> None:
    folder, report = upgraded
    assert bounds(folder, f"{MADE}/pyproject.toml", "mypy") == {">=2,<3"}
    assert report.kept["mypy", "made/pyproject.toml"] == (">=2,<3", "99.0.0 is there. held: stubs are missing")


def test_what_is_the_newest_stays(upgraded: tuple[Path, Report]) -> None:
    folder, report = upgraded
    for file in ("pyproject.toml", f"{MADE}/pyproject.toml"):
        assert bounds(folder, file, "pytest") == bounds(TEMPLATE, file, "pytest")
    assert not {"pytest", "actions/setup-python"} & {
        pin for pin, file in report.raised | report.kept if "con" not in file
    }


def test_constraints_are_written_anew(upgraded: tuple[Path, Report]) -> None:
    folder, report = upgraded
    constraints = text_of(folder, f"{MADE}/constraints.txt")
    assert constraints.partition("\n")[0] == text_of(TEMPLATE, f"{MADE}/constraints.txt").partition("\n")[0]
    assert {"torch==99.4.1", "pandas==2.90.1", "modin==0.99.0"} <= set(constraints.splitlines())
    assert report.raised["pandas", "made/constraints.txt"][1] == "2.90.1"


def test_actions_get_the_hash_of_their_newest_release(upgraded: tuple[Path, Report], github: Path) -> None:
    folder, report = upgraded
    newest = git(github / "actions/checkout", "rev-parse", "v98.1.0^{commit}")
    for file in workflows(folder):
        pins = {name: (commit, tag) for name, commit, tag in PINNED_ACTION.findall(file.read_text())}
        assert pins["actions/checkout"] == (newest, "v98.1.0"), file
        name = str(file.relative_to(folder)).replace(MADE, "made")
        assert report.raised["actions/checkout", name][1] == f"v98.1.0 {newest[:7]}"
    assert text_of(folder, ".pre-commit-config.yaml").endswith("rev: v98.1.0\n    hooks: [{id: example}]\n")


def test_a_newer_kuberay_is_said(upgraded: tuple[Path, Report]) -> None:
    _, report = upgraded
    _, why = report.kept["KubeRay", "made/options/cluster/kubernetes/cluster/README.md"]
    assert why.startswith("v98.1.0 is there.")


def test_a_second_time_there_is_nothing_to_raise(upgraded: tuple[Path, Report], index: str, github: Path) -> None:
    folder, first = upgraded
    code, printed = upgrade(folder, index, github)
    assert code == 0, printed
    assert printed.startswith("0 pins raised, ")
    assert Report(printed).kept == first.kept


def test_what_does_not_answer_is_said_and_the_rest_is_raised(tmp_path: Path, github: Path) -> None:
    folder = copy(tmp_path / "template", github)
    others = tmp_path / "github"
    shutil.copytree(github, others, symlinks=True)
    shutil.rmtree(others / "actions/setup-python")
    code, printed = upgrade(folder, "http://127.0.0.1:9", others)  # the port of `discard`: nobody listens
    report = Report(printed)
    assert code == 1, printed
    for file in ("made/pyproject.toml", "pyproject.toml", "noxfile.py", "made/constraints.txt"):
        assert "127.0.0.1:9" in report.kept["packages", file][1], printed
    assert "setup-python" in report.kept["actions/setup-python", ".github/workflows/ci.yml"][1]
    assert ("actions/checkout", ".github/workflows/ci.yml") in report.raised
    for file in ("cookiecutter.json", "pyproject.toml", f"{MADE}/constraints.txt"):
        assert text_of(folder, file) == text_of(TEMPLATE, file)


def test_a_tag_that_moved_is_not_followed(tmp_path: Path, github: Path) -> None:
    """A version's commit does not change: where it did, somebody has to look."""
    others = tmp_path / "github"
    shutil.copytree(github, others, symlinks=True)
    folder = copy(tmp_path / "template", github)
    before = text_of(folder, ".github/workflows/ci.yml")
    (name, commit, tag), *_ = PINNED_ACTION.findall(before)
    git(others / name, "tag", "--force", tag, git(others / name, "commit-tree", f"{commit}^{{tree}}", "-m", "other"))
    _, printed = upgrade(folder, "http://127.0.0.1:9", others)
    assert "is another commit now" in Report(printed).kept[name, ".github/workflows/ci.yml"][1]
    assert f"{name}@{commit} # {tag}" in text_of(folder, ".github/workflows/ci.yml")


def test_rays_version_is_said_once() -> None:
    """Raising it by hand is one edit, and `nox -s lock`."""
    version = QUESTIONS["__ray_version"]
    files = [*TEMPLATE.glob("*.*"), *(TEMPLATE / "scripts").glob("*.py"), *(TEMPLATE / MADE).rglob("*.*")]
    said = {file.name for file in files if file.is_file() and version in file.read_text(encoding="utf-8")}
    assert said - {"CHANGELOG.md"} == {"cookiecutter.json", "constraints.txt"}


def test_every_requirement_is_of_a_form_that_can_be_raised() -> None:
    """Jinja in a name or another operator would be passed over in silence."""
    for file in ("pyproject.toml", f"{MADE}/pyproject.toml"):
        text = text_of(TEMPLATE, file).partition("\n[tool.pytest")[0]
        listed = re.findall(r'^    ".*', text, re.MULTILINE)
        assert len(listed) > 20
        for line in listed:
            assert re.match(r'    "[\w.-]+(\[[\w,]+\])?((>=[\w.]+(,<[\w.]+)?)|(==([\w.]+|\{\{ \S+ \}\})))?",', line), (
                line
            )
