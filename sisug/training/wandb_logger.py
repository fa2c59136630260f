"""W&B beside the run's files (every stage): online where a key is, and one W&B run for all parts of a run."""

from __future__ import annotations

import netrc
import os
import secrets
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

from lightning.fabric.loggers.logger import rank_zero_experiment
from lightning.pytorch.loggers import WandbLogger

from sisug.common.atomic_file import atomic_write

ID_FILE = "wandb-id.txt"
"""In the run folder: the id of its W&B run, with which a resumed run goes on there."""


class RunWandbLogger(WandbLogger):
    """Lightning's WandbLogger, which a run that was interrupted continues, and which needs no account.

    Under a sweep's agent, project, entity and id are the agent's (W&B gives them in the environment).

    Args:
        project: of W&B.
        entity: user or team; None for the account's own.
        group: of runs that belong together, such as the seeds of one experiment.
        tags: of the run.
        save_dir: folder of W&B's own files, in `wandb/`.
        offline: no network; `wandb sync` uploads later. None for offline where no key of W&B is found (`wandb login`,
            WANDB_API_KEY), unless WANDB_MODE says otherwise.
        run_id: W&B's id of the run, at most 64 characters; None for the id in the run folder, a new one at first.
        log_model: upload checkpoints.
        run_folder: of the run; the command line fills it in.
    """

    def __init__(
        self,
        project: str = "sisug",
        entity: str | None = None,
        group: str | None = None,
        tags: list[str] | None = None,
        save_dir: str = "runs",
        offline: bool | None = None,
        run_id: str | None = None,
        log_model: bool = False,
        run_folder: str | None = None,
    ) -> None:
        if offline is None:
            offline = "WANDB_MODE" not in os.environ and not has_key()
        named = (("entity", entity), ("group", group), ("tags", tags))
        given: dict[str, Any] = {name: value for name, value in named if value}
        super().__init__(project=project, save_dir=save_dir, offline=offline, log_model=log_model, **given)
        self._wandb_init.pop("anonymous")  # Lightning 2.6 gives it always, and W&B warns of it
        self._run_id, self._run_folder = run_id, None if run_folder is None else Path(run_folder)

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        """W&B's run; on ranks other than the first, a thing that ignores all calls."""
        if self._experiment is None and "WANDB_RUN_ID" not in os.environ:
            self._id = self._wandb_init["id"] = self._run_id or self._id_of_folder()
            if self._run_folder is not None:
                self._wandb_init["name"] = f"{self._run_folder.parent.name}-{self._run_folder.name}"
        return super().experiment

    def _id_of_folder(self) -> str | None:
        if self._run_folder is None:
            return None
        path = self._run_folder / ID_FILE
        if not path.is_file():
            with atomic_write(path) as file:
                file.write(secrets.token_hex(4).encode())  # as long as W&B's own
        return path.read_text().strip()


def has_key() -> bool:
    """Whether W&B finds a key on this machine: in the environment, or where `wandb login` leaves it."""
    if os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return True
    host = urlparse(os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")).hostname or ""
    for path in [os.environ.get("NETRC"), *(Path.home() / name for name in (".netrc", "_netrc"))]:
        if path and Path(path).is_file():
            try:
                return netrc.netrc(path).authenticators(host) is not None
            except (netrc.NetrcParseError, OSError):
                return False
    return False
