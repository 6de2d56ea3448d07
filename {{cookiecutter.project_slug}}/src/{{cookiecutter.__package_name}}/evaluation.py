"""How good are the predictions? Compares them with the labels of the rows that training did not see."""

from pathlib import Path

import pandas as pd

from . import plots


def evaluate(manifest: Path, predictions: Path, plot: Path | None = None) -> tuple[float, int]:
    """The share of right labels among the manifest's rows of the split "test", and how many rows those are.

    A row that failed counts as wrong.

    Args:
        manifest: what `preprocess` wrote.
        predictions: the folder that `predict` wrote.
        plot: where to draw the confusion matrix.
    """
    labels = pd.read_parquet(manifest, columns=["id", "label", "split"]).query("split == 'test'")
    predicted = pd.read_parquet(predictions / "predictions", columns=["id", "label"])
    both = labels.merge(predicted, on="id", how="left", suffixes=("", "_predicted"))
    if plot:
        table = pd.crosstab(both["label"], both["label_predicted"])
        table = table.reindex(columns=table.index, fill_value=0)  # every label is a column, in the rows' order
        plots.draw_confusion(list(table.index), table.to_numpy(), plot)
    return float((both["label"] == both["label_predicted"]).mean()), len(both)
