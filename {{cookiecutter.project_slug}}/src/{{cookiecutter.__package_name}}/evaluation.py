"""How good are the predictions? Compares them with the labels of the rows that training did not see."""

from pathlib import Path

import pandas as pd


def held_out_accuracy(manifest: Path, predictions: Path) -> tuple[float, int]:
    """The share of right labels among the manifest's rows of the split "test", and how many rows those are.

    A row that failed counts as wrong.
    """
    labels = pd.read_parquet(manifest, columns=["id", "label", "split"]).query("split == 'test'")
    predicted = pd.read_parquet(predictions / "predictions", columns=["id", "label"])
    both = labels.merge(predicted, on="id", how="left", suffixes=("", "_predicted"))
    return float((both["label"] == both["label_predicted"]).mean()), len(both)
