"""Refuse answers that can't become a working project: one line on stderr, and nothing is left behind."""

import json
import keyword
import re
import sys

# The answers arrive as data. The line breaks matter: a closing quote next to these would end the literal.
ANSWERS = json.loads(
    r"""
{{ cookiecutter | tojson }}
"""
)
# What the project needs, by the names of distributions and of imports: its own name must be none of them.
PACKAGES = """
aiohttp attrs boto3 botocore click conftest dask filelock fsspec grpc grpcio hatchling jinja2 joblib jsonschema
matplotlib modin msgpack mypy nox numpy packaging pandas pandas-stubs pillow pip pre-commit protobuf psutil pyarrow
pydantic pyspark pytest pyyaml ray requests ruff s3fs safetensors scikit-learn scipy setuptools six sklearn sympy
tensorboardx test tests torch types-psutil types-pyyaml universal-pathlib upath uv virtualenv wheel xgboost xgboost-cpu
yaml
"""


def problems(answers):
    """Yield what is wrong with the answers, a sentence each."""
    for question in ("project_name", "project_slug", "description", "author_name", "author_email"):
        if not answers[question].strip():
            yield f"{question} is empty: type at least one letter"
        elif not answers[question].isprintable():
            yield f"{question} has a line break or another control character: type it as one line of text"
    slug = answers["project_slug"]
    package = slug.replace("-", "_")
    if not re.fullmatch(r"[a-z][a-z0-9]*(-[a-z0-9]+)*", slug) or len(slug) > 40:
        yield (
            f"project_slug {slug!r} can't be a package: type at most 40 lower-case letters, digits and single "
            "dashes, a letter first, such as my-ray-project"
        )
    elif keyword.iskeyword(package):
        yield f"project_slug {slug!r} is a keyword of Python: type another, such as {slug}-project"
    elif package in sys.stdlib_module_names or slug in PACKAGES.split():
        yield f"project_slug {slug!r} would hide the package {slug}: type another, such as {slug}-project"
    if not re.fullmatch(r"[^@\s\"\\<>]+@[^@\s\"\\<>]+", answers["author_email"]):
        yield f"author_email {answers['author_email']!r} is no e-mail address: type one, such as you@example.com"


if __name__ == "__main__":
    found = next(problems(ANSWERS), None)
    if found:
        print(f"error: {found}", file=sys.stderr)
        sys.exit(1)
