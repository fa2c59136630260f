"""Where a run's files lie, and what is refused before it starts."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import pytest
import torch
from jsonargparse import Namespace
from lightning.pytorch import Trainer
from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger, WandbLogger
from toy_training import ToyData, ToyModule

from sisug.errors import RunError
from sisug.training.csv_logger import RunCSVLogger
from sisug.training.run_folder import RunFolder, check_run_folder, check_unused, run_folder
from sisug.training.run_naming import experiment_folder, newest_last_checkpoint, place_run


def quiet_trainer(logger: Any, **arguments: Any) -> Trainer:
    return Trainer(logger=logger, accelerator="cpu", enable_progress_bar=False, enable_model_summary=False, **arguments)


@pytest.mark.parametrize("kind", [CSVLogger, TensorBoardLogger, RunCSVLogger])
def test_run_folder_is_where_lightning_puts_checkpoints(tmp_path: Path, kind: type[Logger]) -> None:
    logger = kind(str(tmp_path), name="toy", version=3)  # type: ignore[call-arg]
    trainer = quiet_trainer(logger, max_epochs=1)
    trainer.fit(ToyModule(), ToyData())
    assert run_folder(trainer) == tmp_path / "toy" / "version_3"
    assert list((run_folder(trainer) / "checkpoints").glob("*.ckpt"))


def test_run_folder_of_wandb_is_not_shared(tmp_path: Path) -> None:
    logger = WandbLogger(project="p", save_dir=str(tmp_path), version="abc123", offline=True)
    trainer = quiet_trainer(logger)
    assert trainer.log_dir == str(tmp_path)  # Lightning's answer, the same for every run
    assert run_folder(trainer) == tmp_path / "p" / "abc123"


def test_run_folder_without_a_logger(tmp_path: Path) -> None:
    assert run_folder(quiet_trainer(False, default_root_dir=tmp_path)) == tmp_path
    assert run_folder(quiet_trainer(None, default_root_dir=tmp_path, fast_dev_run=True)) == tmp_path


def test_check_makes_nothing(tmp_path: Path) -> None:
    check_run_folder(tmp_path / "a" / "b", min_free_gb=0)
    assert not list(tmp_path.iterdir())


def test_file_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "runs").touch()
    with pytest.raises(RunError, match="is not a folder"):
        check_run_folder(tmp_path / "runs" / "toy")


def test_dangling_link_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "runs").symlink_to(tmp_path / "unmounted")
    with pytest.raises(RunError, match="is not a folder"):
        check_run_folder(tmp_path / "runs" / "toy")


def test_unwritable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Permissions do not stop root, who runs tests in containers.
    def refuse(**_: Any) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(tempfile, "TemporaryFile", refuse)
    with pytest.raises(RunError, match=r"Permission denied.*change its permissions"):
        check_run_folder(tmp_path / "toy")


@pytest.mark.skipif(os.geteuid() == 0, reason="permissions do not stop root")
def test_unwritable_for_real(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(RunError, match="change its permissions"):
        check_run_folder(tmp_path / "toy")


def test_nearly_full_disk(tmp_path: Path) -> None:
    free = shutil.disk_usage(tmp_path).free / 1e9
    with pytest.raises(RunError, match="GB are free"):
        check_run_folder(tmp_path, min_free_gb=free * 2)


def test_callback_refuses_before_training(tmp_path: Path) -> None:
    module = ToyModule()
    trainer = quiet_trainer(RunCSVLogger(str(tmp_path)), callbacks=[RunFolder(min_free_gb=1e9)], max_epochs=1)
    with pytest.raises(RunError, match="GB are free"):
        trainer.fit(module, ToyData())
    assert module.images_seen == 0


def test_used_folder(tmp_path: Path) -> None:
    check_unused(tmp_path)
    (tmp_path / "checkpoints").mkdir()
    check_unused(tmp_path)
    (tmp_path / "checkpoints" / "last.ckpt").touch()
    with pytest.raises(RunError, match="another run"):
        check_unused(tmp_path)


# --- names ---------------------------------------------------------------------------------------------------------


def config(kind: str = "lightning.pytorch.loggers.CSVLogger", **init_args: Any) -> Namespace:
    defaults = {"save_dir": "runs", "name": "lightning_logs", "version": None}
    return Namespace(class_path=kind, init_args=Namespace(**defaults | init_args))


TENSORBOARD = "lightning.pytorch.loggers.TensorBoardLogger"
WANDB = "lightning.pytorch.loggers.WandbLogger"


def test_all_loggers_get_one_folder(tmp_path: Path) -> None:
    (tmp_path / "toy" / "version_4").mkdir(parents=True)
    loggers = [config(), config(TENSORBOARD), config(WANDB, name=None, project="p")]
    folder = place_run(loggers, root=str(tmp_path), name="toy", version=None)
    assert folder == tmp_path / "toy" / "version_5"
    assert [one.init_args.version for one in loggers] == [5, 5, None]
    assert [one.init_args.save_dir for one in loggers] == [str(tmp_path)] * 3
    assert loggers[2].init_args.name is None  # W&B names its runs itself


def test_loggers_own_values_hold_where_nothing_is_asked(tmp_path: Path) -> None:
    own = config(save_dir=str(tmp_path), name="mine", version="first")
    assert place_run(own, root=None, name=None, version=None) == tmp_path / "mine" / "first"
    assert place_run(config(), root=None, name=None, version=None) == Path("runs/default/version_0")


@pytest.mark.parametrize("logger", [None, True, False, []])
def test_no_file_logger_no_folder(logger: object) -> None:
    assert place_run(logger, root=None, name="toy", version=None) is None
    assert experiment_folder(logger, root=None, name="toy") is None


def test_name_may_hold_a_folder(tmp_path: Path) -> None:
    logger = config(save_dir=str(tmp_path))
    assert place_run(logger, root=None, name="sweep/toy", version=None) == tmp_path / "sweep" / "toy" / "version_0"
    assert logger.init_args.name == "sweep/toy"


def test_newest_checkpoint_wins(tmp_path: Path) -> None:
    assert newest_last_checkpoint(tmp_path / "none") is None
    for age, version in enumerate(("version_10", "version_2")):  # the newest has not the highest number
        path = tmp_path / version / "checkpoints" / "last.ckpt"
        path.parent.mkdir(parents=True)
        path.touch()
        os.utime(path, ns=(age, age))
    assert newest_last_checkpoint(tmp_path) == tmp_path / "version_2" / "checkpoints" / "last.ckpt"


def test_metrics_of_an_earlier_part_stay(tmp_path: Path) -> None:
    for metrics in ({"a": 1.0}, {"a": 2.0, "b": 3.0}):
        logger = RunCSVLogger(str(tmp_path), name="toy", version=0)
        logger.log_metrics(metrics, step=0)
        logger.save()
    lines = (tmp_path / "toy" / "version_0" / "metrics.csv").read_text().split()
    assert lines == ["a,b,step", "1.0,,0", "2.0,3.0,0"]


def test_checkpoint_of_a_run_is_found(tmp_path: Path) -> None:
    trainer = quiet_trainer(RunCSVLogger(str(tmp_path), name="toy"), max_epochs=1)
    trainer.fit(ToyModule(), ToyData())
    torch.load(next((run_folder(trainer) / "checkpoints").glob("*.ckpt")), weights_only=True)
