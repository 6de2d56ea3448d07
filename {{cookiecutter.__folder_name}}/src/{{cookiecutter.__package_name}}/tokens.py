"""Ray's token: who shows it may run code on the cluster. Needs no Ray, which reads these when it is loaded."""

import os
from pathlib import Path


def token_file() -> Path:
    """The file that Ray reads the token from."""
    return Path(os.environ.get("RAY_AUTH_TOKEN_PATH", "~/.ray/auth_token")).expanduser()


def has_token() -> bool:
    """Whether this machine has a token."""
    return bool(os.environ.get("RAY_AUTH_TOKEN")) or token_file().is_file()
