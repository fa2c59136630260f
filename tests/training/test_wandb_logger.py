"""W&B's logger: one W&B run for all parts of a run, online only where a key is."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import pytest
import wandb
from jsonargparse import Namespace

from sisug.training.run_naming import place_run
from sisug.training.wandb_logger import ID_FILE, RunWandbLogger, has_key


@pytest.fixture
def no_key(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A machine on which nobody has logged in; its home folder."""
    for name in ("WANDB_API_KEY", "WANDB_IDENTITY_TOKEN_FILE", "WANDB_MODE", "WANDB_RUN_ID", "WANDB_BASE_URL", "NETRC"):
        monkeypatch.delenv(name, raising=False)
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setattr(Path, "home", lambda: home)
    return home


def started(monkeypatch: pytest.MonkeyPatch, logger: RunWandbLogger) -> dict[str, Any]:
    """What `wandb.init` is given."""
    init = MagicMock()
    monkeypatch.setattr(wandb, "init", init)
    monkeypatch.setattr(wandb, "run", None)
    monkeypatch.setenv("WANDB_MODE", "disabled")  # put back after the test, whatever the logger sets
    assert logger.experiment is init.return_value
    return dict(init.call_args.kwargs)


def test_a_resumed_run_goes_on_in_wandb(no_key: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    folder = tmp_path / "toy" / "version_3"
    first, second = (started(monkeypatch, RunWandbLogger(run_folder=str(folder))) for _ in range(2))
    assert first["id"] == second["id"] == (folder / ID_FILE).read_text()
    assert second["resume"] == "allow"
    assert second["name"] == "toy-version_3"
    other = started(monkeypatch, RunWandbLogger(run_folder=str(tmp_path / "toy" / "version_4")))
    assert other["id"] != first["id"]


def test_an_id_of_ones_own_holds(no_key: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    given = started(monkeypatch, RunWandbLogger(run_id="mine", run_folder=str(tmp_path), group="seeds", tags=["a"]))
    assert (given["id"], given["group"], given["tags"]) == ("mine", "seeds", ["a"])
    assert not (tmp_path / ID_FILE).exists()


def test_under_an_agent_the_run_is_the_agents(no_key: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("WANDB_RUN_ID", "fromagent")
    given = started(monkeypatch, RunWandbLogger(run_folder=str(tmp_path)))
    assert given["id"] is None  # W&B takes it from the environment, and warns of one beside it
    assert given["name"] is None


def test_offline_without_a_key_online_with_one(no_key: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not has_key()
    assert RunWandbLogger()._offline is True
    assert RunWandbLogger(offline=False)._offline is False
    netrc = no_key / ".netrc"
    netrc.write_text("machine example.org login a password b\n")
    assert not has_key()
    netrc.write_text("machine api.wandb.ai login user password " + "0" * 40 + "\n")
    assert has_key()
    netrc.write_text("not a netrc")
    assert not has_key()
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    assert has_key()
    assert RunWandbLogger()._offline is False


def test_wandb_mode_is_obeyed(no_key: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "disabled")
    assert RunWandbLogger()._offline is False  # offline would overwrite the mode


def test_the_command_line_fills_in_the_run_folder(tmp_path: Path) -> None:
    csv = Namespace(
        class_path="sisug.training.csv_logger.RunCSVLogger",
        init_args=Namespace(save_dir=str(tmp_path), name="lightning_logs", version=None),
    )
    own = Namespace(
        class_path="sisug.training.wandb_logger.RunWandbLogger",
        init_args=Namespace(save_dir="runs", run_folder=None),
    )
    place_run([csv, own], root=None, name="toy", version=None)
    assert own.init_args.run_folder == str(tmp_path / "toy" / "version_0")
