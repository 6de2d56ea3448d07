"""What the pages name is there: links, files, tests and flags, of the template's pages and of every made project's."""

import itertools
import re
import xml.etree.ElementTree as ET
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest
from conftest import CHOICES, TEMPLATE, bake, run

PAGES = [
    *(TEMPLATE / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md", "AGENTS.md", "benchmarks/README.md")),
    *sorted((TEMPLATE / "docs").glob("*.md")),
]
PATH = r"[\w.-]+(?:/[\w.-]+)*(?:\.(?:json|md|png|py|sh|svg|toml|txt|ya?ml)|/)"
COMMAND = r"(?:^    |`)my-ray-project [^`\n]+"
EXAMPLES_AND_CLUSTERS = [*itertools.product(CHOICES["example"], CHOICES["cluster"])]


@pytest.fixture(scope="module")
def projects(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], Path]:
    """A project for every example on every cluster."""
    folder = tmp_path_factory.mktemp("projects")
    return {
        (example, cluster): bake(folder / f"{example}-{cluster}", example=example, cluster=cluster)
        for example, cluster in EXAMPLES_AND_CLUSTERS
    }


def pages_of(project: Path) -> list[Path]:
    return [project / "README.md", project / "AGENTS.md", *project.glob("docs/*.md"), *project.glob("cluster/*.md")]


def paths_in(folder: Path) -> set[str]:
    """Files and folders, those with a slash at the end."""
    listed = run("git", "ls-files", "--cached", "--others", "--exclude-standard", folder=folder)
    files = [Path(name) for name in listed.stdout.splitlines()]
    if listed.returncode:  # a made project is no repository yet
        files = [path.relative_to(folder) for path in folder.rglob("*") if path.is_file()]
    return {str(file) for file in files} | {f"{parent}/" for file in files for parent in file.parents if parent.name}


def sources_of(project: Path) -> str:
    return "".join(path.read_text() for path in project.glob("src/*/*.py"))


def broken_links(page: Path) -> list[str]:
    links = re.findall(r"\]\(([^)\s]+)\)", page.read_text())
    inside = [link.partition("#")[0] for link in links if not re.match(r"[a-z]+:|#", link)]
    return [f"{page}: {link}" for link in inside if not (page.parent / link).exists()]


def missing_paths(page: Path, there: set[str], sources: str) -> Iterator[str]:
    """The paths in backticks that are neither files or folders, nor written by the project's code."""
    for name in re.findall(rf"`({PATH})`", page.read_text()):
        known = any(path == name or path.endswith(f"/{name}") for path in there)
        written = name.endswith((".json", ".png", "/")) and Path(name).name in sources
        if not (known or written or name == ".cruft.json"):
            yield f"{page}: {name}"


def unknown_flags(page: Path, sources: str) -> Iterator[str]:
    """The flags that a page gives to the project's own command, and that it does not have."""
    for line in re.findall(COMMAND, page.read_text(), re.MULTILINE):
        for flag in re.findall(r"(?<!\S)--[a-z][a-z-]+", line):
            if f'"{flag}"' not in sources:
                yield f"{page}: {flag}"


def test_the_templates_pages_name_what_is_there(projects: dict[tuple[str, str], Path]) -> None:
    there = paths_in(TEMPLATE).union(*map(paths_in, projects.values()))
    sources = sources_of(projects["images", "onprem"])
    for page in PAGES:
        assert broken_links(page) == []
        assert [*missing_paths(page, there, sources), *unknown_flags(page, sources)] == []


@pytest.mark.parametrize(("example", "cluster"), EXAMPLES_AND_CLUSTERS)
def test_a_made_projects_pages_name_what_is_there(
    projects: dict[tuple[str, str], Path], example: str, cluster: str
) -> None:
    project = projects[example, cluster]
    pages = pages_of(project)
    assert len(pages) >= 5
    for page in pages:
        assert broken_links(page) == []
        assert [*missing_paths(page, paths_in(project), sources_of(project))] == []
        assert [*unknown_flags(page, sources_of(project))] == []


def test_what_is_not_there_is_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "[a](page.md) [b](no.md) `page.md` `no.py` `no/`\n\n    my-ray-project predict --input x --inptu x\n"
    )
    assert broken_links(page) == [f"{page}: no.md"]
    assert [*missing_paths(page, {"page.md"}, '"--input"')] == [f"{page}: no.py", f"{page}: no/"]
    assert [*unknown_flags(page, '"--input"')] == [f"{page}: --inptu"]


def test_every_trap_names_its_test_or_says_why_there_is_none(projects: dict[tuple[str, str], Path]) -> None:
    def names(files: Iterable[Path]) -> set[str]:
        return {name for file in files for name in re.findall(r"(?:def|class) ([Tt]est\w+)", file.read_text())}

    made = names(path for project in projects.values() for path in project.glob("tests/*.py"))
    own = names((TEMPLATE / "tests").glob("*.py"))
    rows = re.findall(r"^\| .* \| (.*) \|$", (TEMPLATE / "docs/ray-traps.md").read_text(), re.MULTILINE)
    cells = [row for row in rows if row not in ("test", "---")]
    assert len(cells) > 40
    for cell in cells:
        named = re.findall(r"`([Tt]est\w+)`", cell)
        assert named or re.match("time|none", cell), cell
        assert set(named) <= (own if "(template)" in cell else made), cell


@pytest.mark.parametrize("picture", sorted((TEMPLATE / "docs").glob("*.svg")), ids=lambda path: path.name)
def test_a_picture_is_whole_in_itself(picture: Path) -> None:
    """GitHub shows an SVG, but loads nothing that it asks for."""
    text = picture.read_text()
    assert ET.fromstring(text).tag == "{http://www.w3.org/2000/svg}svg"
    assert re.findall(r"https?://[^\s\"]+|@import|<script", text) == ["http://www.w3.org/2000/svg"]
