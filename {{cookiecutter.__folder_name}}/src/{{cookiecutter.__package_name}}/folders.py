"""Folders that a command writes into: whose they are, and files in them that nobody ever sees a part of."""

import json
import shutil
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import filelock
from upath import UPath

from .errors import UserError, reason

LOCK = ".lock"


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
    elif folder.exists() and {each.name for each in folder.iterdir()} - own_files - {LOCK, file, f"{file}.partial"}:
        raise UserError(f"--output {folder} holds other things than {kind}. Choose another folder")


def lock(folder: Path | UPath) -> AbstractContextManager[Any]:
    """Make the folder, and keep other processes out of it until the end of a `with`, or of this process.

    An object store has no locks: there, nobody is kept out. It has no folders either: s3fs would make a bucket.

    Raises:
        UserError: another process is at work in it, or it can't be made or written in.
    """
    if not isinstance(folder, Path):
        return nullcontext()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return filelock.FileLock(str(folder / LOCK)).acquire(timeout=0)
    except filelock.Timeout:
        raise UserError(f"--output {folder}: another process is at work in it") from None
    except OSError as problem:
        raise UserError(f"--output {folder}: {reason(problem)}") from None


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
