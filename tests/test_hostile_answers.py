"""Answers that mean harm, or seem to: refused in one line with nothing left behind, or shown as they were typed.

`HYPOTHESIS_PROFILE=nightly` tries 1,000 of them, other ones each time; otherwise it is 200, always the same.
"""

import ast
import functools
import io
import json
import os
import re
import shutil
import sys
import tomllib
from email.headerregistry import Address
from email.parser import Parser
from pathlib import Path

import hatchling.build
import pexpect
import pytest
import yaml
from conftest import HANGS, QUESTIONS, TEMPLATE, bake, error_lines, run
from cookiecutter.exceptions import FailedHookException, UndefinedVariableInTemplate
from cookiecutter.main import cookiecutter
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jinja2 import TemplateError
from markdown_it import MarkdownIt
from slugify import slugify

settings.register_profile("usual", max_examples=200, derandomize=True, deadline=None, database=None)
settings.register_profile("nightly", max_examples=1000, print_blob=True, deadline=None, database=None)
PROFILE = settings(
    settings.get_profile(os.environ.get("HYPOTHESIS_PROFILE", "usual")),
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)

# What shells, Python, TOML, YAML, HTML and Markdown take for their own, between spaces.
SYNTAX = r"""
' " \ \n \" \\ \x41 \u0041 \N{DASH} { } }} %} #} #% {0} %s %(x)s [ ] ( ) < > | & @ - _ . , : ; ! = 7 Z
/ ../ C:\temp ~/ ${PATH} %PATH% $((1)) !! yes null ~ [table] *a &a !!python/object:os.system
--- === ~~~ ``` _a_ *a* ** ~a~ a_b_c # <!-- <script> <b> [x](y) ![x](y) &amp; &#65; C# R&D
"""
PIECES = [
    *SYNTAX.split(),
    *(
        "$(touch CANARY)",
        "`touch CANARY`",
        "; touch CANARY",
        "&& touch CANARY",
        "__import__('os').system('touch CANARY')",
    ),
    *(
        '"""',
        "'''",
        "  ",
        " #",
        "- a",
        "+ a",
        "> a",
        "1. a",
        "# a",
        "[x]: y",
        "key: value",
        "? a",
        "a = 1",
        "| a | b |",
    ),
    *(
        "🚀",
        "👩\u200d👩\u200d👧",
        "🇩🇪",
        "e\u0301",
        "שלום",
        "مرحبا",
        "ش\u200cم",
        "中文",
        "\ufb01",
        "\xa0",
        "\u3000",
        "\ufeff",
    ),
]
REFUSED = ["\n", "\r\n", "\t", "\x00", "\x1b[31m", "\x7f", "\u2028", "\u202e", "\u2066", "\ud800"]
JINJA = ["{{ 7 * 7 }}", "{{ cookiecutter }}", "{% raw %}", "{% endraw %}", "{{", "{%", "{# a #}", "{{ nothing }}"]
SLUGS = r"""
7 1-digit Upper snake_case a--b -a a- a.b ../a a/b /a/b / a\b .. . ~ C: класс ﬁ $(id) `id` ;id
ray torch test tests numpy scikit-learn google-auth conftest noxfile src options docs json os asyncio this
con nul aux prn com1 lpt9 cd python activate kubectl yes null on none true class match async
"""
EMAILS = r"""
a@b a.b+c@example.co.uk o'hara@example.com you@bücher.example a@b..c a..b@c .a@b a.@b a,b@c é@example.com a@b> a(b)@c
a;b@c @ a@ @b a\@b $(touch${IFS}CANARY)@b `a`@b a@[127.0.0.1] a@b. a@-b {{1}}@b "a"@b
"""

# These are mixed so that many of the answers are refused, and many are not.
letters = st.text(st.characters(exclude_categories=("C", "Z")), max_size=8)
plain = st.lists(st.sampled_from(PIECES) | letters, min_size=1, max_size=6).map("".join).map(str.strip)
refused = st.tuples(st.text(max_size=8), st.sampled_from(REFUSED + JINJA), plain).map("".join)
texts = plain | plain | plain | plain | plain | refused | st.sampled_from(["", " ", "x" * 200, "x" * 201])
slugs = (
    st.just("hostile-answers")
    | st.just("hostile-answers")
    | st.just("hostile-answers")
    | st.from_regex(r"\A[a-z][a-z0-9]{0,9}(-[a-z0-9]{1,9}){0,3}\Z")
    | st.sampled_from([*SLUGS.split(), "", " ", "a b", "a" * 40, "a" * 41, "a" * 200, "🚀" * 200, "$(touch CANARY)"])
)
addresses = st.sampled_from(["a@b", "a.b+c@example.co.uk", "o'hara@example.com", "you@bücher.example"])
strange = st.sampled_from([*EMAILS.split(), '"a b"@c', "a@b, c@d", "A <a@b>", "a b@c", "a@b\n", "a" * 201 + "@b"])
emails = addresses | addresses | strange | st.builds("{}@{}".format, letters, st.text(max_size=8))
answers = st.fixed_dictionaries(
    {"project_slug": slugs},
    optional={"project_name": texts, "description": texts, "author_name": texts, "author_email": emails},
)

COOKIECUTTER = str(Path(sys.executable).with_name("cookiecutter"))
ASKED = [name for name in QUESTIONS if name[0] != "_"]
DEFAULTS = {name: QUESTIONS[name] for name in ASKED if isinstance(QUESTIONS[name], str)}


@functools.cache
def parse(suffix: str, text: str) -> None:
    """Most files are the same in all projects: once is enough."""
    if suffix == ".py":
        ast.parse(text)
    elif suffix == ".toml":
        tomllib.loads(text)
    elif suffix in (".yaml", ".yml"):
        assert list(yaml.safe_load_all(text))
    elif suffix == ".json":
        assert json.loads(re.sub(r"(?m)^ *//.*", "", text))  # an editor's settings have comments


def seen(readme: str) -> tuple[str, str]:
    """The title and the first paragraph, as a reader sees them."""
    tokens = MarkdownIt("gfm-like", {"linkify": False}).parse(readme)
    inline = [token for token in tokens if token.type == "inline"]
    shown = []
    for each in inline[:2]:
        assert {child.type for child in each.children} <= {"text", "text_special"}, each.children
        shown.append("".join(child.content for child in each.children))
    kinds = [token.type for token in tokens[: tokens.index(inline[1])]]
    number = next((token.info + token.markup + " " for token in tokens if token.type == "list_item_open"), "")
    if "ordered_list_open" in kinds:  # "1. a" is the same for a reader
        shown[1] = number + shown[1]
    return shown[0], shown[1]


def assert_shown(project: Path, typed: dict[str, str]) -> None:
    """All files parse, the project's metadata can be built, and each answer is where it belongs, as it was typed."""
    for path in project.rglob("*"):
        if path.is_file():
            parse(path.suffix, path.read_text(encoding="utf-8"))
    table = tomllib.loads((project / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert table["name"] == typed["project_slug"]
    assert table["description"] == typed["description"]
    assert table["authors"] == [{"name": typed["author_name"], "email": typed["author_email"]}]
    name, description = seen((project / "README.md").read_text(encoding="utf-8"))
    assert re.sub(" +", " ", name) == re.sub(" +", " ", typed["project_name"])
    assert re.sub(" +", " ", description) == re.sub(" +", " ", typed["description"])
    for path in (project / "cluster").rglob("*.yaml"):
        document = next(yaml.safe_load_all(path.read_text(encoding="utf-8")))
        assert document.get("cluster_name", typed["project_slug"]) == typed["project_slug"]


def assert_installs(project: Path, folder: Path, typed: dict[str, str]) -> None:
    """pip and uv ask hatchling for this before they install."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(project)
        built = folder / hatchling.build.prepare_metadata_for_build_editable(str(folder)) / "METADATA"
    metadata = Parser().parsestr(built.read_text(encoding="utf-8"))
    assert metadata["Name"] == typed["project_slug"]
    assert metadata["Summary"] == typed["description"]
    assert metadata["Author-email"] == str(Address(typed["author_name"], addr_spec=typed["author_email"]))


def questions(typed: dict[str, str]) -> str:
    """What a person types: a line for each question, and Enter for a choice."""
    return "".join(f"{typed[name]}\n" if isinstance(QUESTIONS[name], str) else "\n" for name in ASKED)


def make(folder: Path, typed: dict[str, str], at_prompts: bool) -> dict[str, str]:
    """Make a project as the command line does, or the prompts, and return what it should show."""
    if not at_prompts:
        cookiecutter(str(TEMPLATE), no_input=True, output_dir=str(folder), extra_context=typed)
        return DEFAULTS | typed
    lines = questions(DEFAULTS | typed)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stdin", io.StringIO(lines))
        cookiecutter(str(TEMPLATE), output_dir=str(folder))
    # rich, which asks for cookiecutter, takes the spaces from both ends, and the default for nothing.
    shown = DEFAULTS | {name: text.strip() for name, text in typed.items() if text.strip()}
    return shown if typed["project_slug"].strip() else shown | {"project_slug": slugify(shown["project_name"])}


def assert_nothing_is_left(folder: Path) -> None:
    assert [path.name for path in folder.rglob("*")] == ["made"]


@PROFILE
@given(typed=answers, at_prompts=st.booleans())
def test_an_answer_is_refused_or_shown_as_it_was_typed(
    tmp_path_factory: pytest.TempPathFactory, capfd: pytest.CaptureFixture[str], typed: dict[str, str], at_prompts: bool
) -> None:
    """cookiecutter renders answers of the command line before it asks a template, and raises what Jinja does."""
    folder = tmp_path_factory.mktemp("hostile")
    made = folder / "made"
    made.mkdir()
    if at_prompts:
        typed = {name: re.sub(r"[\r\n]", " ", text) for name, text in typed.items()}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)  # where an answer that is run would leave its file
        capfd.readouterr()
        try:
            shown = make(made, typed, at_prompts)
        except (TemplateError, UndefinedVariableInTemplate):
            assert not at_prompts
            assert_nothing_is_left(folder)
        except FailedHookException:
            errors = error_lines(capfd.readouterr().err)
            assert len(errors) == 1
            assert_nothing_is_left(folder)
        else:
            (project,) = made.iterdir()
            assert_shown(project, shown)
            assert_installs(project, folder, shown)
    assert not list(folder.rglob("*CANARY*"))
    shutil.rmtree(folder)


HOSTILE = "it's \"$(touch CANARY)\" `id` \\ <b> [x]: y # 🚀 שלום __import__('os')"


def test_a_hostile_answer_at_the_prompts_of_a_terminal(tmp_path: Path) -> None:
    """Each question is there as a sentence, and each choice with what it means."""
    environment = {**os.environ, "TERM": "dumb"}
    screen = pexpect.spawn(
        COOKIECUTTER,
        [str(TEMPLATE)],
        cwd=tmp_path,
        env=environment,
        encoding="utf-8",
        timeout=HANGS,
        dimensions=(50, 200),
    )
    for number, name in enumerate(ASKED, start=1):
        prompt = QUESTIONS["__prompts__"][name]
        screen.expect(r"\): ")
        asked = " ".join(screen.before.split())
        assert f"[{number}/{len(ASKED)}]" in asked
        assert all(line in asked for line in ([prompt] if isinstance(prompt, str) else prompt.values()))
        screen.sendline(HOSTILE if name == "description" else "")
    screen.expect_exact("Your project is ready")
    screen.expect(pexpect.EOF)
    assert_shown(tmp_path / "my-ray-project", DEFAULTS | {"project_slug": "my-ray-project", "description": HOSTILE})
    assert not list(tmp_path.rglob("CANARY"))


def test_a_project_with_hostile_answers_installs(tmp_path: Path) -> None:
    project = bake(tmp_path, description=HOSTILE, author_name=HOSTILE, project_name=HOSTILE, project_slug="hostile")
    pip = ("pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--ignore-requires-python")
    installed = run(sys.executable, "-m", *pip, "--target", tmp_path / "site", project, folder=tmp_path)
    assert installed.returncode == 0, installed.stdout
    asked = "from importlib.metadata import metadata; print(metadata('hostile')['Summary'])"
    shown = run(sys.executable, "-c", asked, folder=tmp_path, PYTHONPATH=str(tmp_path / "site"), PYTHONUTF8="1")
    assert shown.stdout == HOSTILE + "\n"
