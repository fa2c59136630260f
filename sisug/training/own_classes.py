"""Loading a module from a checkpoint (stages 1 and 2) runs no code that the checkpoint alone names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lightning.pytorch import LightningModule

from sisug.common.class_path import check_stored_classes
from sisug.common.torch_files.data import load_run


class OwnClasses(LightningModule):
    """Base of modules whose hyperparameters may name classes: those outside of sisug must be named by the caller."""

    @classmethod
    def load_from_checkpoint(cls, checkpoint_path: Any, *arguments: Any, **settings: Any) -> Any:
        """See Lightning's. A class of your own, such as the generator's, must be given again.

        Raises:
            CheckpointError: missing, damaged, or it names a class outside of sisug that the settings do not replace.
            ConfigError: an address in the place of a file.
        """
        settings["weights_only"] = True
        if isinstance(checkpoint_path, str | Path):
            # Lightning itself refuses a `_class_path` that was not imported yet.
            content = load_run(Path(checkpoint_path), "the checkpoint", "use another checkpoint of the run", lazy=True)
            stored = content["hyper_parameters"].items()
            taken = {name: value for name, value in stored if name != "_class_path" and name not in settings}
            check_stored_classes(taken, checkpoint_path)
        return super().load_from_checkpoint(checkpoint_path, *arguments, **settings)
