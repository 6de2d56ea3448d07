"""Raise every pin, of the template and of the made projects, and print what was raised and what could not be.

- Packages: to the newest versions that go together, as uv finds them when no upper bound of ours holds it back. A bound
  moves only when that version is beyond it: `>=2.13,<2.14` as a whole, `>=21,<27`, which has several series in it, at
  its end. What another package's metadata forbids stays, with uv's own words for it. So does a line that ends in
  `# held: why`.
- Actions and pre-commit's hooks: to the newest tag of their repository, an action with the hash that the tag has.
- constraints.txt: written anew.

Exit code: 1 if a source did not answer; what the others said is raised all the same.
"""

import functools
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from lock import CONSTRAINTS, ROOT, lock, resolve
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

MADE = ROOT / "{{cookiecutter.__folder_name}}"
QUESTIONS = ROOT / "cookiecutter.json"
RAY = (
    "{{ cookiecutter.__ray_version }}"  # as the made pyproject.toml has it; the version itself is in cookiecutter.json
)
REQUIREMENT = re.compile(
    r'"(?P<name>[A-Za-z][\w.-]*)(?P<extras>\[[\w,]+\])?(?P<bounds>(?:>=|==)(?:\{\{[^}]*\}\}|[^"\s])+)"'
    r"(?:,?[ ]*# held: (?P<held>.*))?"
)
ACTION = re.compile(r"(?P<repository>[\w.-]+/[\w.-]+)(?P<path>[\w./-]*)@(?P<hash>[0-9a-f]{40}) # (?P<tag>v?[\d.]+)")
HOOKS = re.compile(r"repo: (?P<url>https://\S+)\s+rev: (?P<tag>\S+)")
KUBERAY = re.compile(r"github\.com/(?P<repository>ray-project/kuberay)/\S+\?ref=(?P<tag>v[\d.]+)")


class Row(NamedTuple):
    """A line of the report: a pin that was raised, or one that was not, and why."""

    pin: str
    file: str
    before: str = ""
    after: str = ""
    why: str = ""
    answered: bool = True


class NoAnswerError(Exception):
    """A source did not answer."""


def main() -> int:
    rows = [*raise_requirements(MADE / "pyproject.toml")]
    rows += raise_requirements(ROOT / "pyproject.toml", with_ray=True)
    rows += raise_requirements(ROOT / "noxfile.py")
    rows += raise_constraints()
    for folder in (ROOT, MADE):
        for workflow in sorted((folder / ".github/workflows").glob("*.yml")):
            rows += raise_tags(workflow, ACTION)
        rows += raise_tags(folder / ".pre-commit-config.yaml", HOOKS)
    rows += newer_kuberay(MADE / "options/cluster/kubernetes/cluster/README.md")
    print(report(rows))
    return 0 if all(row.answered for row in rows) else 1


def raise_requirements(file: Path, with_ray: bool = False) -> Iterable[Row]:
    """Raise the bounds in a file, `with_ray` to what goes with Ray; Ray's own version is in cookiecutter.json."""
    ray = json.loads(QUESTIONS.read_text())["__ray_version"]
    pins = {match[0]: match for match in REQUIREMENT.finditer(file.read_text())}.values()
    relaxed = [without_upper_bound(pin, ray) for pin in pins]
    beside = [f"ray[default]=={ray}"] if with_ray else []
    try:
        together = versions([*relaxed, *beside])
        newest = versions([f"{pin['name']}>={floor(pin['bounds'].replace(RAY, ray))}" for pin in pins], "--no-deps")
    except NoAnswerError as error:
        yield Row("packages", short(file), why=str(error), answered=False)
        return
    chosen = [f"{pin['name']}{pin['extras'] or ''}>={min(together[canonicalize_name(pin['name'])])}" for pin in pins]
    for pin in pins:
        name, before = canonicalize_name(pin["name"]), pin["bounds"].replace(RAY, ray)
        after = before if pin["held"] else raised(before, together[name])
        if after != before:
            if RAY in pin["bounds"]:
                replace(QUESTIONS, f'"__ray_version": "{ray}"', f'"__ray_version": "{after.removeprefix("==")}"')
            else:
                replace(file, pin[0], pin[0].replace(before, after))
            yield Row(name, short(QUESTIONS if RAY in pin["bounds"] else file), before, after)
        beyond = max(newest[name])
        if beyond not in SpecifierSet(after):
            why = f"held: {pin['held']}" if pin["held"] else conflict([*chosen, *beside, f"{name}=={beyond}"])
            yield Row(name, short(file), after, why=f"{beyond} is there. {why}")


def without_upper_bound(pin: re.Match[str], ray: str) -> str:
    """What uv is asked for: the floor only, but for what is held."""
    bounds = pin["bounds"].replace(RAY, ray)
    if not pin["held"]:
        bounds = f">={floor(bounds)}"
    return f"{pin['name']}{pin['extras'] or ''}{bounds}"


def floor(bounds: str) -> str:
    """The 2.13 of `>=2.13,<2.14`, and of `==2.13`."""
    return bounds[2:].partition(",")[0]


def versions(requirements: list[str], *options: str) -> dict[str, list[Version]]:
    """The newest version of each package; two, if not all Pythons can have the same."""
    found: dict[str, list[Version]] = {}
    try:
        lines = resolve(["-", *options], requirements).splitlines()
    except ValueError as error:
        raise NoAnswerError(f"the package index: {error}") from None
    for requirement in map(Requirement, lines):
        version = next(iter(requirement.specifier)).version
        found.setdefault(canonicalize_name(requirement.name), []).append(Version(version.replace("+cpu", "")))
    return found


def conflict(requirements: list[str]) -> str:
    """Why these do not go together, in uv's words."""
    try:
        resolve(["-"], requirements)
    except ValueError as error:
        return str(error).rpartition("cause: ")[2].partition(" hint: ")[0]
    return "It was not chosen, and uv does not say why."


def raised(bounds: str, found: list[Version]) -> str:
    """Bounds that let these versions in, in the form of the old ones.

    >>> raised(">=2.13,<2.14", [Version("2.15.1")])
    '>=2.15,<2.16'
    >>> raised(">=21,<27", [Version("27.0.1")])
    '>=21,<28'
    >>> raised(">=2.2,<3", [Version("2.4.6"), Version("3.1.2")])
    '>=2.4,<4'
    >>> raised(">=9,<10", [Version("9.2")])
    '>=9,<10'
    """
    if bounds.startswith("=="):
        return f"=={max(found)}"
    low, bound = floor(bounds), bounds.partition(",<")[2]
    if not bound or max(found) < Version(bound):
        return bounds
    digits = len(Version(bound).release)
    if after(Version(low), digits) == bound:  # one series
        kept = Version(low).release
        oldest = max(min(found), Version(low)).release[: len(kept)]
        low = low if oldest == kept else ".".join(map(str, oldest))
    return f">={low},<{after(max(found), digits)}"


def after(version: Version, digits: int) -> str:
    """The series after that of a version: 2.14 after 2.13.1, if a series has two digits."""
    *first, last = (*version.release, 0, 0)[:digits]
    return ".".join(map(str, (*first, last + 1)))


def raise_constraints() -> Iterable[Row]:
    """Write constraints.txt anew."""
    before = pinned(CONSTRAINTS)
    try:
        lock()
    except ValueError as error:
        yield Row("packages", short(CONSTRAINTS), why=f"the package index: {error}", answered=False)
        return
    now = pinned(CONSTRAINTS)
    for name in sorted(before.keys() | now):
        if before.get(name) != now.get(name):
            yield Row(name, short(CONSTRAINTS), before.get(name, "-"), now.get(name, "-"))


def pinned(constraints: Path) -> dict[str, str]:
    """Each package's versions: more than one, if not all Pythons can have the same."""
    found: dict[str, list[str]] = {}
    for line in constraints.read_text().splitlines()[1:]:
        name, _, version = line.partition(" ;")[0].partition("==")
        found.setdefault(name, []).append(version)
    return {name: ", ".join(each) for name, each in found.items()}


def raise_tags(file: Path, pattern: re.Pattern[str]) -> Iterable[Row]:
    """Raise actions or pre-commit's hooks in a file."""
    for pin in {match[0]: match for match in pattern.finditer(file.read_text())}.values():
        groups = pin.groupdict()
        url = groups.get("url") or f"https://github.com/{groups['repository']}"
        name = groups.get("repository") or url
        try:
            tags = newest_first(url, pin["tag"])
        except NoAnswerError as error:
            yield Row(name, short(file), pin["tag"], why=str(error), answered=False)
            continue
        new, commit = tags[0]
        if groups.get("hash") and dict(tags).get(pin["tag"], pin["hash"]) != pin["hash"]:
            moved = f"{pin['tag']} is another commit now, {dict(tags)[pin['tag']]}: look why"
            yield Row(name, short(file), f"{pin['tag']} {pin['hash'][:7]}", why=moved)
        elif new != pin["tag"]:
            line = pin[0].replace(pin["tag"], new)
            replace(file, pin[0], line.replace(pin["hash"], commit) if "hash" in groups else line)
            yield Row(name, short(file), pin["tag"], f"{new} {commit[:7]}" if "hash" in groups else new)


def newer_kuberay(readme: Path) -> Iterable[Row]:
    """Say that there is a newer KubeRay: the tests need its CRDs, which are not here."""
    for pin in KUBERAY.finditer(readme.read_text()):
        try:
            new, _ = newest_first(f"https://github.com/{pin['repository']}", pin["tag"])[0]
        except NoAnswerError as error:
            yield Row("KubeRay", short(readme), pin["tag"], why=str(error), answered=False)
            continue
        if new != pin["tag"]:
            why = f"{new} is there. tests/test_kubernetes.py has to see its CRDs first: raise both by hand"
            yield Row("KubeRay", short(readme), pin["tag"], why=why)


@functools.cache
def newest_first(url: str, like: str) -> list[tuple[str, str]]:
    """A repository's releases, of as many digits as a tag that we have, each with its commit."""
    command = ["git", "-c", "http.lowSpeedLimit=1", "-c", "http.lowSpeedTime=30", "ls-remote", "--tags", url]
    environment = os.environ | {"GIT_TERMINAL_PROMPT": "0"}
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    commits = {}
    for line in sorted(result.stdout.splitlines(), key=lambda line: line.endswith("^{}")):
        commit, _, name = line.partition("\trefs/tags/")
        commits[name.removesuffix("^{}")] = commit  # of an annotated tag: what it points to
    digits = len(Version(like).release)
    releases = {tag: version for tag in commits if (version := released(tag)) and len(version.release) == digits}
    if result.returncode or not releases:
        raise NoAnswerError(f"{url}: {' '.join(result.stderr.split()) or 'it has no release'}")
    return [(tag, commits[tag]) for tag in sorted(releases, key=releases.__getitem__, reverse=True)]


def released(tag: str) -> Version | None:
    """The version that a tag names; None for a branch's name, or for what comes before a release."""
    try:
        version = Version(tag)
    except InvalidVersion:
        return None
    return None if version.is_prerelease else version


def replace(file: Path, old: str, new: str) -> None:
    file.write_text(file.read_text().replace(old, new))


def short(file: Path) -> str:
    """A file's path in the repository; "made" stands for the made project's folder."""
    return str(file.relative_to(ROOT)).replace(MADE.name, "made")


def report(rows: list[Row]) -> str:
    """Two tables in Markdown, which reads well on a screen, too."""
    changed = [row for row in rows if row.after]
    kept = [row for row in rows if not row.after]
    parts = [f"{len(changed)} pins raised, {len(kept)} not. All others let the newest version in."]
    if changed:
        parts.append(
            table(("raised", "in", "from", "to"), [(row.pin, row.file, row.before, row.after) for row in changed])
        )
    if kept:
        parts.append(
            table(("not raised", "in", "stays at", "why"), [(row.pin, row.file, row.before, row.why) for row in kept])
        )
    return "\n\n".join(parts)


def table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    widths[-1] = 3  # a long reason widens no other
    lines = [head, tuple("-" * width for width in widths), *rows]
    return "\n".join("| " + " | ".join(map(str.ljust, line, widths)) + " |" for line in lines)


if __name__ == "__main__":
    sys.exit(main())
