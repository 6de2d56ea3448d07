"""What a training knows of itself: its last model and its best one, and the metrics of every epoch."""

import json
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ray.train

METRIC = "validation_loss"  # chooses the best epoch, and the best of Ray Tune's trials; the less, the better
BEST, HISTORY = "best", "epochs.json"


class TrainingState:
    """The folder that becomes a checkpoint after every epoch; after a kill it is what the last one left.

    Attributes:
        folder: what `report` is given writes into it, and reads from it when the training goes on.
        epochs: the metrics of the epochs that are done.
    """

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="training-"))
        self.epochs: list[dict[str, Any]] = []
        if checkpoint := ray.train.get_checkpoint():
            checkpoint.to_directory(str(self.folder))
            self.epochs = json.loads((self.folder / HISTORY).read_text())

    def report(self, metrics: dict[str, Any], save: Callable[[Path], None]) -> None:
        """Report an epoch to Ray Train; the first worker's checkpoint has its model, and the best one so far.

        Args:
            metrics: of the epoch and of all workers; one of them is `METRIC`.
            save: writes the model, and what else the training needs to go on, into the folder that it is given.
        """
        best = metrics[METRIC] < min((epoch[METRIC] for epoch in self.epochs), default=float("inf"))
        self.epochs.append({"epoch": len(self.epochs) + 1, **metrics})
        checkpoint = None
        if ray.train.get_context().get_world_rank() == 0:
            save(self.folder)
            (self.folder / HISTORY).write_text(json.dumps(self.epochs))
            if best:
                shutil.rmtree(self.folder / BEST, ignore_errors=True)
                shutil.copytree(self.folder, self.folder / BEST)
            checkpoint = ray.train.Checkpoint.from_directory(str(self.folder))
        ray.train.report(self.epochs[-1], checkpoint=checkpoint)
