"""sisug's own files of MobileStyleGAN (generators): safetensors with the network's names, and a JSON sidecar."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from sisug.common.atomic_file import atomic_write
from sisug.common.fingerprint import fingerprint
from sisug.common.state_dicts import differences, finite, listed
from sisug.errors import CheckpointError
from sisug.generators.mobilestylegan.network import CONSTANT_SIZE, MobileStyleGAN

FORMAT = "sisug-mobilestylegan-1"
MEAN = "mean_style"
MEAN_SAMPLES = 10_000
SEED = 0
LARGEST_FILE = 1 << 28
"""Bytes; the published network takes 40 MB."""

MOST_HEADER = 1 << 20
REMEDY = "delete it, so that it is made anew from the published wheel, or copy it again"


def is_native(path: Path) -> bool:
    """Whether a file says of itself that it is one of these."""
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if length > MOST_HEADER or (start := file.read(length))[:1] != b"{":
                return False
        header = json.loads(start)
        return str(header["__metadata__"]["format"]).startswith("sisug-mobilestylegan-")
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return False


def write_native(path: Path, weights: Mapping[str, Tensor], **description: Any) -> str:
    """Write weights with the mean style and a sidecar; the fingerprint is returned.

    Args:
        path: target, ending in .safetensors.
        weights: of the whole network, in float32.
        description: further entries of the sidecar (source, terms, ...), JSON values.

    Raises:
        CheckpointError: the weights make no network.
        RunError: the disk is full.
    """
    network = network_from(weights, str(path))
    mark = fingerprint(weights)
    sidecar = {
        "format": FORMAT,
        "fingerprint": mark,
        "z_dim": network.z_dim,
        "w_dim": network.w_dim,
        "resolution": network.resolution,
        "channels": {str(size): channels for size, channels in network.channels.items()},
        "mean_style": f"of {MEAN_SAMPLES:,} latents of seed {SEED}; the fingerprint is of all other tensors",
    } | description
    mean = mean_style(network)
    metadata = {"format": FORMAT, "fingerprint": mark, MEAN: fingerprint({MEAN: mean})}
    content = save({**weights, MEAN: mean}, metadata)
    with atomic_write(path.with_suffix(".json")) as file:
        file.write((json.dumps(sidecar, indent=1) + "\n").encode())
    with atomic_write(path) as file:  # last, since it is the one that is looked for
        file.write(content)
    return mark


def read_native(path: Path) -> tuple[MobileStyleGAN, Tensor, str]:
    """The network of a file, its mean style and fingerprint.

    Raises:
        CheckpointError: the file is damaged, too large, of a later version, or holds something else.
    """
    try:
        size = path.stat().st_size
        if size > LARGEST_FILE:
            raise CheckpointError(
                f"{path} cannot be read", f"it has {size:,} bytes, and at most {LARGEST_FILE:,} are read", REMEDY
            )
        content = path.read_bytes()
        metadata = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])["__metadata__"]
        weights = load(content)
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        raise CheckpointError(f"{path} cannot be read", str(error)[:300], REMEDY) from error
    if metadata["format"] != FORMAT:
        raise CheckpointError(
            f"{path} cannot be read", f"it is of the format {metadata['format']!r:.60}, not {FORMAT}", "update sisug"
        )
    mean = weights.pop(MEAN, torch.zeros(0))
    network = network_from(weights, str(path))
    if mean.shape != (network.w_dim,) or not finite(mean):
        raise CheckpointError(f"{path} cannot be used", f"it has no {MEAN} of {network.w_dim} numbers", REMEDY)
    mark = fingerprint(weights)
    found = {"fingerprint": mark, MEAN: fingerprint({MEAN: mean})}
    if any(metadata.get(name, value) != value for name, value in found.items()):
        raise CheckpointError(f"{path} is damaged", "its weights are not those that its header names", REMEDY)
    return network, mean, mark


def network_from(weights: Mapping[str, Tensor], name: str) -> MobileStyleGAN:
    """Network with these weights, which it takes as they are; its sizes come from their names and shapes.

    Args:
        weights: under the network's names, in float32.
        name: what to call their source in messages.

    Raises:
        CheckpointError: tensors are missing, left over, not finite, or of a shape or type that does not fit.
    """
    blocks = len({found[1] for key in weights if (found := re.match(r"blocks\.(\d)\.", key))})
    layers = len({found[1] for key in weights if (found := re.match(r"mapping\.layers\.(\d{1,2})\.", key))})
    try:
        channels = {CONSTANT_SIZE: len(weights["first.bias"])}
        for i in range(blocks):
            channels[CONSTANT_SIZE << i + 1] = len(weights[f"blocks.{i}.conv2.bias"])
        w_dim, z_dim = weights["mapping.layers.0.weight"].shape
        with torch.device("meta"):  # no memory for what is replaced at once
            network = MobileStyleGAN(z_dim, w_dim, channels, layers)
    except (KeyError, ValueError, TypeError, RuntimeError) as error:
        raise CheckpointError(
            f"{name} holds no MobileStyleGAN", f"{str(error)[:200]} is missing or misshapen", REMEDY
        ) from error
    problems = differences(network.state_dict(), weights)
    problems += [f"{key} is {value.dtype}" for key, value in weights.items() if value.dtype != torch.float32]
    problems += [f"{key} is not finite" for key, value in weights.items() if not finite(value)]
    if problems:
        raise CheckpointError(f"{name} holds no MobileStyleGAN", listed(problems), REMEDY)
    network.load_state_dict(dict(weights), assign=True)
    return network


@torch.no_grad()
def mean_style(network: MobileStyleGAN) -> Tensor:
    """Of 10,000 seeded samples, towards which truncation pulls.

    Args:
        network: whose mapping network is meant.
    """
    z = torch.randn(MEAN_SAMPLES, network.z_dim, generator=torch.Generator().manual_seed(SEED))
    return torch.cat([network.mapping(part) for part in torch.split(z, 1000)]).double().mean(0).float()
