"""Loading a module from a checkpoint (stages 1 and 2) runs no code that the checkpoint alone names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule

from sisug.common.class_path import check_stored_classes


class OwnClasses(LightningModule):
    """Base of modules whose hyperparameters may name classes: those outside of sisug must be named by the caller."""

    @classmethod
    def load_from_checkpoint(cls, checkpoint_path: Any, *arguments: Any, **settings: Any) -> Any:
        """See Lightning's. A class of your own, such as the generator's, must be given again.

        Raises:
            CheckpointError: the checkpoint names a class outside of sisug that the settings do not replace.
        """
        if isinstance(checkpoint_path, str | Path) and Path(checkpoint_path).is_file():
            content = torch.load(checkpoint_path, map_location="cpu", weights_only=True, mmap=True)
            # Lightning itself refuses a `_class_path` that was not imported yet.
            stored = content.get("hyper_parameters", {}).items()
            taken = {name: value for name, value in stored if name != "_class_path" and name not in settings}
            check_stored_classes(taken, checkpoint_path)
        return super().load_from_checkpoint(checkpoint_path, *arguments, **settings)
