"""`sisug fit|validate|test` (every stage): LightningCLI with the run's folder, resume and atomic checkpoints set up."""

from __future__ import annotations

import logging
import sys
import warnings
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from importlib import import_module
from pathlib import Path
from typing import Any

from jsonargparse import Namespace, set_parsing_settings
from lightning.fabric.plugins import CheckpointIO
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.fabric.utilities.rank_zero import rank_zero_only
from lightning.pytorch import Callback, LightningDataModule, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.cli import ArgsType, LightningArgumentParser, LightningCLI

from sisug import __version__
from sisug.common.class_path import foreign_classes, join_class_options, named_files
from sisug.common.memory import keep_freed_memory
from sisug.common.torch_files.data import load_run
from sisug.errors import CheckpointError, ConfigError, SisugError, check_local
from sisug.training.checkpoint_io import AtomicCheckpointIO
from sisug.training.run_config import RunConfigCallback
from sisug.training.run_folder import check_run_folder, check_unused
from sisug.training.run_naming import claim, experiment_folder, held, newest_last_checkpoint, place_run, remove_empty
from sisug.training.yaml_text import keep_text

logger = logging.getLogger(__name__)


class SisugCLI(LightningCLI):
    """Lightning's command line for sisug's modules: any `class_path` for model, data, logger and callbacks.

    What it adds to LightningCLI:

    - `--run.root`, `--run.name`, `--run.version` say where a run's files lie, for all file loggers at once, so that a
      second logger writes beside the first. Values given in a logger's own `init_args` hold where these are not given.
    - `--ckpt_path last` finds the newest run of that name with a checkpoint (with `--run.version`, that run) and
      continues it *in its folder*; where there is none, `fit` starts afresh and says so.
    - A value may be made of others, of any layer, or of the environment: `${data.init_args.batch_size}`,
      `${oc.env:SCRATCH,runs}`.
    - On `fit`, the user's values win over those stored in the checkpoint (Lightning's CLI lets the checkpoint win). The
      optimizer's state still comes from the checkpoint, its learning rate included.
    - The run folder and the checkpoint are checked before a model is built. A checkpoint is a file of this machine, and
      the classes it names are sisug's own or those that the user's configuration names.

    Args:
        args: command line without the program's name; None for `sys.argv`.
    """

    def __init__(self, args: ArgsType = None) -> None:
        self._resumed = False
        self._version_given: str | None = None
        quieten_lightning()
        keep_freed_memory()
        set_parsing_settings(omegaconf_absolute_to_relative_paths=True)
        # Interpolation is resolved at the end, over all layers and the command line ("omegaconf+"; a test guards it).
        shared = {"parser_mode": "omegaconf+"}
        keep_text()
        with ExitStack() as self._until_the_end:
            self._run(shared, args)

    def _run(self, shared: dict[str, Any], args: ArgsType) -> None:
        try:
            self._set_up_and_run(shared, args)
        except MisconfigurationException as error:
            raise refused_by_lightning(error) from error

    def _set_up_and_run(self, shared: dict[str, Any], args: ArgsType) -> None:
        super().__init__(
            model_class=LightningModule,
            datamodule_class=LightningDataModule,
            subclass_mode_model=True,
            subclass_mode_data=True,
            save_config_callback=RunConfigCallback,
            seed_everything_default=0,
            auto_configure_optimizers=False,
            # Without abbreviations: a typo is an error, never another option.
            parser_kwargs={"prog": "sisug", "version": f"sisug {__version__}", "allow_abbrev": False, **shared}
            # Short, since usage is printed before each error; --help lists the options all the same.
            | {
                name: {"usage": f"sisug {name} --config FILE [--config FILE ...] [OPTIONS]", **shared}
                for name in self.subcommands()
            },
            args=args,
        )

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        """Lightning's subcommands, without `predict`: images are made by `sisug generate`.

        Nor is there `--weights_only`, whose other value would run what a checkpoint says.
        """
        every = LightningCLI.subcommands()
        return {name: skip | {"weights_only"} for name, skip in every.items() if name != "predict"}

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        group = parser.add_argument_group("Where the run's files lie: ROOT/NAME/VERSION")
        group.add_argument(
            "--run.root", type=str | None, default=None, help="folder of all runs (default: the loggers')"
        )
        group.add_argument("--run.name", type=str | None, default=None, help="name of the experiment")
        group.add_argument(
            "--run.version", type=str | None, default=None, help="name of this run (default: the next free version_N)"
        )

    def parse_arguments(self, parser: LightningArgumentParser, args: ArgsType) -> None:
        """Parse the command line, on which a class's arguments may stand as options of their own."""
        if args is None or isinstance(args, list):
            given = sys.argv[1:] if args is None else args
            self.config = parser.parse_args(join_class_options(given))
            section = self.config[self.config["subcommand"]]
            for option, file in named_files(given).items():
                room, _, name = option.partition(".")
                for key in (option, f"{room}.init_args.{name}"):
                    if key in section and section[key] != file:
                        section[key] = file
        else:
            super().parse_arguments(parser, args)

    def _parse_ckpt_path(self) -> None:
        # Private in Lightning (2.6; a test guards it): the only place where a checkpoint's values override the user's.
        section = self.config[self.config["subcommand"]]
        self._version_given = section["run"]["version"]
        if section["ckpt_path"] == "last":
            self._find_last()
        if section["ckpt_path"] is not None:
            stored = stored_hyperparameters(section["ckpt_path"])
            if self.config["subcommand"] == "fit":
                report_changes(stored, section["model"].get("init_args"))
            else:
                self._take(stored, section["ckpt_path"])

    def _take(self, stored: dict[str, Any], path: str) -> None:
        """Put a checkpoint's hyperparameters in the place of the configuration's; it may not name code of its own."""
        section = self.config[self.config["subcommand"]]
        given = section.as_dict()
        allowed = set(_class_paths(given)) | foreign_classes(given)
        for name in [*_class_paths({"class_path": stored.get("_class_path"), **stored}), *foreign_classes(stored)]:
            if name not in allowed and not _is_own_class(name):
                raise CheckpointError(
                    f"the checkpoint {path} names the class {name!r}",
                    "a checkpoint may name classes of sisug and of your configuration, since naming one imports it",
                    "if the class is yours, name it with --model.class_path or in a --config file",
                )
        values = {name: value for name, value in stored.items() if name not in ("_class_path", "_instantiator")}
        if not values:
            return
        own = section["model"].get("class_path")
        model = {"class_path": stored.get("_class_path") or own, "dict_kwargs": values}
        self.config = self.parser.parse_object({self.config["subcommand"]: {"model": model}}, self.config)

    def _find_last(self) -> None:
        """Replace `last` by the newest run's file, or the named one's; let the run go on in that run's folder."""
        subcommand = self.config["subcommand"]
        section = self.config[subcommand]
        run = section["run"]
        experiment = experiment_folder(section["trainer"]["logger"], root=run["root"], name=run["name"])
        if experiment is None:  # W&B alone, or no logger: Lightning's own search
            return
        found = newest_last_checkpoint(experiment, run["version"])
        section["ckpt_path"] = None if found is None else str(found)
        if found is None and subcommand != "fit":
            raise CheckpointError(
                f"no run in {experiment if run['version'] is None else experiment / run['version']} has a last.ckpt",
                f"`--ckpt_path last` asks to {subcommand} the newest run of this name",
                "train one first, name it with --run.name, or give the checkpoint's file",
            )
        if found is None:
            logger.info("No earlier run in %s has a checkpoint, so training starts from the beginning.", experiment)
        elif subcommand == "fit":
            logger.info("Continuing from %s.", found)
            run["version"] = found.parent.parent.name
            self._resumed = True

    def before_instantiate_classes(self) -> None:
        """Give the run its folder; refuse one that cannot be written or holds another run."""
        section = self.config[self.config["subcommand"]]
        run = section["run"]
        # config.yaml is to repeat the run from its start, in a folder of its own, which a resumed run equals.
        given = section.clone()
        given["run"]["version"] = self._version_given
        if self._resumed:
            given["ckpt_path"] = None
        self.save_config_kwargs["given"] = given
        place = {name: run[name] for name in ("root", "name", "version")}
        if getattr(rank_zero_only, "rank", 0) != 0:  # the main process has the folder
            place_run(section["trainer"]["logger"], **place)
            return

        def check(folder: Path) -> None:
            check_run_folder(folder, least_free_gb(section["trainer"]["callbacks"]))
            if self.config["subcommand"] == "fit" and section["ckpt_path"] is None:
                check_unused(folder)

        folder, made = claim(section["trainer"]["logger"], **place, check=check)
        if folder is None:
            return
        self._until_the_end.callback(remove_empty, made)
        if self.config["subcommand"] == "fit":
            self._until_the_end.enter_context(held(folder))
        if section["trainer"]["default_root_dir"] is None:  # where files go without a logger, as in a fast_dev_run
            section["trainer"]["default_root_dir"] = str(folder)

    def instantiate_classes(self) -> None:
        """Build model, data and trainer; an error of ours that comes out of one of them is shown as it is."""
        try:
            super().instantiate_classes()
        except ValueError as error:
            # jsonargparse wraps whatever a constructor raises into a page about types.
            own = sisug_error_behind(error)
            if own is None:
                raise
            raise own from error

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Add the atomic checkpoint writer, unless there is a writer already; write `last.ckpt` after the others."""
        plugins = self._get(self.config_init, "trainer")["plugins"] or []
        plugins = list(plugins) if isinstance(plugins, list) else [plugins]
        if not any(isinstance(plugin, CheckpointIO) for plugin in plugins):
            plugins.append(AtomicCheckpointIO())
        if not self.model.automatic_optimization:
            check_manual_options(self._get(self.config_init, "trainer"), type(self.model).__name__)
        try:
            trainer = super().instantiate_trainer(plugins=plugins, **kwargs)
        except (MisconfigurationException, ValueError) as error:
            raise sisug_error_behind(error) or refused_by_lightning(error) from error
        # `last` after `best`: so it knows the best score, and a run that goes on from it does not replace a better one.
        callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]
        callbacks.sort(key=lambda each: isinstance(each, ModelCheckpoint) and each.monitor is None)
        return trainer


def least_free_gb(callbacks: object) -> float:
    """What the configuration of RunFolder says of the space that a run needs, GB; 1 where it says nothing.

    Args:
        callbacks: the parsed value of `trainer.callbacks`.
    """
    for each in callbacks if isinstance(callbacks, list) else [callbacks]:
        if isinstance(each, Namespace) and str(each.get("class_path", "")).endswith(".RunFolder"):
            return float((each.get("init_args") or {}).get("min_free_gb", 1.0))
    return 1.0


def check_manual_options(trainer: Mapping[str, Any] | Namespace, module: str) -> None:
    """Refuse options of Lightning's that modules which step their own optimizers cannot follow.

    Args:
        trainer: the Trainer's arguments.
        module: the module's class, for the message.

    Raises:
        ConfigError: names the first of them.
    """
    precision = trainer["precision"]
    wrong = {
        "gradient_clip_val": trainer["gradient_clip_val"] not in (None, 0),
        "accumulate_grad_batches": trainer["accumulate_grad_batches"] != 1,
        "precision": precision is not None and str(precision) not in PRECISIONS,
    }
    for name, is_wrong in wrong.items():
        if is_wrong:
            remedy = "leave it out" if name != "precision" else f"choose one of {', '.join(PRECISIONS)}"
            raise ConfigError(
                f"trainer.{name} {trainer[name]} with {module}",
                "it steps two optimizers by itself, which Lightning does not do that for",
                remedy,
            )


PRECISIONS = ("32-true", "32", "bf16-mixed", "16-mixed")
"""Of trainings in which a module steps its own optimizers."""


def refused_by_lightning(error: BaseException) -> ConfigError:
    """What Lightning says of options that contradict each other, as an error of the house."""
    said = " ".join(str(error).split())[:400]
    return ConfigError("options of the trainer contradict each other", said, "leave one of them out")


def sisug_error_behind(error: BaseException | None) -> SisugError | None:
    """The error of ours that another one was raised from, or None."""
    seen: set[int] = set()
    while error is not None and not isinstance(error, SisugError):
        if id(error) in seen:
            return None
        seen.add(id(error))
        error = error.__cause__ or error.__context__
    return error


def stored_hyperparameters(path: str) -> dict[str, Any]:
    """Read a training checkpoint's hyperparameters; refuse one that is missing or damaged, before anything is built.

    Args:
        path: a file, or "hpc" and "last", which Lightning finds itself among the run's files.

    Raises:
        ConfigError: an address; "best", which only a Trainer that has just trained knows.
        CheckpointError: no such file, or not a checkpoint.
    """
    if path in ("hpc", "last"):
        return {}
    check_local(path, "the checkpoint")
    if path == "best":
        raise ConfigError(
            "--ckpt_path best cannot be found",
            "a new process does not know which checkpoint of an earlier one was best",
            "give its file, or `last`",
        )
    if not Path(path).is_file():
        raise CheckpointError(
            f"the checkpoint {path} does not exist",
            "there is no such file",
            "give the path of a .ckpt file (each run has them in checkpoints/), or `last` for the newest run",
        )
    remedy = "copy it again, or use another checkpoint of the run"
    stored: dict[str, Any] = load_run(Path(path), "the checkpoint", remedy, lazy=True)["hyper_parameters"]
    return stored


def _class_paths(value: Any) -> Iterator[str]:
    """Every `class_path` in a tree of settings."""
    if isinstance(value, Mapping):
        for name, each in value.items():
            if name == "class_path" and isinstance(each, str):
                yield each
            yield from _class_paths(each)
    elif isinstance(value, list | tuple):
        for each in value:
            yield from _class_paths(each)


def _is_own_class(name: str) -> bool:
    """Whether a name is that of a class in sisug: a function could do anything, such as write a file."""
    module, _, attribute = name.rpartition(".")
    if not module.startswith("sisug."):
        return False
    try:
        return isinstance(getattr(import_module(module), attribute, None), type)
    except ImportError:
        return False


def report_changes(stored: dict[str, Any], init_args: Namespace | None) -> None:
    """Log which of the user's values differ from a checkpoint's when training goes on from it."""
    given = {} if init_args is None else init_args.as_dict()
    changes = [f"{k} {stored[k]} -> {v}" for k, v in given.items() if k in stored and stored[k] != v]
    if changes:
        logger.warning(
            "Changed since the checkpoint: %s. The new values hold, except that the optimizers' state, learning rates "
            "included, comes from the checkpoint.",
            ", ".join(changes),
        )


def quieten_lightning() -> None:
    """Leave out what Lightning says about itself: advertisements, and warnings that only its authors can act on."""
    logging.getLogger("lightning.pytorch.utilities.rank_zero").addFilter(_no_tip)
    warnings.filterwarnings("ignore", message=r".*isinstance\(treespec, LeafSpec\)")  # lightning 2.6 with torch 2.14
    # Frozen networks (generator, judge) are in eval mode for good.
    warnings.filterwarnings("ignore", message=r".*Found .* module\(s\) in eval mode at the start of training")
    # Orders and draws follow the images seen, so that going on within an epoch is exact.
    warnings.filterwarnings("ignore", message=r".*resuming from a checkpoint that ended before the epoch ended")
    # Resuming in the same folder, and testing in another one, are what is wanted here.
    warnings.filterwarnings("ignore", message=r".*Checkpoint directory .* exists and is not empty")
    warnings.filterwarnings("ignore", message=r".*The dirpath has changed from")


def _no_tip(record: logging.LogRecord) -> bool:
    return "Tip:" not in record.getMessage()
