"""Your model goes here: the one class that `predict` needs. Plain Python and torch, so it runs without Ray too.

To put your own model in, change the lines marked (1) to (4); docs/ shows it done with a second model.
"""

from typing import ClassVar

import numpy as np
import torch

from .model import load_model
from .preprocessing import decode


class Predictor:
    """Loads a checkpoint once, then labels one batch of images a call. Ray makes one on every actor of the pool.

    Args:
        checkpoint: path of the file that `train` wrote.
        device: "cpu" or "cuda".
        precision: "float32" or "bfloat16", for the arithmetic on a GPU; a CPU always uses float32.

    Raises:
        OSError, safetensors.SafetensorError: the checkpoint can't be read.
    """

    # (1) From a row of the manifest to arrays; runs on CPUs, beside the model. Each array has the same shape and dtype
    # in every row, those of `blank`, a batch of one row that stands in for what can't be decoded.
    decode = staticmethod(decode)
    blank: ClassVar[dict[str, np.ndarray]] = {"image": np.zeros((1, 8, 8), np.uint8)}
    batch_format = "numpy"  # a batch is a dictionary of arrays; "pandas" and "pyarrow" make it a table

    def __init__(self, checkpoint: str, device: str = "cpu", precision: str = "float32") -> None:
        self.device = device
        self.low_precision = device == "cuda" and precision == "bfloat16"
        self.model = load_model(checkpoint).to(device).eval()  # (2) Your model, and how its checkpoint is read.

    @torch.inference_mode()
    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Label a batch.

        Args:
            batch: image, uint8 (N, 8, 8).

        Returns:
            label: int64 (N,), the most probable digit; probability: float32 (N,), how probable it is.
        """
        images = torch.from_numpy(batch["image"]).to(self.device, non_blocking=True)  # (3) What goes into the model.
        with torch.autocast(self.device, torch.bfloat16, enabled=self.low_precision):
            logits = self.model(images)
        probability, label = logits.float().softmax(dim=1).max(dim=1)  # (4) What comes out: a column an entry.
        return {"label": label.cpu().numpy(), "probability": probability.cpu().numpy()}
