"""The model and its checkpoint file: XGBoost's own format, which, unlike a pickle, can't run code. No Ray needed."""

from pathlib import Path

import fsspec
import xgboost

CHECKPOINT_FILE = "model.ubj"


def save_model(model: xgboost.Booster, path: Path) -> None:
    """Write the trees, and the names of the features that they ask for."""
    model.save_model(path)


def load_model(path: str) -> xgboost.Booster:
    """Read a model that `save_model` wrote, from a path or a URI.

    Raises:
        OSError: the file can't be read.
        xgboost.core.XGBoostError: it is no whole model.
    """
    local = fsspec.open_local(f"simplecache::{path}" if "://" in path else path)
    return xgboost.Booster(model_file=bytearray(Path(local).read_bytes()))
