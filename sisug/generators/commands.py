"""`sisug generator` subcommands: from a training run to the file that the other stages take."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from sisug.errors import CheckpointError, ConfigError
from sisug.generators.discriminator import Discriminator
from sisug.generators.loading import generator_path, load_discriminator, load_network
from sisug.generators.native import (
    discriminator_from_tensors,
    generator_from_tensors,
    part_of,
    read_sidecar,
    write_native,
)
from sisug.generators.stylegan2 import Generator

logger = logging.getLogger(__name__)

LICENCE = (
    "yours to state: weights inherit what the training images allow; sisug's own code, which made them, is Apache-2.0"
)


def convert(source: str, out: Path, precision: Literal["fp32", "fp16"] = "fp32", licence: str | None = None) -> str:
    """Write a trained generator as the file that all stages take, with a sidecar that says where it comes from.

    Args:
        source: checkpoint of a `GeneratorModule` run (its averaged weights are taken), a native file, or a preset.
        out: `.safetensors` file to write; the sidecar lies beside it as `.json`.
        precision: of the weights on disk; fp16 halves the file and moves images by less than 8-bit colours show.
        licence: what users may do with the weights, for the sidecar.

    Returns:
        Lines with the path, its fingerprint, and how far images moved where the precision is lower.

    Raises:
        ConfigError: `out` has another suffix, or its weights do not fit fp16.
        CheckpointError: the source is missing, damaged or something else.
    """
    if out.suffix != ".safetensors":
        raise ConfigError(f"generator file {out}", "generators are stored as safetensors", "name it *.safetensors")
    generator, discriminator, description = read_source(source)
    if licence is not None or "licence" not in description:
        description["licence"] = licence or LICENCE
    half = precision == "fp16"
    mark = write_native(out, generator, discriminator, half=half, **description)
    lines = [f"{out} ({out.stat().st_size / 1e6:.1f} MB, {precision}), fingerprint {mark[:12]}"]
    if half:
        lines.append(f"images move by {largest_move(generator, load_network(out)):.4f} at most (range -1 to 1)")
    return "\n".join(lines)


def read_source(source: str) -> tuple[Generator, Discriminator | None, dict[str, Any]]:
    """Networks of a training checkpoint, a native file or a preset, and what is known of them.

    Args:
        source: path or preset.

    Raises:
        CheckpointError: the source is missing, damaged or something else.
    """
    path = generator_path(source)
    if path.suffix != ".ckpt":
        known = read_sidecar(path)
        return load_network(path), load_discriminator(path), {k: v for k, v in known.items() if k not in WRITTEN}
    content = read_checkpoint(path)
    state: Mapping[str, Tensor] = content["state_dict"]
    tensors = part_of(state, "generator.")
    # The averaged weights, which validation and samples used too, replace the trained ones.
    averaged = {k.replace("/", "."): v for k, v in part_of(state, "average.average:").items()}
    settings = content["generator_settings"]
    generator = generator_from_tensors(tensors | averaged, settings, str(path))
    discriminator = discriminator_from_tensors(part_of(state, "discriminator."), str(path))
    description = {
        **content["provenance"],
        "measured": content.get("measured", {}),
        "weights": "exponential moving average",
        "source": {"file": path.name, "sha256": sha256_of(path)},
    }
    return generator, discriminator, description


WRITTEN = frozenset(
    ("format", "z_dim", "w_dim", "img_resolution", "channels", "mapping_layers", "mapping_lr_mul", "conv_clamp")
) | {"fingerprint", "precision"}
"""Entries of a sidecar that `write_native` makes itself."""


def read_checkpoint(path: Path) -> dict[str, Any]:
    """A training checkpoint of GeneratorModule, without running anything that it may hold.

    Raises:
        CheckpointError: it is damaged or of another module.
    """
    try:
        content: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        for part in ("state_dict", "provenance", "generator_settings"):
            content[part]
    except Exception as error:  # torch and pickle raise a dozen kinds
        raise CheckpointError(
            f"checkpoint {path} cannot be used",
            f"it is damaged, or no run of GeneratorModule wrote it ({str(error).splitlines()[0]})",
            "give checkpoints/best.ckpt or last.ckpt of a run of `make train-generator`",
        ) from error
    return content


def sha256_of(path: Path) -> str:
    """Checksum of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@torch.no_grad()
def largest_move(a: Generator, b: Generator) -> float:
    """Largest difference of a colour between the images of two generators, over 16 seeded latents."""
    z = torch.randn(16, a.z_dim, generator=torch.Generator().manual_seed(0))
    return float((a(z).clamp(-1, 1) - b(z).clamp(-1, 1)).abs().max())
