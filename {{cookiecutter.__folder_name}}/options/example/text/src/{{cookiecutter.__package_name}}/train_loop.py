"""What each of Ray Train's workers runs, and what Ray Tune may vary."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import ray.train
import ray.train.torch
import torch
from ray import tune
from ray.train.torch import TorchTrainer as Trainer
from torch import nn

from .data import LIBRARIES
from .model import CHECKPOINT_FILE, SparseClassifier, load_model, save_model, to_tensors
from .sparse import from_vectors
from .training_state import TrainingState

__all__ = ["DEFAULTS", "SEARCH_SPACE", "Trainer", "train_loop"]

DEFAULTS: dict[str, Any] = {
    "width": 32,
    "learning_rate": 0.01,
    "weight_decay": 0.01,
    "dropout": 0.3,
    "epochs": 8,
    "seed": 0,
}
SEARCH_SPACE: dict[str, Any] = {
    "width": tune.choice([16, 32, 64]),
    "learning_rate": tune.loguniform(1e-3, 5e-2),
    "weight_decay": tune.loguniform(1e-3, 1e-1),
    "dropout": tune.uniform(0, 0.6),
}


def train_loop(config: dict[str, Any], state: TrainingState) -> None:
    """Train on this worker's share of the datasets, from where `state` has come, and report after every epoch."""
    device = ray.train.torch.get_device()
    resumed = bool(state.epochs)
    torch.manual_seed(config["seed"])
    new = SparseClassifier(config["width"], config["dropout"])
    model = load_model(str(state.folder / CHECKPOINT_FILE)) if resumed else new
    network = ray.train.torch.prepare_model(model)  # on the device, and one of several if there are several workers
    optimizer = torch.optim.AdamW(
        network.parameters(), lr=config["learning_rate"], weight_decay=config["weight_decay"], fused=True
    )
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, config["epochs"])
    if resumed:
        saved = torch.load(state.folder / "optimizer.pt", weights_only=True)
        optimizer.load_state_dict(saved["optimizer"])
        schedule.load_state_dict(saved["schedule"])
    shards = {name: ray.train.get_dataset_shard(name) for name in ("train", "validation", "test")}

    def save(folder: Path) -> None:
        save_model(model, folder / CHECKPOINT_FILE)
        state_dicts = {"optimizer": optimizer.state_dict(), "schedule": schedule.state_dict()}
        torch.save(state_dicts, folder / "optimizer.pt")

    for epoch in range(len(state.epochs), config["epochs"]):
        torch.manual_seed(config["seed"] + epoch)  # of dropout: the same, whether or not the training was killed
        network.train()
        shuffled = {"local_shuffle_buffer_size": 4096, "local_shuffle_seed": config["seed"] + epoch}
        for rows, labels in _batches(shards["train"], 64, device, **shuffled):
            loss = nn.functional.cross_entropy(network(*rows), labels)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        schedule.step()
        validation_loss, validation_accuracy = _evaluate(network, shards["validation"], device)
        _, test_accuracy = _evaluate(network, shards["test"], device)
        metrics = {
            "train_loss": loss.item(),  # of the last batch
            "validation_loss": validation_loss,
            "validation_accuracy": validation_accuracy,
            "test_accuracy": test_accuracy,
        }
        state.report(metrics, save)


def _batches(
    shard: Any, size: int, device: torch.device, **shuffled: int
) -> Iterator[tuple[tuple[torch.Tensor, ...], torch.Tensor]]:
    """What the model takes, and the labels, int64 (N,). The rows stay sparse on all of the way."""
    for batch in shard.iter_batches(batch_size=size, batch_format="pyarrow", **shuffled):
        labels = pc.index_in(batch["label"], pa.array(LIBRARIES)).to_numpy()
        yield to_tensors(from_vectors(batch["features"]), device), torch.tensor(labels, dtype=torch.long, device=device)


@torch.inference_mode()
def _evaluate(network: nn.Module, shard: Any, device: torch.device) -> tuple[float, float]:
    """The loss and the accuracy on a split, of all workers' shares."""
    network.eval()
    totals = torch.zeros(3, device=device)  # sum of the loss, right ones, rows
    for rows, labels in _batches(shard, 512, device):
        logits = network(*rows)
        loss = nn.functional.cross_entropy(logits, labels, reduction="sum")
        totals += torch.stack([loss, (logits.argmax(dim=1) == labels).sum(), torch.tensor(len(labels), device=device)])
    if torch.distributed.is_initialized():
        torch.distributed.all_reduce(totals)
    return (totals[0] / totals[2]).item(), (totals[1] / totals[2]).item()
