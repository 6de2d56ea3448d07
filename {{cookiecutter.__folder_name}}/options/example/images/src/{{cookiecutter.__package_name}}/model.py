"""The model and its checkpoint file. Plain torch: the Predictor needs this module, and no Ray."""

import json
from pathlib import Path

import fsspec
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

CHECKPOINT_FILE = "model.safetensors"


class DigitClassifier(nn.Module):
    """A small convolutional network: two convolutions, pooling, two linear layers."""

    def __init__(self, width: int = 32, classes: int = 10) -> None:
        super().__init__()
        self.hyperparameters = {"width": width, "classes": classes}
        self.layers = nn.Sequential(
            nn.Conv2d(1, width, kernel_size=3, padding=1),
            nn.ReLU(),
            nn.Conv2d(width, 2 * width, kernel_size=3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Dropout(0.25),
            nn.Linear(2 * width * 4 * 4, 4 * width),
            nn.ReLU(),
            nn.Linear(4 * width, classes),
        )

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Logits, float32 (N, classes), of grey images, uint8 (N, 8, 8).

        Pixels are normalised here and not in preprocessing: until the model they travel as single bytes.
        """
        logits: torch.Tensor = self.layers(images.unsqueeze(1).float().div(255))
        return logits


def save_model(model: DigitClassifier, path: Path) -> None:
    """Write weights and hyperparameters to one safetensors file, which, unlike a pickle, can't run code."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    save_file(tensors, path, metadata={"hyperparameters": json.dumps(model.hyperparameters)})


def load_model(path: str) -> DigitClassifier:
    """Read a model that `save_model` wrote, from a path or a URI.

    Raises:
        OSError: the file can't be read.
        safetensors.SafetensorError: it is not a whole safetensors file.
    """
    local = fsspec.open_local(f"simplecache::{path}" if "://" in path else path)
    with safe_open(local, framework="pt") as checkpoint:
        model = DigitClassifier(**json.loads(checkpoint.metadata()["hyperparameters"]))
        model.load_state_dict({name: checkpoint.get_tensor(name) for name in checkpoint.keys()})  # noqa: SIM118
    return model
