"""config.yaml in every run folder (every stage): what the user asked for, enough to repeat the run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from jsonargparse import Namespace
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.cli import LightningArgumentParser, SaveConfigCallback
from lightning.pytorch.loggers import WandbLogger

from sisug.common.atomic_file import atomic_write
from sisug.training.run_folder import run_folder


class RunConfigCallback(SaveConfigCallback):
    """Writes the run's config beside its checkpoints and gives it to W&B as a nested dict.

    Lightning's own callback writes to `trainer.log_dir`, which for W&B is one folder for all runs, and refuses a folder
    that has a config already, as a resumed run's has. Here the config of an earlier part is kept as
    `config.1.yaml`, `config.2.yaml`, ...

    Args:
        parser: the parser of the subcommand.
        config: the parsed config.
        given: the config before SisugCLI filled in the run's number and checkpoint, which is what is written, so that
            `sisug fit --config RUN/config.yaml` starts a new run; None for `config`.
        config_filename: name of the file.
        overwrite: unused; part of Lightning's interface.
        multifile: unused; part of Lightning's interface.
        save_to_log_dir: always False; part of Lightning's interface.
    """

    def __init__(
        self,
        parser: LightningArgumentParser,
        config: Namespace,
        config_filename: str = "config.yaml",
        overwrite: bool = False,
        multifile: bool = False,
        save_to_log_dir: bool = False,
        given: Namespace | None = None,
    ) -> None:
        super().__init__(parser, given or config, config_filename, overwrite, multifile, save_to_log_dir)

    def save_config(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        text = self.parser.dump(self.config, skip_none=False)
        path = run_folder(trainer) / self.config_filename
        if path.exists() and path.read_text() != text:
            path.rename(_numbered(path))
        with atomic_write(path) as file:
            file.write(text.encode())
        as_dict: dict[str, Any] = yaml.safe_load(text)
        for logger in trainer.loggers:
            if isinstance(logger, WandbLogger):
                logger.log_hyperparams(as_dict)


def _numbered(path: Path) -> Path:
    number = 1
    while (numbered := path.with_name(f"{path.stem}.{number}{path.suffix}")).exists():
        number += 1
    return numbered
