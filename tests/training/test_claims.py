"""Runs that start together get folders of their own; a folder has one process that trains in it."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier
from typing import Any

import pytest
from jsonargparse import Namespace

from sisug.errors import RunError
from sisug.training.run_naming import LOCK, claim, held, remove_empty

CSV = "sisug.training.csv_logger.RunCSVLogger"


def logger(root: Path, version: object = None) -> Namespace:
    return Namespace(class_path=CSV, init_args=Namespace(save_dir=str(root), name="lightning_logs", version=version))


def claimed(config: Any, version: str | None = None, root: str | None = None) -> tuple[Path | None, list[Path]]:
    return claim(config, root=root, name="race", version=version, check=lambda folder: None)


def test_runs_that_start_together_have_folders_of_their_own(tmp_path: Path) -> None:
    together = Barrier(8)

    def start(_: int) -> Path:
        config = logger(tmp_path / "runs")
        together.wait()
        folder, _made = claimed(config)
        assert folder is not None
        assert folder.name == f"version_{config.init_args.version}"
        return folder

    with ThreadPoolExecutor(8) as threads:
        found = sorted(threads.map(start, range(8)))
    assert found == [tmp_path / "runs/race" / f"version_{number}" for number in range(8)]


def test_all_loggers_of_a_run_share_the_folder(tmp_path: Path) -> None:
    (tmp_path / "race/version_0").mkdir(parents=True)
    loggers = [logger(tmp_path), logger(tmp_path)]
    folder, _ = claimed(loggers)
    assert folder == tmp_path / "race/version_1"
    assert [each.init_args.version for each in loggers] == [1, 1]


def test_a_named_run_keeps_its_name(tmp_path: Path) -> None:
    for _ in range(2):
        folder, _made = claimed(logger(tmp_path), version="mine")
        assert folder == tmp_path / "race/mine"


def test_without_a_logger_the_run_has_a_folder_all_the_same(tmp_path: Path) -> None:
    for none in (False, None, []):
        folder, _ = claimed(none, root=str(tmp_path / f"{none}"))
        assert folder == tmp_path / f"{none}" / "race/version_0"


def test_what_stays_empty_is_removed(tmp_path: Path) -> None:
    folder, made = claimed(logger(tmp_path / "new"))
    assert folder is not None
    assert folder.is_dir()
    remove_empty(made)
    assert not (tmp_path / "new").exists()
    folder, made = claimed(logger(tmp_path / "new"))
    assert folder is not None
    (folder / "metrics.csv").touch()
    remove_empty(made)
    assert (folder / "metrics.csv").exists()


def test_two_processes_do_not_train_in_one_folder(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from sisug.training.run_naming import held\n"
        "with held(Path(sys.argv[1])): print('held', flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        with pytest.raises(RunError, match="another process is training"), held(tmp_path):
            pass
        other.kill()
    with held(tmp_path):  # the lock ends with its process
        pass
    assert not (tmp_path / LOCK).exists()
