"""`preprocess` of the tables example with pandas and with Modin, and the same step in Ray Data: time and peak memory.

    python benchmarks/preprocessing.py compare [--megabytes 10 100 300 1000 2000]
    python benchmarks/preprocessing.py limit   [--megabytes 1500] [--limit 3]     in a cgroup of so many GiB; as root

It runs in an environment that has the made project: `nox -s benchmark_preprocessing` makes it. The tables are the
example's own raw data, again and again, each time with other sample numbers.
"""

import argparse
import json
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import psutil
import pyarrow.parquet as pq
from my_ray_project.data import write_raw_data

HERE = Path(__file__).parent
FIGURES = ("seconds", "peak_bytes", "rows")
CGROUPS = Path("/sys/fs/cgroup/memory")  # of version 1; where it is version 2, memory.max in a group of its own


def make_tables(folder: Path, megabytes: int) -> int:
    """Write raw data of about so many megabytes, and return how many samples it has."""
    write_raw_data(folder)
    header, *lines = (folder / "measurements.csv").read_text().splitlines()
    rests = [line.partition(",") for line in lines]
    size = copies = 0
    with (folder / "measurements.csv").open("w") as file:
        file.write(header + "\n")
        while size < megabytes * 10**6:
            block = "".join(f"{int(number) + 1000 * copies},{rest}\n" for number, _, rest in rests)
            size += file.write(block)
            copies += 1
    return 569 * copies


def run(engine: str, raw: Path, output: Path, group: Path | None = None) -> dict[str, Any]:
    """Run the step in a process of its own: its exit code, seconds, and the peak memory of all of its processes."""
    project = [sys.executable, "-m", "my_ray_project", "preprocess", "--engine", engine]
    own = [sys.executable, str(HERE / "contenders" / "ray_data_preprocessing.py")]
    command = [*(own if engine == "ray_data" else project), "--input", str(raw), "--output", str(output)]
    if group:  # in a mount namespace where the group's limit is the machine's, as it is in a container: Ray looks there
        inside = f'echo $$ > {group}/cgroup.procs && mount --bind {group} {CGROUPS} && exec "$@"'
        command = ["unshare", "--mount", "sh", "-c", inside, "sh", *command]
    started, peak = time.time(), 0
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    while process.poll() is None:
        peak = max(peak, memory_of(process.pid))
        time.sleep(0.3)
    seconds = time.time() - started
    assert process.stderr
    rows = sum(pq.read_metadata(path).num_rows for path in output.glob("*.parquet"))
    last = " ".join(process.stderr.read().splitlines()[-2:])
    return {"code": process.returncode, "seconds": seconds, "peak_bytes": peak, "rows": rows, "error": last[:300]}


def memory_of(pid: int) -> int:
    """Bytes that a process and its descendants hold, what they share counted once."""
    total = 0
    try:
        family = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
    except psutil.Error:
        return 0
    for each in family:
        try:
            total += each.memory_full_info().pss
        except psutil.Error:
            continue
    return total


def compare(folder: Path, sizes: list[int]) -> None:
    results = []
    print("| megabytes | way | seconds | peak memory, GiB |\n| --- | --- | --- | --- |")
    for size in sizes:
        samples = make_tables(folder / f"raw-{size}", size)
        for engine in ("pandas", "modin", "ray_data"):
            result = run(engine, folder / f"raw-{size}", folder / f"{engine}-{size}")
            killed = "killed after " if (engine, result["code"]) == ("pandas", -signal.SIGKILL) else ""  # by the system
            assert killed or (result["code"], result["rows"]) == (0, samples), result
            results.append({"megabytes": size, "way": engine, **{name: result[name] for name in ("code", *FIGURES)}})
            gigabytes = result["peak_bytes"] / 2**30
            print(f"| {size} | {engine} | {killed}{result['seconds']:.1f} | {gigabytes:.2f} |", flush=True)
            if engine == "ray_data" and size == sizes[0]:  # so what is timed is the same step
                check(folder / f"{engine}-{size}", folder)
            for output in folder.glob(f"{engine}-{size}*"):
                shutil.rmtree(output)
        shutil.rmtree(folder / f"raw-{size}")
        (HERE / "results" / "preprocessing.json").write_text(json.dumps(results, indent=1) + "\n")


def limit(folder: Path, size: int, gigabytes: float) -> None:
    samples, started = make_tables(folder / "raw", size), time.time()
    group = CGROUPS / "ray-template-benchmark"
    group.mkdir(exist_ok=True)
    try:
        (group / "memory.limit_in_bytes").write_text(str(int(gigabytes * 2**30)))
        for engine in ("pandas", "modin"):
            result = run(engine, folder / "raw", folder / engine, group)
            print(f"{engine}: {result}, of {samples} samples", flush=True)
            assert engine == "modin" or result["code"] == -signal.SIGKILL, result
        assert result["code"] == 0, result
        assert result["rows"] == samples, result
        print(f"Ray spilled {spilled_megabytes(started)} MiB to disk.", flush=True)
        check(folder / "modin", folder)
        print(f"All {samples} rows are right.")
    finally:
        deadline = time.time() + 30
        while (group / "cgroup.procs").read_text() and time.time() < deadline:
            time.sleep(0.5)
        group.rmdir()


def spilled_megabytes(started: float) -> int:
    """MiB of objects that Ray wrote to disk since then, for want of memory: some, or this was no test."""
    logs = [log for log in Path("/tmp/ray").glob("session_2*/logs/raylet.out") if log.stat().st_mtime > started]
    spilled = [int(megabytes) for log in logs for megabytes in re.findall(r"Spilled (\d+) MiB", log.read_text())]
    assert spilled, "Ray spilled nothing: the table fitted into memory"
    return max(spilled)


def check(manifest: Path, folder: Path) -> None:
    """See that each copy of the raw data came out as pandas has it from one copy, in a process without a limit."""
    write_raw_data(folder / "once")
    assert run("pandas", folder / "once", folder / "right")["code"] == 0
    right = pd.read_parquet(folder / "right").set_index("id").sort_index()
    ids = np.sort(pq.read_table(manifest, columns=["id"])["id"].to_numpy())
    copies = len(ids) // len(right)
    assert (ids == (right.index.to_numpy() + 1000 * np.arange(copies)[:, None]).ravel()).all()
    for path in manifest.glob("*.parquet"):
        part = pq.read_table(path).to_pandas(ignore_metadata=True).set_index("id")  # Ray Data notes types of its own
        expected = right.loc[part.index % 1000].set_index(part.index)
        pd.testing.assert_frame_equal(part, expected, check_exact=True, check_dtype=False)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("compare", "limit"))
    parser.add_argument("--megabytes", type=int, nargs="+")
    parser.add_argument("--limit", type=float, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        if options.what == "compare":
            compare(Path(name), options.megabytes or [10, 100, 300, 1000, 2000])
        else:
            limit(Path(name), (options.megabytes or [1500])[0], options.limit)


if __name__ == "__main__":
    main()
