"""Which folder a run gets (every stage): `ROOT/NAME/VERSION` for all its loggers, and the newest run to resume."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path

from filelock import FileLock, Timeout
from jsonargparse import Namespace, dict_to_namespace
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger

from sisug.errors import RunError
from sisug.training.wandb_logger import RunWandbLogger

LOCK = ".lock"
"""File in a run's folder that the process which trains there holds."""

LIGHTNINGS_NAME = "lightning_logs"
"""The name that Lightning's loggers have when none is given."""

_FILE_LOGGERS = (CSVLogger, TensorBoardLogger)
_NUMBERED = re.compile(r"version_(\d+)")


def place_run(logger: object, *, root: str | None, name: str | None, version: str | None) -> Path | None:
    """Write a run's place into the configs of its loggers, so that all of them write into one folder.

    Args:
        logger: the parsed value of `trainer.logger`: one logger, a list, a bool or None. Changed in place.
        root: folder of all runs, or None for each logger's own `save_dir`.
        name: the experiment, or None for each logger's own name ("default" where it has none).
        version: the run, or None for each logger's own version (the next free `version_N` where it has none).

    Returns:
        The run's folder, or None without a logger that keeps files (CSV, TensorBoard).
    """
    folders: list[Path] = []
    for config in _configs(logger):
        init_args = config["init_args"]
        if root is not None and "save_dir" in init_args:
            init_args["save_dir"] = root
        if not issubclass(_class_of(config), _FILE_LOGGERS):
            continue  # W&B names its runs itself
        experiment = _experiment_of(init_args, name)
        init_args["name"] = str(experiment.relative_to(init_args["save_dir"]))
        if version is not None:
            # As a number, the progress bar shows it whole.
            init_args["version"] = _number_or_name(version)
        elif init_args["version"] is None:
            # Decided once for all loggers: each on its own would count the folder that the one before has just made.
            init_args["version"] = next_version(experiment) if not folders else _number_or_name(folders[0].name)
        own = init_args["version"]
        folders.append(experiment / (f"version_{own}" if isinstance(own, int) else own))
    for config in _configs(logger):
        if folders and issubclass(_class_of(config), RunWandbLogger) and config["init_args"]["run_folder"] is None:
            config["init_args"]["run_folder"] = str(folders[0])
    return folders[0] if folders else None


def experiment_folder(logger: object, *, root: str | None, name: str | None) -> Path | None:
    """The folder `ROOT/NAME` that holds an experiment's runs; None without a logger that keeps files.

    Args:
        logger: the parsed value of `trainer.logger`.
        root: as for `place_run`.
        name: as for `place_run`.
    """
    for config in _configs(logger):
        if issubclass(_class_of(config), _FILE_LOGGERS):
            init_args = config["init_args"].clone()
            if root is not None:
                init_args["save_dir"] = root
            return _experiment_of(init_args, name)
    return None


def claim(
    logger: object,
    *,
    root: str | None,
    name: str | None,
    version: str | None,
    check: Callable[[Path], object],
) -> tuple[Path | None, list[Path]]:
    """As `place_run`, with a folder that no other run has: two that start together get two numbers.

    Args:
        logger: as for `place_run`.
        root: as for `place_run`.
        name: as for `place_run`.
        version: as for `place_run`.
        check: is given the folder before it is made, and raises where it cannot be.

    Returns:
        The run's folder, as `place_run`; and the folders that were made for it, the innermost first.
    """
    if not logger:  # the run has a folder all the same
        init_args = {"save_dir": root or "runs", "name": LIGHTNINGS_NAME, "version": None}
        logger = dict_to_namespace({"class_path": "lightning.pytorch.loggers.CSVLogger", "init_args": init_args})
    files = [config for config in _configs(logger) if issubclass(_class_of(config), _FILE_LOGGERS)]
    numbered = version is None and all(config["init_args"]["version"] is None for config in files)
    while True:
        folder = place_run(logger, root=root, name=name, version=version)
        if folder is None:
            return None, []
        check(folder)
        made = [each for each in (folder, *folder.parents) if not each.exists()]
        folder.parent.mkdir(parents=True, exist_ok=True)
        try:
            folder.mkdir()
        except FileExistsError:
            if not numbered:
                return folder, []
            for config in files:  # another run was faster: the next number
                config["init_args"]["version"] = None
            for config in _configs(logger):
                if config["init_args"].get("run_folder") == str(folder):
                    config["init_args"]["run_folder"] = None
            continue
        return folder, made


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """Keep other processes from training in a run's folder, as long as the block lasts.

    Args:
        folder: of the run; it is there.

    Raises:
        RunError: another process trains there.
    """
    lock = FileLock(folder / LOCK, timeout=0)
    try:
        lock.acquire()
    except Timeout as error:
        raise RunError(
            f"another process is training in {folder}",
            "two would overwrite each other's checkpoints and mix their metrics",
            "wait until it is done, or start a run of its own: leave out --run.version and --ckpt_path last",
        ) from error
    except (OSError, NotImplementedError):  # a file system without locks: the folder's number keeps runs apart
        yield
        return
    try:
        yield
    finally:
        (folder / LOCK).unlink(missing_ok=True)
        lock.release()


def remove_empty(folders: list[Path]) -> None:
    """Remove folders in which nothing was written.

    Args:
        folders: the innermost first.
    """
    for folder in folders:
        try:
            folder.rmdir()
        except OSError:
            return


def next_version(experiment: Path) -> int:
    """The next free N of `version_N` among an experiment's runs, as Lightning numbers them."""
    numbers = [int(match[1]) for run in _runs(experiment) if (match := _NUMBERED.fullmatch(run.name))]
    return max(numbers, default=-1) + 1


def newest_last_checkpoint(experiment: Path, version: str | None = None) -> Path | None:
    """The `last.ckpt` that was written last among an experiment's runs, or None.

    Args:
        experiment: folder of the runs.
        version: of the one run to look at; None for all.
    """
    runs = _runs(experiment) if version is None else [experiment / version]
    found = [path for run in runs for path in (run / "checkpoints").glob("last*.ckpt")]
    return max(found, key=lambda path: path.stat().st_mtime_ns, default=None)


def _configs(logger: object) -> list[Namespace]:
    return [one for one in (logger if isinstance(logger, list) else [logger]) if isinstance(one, Namespace)]


def _experiment_of(init_args: Namespace, name: str | None) -> Path:
    own = None if init_args["name"] == LIGHTNINGS_NAME else init_args["name"]
    return Path(init_args["save_dir"]) / (name or own or "default")


def _number_or_name(version: str) -> int | str:
    return int(match[1]) if (match := _NUMBERED.fullmatch(version)) else version


def _runs(experiment: Path) -> list[Path]:
    return [path for path in experiment.iterdir() if path.is_dir()] if experiment.is_dir() else []


def _class_of(config: Namespace) -> type:
    module, _, name = str(config["class_path"]).rpartition(".")
    found = getattr(import_module(module), name)
    assert isinstance(found, type)
    return found
