"""`predict` from bucket to bucket, in moto's imitation of S3: every row once, and on from what is written there."""

import itertools
import json
import sys
from pathlib import Path

import boto3
import pytest
from conftest import PAIRS, make_model, run
from imitation import amazon, credentials

READ = """
import json, pandas as pd, s3fs
files = s3fs.S3FileSystem().glob("bucket/run/predictions/*.parquet")
tables = {file: pd.read_parquet("s3://" + file) for file in files}
assert all(table["error"].isna().all() for table in tables.values())
print(json.dumps({file.removeprefix("bucket/"): sorted(table["id"]) for file, table in tables.items()}))
"""


@pytest.mark.parametrize("project", PAIRS[:1], indirect=True)  # for AWS: it brings s3fs
def test_a_run_in_a_bucket_goes_on_from_what_is_written(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed = run(sys.executable, "-m", "nox", "--session", "tests", "--install-only", folder=project)
    assert installed.returncode == 0, installed.stdout
    commands = project / ".nox/tests/bin"
    make_model(commands, tmp_path)
    images = sorted((tmp_path / "data/raw").rglob("*.png"))
    with amazon(tmp_path) as address:
        for name, value in credentials(address).items():
            monkeypatch.setenv(name, value)
        bucket = boto3.resource("s3", region_name="us-east-1").create_bucket(Bucket="bucket")
        bucket.upload_file(str(tmp_path / "outputs/training/model.safetensors"), "model.safetensors")
        for image in images:
            bucket.upload_file(str(image), f"images/{image.name}")
        arguments = ["--input", "s3://bucket/images", "--checkpoint", "s3://bucket/model.safetensors"]
        predict = [commands / "my-ray-project", "predict", *arguments, "--output", "s3://bucket/run"]

        def written() -> dict[str, list[str]]:
            """The ids in each file of predictions, by its key; no row of them failed."""
            ids: dict[str, list[str]] = json.loads(run(commands / "python", "-c", READ, folder=tmp_path).stdout)
            return ids

        nobody = run(*predict, folder=tmp_path, AWS_ACCESS_KEY_ID="", AWS_SECRET_ACCESS_KEY="")
        assert nobody.returncode == 2, nobody.stdout
        assert nobody.stdout == "error: --output s3://bucket/run: Unable to locate credentials\n"
        mistyped = run(*predict[:-1], "s3://bukcet/run", folder=tmp_path)
        assert mistyped.returncode == 2, mistyped.stdout
        assert mistyped.stdout.startswith("error: --output s3://bukcet/run: ")
        assert [each.name for each in boto3.resource("s3").buckets.all()] == ["bucket"]  # s3fs would make it

        first = run(*predict, folder=tmp_path)
        assert first.returncode == 0, first.stdout
        kept, half, *lost = before = written()
        assert sorted(itertools.chain(*before.values())) == [image.name for image in images]

        # What a kill leaves.
        bucket.Object("run/summary.json").delete()
        bucket.put_object(Key=half, Body=bucket.Object(half).get()["Body"].read()[:-100])
        for key in lost:
            bucket.Object(key).delete()
        again = run(*predict, folder=tmp_path)
        assert again.returncode == 0, again.stdout
        assert f"Going on: {len(before[kept])} of {len(images)} rows are done." in again.stdout
        after = written()
        assert after[kept] == before[kept]
        assert sorted(itertools.chain(*after.values())) == [image.name for image in images]

        assert "finished: nothing to do" in run(*predict, folder=tmp_path).stdout
