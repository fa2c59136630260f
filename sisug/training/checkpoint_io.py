"""Checkpoint files that are whole or not there (every stage), whatever ends the process, and read as data only."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins import TorchCheckpointIO

from sisug.common.atomic_file import atomic_write
from sisug.common.torch_files.data import load_data
from sisug.errors import check_local


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes each checkpoint beside its place and then renames it; reads files of this machine, as data.

    Lightning's own writer makes the temporary file in the system's temporary folder and moves it; where that is another
    file system than the run folder, the move is a copy, and a full disk or a kill during it leaves half of
    `last.ckpt`, over the only one there was (lightning 2.6, fsspec's LocalFileOpener.commit). It also holds the
    whole checkpoint in memory once more. Its reader fetches addresses, and runs the pickle that it finds there
    (lightning 2.6, fabric.utilities.cloud_io). The `sisug` command uses this class unless the trainer has another.

    Raises:
        RunError: the disk is full.
        ConfigError: an address in the place of a file to read.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        if "://" in str(path):  # remote storage has no rename; Lightning's writer knows it
            super().save_checkpoint(checkpoint, path, storage_options)
            return
        if storage_options is not None:
            raise TypeError("storage_options is not supported by AtomicCheckpointIO")
        with atomic_write(Path(path)) as file:
            torch.save(checkpoint, file)

    def load_checkpoint(
        self,
        path: str | Path,
        map_location: Callable[..., Any] | None = lambda storage, location: storage,
        weights_only: bool | None = None,
    ) -> dict[str, Any]:
        """A checkpoint's content; nothing in it is run, whatever the caller says.

        Args:
            path: a file.
            map_location: where tensors go.
            weights_only: unused; part of Lightning's interface.
        """
        check_local(path, "the checkpoint")
        remedy = "copy it again, or use another checkpoint of the run"
        content: dict[str, Any] = load_data(Path(path), "the checkpoint", remedy, where=map_location)
        return content
