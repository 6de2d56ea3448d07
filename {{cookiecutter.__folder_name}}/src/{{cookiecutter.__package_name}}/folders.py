"""Folders that a command writes into: whose they are, and files in them that nobody ever sees a part of."""

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from upath import UPath

from .errors import UserError


def check_claim(
    folder: Path | UPath, file: str, claim: dict[str, Any], *, kind: str, own_files: set[str], bound: bool = True
) -> None:
    """Refuse a folder that holds other things than what `claim` asks for.

    Args:
        folder: the folder, which need not exist.
        file: name of the file in it that says what was asked.
        claim: what is asked now, by name.
        kind: what a folder of this command holds, with its article.
        own_files: what else may lie in the folder before anything is written.
        bound: whether something was written that another claim would not fit.

    Raises:
        UserError: it names what differs.
    """
    if bound and (folder / file).exists():
        earlier = json.loads((folder / file).read_text())
        for name, value in claim.items():
            if earlier.get(name) != value:
                change = f"{earlier.get(name)}, now {value}"
                shown = "" if len(change) > 200 or "digest" in name else f": {change}"
                raise UserError(f"--output {folder} holds {kind} with another {name}{shown}. Choose another folder")
    elif folder.exists() and {each.name for each in folder.iterdir()} - own_files - {file, f"{file}.partial"}:
        raise UserError(f"--output {folder} holds other things than {kind}. Choose another folder")


def write_whole(path: Path | UPath, content: Any) -> None:
    """Write `content` as JSON: the file is there whole, or not at all."""
    partial = path.with_name(path.name + ".partial")
    partial.write_text(json.dumps(content, indent=2) + "\n")
    partial.rename(path)  # type: ignore[arg-type]


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """A folder to write into, which becomes `path` at the end, or, if that fails or is killed, not at all."""
    partial = path.with_name(path.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        yield partial
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    partial.rename(path)
