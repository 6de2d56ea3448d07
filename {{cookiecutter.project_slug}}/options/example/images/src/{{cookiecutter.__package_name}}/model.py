"""The model, its checkpoint file, and the function that each of Ray Train's workers runs."""

import json
import tempfile
from pathlib import Path
from typing import Any

import fsspec
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

CHECKPOINT_FILE = "model.safetensors"
DEFAULTS: dict[str, Any] = {"width": 32, "learning_rate": 0.003, "weight_decay": 0.01, "epochs": 12, "seed": 0}


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


def train_on_worker(config: dict[str, Any]) -> None:
    """Train on this worker's share of the datasets "train" and "test", and report metrics after every epoch."""
    import ray.train.torch  # here, because the Predictor needs this module, and no Ray

    torch.manual_seed(config["seed"])
    device = ray.train.torch.get_device()
    model = DigitClassifier(config["width"])
    network = ray.train.torch.prepare_model(model)  # on the device, and one of several if there are several workers
    optimizer = torch.optim.AdamW(network.parameters(), lr=config["learning_rate"], weight_decay=config["weight_decay"])
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, config["epochs"])
    folder = Path(tempfile.mkdtemp(prefix="checkpoint-"))
    shards = {name: ray.train.get_dataset_shard(name) for name in ("train", "test")}

    for epoch in range(1, config["epochs"] + 1):
        network.train()
        for batch in shards["train"].iter_torch_batches(
            batch_size=64, local_shuffle_buffer_size=2048, local_shuffle_seed=config["seed"] + epoch, device=device
        ):
            loss = nn.functional.cross_entropy(network(batch["image"]), batch["label"])
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        schedule.step()

        network.eval()
        counts = torch.zeros(2, device=device)  # right, all
        with torch.inference_mode():
            for batch in shards["test"].iter_torch_batches(batch_size=512, device=device):
                hits = network(batch["image"]).argmax(dim=1) == batch["label"]
                counts += torch.stack([hits.sum(), torch.tensor(len(hits), device=device)])
        if torch.distributed.is_initialized():
            torch.distributed.all_reduce(counts)
        metrics = {"epoch": epoch, "loss": loss.item(), "accuracy": (counts[0] / counts[1]).item()}
        checkpoint = None
        if ray.train.get_context().get_world_rank() == 0:
            folder.mkdir(exist_ok=True)
            save_model(model, folder / CHECKPOINT_FILE)
            checkpoint = ray.train.Checkpoint.from_directory(folder)
        ray.train.report(metrics, checkpoint=checkpoint, delete_local_checkpoint_after_upload=True)
