"""Says how a training comes along: what its workers print stays in Ray's logs."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from . import watch
from .training_state import read_epochs


@contextmanager
def follow(folder: Path) -> Iterator[None]:
    """Print the newest epoch of each training beneath `folder` every `watch.PATIENCE` seconds, or that there is none.

    It is read from the checkpoints: Ray Train calls its callbacks in a process whose output does not come here.
    """
    ended = threading.Event()
    thread = threading.Thread(target=_follow, args=(folder, ended), daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join(watch.PATIENCE)


def _follow(folder: Path, ended: threading.Event) -> None:
    before = _newest_epochs(folder)
    while not ended.wait(watch.PATIENCE):
        newest = before | _newest_epochs(folder)
        for training in sorted(training for training, epoch in newest.items() if epoch != before.get(training)):
            trial = f"trial {training.name}, " if training != folder else ""
            metrics = ", ".join(f"{name} {value:.4g}" for name, value in newest[training].items())
            print(f"Progress: {trial}{metrics}", flush=True)
        if newest == before:
            print(f"No epoch ended for {watch.PATIENCE:.0f} s. {watch.free_resources()}.", flush=True)
        before = newest


def _newest_epochs(folder: Path) -> dict[Path, dict[str, Any]]:
    """The metrics of each training's newest epoch, by the folder of its checkpoints."""
    epochs = {training: read_epochs(training) for training in [folder, *folder.glob("*")]}
    return {training: each[-1] for training, each in epochs.items() if each}
