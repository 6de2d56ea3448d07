"""The image that `Dockerfile` builds: workers in it get what those on this machine get. No Docker needed."""

import re
from pathlib import Path

from {{ cookiecutter.__package_name }}.runtime import MALLOC


def test_the_image_has_the_allocators_settings() -> None:
    text = (Path(__file__).parents[1] / "Dockerfile").read_text(encoding="utf-8")
    (line,) = re.findall(r"^ENV (MALLOC.*)$", text, re.MULTILINE)
    assert dict(each.split("=") for each in line.split()) == MALLOC
