"""What torch.save wrote, read as data (every stage): checked before torch opens it, called what it is if refused."""

from __future__ import annotations

import mmap
import pickle
from pathlib import Path
from typing import Any

import torch

from sisug.common.torch_files.pickles import read_pickle
from sisug.common.torch_files.torch_legacy import MAGIC, read_legacy
from sisug.common.torch_files.torch_zip import read_zip
from sisug.errors import CheckpointError, check_local


def load_data(path: Path, what: str, remedy: str, *, where: Any = "cpu", lazy: bool = False) -> Any:
    """The content of a file of torch; nothing in it is run, and it takes no more memory and time than its size asks.

    torch's own reader of data alone (`weights_only`) opens it, after ours has seen that it names nothing else than
    tensors and plain data: torch's would make bytes of any number, unpack what is compressed, and look up keys that
    were made to collide.

    Args:
        path: the file.
        what: it should be, for messages.
        remedy: for messages.
        where: tensors go: ``map_location`` of torch.load.
        lazy: whether tensors are views of the file, read when they are used.

    Raises:
        CheckpointError: it is missing, damaged, no file of torch, or names what would run.
        ConfigError: an address.
    """
    check_local(path, what)
    if not path.is_file():
        raise CheckpointError(f"{what} {path} cannot be used", "there is no such file", remedy)
    try:
        _check(path)
        return torch.load(path, map_location=where, weights_only=True, mmap=lazy or None)
    except CheckpointError as error:
        cause = f"{error.state}; {error.cause}"
        raise CheckpointError(f"{what} {path} was not opened", cause, f"nothing was run; {remedy}") from error
    except pickle.UnpicklingError as error:
        raise CheckpointError(f"{what} {path} cannot be used", _reason(error), remedy) from error
    except Exception as error:  # torch raises a dozen kinds
        raise CheckpointError(f"{what} {path} cannot be used", f"it is damaged ({_reason(error)})", remedy) from error


def _check(path: Path) -> None:
    with path.open("rb") as file:
        size = path.stat().st_size
        if size == 0:
            raise pickle.UnpicklingError("it is empty: its copy or download did not finish")
        content = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
        if bytes(content[:4]) == b"PK\x03\x04":
            read_zip(file, content, strict=True)
        elif bytes(content[: len(MAGIC)]) == MAGIC:
            read_legacy(content, strict=True)
        elif bytes(content[:1]) == b"\x80":
            read_pickle(content, strict=True)  # says what it names
            raise pickle.UnpicklingError("it is a pickle that torch did not write")
        else:
            begins = bytes(content[:8]).hex(" ")
            raise pickle.UnpicklingError(f"it is no file that torch wrote (it begins with {begins})")


def _reason(error: Exception) -> str:
    """The first line of what torch said, unless that is advice to trust the file."""
    if "weights_only" in str(error):
        return "it holds something else than tensors and plain data"
    return (str(error).splitlines() or [""])[0][:200] or type(error).__name__


def load_run(path: Path, what: str, remedy: str, *, lazy: bool = False) -> dict[str, Any]:
    """A training checkpoint: tensors under ``state_dict`` and, by name, ``hyper_parameters``, which may be empty.

    Args:
        path: the file.
        what: it should hold, for messages.
        remedy: for messages.
        lazy: whether tensors are views of the file, read when they are used.

    Raises:
        CheckpointError: it is missing, damaged, names what would run, or is no training checkpoint.
        ConfigError: an address.
    """
    content = load_data(path, what, remedy, lazy=lazy)

    def unusable(cause: str) -> CheckpointError:
        return CheckpointError(f"{what} {path} cannot be used", cause, remedy)

    if not isinstance(content, dict) or "state_dict" not in content:
        raise unusable("it is no training checkpoint")
    state, values = content["state_dict"], content.get("hyper_parameters")
    if not isinstance(state, dict) or not all(
        isinstance(name, str) and isinstance(value, torch.Tensor) for name, value in state.items()
    ):
        raise unusable("its state_dict holds something else than tensors by name")
    if not isinstance(values, dict | None) or not all(isinstance(name, str) for name in values or {}):
        raise unusable("its hyper_parameters are no values by name")
    return {**content, "hyper_parameters": dict(values or {})}
