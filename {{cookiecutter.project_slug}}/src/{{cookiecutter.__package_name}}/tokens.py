"""Where Ray's token lies: who shows it may run code on the cluster. Needs no Ray, which reads it when it is loaded."""

import os
from pathlib import Path


def token_file() -> Path:
    """The file that Ray reads the token from."""
    return Path(os.environ.get("RAY_AUTH_TOKEN_PATH", "~/.ray/auth_token")).expanduser()
