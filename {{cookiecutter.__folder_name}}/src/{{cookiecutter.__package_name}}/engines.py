"""Which pandas preprocessing runs on: pandas itself, or Modin, which spreads a table over Ray's workers."""

import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any

ENGINES = {"modin": "modin.pandas", "pandas": "pandas"}
PARTITION_BYTES = 32 * 2**20  # of a file: a worker holds one partition, and a few copies of it, at a time
MODIN_PAYS_FROM = 300 * 2**20  # bytes of a file: on two cores pandas is faster up to there, and even with it beyond


@contextmanager
def engine(name: str, size: int) -> Iterator[Any]:
    """The module to call as `pandas`. What Modin leaves to pandas, in one piece on one machine, is said in a line.

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
    fallbacks = {
        found[1] for each in caught if (found := re.search(r"`?([\w.<>]+)`?.*efaulting to pandas", str(each.message)))
    }
    if fallbacks:
        print(f"Modin left this to pandas, in one piece: {', '.join(sorted(fallbacks))}.")
