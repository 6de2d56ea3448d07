"""The ways to predict a folder of images with which `predict` is compared, each in a process of its own.

    python contenders.py NAME IMAGES CHECKPOINT OUTPUT [SETTINGS AS JSON]

The last line printed is JSON: `first`, the seconds from the start of the process to the first prediction, and `steady`,
rows a second from the beginning of the first batch to the end.
"""

import json
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
from my_ray_project.predictor import Predictor
from my_ray_project.preprocessing import SIZE, decode

STARTED = psutil.Process().create_time()


def note_beginning(output: Path) -> None:
    """Note beside `output` when the first batch began, of whichever process had it."""
    with suppress(FileExistsError):
        output.with_suffix(".began").touch(exist_ok=False)


def report(output: Path, rows: int) -> dict[str, float]:
    """The figures of a way that writes Parquet as it goes, from processes of its own."""
    began = output.with_suffix(".began").stat().st_mtime
    first = min(path.stat().st_mtime for path in output.rglob("*.parquet"))
    return {"first": first - STARTED, "steady": rows / (time.time() - began), "rows": rows}


class Stopwatch:
    """Started with the first batch: when that began, when it was predicted, and how many rows there were until now."""

    def __init__(self) -> None:
        self.began, self.first = time.time(), 0.0
        self.rows = 0

    def count(self, rows: int) -> None:
        self.first = self.first or time.time()
        self.rows += rows

    def report(self) -> dict[str, float]:
        return {"first": self.first - STARTED, "steady": self.rows / (time.time() - self.began), "rows": self.rows}


def data_loader(
    files: list[str], checkpoint: str, output: Path, workers: int = 1, threads: int = 2, batch_size: int = 16
) -> dict[str, float]:
    """A loop over a DataLoader, the plain way without a framework, which writes Parquet as it goes."""
    import torch
    from torch.utils.data import DataLoader, Dataset

    class Images(Dataset[tuple[str, np.ndarray]]):
        def __len__(self) -> int:
            return len(files)

        def __getitem__(self, index: int) -> tuple[str, np.ndarray]:
            return files[index], decode({"path": files[index]})["image"]

    def collate(rows: list[tuple[str, np.ndarray]]) -> tuple[list[str], torch.Tensor]:
        return [path for path, _ in rows], torch.from_numpy(np.stack([image for _, image in rows]))

    torch.set_num_threads(threads)
    loader = DataLoader(Images(), batch_size, num_workers=workers, collate_fn=collate)
    predictor, writer = Predictor(checkpoint), None
    watch = Stopwatch()
    for paths, images in loader:
        outputs = predictor({"image": images.numpy()})
        watch.count(len(paths))
        table = pa.table({"id": paths, **outputs})
        writer = writer or pq.ParquetWriter(output / "predictions.parquet", table.schema)
        writer.write_table(table)
    assert writer
    writer.close()
    return watch.report()


def model_alone(
    files: list[str], checkpoint: str, _output: Path, threads: int = 2, batch_size: int = 16
) -> dict[str, float]:
    """The model on images that are decoded already: the limit, not a way to predict. The decoding is timed apart."""
    import torch

    torch.set_num_threads(threads)
    few = files[:512]
    started = time.time()
    images = np.stack([decode({"path": path})["image"] for path in few])
    decoded = time.time()
    predictor = Predictor(checkpoint)
    predictor({"image": images[:batch_size]})
    watch = Stopwatch()
    for start in range(0, len(few), batch_size):
        predictor({"image": images[start : start + batch_size]})
        watch.count(len(images[start : start + batch_size]))
    return watch.report() | {"decode_seconds": (decoded - started) / len(few)}


def textbook(files: list[str], checkpoint: str, output: Path, concurrency: int = 1) -> dict[str, float]:
    """Ray Data as its user guide has it for images. Two actors of a CPU each would stand still on two CPUs."""
    import ray
    import ray.data

    class Classify:
        def __init__(self) -> None:
            self.predictor = Predictor(checkpoint)

        def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
            note_beginning(output)
            return {"id": batch["path"], **self.predictor({"image": batch["image"]})}

    ray.init(log_to_driver=False, logging_level="ERROR")
    dataset = ray.data.read_images(str(Path(files[0]).parent), size=(SIZE, SIZE), mode="RGB", include_paths=True)
    dataset = dataset.map_batches(
        Classify, batch_size=16, compute=ray.data.ActorPoolStrategy(size=concurrency), num_cpus=1
    )
    dataset.write_parquet(str(output))
    return report(output, len(files))


def daft(files: list[str], checkpoint: str, output: Path, processes: int = 2, threads: int = 1) -> dict[str, float]:
    """Daft as its user guide has it for images: download, decode and resize are its own, the model is a class."""
    import daft
    import torch
    from daft.functions import decode_image, download, resize

    @daft.cls(max_concurrency=processes, use_process=True)
    class Classify:
        def __init__(self) -> None:
            torch.set_num_threads(threads)
            self.predictor = Predictor(checkpoint)

        @daft.method.batch(return_dtype=daft.DataType.int64(), batch_size=16)
        def label(self, images: Any) -> Any:
            note_beginning(output)
            return self.predictor({"image": np.stack(images.to_pylist())})["label"]

    frame = daft.from_pydict({"id": files})
    frame = frame.with_column("image", resize(decode_image(download(frame["id"]), mode="RGB"), SIZE, SIZE))
    frame.select("id", Classify().label(frame["image"]).alias("label")).write_parquet(str(output))
    return report(output, sum(pq.read_metadata(path).num_rows for path in output.rglob("*.parquet")))


def main() -> None:
    name, images, checkpoint, output, *settings = sys.argv[1:]
    files = sorted(str(path) for path in Path(images).iterdir())
    Path(output).mkdir(parents=True)
    contender = {each.__name__: each for each in (data_loader, model_alone, textbook, daft)}[name]
    result = contender(files, checkpoint, Path(output), **json.loads(settings[0] if settings else "{}"))
    print(json.dumps({**result, "seconds": time.time() - STARTED}))


if __name__ == "__main__":
    main()
