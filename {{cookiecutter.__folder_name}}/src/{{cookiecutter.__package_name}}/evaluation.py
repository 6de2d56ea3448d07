"""How good are the predictions? Compares them with the labels of the rows that training did not see."""

from pathlib import Path

import pandas as pd

from . import plots
from .errors import UserError


def evaluate(manifest: Path, predictions: Path, plot: Path | None = None) -> tuple[float, int]:
    """The share of right labels among the manifest's rows of the split "test", and how many rows those are.

    A row that failed counts as wrong.

    Args:
        manifest: what `preprocess` wrote.
        predictions: the folder that `predict` wrote.
        plot: where to draw the confusion matrix.

    Raises:
        UserError: one of the two is not there.
    """
    for path, command in ((manifest, "preprocess"), (predictions / "predictions", "predict")):
        if not path.exists():
            raise UserError(f"{path} is missing: `{command}` writes it")
    labels = pd.read_parquet(manifest, columns=["id", "label", "split"]).query("split == 'test'")
    predicted = pd.read_parquet(predictions / "predictions", columns=["id", "label"])
    both = labels.merge(predicted, on="id", how="left", suffixes=("", "_predicted"))
    if plot:
        table = pd.crosstab(both["label"], both["label_predicted"])
        table = table.reindex(columns=table.index, fill_value=0)  # every label is a column, in the rows' order
        plot.parent.mkdir(parents=True, exist_ok=True)
        plots.draw_confusion(list(table.index), table.to_numpy(), plot)
    return float((both["label"] == both["label_predicted"]).mean()), len(both)
