"""The image that `Dockerfile` builds: workers in it get what those on this machine get. No Docker needed."""

import re
from pathlib import Path

from {{ cookiecutter.__package_name }}.runtime import NODE_ENVIRONMENT


def test_the_image_has_the_settings_of_this_machine() -> None:
    text = (Path(__file__).parents[1] / "Dockerfile").read_text(encoding="utf-8")
    (settings,) = re.findall(r"^ENV (MALLOC(?:.*\\\n)*.*)$", text, re.MULTILINE)
    assert dict(each.split("=") for each in settings.replace("\\", "").split()) == NODE_ENVIRONMENT
