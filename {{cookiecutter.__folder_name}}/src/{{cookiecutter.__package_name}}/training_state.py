"""What a training knows of itself: its last model and its best one, and the metrics of every epoch."""

import json
import math
import shutil
import tempfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import ray.train

from .folders import whole_folder

METRIC = "validation_loss"  # chooses the best epoch, and the best of Ray Tune's trials; the less, the better
BEST, HISTORY = "best", "epochs.json"


def loss(epoch: Mapping[str, Any]) -> float:
    """What chooses, of an epoch's metrics: one that is no number, of a model that diverged, is the worst."""
    value = float(epoch[METRIC])
    return math.inf if math.isnan(value) else value


def read_epochs(folder: Path) -> list[dict[str, Any]]:
    """The epochs of a training, those of before a kill too, from the newest whole checkpoint in Ray Train's folder."""
    histories: list[list[dict[str, Any]]] = [[]]
    for checkpoint in folder.glob("checkpoint_*[0-9]"):  # and none that is `.partial`
        with suppress(OSError, ValueError):  # it is being written or removed, or a kill left it half-written
            histories.append(json.loads((checkpoint / HISTORY).read_text()))
    return max(histories, key=len)


class TrainingState:
    """The folder that becomes a checkpoint after every epoch; after a kill it is what the last one left.

    Args:
        kept: where the checkpoints are kept, if not by Ray Train, which keeps none without workers.

    Attributes:
        folder: what `report` is given writes into it, and reads from it when the training goes on.
        epochs: the metrics of the epochs that are done.
    """

    def __init__(self, kept: Path | None = None) -> None:
        self.kept = kept
        self.folder = Path(tempfile.mkdtemp(prefix="training-"))
        self.epochs: list[dict[str, Any]] = []
        if earlier := _whole_checkpoints(kept):  # of which Ray Train is to know, if no epoch is left to do
            ray.train.report({}, checkpoint=ray.train.Checkpoint.from_directory(str(earlier[-1])))
        if checkpoint := ray.train.get_checkpoint():
            checkpoint.to_directory(str(self.folder))
            self.epochs = json.loads((self.folder / HISTORY).read_text())

    def report(self, metrics: dict[str, Any], save: Callable[[Path], None]) -> None:
        """Report an epoch to Ray Train; the first worker's checkpoint has its model, and the best one so far.

        Args:
            metrics: of the epoch and of all workers; one of them is `METRIC`.
            save: writes the model, and what else the training needs to go on, into the folder that it is given.
        """
        best = not self.epochs or loss(metrics) < min(map(loss, self.epochs))
        self.epochs.append({"epoch": len(self.epochs) + 1, **metrics})
        checkpoint = None
        if ray.train.get_context().get_world_rank() == 0:
            save(self.folder)
            (self.folder / HISTORY).write_text(json.dumps(self.epochs))
            if best:
                shutil.rmtree(self.folder / BEST, ignore_errors=True)
                shutil.copytree(self.folder, self.folder / BEST)
            folder = self._keep(self.kept) if self.kept else self.folder
            checkpoint = ray.train.Checkpoint.from_directory(str(folder))
        ray.train.report(self.epochs[-1], checkpoint=checkpoint)

    def _keep(self, kept: Path) -> Path:
        """Keep a copy of the folder in place of the one before; at any moment, one of them is whole."""
        earlier, path = _whole_checkpoints(kept), kept / f"checkpoint_{len(self.epochs):06}"
        with whole_folder(path) as partial:
            shutil.copytree(self.folder, partial, dirs_exist_ok=True)
        for each in earlier:
            shutil.rmtree(each)
        return path


def _whole_checkpoints(kept: Path | None) -> list[Path]:
    return sorted(kept.glob("checkpoint_??????")) if kept else []
