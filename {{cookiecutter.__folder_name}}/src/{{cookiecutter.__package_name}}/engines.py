"""Which pandas preprocessing runs on: pandas itself, or Modin, which spreads a table over Ray's workers."""

import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

ENGINES = {"modin": "modin.pandas", "pandas": "pandas"}
PARTITION_BYTES = 32 * 2**20  # of a file: a worker holds one partition, and a few copies of it, at a time
MODIN_PAYS_FROM = 300 * 2**20  # bytes of a file: on two cores pandas is faster up to there, and even with it beyond


@contextmanager
def engine(name: str, size: int) -> Iterator[Any]:
    """The module to call as `pandas`. What Modin leaves to pandas, in one piece on one machine, is said in a line.

    Of the warnings of Modin and of what it uses, that is all that a reader can do something about.

    Args:
        name: "modin", which needs a running Ray, or it starts one with settings of its own, or "pandas".
        size: bytes of the files to read.
    """
    if name == "pandas":
        yield import_module("pandas")
        return
    import modin.config

    if size < MODIN_PAYS_FROM:
        print("So small a file is faster with --engine pandas: Modin is for what outgrows a machine's memory.")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with modin.config.context(NPartitions=max(modin.config.CpuCount.get(), -(-size // PARTITION_BYTES))):
            yield import_module(ENGINES[name])
    messages = {str(each.message) for each in caught}
    if fallbacks := {_left_to_pandas(message) for message in messages if "efaulting to pandas" in message}:
        print(f"Modin left this to pandas, in one piece: {', '.join(sorted(fallbacks))}.")
    for each in caught:
        if Path(each.filename).parent == Path(__file__).parent:
            warnings.warn_explicit(each.message, each.category, each.filename, each.lineno)


def _left_to_pandas(message: str) -> str:
    """What one of Modin's messages is about: most name a method."""
    method = re.search(r"(?:<function |`)([^>`]+)[>`]", message)
    return method[1] if method else message.splitlines()[0].rstrip(".")
