"""The Predictor that every contender runs: a MobileNet for JPEGs, with weights drawn at random, as its speed is all
that is measured. It is put into a made project in place of the project's own, where the other contenders import it."""

import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from .preprocessing import SIZE, decode

# Output channels and stride of the depthwise separable convolutions of MobileNet (Howard et al. 2017, arXiv
# 1704.04861, table 1), at a width of 0.85: 0.4 billion multiplications and additions an image.
LAYERS = [(64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), *[(512, 1)] * 5, (1024, 2), (1024, 1)]
WIDTH = 0.85


def make_model() -> nn.Sequential:
    channels = int(32 * WIDTH)
    layers: list[nn.Module] = [*_convolution(3, channels, stride=2, kernel=3)]
    for filters, stride in LAYERS:
        layers += _convolution(channels, channels, stride=stride, kernel=3, groups=channels)
        layers += _convolution(channels, int(filters * WIDTH))
        channels = int(filters * WIDTH)
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 1000))


def _convolution(channels: int, filters: int, stride: int = 1, kernel: int = 1, groups: int = 1) -> list[nn.Module]:
    return [nn.Conv2d(channels, filters, kernel, stride, kernel // 2, groups=groups), nn.ReLU(inplace=True)]


def write_checkpoint(path: Path) -> None:
    torch.manual_seed(0)
    save_file(make_model().state_dict(), path)


class Predictor:
    decode = staticmethod(decode)
    blank: ClassVar[dict[str, np.ndarray]] = {"image": np.zeros((1, SIZE, SIZE, 3), np.uint8)}
    batch_format = "numpy"

    def __init__(self, checkpoint: str, device: str = "cpu", precision: str = "float32") -> None:  # noqa: ARG002
        self.device = device
        self.model = make_model()
        self.model.load_state_dict(load_file(checkpoint))
        self.model = self.model.to(device, memory_format=torch.channels_last).eval()

    @torch.inference_mode()
    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        # As decoded, height and width come before the channels: in memory that is torch's channels_last.
        images = torch.from_numpy(batch["image"]).to(self.device).permute(0, 3, 1, 2).float().div(255)
        probability, label = self.model(images).softmax(dim=1).max(dim=1)
        return {"label": label.cpu().numpy(), "probability": probability.cpu().numpy()}


class WaitingPredictor:
    """Stands in for an accelerator: it takes ten milliseconds a row, and no CPU. The images are not looked at."""

    blank: ClassVar[dict[str, np.ndarray]] = {"image": np.zeros((1, 1), np.uint8)}
    batch_format = "numpy"

    def __init__(self, *_: Any, **__: Any) -> None:
        pass

    @staticmethod
    def decode(_row: Mapping[str, Any]) -> dict[str, np.ndarray]:
        return {"image": np.zeros(1, np.uint8)}

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        time.sleep(0.01 * len(batch["image"]))
        return {"label": batch["image"][:, 0]}


if os.environ.get("WAITING_MODEL"):
    Predictor = WaitingPredictor  # type: ignore[misc, assignment]
