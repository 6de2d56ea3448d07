"""`predict` from bucket to bucket, in imitations of the clouds' stores: every row once, and on from what is written."""

import itertools
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import PAIRS, make_model, run
from imitation import Store, azure_store, google_store, s3_store

STORES = {"s3": s3_store, "google": google_store, "azure": azure_store}

# With the library of the project's environment, and what the store's address says.
UPLOAD = """
import sys, fsspec
base, *files = sys.argv[1:]
store, bucket = fsspec.url_to_fs(base)
store.mkdir(bucket)
for file in files:
    name = file.rpartition("/")[2]
    store.put(file, f"{bucket}/{name}" if name == "model.safetensors" else f"{bucket}/images/{name}")
"""
READ = """
import json, sys, fsspec, pandas as pd
store, run = fsspec.url_to_fs(sys.argv[1] + "/run")
tables = {}
for file in sorted(store.glob(run + "/predictions/*.parquet")):
    store.get(file, "copy.parquet")  # pandas, reading from the store itself, may abort the process that ends after it
    tables[file] = pd.read_parquet("copy.parquet")
assert all(table["error"].isna().all() for table in tables.values())
print(json.dumps({file: sorted(table["id"]) for file, table in tables.items()}))
"""
# As a kill leaves it: one file is whole, one is half-written, the others are not there.
LOSE = """
import sys, fsspec
store, run = fsspec.url_to_fs(sys.argv[1] + "/run")
store.rm(run + "/summary.json")
whole, half, *others = sorted(store.glob(run + "/predictions/*.parquet"))
store.pipe(half, store.cat(half)[:-100])
store.rm(others)
"""
BUCKETS = """
import json, sys, fsspec
store, bucket = fsspec.url_to_fs(sys.argv[1])
print(json.dumps([name.strip("/") for name in store.ls("", detail=False)]))
"""


@pytest.fixture
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    with STORES[request.param](tmp_path / "store") as running:
        yield running


# Each brings the library of its cloud's store.
@pytest.mark.parametrize(("project", "store"), list(zip(PAIRS, STORES, strict=False)), indirect=True, ids=STORES)
def test_a_run_in_a_bucket_goes_on_from_what_is_written(project: Path, store: Store, tmp_path: Path) -> None:
    installed = run(sys.executable, "-m", "nox", "--session", "tests", "--install-only", folder=project)
    assert installed.returncode == 0, installed.stdout
    commands = project / ".nox/tests/bin"
    make_model(commands, tmp_path)
    images = sorted((tmp_path / "data/raw").rglob("*.png"))

    def script(code: str, *arguments: Path | str) -> str:
        """What a script prints; what the libraries log and warn of is not in the way."""
        quiet = "import logging; logging.disable()\n"
        command = [*store.inside, commands / "python", "-W", "ignore", "-c", quiet + code, store.base, *arguments]
        finished = run(*command, folder=tmp_path, **store.environment)
        assert finished.returncode == 0, finished.stdout
        return finished.stdout

    def predict(output: str = f"{store.base}/run", **environment: str) -> tuple[int, str]:
        arguments = ["--input", f"{store.base}/images", "--checkpoint", f"{store.base}/model.safetensors"]
        command = [*store.inside, commands / "my-ray-project", "predict", *arguments, "--output", output]
        finished = run(*command, folder=tmp_path, **{**store.environment, **environment})
        # Where a network has no way out, Ray says so.
        return finished.returncode, re.sub("^.*network_util.cc.*\n", "", finished.stdout, flags=re.MULTILINE)

    script(UPLOAD, tmp_path / "outputs/training/model.safetensors", *images)
    code, said = predict(**store.refused)
    assert code == 2, said
    assert re.fullmatch(f"error: --output {store.base}/run: {store.refusal}.*\n", said)
    mistyped = f"{store.base.replace('bucket', 'bukcet')}/run"
    code, said = predict(mistyped)
    assert code == 2, said
    assert re.fullmatch(f"error: --output {mistyped}: .*\n", said)
    assert json.loads(script(BUCKETS)) == ["bucket"]  # some library would have made it

    code, said = predict()
    assert code == 0, said
    before: dict[str, list[str]] = json.loads(script(READ))
    assert len(before) > 2
    assert sorted(itertools.chain(*before.values())) == [image.name for image in images]

    kept = min(before)
    script(LOSE)
    code, said = predict()
    assert code == 0, said
    assert f"Going on: {len(before[kept])} of {len(images)} rows are done." in said
    after = json.loads(script(READ))
    assert after[kept] == before[kept]
    assert sorted(itertools.chain(*after.values())) == [image.name for image in images]
    assert "finished: nothing to do" in predict()[1]
