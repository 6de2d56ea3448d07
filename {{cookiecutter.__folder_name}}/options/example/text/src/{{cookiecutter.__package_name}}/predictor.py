"""Your model goes here: the one class that `predict` needs. Plain Python, SciPy and torch, so it runs without Ray too.

To put your own model in, change the lines marked (1) to (4); docs/ shows it done with a second model.
"""

from typing import ClassVar

import numpy as np
import pyarrow as pa
import torch
from scipy.sparse import csr_matrix

from .data import LIBRARIES
from .model import load_model, to_tensors
from .sparse import SIZE, from_vectors, to_vectors


class Predictor:
    """Loads a checkpoint once, then labels one batch of sparse rows a call. Ray makes one on every actor of the pool.

    Args:
        checkpoint: path of the file that `train` wrote.
        device: "cpu" or "cuda".
        precision: not used: sums of sparse rows are in float32.

    Raises:
        OSError, safetensors.SafetensorError: the checkpoint can't be read.
    """

    # (1) What a batch is, and which columns it needs: `blank` is a batch of one row. The rows come as `preprocess`
    # wrote them; where they must be read from files first, one by one, a static method `decode` does that.
    batch_format = "pyarrow"
    blank: ClassVar[pa.Table] = pa.table({"features": to_vectors(csr_matrix((1, SIZE)))})

    def __init__(self, checkpoint: str, device: str = "cpu", precision: str = "float32") -> None:  # noqa: ARG002
        self.device = device
        self.model = load_model(checkpoint).to(device).eval()  # (2) Your model, and how its checkpoint is read.

    @torch.inference_mode()
    def __call__(self, batch: pa.Table) -> dict[str, np.ndarray]:
        """Label a batch.

        Args:
            batch: features, vectors as in `sparse.py`, N of them.

        Returns:
            label: str (N,), the most probable library; probability: float32 (N,), how probable it is.
        """
        rows = to_tensors(from_vectors(batch["features"]), self.device)  # (3) What goes into the model.
        probability, label = self.model(*rows).softmax(dim=1).max(dim=1)
        # (4) What comes out: a column an entry.
        return {"label": np.array(LIBRARIES)[label.cpu().numpy()], "probability": probability.cpu().numpy()}
