"""Pictures beside the numbers: the epochs of a training, the trials of a tuning, and a confusion matrix."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .training_state import METRIC, loss

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def draw_epochs(epochs: Sequence[dict[str, Any]], path: Path) -> None:
    """Losses and accuracies of each epoch, side by side, with the epoch that was chosen."""
    figure = _figure(9, 3.2)
    numbers = [epoch["epoch"] for epoch in epochs]
    best = min(epochs, key=loss)["epoch"]
    for axes, kind in zip(figure.subplots(1, 2), ("loss", "accuracy"), strict=True):
        for name in [name for name in epochs[0] if name.endswith(kind)]:
            axes.plot(numbers, [epoch[name] for epoch in epochs], marker=".", label=name.replace("_", " "))
        axes.axvline(best, color="0.7", linestyle="--", label="chosen")
        axes.set(xlabel="epoch", ylabel=kind)
        axes.legend()
    figure.savefig(path, dpi=120)


def draw_trials(curves: Sequence[Sequence[float]], path: Path) -> None:
    """What chooses, by epoch, for each trial: short lines are trials that were stopped early."""
    figure = _figure(6, 3.5)
    axes = figure.subplots()
    for number, values in enumerate(curves, start=1):
        axes.plot(range(1, len(values) + 1), values, marker=".", label=f"trial {number}")
    axes.set(xlabel="epoch", ylabel=METRIC.replace("_", " "), yscale="log")
    axes.legend(fontsize="small", ncols=2)
    figure.savefig(path, dpi=120)


def draw_confusion(labels: Sequence[Any], counts: np.ndarray, path: Path) -> None:
    """Rows of `counts`, int (classes, classes), are the true labels, columns the predicted ones."""
    size = 1.5 + 0.5 * len(labels)
    figure = _figure(size + 1, size)
    axes = figure.subplots()
    axes.imshow(np.sqrt(counts), cmap="Blues")  # roots: single mistakes show beside hundreds of right ones
    for (row, column), count in np.ndenumerate(counts):
        if count:
            axes.text(column, row, str(count), ha="center", va="center", color="white" if row == column else "black")
    axes.set(xlabel="predicted", ylabel="true")
    axes.set_xticks(range(len(labels)), list(map(str, labels)), rotation=45)
    axes.set_yticks(range(len(labels)), list(map(str, labels)))
    figure.savefig(path, dpi=120)


def _figure(width: float, height: float) -> "Figure":
    """An empty picture, of so many inches."""
    from matplotlib.figure import Figure  # here: workers load this module, too, and draw nothing

    return Figure(figsize=(width, height), layout="constrained")
