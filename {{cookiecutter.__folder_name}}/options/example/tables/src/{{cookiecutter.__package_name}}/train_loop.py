"""What each of Ray Train's workers runs, and what Ray Tune may vary."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import ray
import ray.train
import xgboost
from ray import tune
from ray.train.xgboost import XGBoostTrainer as Trainer

from .model import CHECKPOINT_FILE, load_model, save_model
from .preprocessing import FEATURES
from .training_state import TrainingState

__all__ = ["DEFAULTS", "SEARCH_SPACE", "Trainer", "train_loop"]

# An epoch is ten rounds of boosting, ten trees: what is reported, and what a killed training loses at most.
ROUNDS_PER_EPOCH = 10
DEFAULTS: dict[str, Any] = {
    "learning_rate": 0.1,
    "max_depth": 4,
    "l2_regularisation": 1.0,
    "subsample": 0.8,
    "epochs": 12,
    "seed": 0,
}
SEARCH_SPACE: dict[str, Any] = {
    "learning_rate": tune.loguniform(0.03, 0.3),
    "max_depth": tune.randint(2, 8),
    "l2_regularisation": tune.loguniform(0.1, 10),
    "subsample": tune.uniform(0.6, 1.0),
}


def train_loop(config: dict[str, Any], state: TrainingState) -> None:
    """Train on this worker's share of the datasets, from where `state` has come, and report after every epoch."""
    train, validation, test = (ray.train.get_dataset_shard(name) for name in ("train", "validation", "test"))
    quantiles = xgboost.QuantileDMatrix(Batches(train))
    measured = [
        (quantiles, "train"),
        (xgboost.QuantileDMatrix(Batches(validation), ref=quantiles), "validation"),
        (xgboost.QuantileDMatrix(Batches(test), ref=quantiles), "test"),
    ]
    parameters = {
        "objective": "binary:logistic",
        "eval_metric": ["logloss", "error"],
        "learning_rate": config["learning_rate"],
        "max_depth": config["max_depth"],
        "reg_lambda": config["l2_regularisation"],
        "subsample": config["subsample"],
        "seed": config["seed"],
        "seed_per_iteration": True,  # a training that was killed draws the same rows as one that was not
        "device": "cuda" if ray.get_gpu_ids() else "cpu",
    }
    booster = load_model(str(state.folder / CHECKPOINT_FILE)) if state.epochs else None
    for _ in range(len(state.epochs), config["epochs"]):
        log: dict[str, dict[str, list[float]]] = {}
        booster = xgboost.train(
            parameters,
            quantiles,
            ROUNDS_PER_EPOCH,
            evals=measured,
            evals_result=log,
            verbose_eval=False,
            xgb_model=booster,
        )
        metrics = {
            "train_loss": log["train"]["logloss"][-1],
            "validation_loss": log["validation"]["logloss"][-1],
            "validation_accuracy": 1 - log["validation"]["error"][-1],
            "test_accuracy": 1 - log["test"]["error"][-1],
        }

        def save(folder: Path, booster: xgboost.Booster = booster) -> None:
            save_model(booster, folder / CHECKPOINT_FILE)

        state.report(metrics, save)


class Batches(xgboost.DataIter):
    """A dataset's rows, a batch at a time: XGBoost keeps a byte or two of each value, and never the whole as floats."""

    def __init__(self, dataset: Any) -> None:
        super().__init__()
        self.dataset = dataset
        self.reset()

    def reset(self) -> None:
        """Begin with the first batch again."""
        self.batches = iter(self.dataset.iter_batches(batch_size=65_536, batch_format="pandas"))

    def next(self, input_data: Callable[..., Any]) -> bool:
        """Hand the next batch over; return whether there was one."""
        batch = next(self.batches, None)
        if batch is None:
            return False
        features = batch[FEATURES].to_numpy(np.float32, na_value=np.nan)
        input_data(data=features, label=(batch["label"] == "malignant").to_numpy(np.float32), feature_names=FEATURES)
        return True
