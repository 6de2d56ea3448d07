"""`predict` of a made project beside other ways to predict the same images with the same model, on this machine.

    python benchmarks/inference.py compare [--rounds 5] [--images 4096]    who is how fast
    python benchmarks/inference.py memory  [--images 4000 40000]           does memory grow with the input?
    python benchmarks/inference.py scale   [--nodes 1 2 4 8]               with a model that only waits

It runs in an environment that has the made project, with the Predictor and the decoding of `contenders/` in place of
its own: `nox -s benchmark_inference` makes it. Each writes its figures into results/, as JSON, and its plot.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pyarrow.parquet as pq
from my_ray_project.predictor import write_checkpoint  # type: ignore[attr-defined]
from my_ray_project.runtime import NODE_ENVIRONMENT
from PIL import Image

HERE = Path(__file__).parent
CONTENDERS, RESULTS = HERE / "contenders", HERE / "results"
PACKAGE = "my_ray_project"
# The best of what was tried on two cores, see README.md.
SETTINGS: dict[str, dict[str, Any]] = {
    "data_loader": {"workers": 1, "threads": 2, "batch_size": 8},
    "textbook": {},
    "daft": {},
    "model_alone": {"threads": 2, "batch_size": 8},
}


def make_images(folder: Path, count: int) -> None:
    """JPEGs of about 500x400: coarse colours and a little noise. Beyond 4,096 they are links to the first ones."""
    folder.mkdir(parents=True)
    random = np.random.default_rng(0)
    for number in range(count):
        path = folder / f"{number:06}.jpg"
        if number >= 4096:
            path.hardlink_to(folder / f"{number % 4096:06}.jpg")
            continue
        width, height = random.integers(480, 521), random.integers(380, 421)
        coarse = Image.fromarray(random.integers(0, 256, (height // 12, width // 12, 3), dtype=np.uint8))
        pixels = np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC), np.int16)
        noisy = np.clip(pixels + random.integers(-8, 9, (height, width, 1)), 0, 255).astype(np.uint8)
        Image.fromarray(noisy).save(path, quality=85)


def predict(images: Path, checkpoint: Path, output: Path, *arguments: str, **environment: str) -> dict[str, Any]:
    """Run `predict`, and return its summary and the seconds to the first file of predictions and to its end."""
    command = [sys.executable, "-m", PACKAGE, "predict", "--input", images, "--checkpoint", checkpoint]
    started = time.time()
    subprocess.run(
        [*map(str, command), "--output", str(output), *arguments],
        check=True,
        env={**os.environ, **environment},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    seconds = time.time() - started
    first = min(path.stat().st_mtime for path in (output / "predictions").iterdir()) - started
    summary: dict[str, Any] = json.loads((output / "summary.json").read_text())
    assert summary["failed"] == 0
    return {"first": first, "steady": summary["rows_per_second_steady"], "seconds": seconds, "summary": summary}


def contend(name: str, images: Path, checkpoint: Path, output: Path) -> dict[str, Any]:
    command = [sys.executable, CONTENDERS / "contenders.py", name, images, checkpoint, output]
    arguments = [*map(str, command), json.dumps(SETTINGS[name])]
    # The limit is one with the allocator's settings that `predict` has; the other contenders are as plain as they come.
    environment = {**os.environ, **(NODE_ENVIRONMENT if name == "model_alone" else {})}
    finished = subprocess.run(
        arguments, check=True, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    result: dict[str, Any] = json.loads(finished.stdout.splitlines()[-1])
    return result


def compare(folder: Path, checkpoint: Path, rounds: int, count: int) -> None:
    make_images(folder / "images", count)
    runs: dict[str, list[dict[str, Any]]] = {name: [] for name in ("predict", *SETTINGS)}
    for number in range(rounds):
        for name, results in runs.items():
            output = folder / f"{name}-{number}"
            way = predict if name == "predict" else lambda *each, name=name: contend(name, *each)
            results.append(way(folder / "images", checkpoint, output))  # type: ignore[operator]
            print(
                number,
                name,
                {key: round(value, 1) for key, value in results[-1].items() if key != "summary"},
                flush=True,
            )
    write("compare", {"images": count, "runs": runs})

    def median(name: str, figure: str) -> float:
        return statistics.median(run[figure] for run in runs[name])

    whole = {name: statistics.median(count / run["seconds"] for run in runs[name]) for name in runs}
    whole["model_alone"] = median("model_alone", "steady")  # of 512 images, already decoded
    print("| | rows/s, steady | ratio | rows/s, whole | ratio | first prediction, s |")
    for name in runs:
        ratios = median(name, "steady") / median("data_loader", "steady"), whole[name] / whole["data_loader"]
        cells = [f"{median(name, 'steady'):.0f}", f"{ratios[0]:.2f}", f"{whole[name]:.0f}", f"{ratios[1]:.2f}"]
        print(f"| {name} | {' | '.join(cells)} | {median(name, 'first'):.1f} |")
    decode = median("model_alone", "decode_seconds") / (os.cpu_count() or 1)
    limit = 1 / (1 / median("model_alone", "steady") + decode)
    reached = median("predict", "steady") / limit
    print(f"limit by the model alone and the decoding: {limit:.0f} rows/s; predict reaches {reached:.2f} of it")

    figure, axes = plt.subplots(figsize=(7, 3))
    names = sorted(runs, key=lambda name: whole[name])
    axes.barh(names, [median(name, "steady") for name in names], color="#bbccee", label="steady state")
    axes.barh(names, [whole[name] for name in names], height=0.4, color="#4477aa", label="whole run")
    axes.set_xlabel(f"images a second, median of {rounds} rounds; model_alone: decoded beforehand")
    axes.legend(loc="lower right")
    save(figure, "compare")


def memory(folder: Path, checkpoint: Path, counts: Sequence[int]) -> None:
    peaks = {}
    for count in counts:
        make_images(folder / f"images-{count}", count)
        run = predict(folder / f"images-{count}", checkpoint, folder / f"run-{count}")
        peaks[count] = run["summary"]["peak_memory_bytes"]
        print(f"{count} images: {peaks[count] / 2**30:.2f} GiB", flush=True)
    write("memory", peaks)
    print(f"ratio of the last to the first: {peaks[counts[-1]] / peaks[counts[0]]:.2f}")


def scale(folder: Path, checkpoint: Path, nodes: Sequence[int]) -> None:
    from ray.cluster_utils import Cluster

    os.environ |= NODE_ENVIRONMENT | {"WAITING_MODEL": "1"}  # for the nodes' workers, too
    speeds: dict[int, tuple[float, float]] = {}  # rows a second since the first prediction, and in the second half
    for count in nodes:
        make_images(folder / f"images-{count}", 0)
        rows = 18_000 * count
        for number in range(rows):
            (folder / f"images-{count}" / f"{number:06}.jpg").write_bytes(b"")
        cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
        for _ in range(count):
            cluster.add_node(num_cpus=1, num_gpus=1, object_store_memory=200 * 2**20)
        try:
            cluster.wait_for_nodes()
            output = folder / f"run-{count}"
            run = predict(
                folder / f"images-{count}", checkpoint, output, "--num-gpus", "1", "--num-cpus", "0.5",
                RAY_ADDRESS=cluster.address,
            )  # fmt: skip
        finally:
            cluster.shutdown()
        speeds[count] = run["steady"], second_half(output / "predictions")
        print(f"{count} nodes: {speeds[count]} rows/s, {run['summary']['plan']}", flush=True)
    write("scale", speeds)
    linear = [speed / nodes[0] for speed in speeds[nodes[0]]]
    for count, both in speeds.items():
        cells = [f"{speed:.0f} | {speed / one / count:.2f}" for speed, one in zip(both, linear, strict=True)]
        print(f"| {count} | {' | '.join(cells)} |")
    figure, axes = plt.subplots(figsize=(5, 3))
    axes.plot(nodes, [linear[1] * count for count in nodes], "--", color="#bbbbbb", label="linear")
    axes.plot(nodes, [speed for _, speed in speeds.values()], "o-", color="#4477aa", label="second half of the run")
    axes.plot(nodes, [speed for speed, _ in speeds.values()], "o-", color="#bbccee", label="since the first prediction")
    axes.set_xlabel("logical nodes, an accelerator each")
    axes.set_ylabel("rows a second")
    axes.legend()
    save(figure, "scale")


def second_half(predictions: Path) -> float:
    """Rows a second in the second half of the time in which files were written: nothing is loaded any more."""
    written = sorted((path.stat().st_mtime, pq.read_metadata(path).num_rows) for path in predictions.iterdir())
    last, middle = written[-1][0], (written[0][0] + written[-1][0]) / 2
    return sum(rows for at, rows in written if at > middle) / (last - middle)


def write(name: str, figures: Any) -> None:
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.json").write_text(json.dumps(figures, indent=1) + "\n")


def save(figure: Any, name: str) -> None:
    figure.tight_layout()
    figure.savefig(RESULTS / f"{name}.svg", metadata={"Date": None})


def main() -> None:
    mpl.use("svg")
    mpl.rcParams["svg.hashsalt"] = "ray-template"
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("compare", "memory", "scale"))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--images", type=int, nargs="+")
    parser.add_argument("--nodes", type=int, nargs="+", default=[1, 2, 4, 8])
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder, checkpoint = Path(name), Path(name) / "model.safetensors"
        write_checkpoint(checkpoint)
        if options.what == "compare":
            compare(folder, checkpoint, options.rounds, (options.images or [4096])[0])
        elif options.what == "memory":
            memory(folder, checkpoint, options.images or [4000, 40_000])
        else:
            scale(folder, checkpoint, options.nodes)


if __name__ == "__main__":
    main()
