"""What each of Ray Train's workers runs, and what Ray Tune may vary."""

from pathlib import Path
from typing import Any

import ray.train
import ray.train.torch
import torch
from ray import tune
from ray.train.torch import TorchTrainer as Trainer
from torch import nn

from .model import CHECKPOINT_FILE, DigitClassifier, load_model, save_model
from .training_state import TrainingState

__all__ = ["DEFAULTS", "SEARCH_SPACE", "Trainer", "train_loop"]

DEFAULTS: dict[str, Any] = {"width": 32, "learning_rate": 0.003, "weight_decay": 0.01, "epochs": 12, "seed": 0}
SEARCH_SPACE: dict[str, Any] = {
    "width": tune.choice([16, 32, 64]),
    "learning_rate": tune.loguniform(5e-4, 2e-2),
    "weight_decay": tune.loguniform(1e-3, 1e-1),
}


def train_loop(config: dict[str, Any], state: TrainingState) -> None:
    """Train on this worker's share of the datasets, from where `state` has come, and report after every epoch."""
    device = ray.train.torch.get_device()
    resumed = bool(state.epochs)
    torch.manual_seed(config["seed"])
    model = load_model(str(state.folder / CHECKPOINT_FILE)) if resumed else DigitClassifier(config["width"])
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
        for batch in shards["train"].iter_torch_batches(
            batch_size=64, local_shuffle_buffer_size=2048, local_shuffle_seed=config["seed"] + epoch, device=device
        ):
            loss = nn.functional.cross_entropy(network(batch["image"]), batch["label"])
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


@torch.inference_mode()
def _evaluate(network: nn.Module, shard: Any, device: torch.device) -> tuple[float, float]:
    """The loss and the accuracy on a split, of all workers' shares."""
    network.eval()
    totals = torch.zeros(3, device=device)  # sum of the loss, right ones, rows
    for batch in shard.iter_torch_batches(batch_size=512, device=device):
        logits, labels = network(batch["image"]), batch["label"]
        loss = nn.functional.cross_entropy(logits, labels, reduction="sum")
        totals += torch.stack([loss, (logits.argmax(dim=1) == labels).sum(), torch.tensor(len(labels), device=device)])
    if torch.distributed.is_initialized():
        torch.distributed.all_reduce(totals)
    return (totals[0] / totals[2]).item(), (totals[1] / totals[2]).item()
