"""The model and its checkpoint file. Plain torch and SciPy: the Predictor needs this module, and no Ray."""

import json
from pathlib import Path

import fsspec
import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from scipy.sparse import csr_matrix
from torch import nn

from .data import LIBRARIES
from .sparse import SIZE

CHECKPOINT_FILE = "model.safetensors"


class SparseClassifier(nn.Module):
    """Two linear layers. The first takes sparse rows: it adds up the weights of the features that a row has."""

    def __init__(
        self, width: int = 32, dropout: float = 0.3, features: int = SIZE, classes: int = len(LIBRARIES)
    ) -> None:
        super().__init__()
        self.hyperparameters = {"width": width, "dropout": dropout, "features": features, "classes": classes}
        self.first = nn.EmbeddingBag(features, width, mode="sum")
        nn.init.normal_(self.first.weight, std=0.1)
        self.last = nn.Sequential(nn.ReLU(), nn.Dropout(dropout), nn.Linear(width, classes))

    def forward(self, indices: torch.Tensor, offsets: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
        """Logits, float32 (N, classes), of N rows in compressed form, as `to_tensors` makes them."""
        logits: torch.Tensor = self.last(self.first(indices, offsets, per_sample_weights=values))
        return logits


def to_tensors(
    matrix: csr_matrix, device: str | torch.device = "cpu"
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """What the model takes: indices, int64 (nonzeros,), offsets, int64 (N,), and values, float32 (nonzeros,)."""
    arrays = matrix.indices.astype(np.int64), matrix.indptr[:-1].astype(np.int64), matrix.data.astype(np.float32)
    indices, offsets, values = (torch.from_numpy(array).to(device, non_blocking=True) for array in arrays)
    return indices, offsets, values


def save_model(model: SparseClassifier, path: Path) -> None:
    """Write weights and hyperparameters to one safetensors file, which, unlike a pickle, can't run code."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    save_file(tensors, path, metadata={"hyperparameters": json.dumps(model.hyperparameters)})


def load_model(path: str) -> SparseClassifier:
    """Read a model that `save_model` wrote, from a path or a URI.

    Raises:
        OSError: the file can't be read.
        safetensors.SafetensorError: it is not a whole safetensors file.
    """
    local = fsspec.open_local(f"simplecache::{path}" if "://" in path else path)
    with safe_open(local, framework="pt") as checkpoint:
        model = SparseClassifier(**json.loads(checkpoint.metadata()["hyperparameters"]))
        model.load_state_dict({name: checkpoint.get_tensor(name) for name in checkpoint.keys()})  # noqa: SIM118
    return model
