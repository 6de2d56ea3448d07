"""Step 1, raw data: the docstrings of four libraries as they are installed here, in one file of JSON lines.

Source: the Python files of NumPy, pandas, Ray and PyTorch, read and not run: nothing is downloaded.
"""

import ast
import json
import random
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

from .folders import whole_folder

LIBRARIES = ("numpy", "pandas", "ray", "torch")
TEXTS_PER_LIBRARY = 1500


def write_raw_data(folder: Path) -> bool:
    """Write `folder`/docstrings.jsonl: name (str, such as numpy.linalg.norm), library (str), text (str).

    Returns False, and writes nothing, if the data is already there. The folder appears whole or not at all.
    """
    if folder.exists():
        return False
    with whole_folder(folder) as partial, (partial / "docstrings.jsonl").open("w", encoding="utf-8") as file:
        for library in LIBRARIES:
            for name, text in _docstrings(library, TEXTS_PER_LIBRARY):
                file.write(json.dumps({"name": name, "library": library, "text": text}) + "\n")
    return True


def _docstrings(library: str, count: int) -> Iterator[tuple[str, str]]:
    """Names and docstrings of a library's modules, classes and functions, from files in an order drawn from a seed."""
    spec = find_spec(library)
    assert spec
    assert spec.submodule_search_locations
    root = Path(spec.submodule_search_locations[0])
    files = sorted(file for file in root.rglob("*.py") if "thirdparty" not in str(file) and "_vendor" not in str(file))
    random.Random(0).shuffle(files)
    for file in files:
        module = ".".join(file.relative_to(root.parent).with_suffix("").parts)
        try:
            tree = ast.parse(file.read_bytes())
        except SyntaxError:  # a template, or for another Python
            continue
        for name, node in _definitions(tree, module):
            if text := ast.get_docstring(node):
                yield name, text
                count -= 1
                if count == 0:
                    return


def _definitions(
    node: ast.Module | ast.ClassDef, name: str
) -> Iterator[tuple[str, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef]]:
    yield name, node
    for child in node.body:
        if isinstance(child, ast.ClassDef):
            yield from _definitions(child, f"{name}.{child.name}")
        elif isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
            yield f"{name}.{child.name}", child
