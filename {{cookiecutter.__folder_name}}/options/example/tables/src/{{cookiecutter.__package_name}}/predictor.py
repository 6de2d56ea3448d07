"""Your model goes here: the one class that `predict` needs. Plain pandas and XGBoost, so it runs without Ray, too.

To put your own model in, change the lines marked (1) to (4); docs/ shows it done with a second model.
"""

from typing import ClassVar

import numpy as np
import pandas as pd

from .model import load_model
from .preprocessing import FEATURES


class Predictor:
    """Loads a checkpoint once, then labels one data frame a call. Ray makes one on every actor of the pool.

    Args:
        checkpoint: path of the file that `train` wrote.
        device: "cpu" or "cuda".
        precision: not used: XGBoost computes in float32.

    Raises:
        OSError, xgboost.core.XGBoostError: the checkpoint can't be read.
    """

    # (1) What a batch is, and which columns it needs: `blank` is a batch of one row. The rows come as `preprocess`
    # wrote them; where they must be read from files first, one by one, a static method `decode` does that.
    batch_format = "pandas"
    blank: ClassVar[pd.DataFrame] = pd.DataFrame({name: [0.0] for name in FEATURES})

    def __init__(self, checkpoint: str, device: str = "cpu", precision: str = "float32") -> None:  # noqa: ARG002
        self.model = load_model(checkpoint)  # (2) Your model, and how its checkpoint is read.
        self.model.set_param({"device": device})

    def __call__(self, batch: pd.DataFrame) -> dict[str, np.ndarray]:
        """Label a batch.

        Args:
            batch: float64 columns `preprocessing.FEATURES`; a cell that is not a number is a missing value.

        Returns:
            label: str (N,), "malignant" or "benign"; probability: float32 (N,), how probable malignant is.
        """
        features = batch[FEATURES].to_numpy(np.float32, na_value=np.nan)  # (3) What goes into the model.
        probability = self.model.inplace_predict(features, validate_features=False)
        label = np.where(probability > 0.5, "malignant", "benign")
        return {"label": label, "probability": probability}  # (4) What comes out: a column an entry.
