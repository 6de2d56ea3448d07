"""The folder of one run of `predict`: whose it is, what in it is done, and when it is finished.

- run.json: what the run was asked; written first.
- predictions/*.parquet: the rows; each file is complete, or has no footer and can't be read.
- summary.json: written last; its absence means that the run is not finished.
"""

import hashlib
import json
import uuid
from itertools import compress
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from upath import UPath

from .errors import UserError, reason
from .folders import check_claim, write_whole
from .parquet import is_whole, read_each, read_tables

OWN_FILES = {"predictions"}


def is_finished(path: str) -> bool:
    """Whether the folder, a path or a URI, holds a finished run.

    Raises:
        UserError: nobody can look there.
    """
    try:
        return (UPath(path) / "summary.json").exists()
    except Exception as problem:  # as in `inputs.find_input`
        raise UserError(f"--output {path}: {reason(problem)}") from None


class RunFolder:
    """One run's folder.

    Args:
        path: a path or a URI.
        claim: what the run was asked, by name. A run with another claim may not use the folder.

    Raises:
        UserError: the folder holds another run, or something else.
    """

    def __init__(self, path: str, claim: dict[str, Any]) -> None:
        self.address, self.path = path, UPath(path)
        self.claim = claim
        self.predictions = self.path / "predictions"
        self.added: UPath | None = None
        bound = bool(self._files())
        check_claim(self.path, "run.json", claim, kind="a run of `predict`", own_files=OWN_FILES, bound=bound)

    def summary(self) -> dict[str, Any] | None:
        """The summary, if the run is finished."""
        path = self.path / "summary.json"
        return json.loads(path.read_text()) if path.exists() else None

    def open(self) -> pa.ChunkedArray:
        """Claim the folder, which is locked; remove what a kill left half-written; return the ids that are done.

        Raises:
            UserError: nothing can be written there.
        """
        try:
            write_whole(self.path / "run.json", self.claim)
        except Exception as problem:  # there is no such bucket, for one
            raise UserError(f"--output {self.address}: {reason(problem)}") from None
        found = self._files()
        files = list(compress(found, read_each(*self._where(found), is_whole)))
        for half_written in set(found).difference(files):
            half_written.unlink()
        return self._ids_once(files) if files else pa.chunked_array([], pa.string())

    def add(self, table: pa.Table, done: pa.ChunkedArray) -> pa.ChunkedArray:
        """Write the rows of `table` whose id is not in `done` as a file, and return the ids that are done now."""
        if len(done):
            table = table.filter(pc.invert(pc.is_in(table["id"], done)))
        if len(table):
            if isinstance(self.path, Path):  # a store makes folders by itself
                self.predictions.mkdir(exist_ok=True)
            self.added = self.predictions / f"first-{uuid.uuid4().hex}.parquet"
            _write(table, self.added)
        return pa.chunked_array([*done.chunks, *table["id"].cast(done.type).chunks]) if len(done) else table["id"]

    def take_back(self) -> None:
        """Remove what `add` wrote: without rows, the folder is free for other arguments."""
        if self.added:
            self.added.unlink()

    def _ids_once(self, files: list[UPath]) -> pa.ChunkedArray:
        """The ids in the files, after a row that is there twice was taken out of the later file.

        A cluster's worker may outlive the driver by a moment, and write what the next run then predicts, too.
        """
        ids = self._column("id", files)
        if pc.count_distinct(ids).as_py() == len(ids):
            return ids
        seen: set[Any] = set()
        for file in files:
            table = read_tables(*self._where([file]))
            once = [id_ not in seen for id_ in table["id"].to_pylist()]
            seen.update(table["id"].to_pylist())
            if not all(once):
                _write(table.filter(once), file)
        return self._column("id", files)

    def _files(self) -> list[UPath]:
        self.path.fs.invalidate_cache()  # s3fs would not see what Ray's workers write
        try:
            return sorted(self.predictions.glob("*.parquet"))
        except FileNotFoundError:  # gcsfs: there is no such bucket, as `open` will say
            return []

    def _column(self, name: str, files: list[UPath]) -> pa.ChunkedArray:
        return read_tables(*self._where(files), [name])[name]

    def _where(self, files: list[UPath]) -> tuple[list[str], Any]:
        return [file.path for file in files], self.path.fs

    def close(self, ids: pa.ChunkedArray, summary: dict[str, Any]) -> dict[str, Any]:
        """Check that every one of `ids` came out exactly once, and write the summary, with the number of failed rows.

        Raises:
            RuntimeError: rows are missing, or there twice. It can't happen; if it does, nobody must trust the folder.
        """
        files = self._files()
        written = self._ids_once(files)
        missing = pc.sum(pc.invert(pc.is_in(ids, written))).as_py()
        if missing or len(written) != len(ids):
            raise RuntimeError(f"{self.predictions} has {len(written)} rows for {len(ids)}, and lacks {missing}")
        errors = self._column("error", files)
        whole = {"rows": len(ids), "failed": len(errors) - errors.null_count, **summary}
        write_whole(self.path / "summary.json", whole)
        return whole


def _write(table: pa.Table, file: UPath) -> None:
    """The file is there whole, or as it was."""
    partial = file.with_name(file.name + ".partial")
    with partial.open("wb") as stream:
        pq.write_table(table, stream)
    partial.rename(file)


def file_digest(path: str) -> str:
    """SHA-256 of a file, by path or URI.

    Raises:
        OSError: it can't be read.
    """
    digest = hashlib.sha256()
    with UPath(path).open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()
