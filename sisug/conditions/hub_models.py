"""Models of the Hugging Face hub, or of local folders, loaded whole or refused (condition depth of stage 2)."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import torch

from sisug.errors import CheckpointError, ConfigError, check_local


def check_installed(what: str) -> None:
    """Refuse to go on without the package transformers.

    Args:
        what: needs it, for messages.

    Raises:
        ConfigError: it is not installed.
    """
    if importlib.util.find_spec("transformers") is None:
        raise ConfigError(
            f"{what} without the package transformers",
            "it loads models of the hub, and is not among the packages that are always installed",
            'install it: pip install "sisug[hub]"',
        )


def load_model(kind: str, source: str, revision: str | None, what: str, unused: tuple[str, ...] = ()) -> Any:
    """A model with all of its weights, in float32 on the CPU; no random number is drawn from the global stream.

    Args:
        kind: transformers' class for the task, as AutoModelForDepthEstimation.
        source: name on the hub, or a local folder.
        revision: commit, branch or tag on the hub; None for the newest.
        what: it is, for messages.
        unused: beginnings of the names of weights that never have an effect, which files may leave out; they become 0.

    Raises:
        CheckpointError: it cannot be downloaded or read, is made for another task, or lacks weights.
    """
    import transformers

    check_local(source, what)
    try:
        with torch.random.fork_rng(devices=[]):
            model, info = getattr(transformers, kind).from_pretrained(
                source, revision=revision, dtype=torch.float32, output_loading_info=True, ignore_mismatched_sizes=True
            )
    except Exception as error:  # of the network, of files, of configurations: a dozen kinds
        raise unusable(source, what, error) from error
    lacking = {*info["missing_keys"], *(name for name, *_ in info["mismatched_keys"])}
    for name in [name for name in lacking if name.startswith(unused)]:
        model.get_parameter(name).data.zero_()
        lacking.remove(name)
    if lacking:
        raise CheckpointError(
            f"{what} {source} lacks {len(lacking)} weights: {', '.join(sorted(lacking)[:4])}",
            "they would be drawn at random: it was trained for something else, or not at all",
            "choose a model that was trained for this task",
        )
    return model


def unusable(source: str, what: str, error: Exception) -> CheckpointError:
    """What to say when transformers cannot load something.

    Args:
        source: name on the hub, or a local folder.
        what: it was to be.
        error: what transformers said.
    """
    reason = " ".join(str(error).split())[:300] or type(error).__name__
    if Path(source).is_dir():
        remedy = f"give a folder with config.json, preprocessor_config.json and model.safetensors of {what}"
    else:
        remedy = (
            f"where there is no network, download it elsewhere (hf download {source} --local-dir FOLDER) and give the "
            "folder; otherwise check the name on the hub"
        )
    return CheckpointError(f"{what} {source} cannot be loaded", reason, remedy)
