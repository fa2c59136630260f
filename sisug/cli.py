"""The `sisug` command (every stage): finds the subcommand's code, runs it, and turns errors into messages.

Nothing heavy is imported before the subcommand is known, so `sisug --help` answers at once.
"""

from __future__ import annotations

import errno
import importlib
import logging
import os
import re
import sys
from collections.abc import Callable
from typing import Any

from sisug import __version__
from sisug.errors import DiskFullError, SisugError, printable

BAD_INPUT = 2
"""Exit code when the user's input cannot be used, as argparse's own."""

FULL_DISK = 74
"""Exit code when a disk or quota is full, as EX_IOERR of sysexits.h: no input was wrong."""

INTERRUPTED = 130
"""Exit code after Ctrl-C: 128 + SIGINT."""

TERMINATED = 143
"""Exit code after SIGTERM, as from a scheduler: 128 + SIGTERM."""

TRAINING = {
    "fit": "train a module: --config experiments/base.yaml --config ... (see experiments/)",
    "validate": "validate a trained module: --ckpt_path FILE|last",
    "test": "test a trained module: --ckpt_path FILE|last",
}
"""Lightning's subcommands, with the line that `sisug --help` shows."""

TOOLS: dict[str, tuple[str, str]] = {
    "annotate check": (
        "sisug.segmentation.annotation.commands:check",
        "what painted masks hold, and what is wrong with them",
    ),
    "annotate export": (
        "sisug.segmentation.annotation.commands:export",
        "generator samples as pictures to paint, with a palette",
    ),
    "data check": (
        "sisug.data.commands:check",
        "what a folder of images and masks holds, and what is wrong with it",
    ),
    "data convert": (
        "sisug.data.commands:convert",
        "a data set as a clean tree: FOLDER --to OUT [--format celebamask-hq]",
    ),
    "data plot": ("sisug.data.commands:plot", "a picture of a data set's images beside their coloured masks"),
    "demo": (
        "sisug.synthesis.demo.commands:demo",
        "a page in the browser to draw on: the picture follows each stroke",
    ),
    "evaluate": (
        "sisug.evaluation.commands:evaluate",
        "a protocol's table and report: --protocol few-shot|supervised|quality|diversity|ablation",
    ),
    "generate": (
        "sisug.synthesis.commands:generate",
        "images of drawings: --mapper FILE --input FILE|FOLDER --out FOLDER",
    ),
    "generator convert": (
        "sisug.generators.commands:convert",
        "write a generator of any family as sisug's own file, or another tool's",
    ),
    "generator inspect": (
        "sisug.generators.inspection:inspect",
        "what a generator file is: family, settings, samples",
    ),
    "generator score": (
        "sisug.segmentation.generator_score:score",
        "Fréchet distance and classes of avatar generators",
    ),
    "mapper export": ("sisug.mapper.commands:export", "write a trained mapper as the small file that generate loads"),
    "rearranger export": ("sisug.rearranger.commands:export", "write a trained rearranger as a small file"),
    "sweep": (
        "sisug.sweeps.commands:sweep",
        "a W&B sweep file on this machine, without an account: FILE --count N",
    ),
    "train-all": (
        "sisug.training.train_all:train_all",
        "all that ships for a data set, within a time: --data avatars|faces --minutes 10",
    ),
    "judge export": ("sisug.segmentation.commands:export", "measure a trained judge and write it as a judge file"),
}
"""The other subcommands: what runs ("module:function"; its signature makes the options) and the line of `--help`."""


def main(args: list[str] | None = None) -> int:
    """Run the `sisug` command.

    Args:
        args: command line without the program's name; None for `sys.argv`.

    Returns:
        The exit code: 0 done, 1 failed, 2 bad input, 74 disk full, 130 interrupted, 143 terminated. Errors in sisug
        itself keep their traceback, and so do all with SISUG_DEBUG=1.
    """
    arguments = sys.argv[1:] if args is None else args
    _show_log()
    try:
        _dispatch(arguments)
    except SisugError as error:
        full = isinstance(error, DiskFullError) or _errno_behind(error) in _FULL
        return _fail(error, str(error), FULL_DISK if full else BAD_INPUT)
    except KeyboardInterrupt:
        sys.stderr.write("Interrupted.\n")
        return INTERRUPTED
    except SystemExit as stop:
        # Lightning turns Ctrl-C into exit code 1, after its clean-up and a line on how to go on.
        if isinstance(stop.__context__, KeyboardInterrupt):
            return INTERRUPTED
        if type(stop).__name__ == "SIGTERMException":  # Lightning's, whose own exit code is 0
            return TERMINATED
        raise
    except RuntimeError as error:
        if "killed by signal: Terminated" in str(error):  # a data worker: SIGTERM was for the whole job
            return TERMINATED
        raise
    except OSError as error:
        cause = _CAUSES.get(error.errno or 0)
        if cause is None:
            raise
        code = FULL_DISK if error.errno in _FULL else 1
        return _fail(error, printable(f"{error.filename or 'A file'} could not be used. {cause}"), code)
    return 0


def _errno_behind(error: BaseException | None) -> int | None:
    """Number of the system's error that another one was raised from."""
    seen: set[int] = set()  # an error that is raised again from one that it caused makes a circle
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        if isinstance(error, OSError):
            return error.errno
        error = error.__cause__ or error.__context__
    return None


_FREE_SPACE = "Remedy: free some space; a training run then continues with --ckpt_path last."

_FULL = (errno.ENOSPC, errno.EDQUOT)

_CAUSES = {
    errno.ENOSPC: f"Cause: the disk is full. {_FREE_SPACE}",
    errno.EDQUOT: f"Cause: your disk quota is used up. {_FREE_SPACE}",
    errno.EACCES: "Cause: permission denied. Remedy: change the file's permissions or choose another place.",
    errno.EROFS: "Cause: the file system is read-only. Remedy: choose another place.",
}


def _dispatch(arguments: list[str]) -> None:
    if not arguments or arguments[0] in ("-h", "--help"):
        sys.stdout.write(top_help())
    elif arguments[0] == "--version":
        sys.stdout.write(f"sisug {__version__}\n")
    elif arguments[0] in TRAINING:
        from sisug.training.lightning_cli import SisugCLI

        # Without arguments of our own, Lightning reads sys.argv, which a DDP run also starts its other processes with.
        SisugCLI(None if arguments == sys.argv[1:] else arguments)
    else:
        _run_tool(arguments)


def _run_tool(arguments: list[str]) -> None:
    for length in (2, 1):
        name = " ".join(arguments[:length])
        if name in TOOLS and len(arguments) >= length:
            from jsonargparse import auto_cli

            from sisug.common.class_path import join_class_options
            from sisug.common.memory import keep_freed_memory

            keep_freed_memory()
            options = join_class_options([_with_underscores(argument) for argument in arguments[length:]])
            result = auto_cli(_load(TOOLS[name][0]), args=options, prog=f"sisug {name}", as_positional=True)
            if result is not None:
                sys.stdout.write(printable(f"{result}\n", keep="\n"))
            return
    group = [line for line in _table() if line.split()[0] == arguments[0]]
    if group and arguments[1:] in ([], ["-h"], ["--help"]):
        sys.stdout.write("\n".join([f"usage: sisug {arguments[0]} COMMAND [OPTIONS]", "", *group, ""]))
        return
    sys.stderr.write(f"{top_help()}\nerror: there is no command {' '.join(arguments[:2])!r}\n")
    raise SystemExit(BAD_INPUT)


def _with_underscores(argument: str) -> str:
    """`--style-from=3` as `--style_from=3`, the only spelling that jsonargparse knows; values stay as they are."""
    return re.sub(r"^--[a-z][a-z-]*", lambda found: "--" + found[0][2:].replace("-", "_"), argument)


def top_help() -> str:
    """The text of `sisug --help`, made without importing any stage."""
    return "\n".join(
        [
            "usage: sisug COMMAND [OPTIONS]",
            "",
            "Semantic image synthesis with an unconditional generator.",
            "",
            "commands:",
            *_table(),
            "",
            "sisug COMMAND --help shows a command's options; sisug --version the version.",
            "",
        ]
    )


def _table() -> list[str]:
    lines = TRAINING | {name: line for name, (_, line) in TOOLS.items()}
    width = max(map(len, lines))
    return [f"  {name:<{width}}  {line}" for name, line in lines.items()]


def _load(target: str) -> Callable[..., Any]:
    module, _, function = target.partition(":")
    found = getattr(importlib.import_module(module), function)
    assert callable(found)
    return found


def _fail(error: BaseException, message: str, code: int) -> int:
    if os.environ.get("SISUG_DEBUG") == "1":
        raise error
    sys.stderr.write(f"error: {message}\n")
    return code


class _CurrentStderr(logging.Handler):
    """Writes to what `sys.stderr` is at the moment: a running progress bar replaces it, to print above itself."""

    def emit(self, record: logging.LogRecord) -> None:
        sys.stderr.write(printable(self.format(record) + "\n", keep="\n\t"))


def _show_log() -> None:
    log = logging.getLogger("sisug")
    if not any(isinstance(handler, _CurrentStderr) for handler in log.handlers):
        log.addHandler(_CurrentStderr())
    # With several processes, information comes from the first only; warnings from all.
    log.setLevel(logging.WARNING if os.environ.get("LOCAL_RANK", "0") != "0" else logging.INFO)
    log.propagate = True
