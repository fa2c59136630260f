"""`sisug generator convert`: from a file of any family, or a training run, to the file that the other stages take."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any, Literal

import torch

from sisug.common.atomic_file import atomic_write
from sisug.common.fingerprint import sha256_of
from sisug.errors import ConfigError
from sisug.generators.discriminator import Discriminator
from sisug.generators.formats import Family, exchange
from sisug.generators.loading import generator_path, load_network, network_of, source_of
from sisug.generators.native import discriminator_from_tensors, write_native
from sisug.generators.stylegan2 import Generator

logger = logging.getLogger(__name__)

LICENCE = (
    "yours to state: weights inherit what the training images allow; sisug's own code, which made them, is Apache-2.0"
)


def convert(
    source: str,
    out: Path,
    precision: Literal["fp32", "fp16"] = "fp32",
    licence: str | None = None,
    label: int | None = None,
    to: Literal["native", "nvidia-keys", "rosinality"] = "native",
) -> str:
    """Write a generator of any family, or of a training run, as one file, with a sidecar that says where it comes from.

    Args:
        source: generator file of any family, checkpoint of a `GeneratorModule` run (its averaged weights are taken), or
            a preset. Nothing in it is run.
        out: file to write: `.safetensors` for sisug, `.pt` for other tools; the sidecar lies beside it as `.json`.
        precision: of the weights on disk; fp16 halves the file and moves images by less than 8-bit colours show.
        licence: what users may do with the weights, for the sidecar.
        label: the class to keep of a class-conditional generator.
        to: `native` for sisug; `nvidia-keys` for state dicts that NVIDIA's PyTorch networks load; `rosinality` for a
            file as its converter writes it.

    Returns:
        Lines with the path, its fingerprint, what the source lacked, and how far images moved where the precision is
        lower.

    Raises:
        ConfigError: `out` has another suffix, or the weights do not fit what was asked for.
        CheckpointError: the source is missing, damaged, hostile or something else.
    """
    suffix = ".safetensors" if to == "native" else ".pt"
    if out.suffix != suffix:
        raise ConfigError(f"generator file {out}", f"{to} files are stored as {suffix[1:]}", f"name it *{suffix}")
    half = precision == "fp16"
    if half and to != "native":
        raise ConfigError(f"{to} in fp16", "other tools expect fp32", "leave --precision out")
    path = generator_path(source)
    if path.resolve() == out.resolve():
        raise ConfigError(f"{out} is the source itself", "it would be replaced", "choose another name")
    generator, discriminator, description, notes = read(path, label)
    if licence is not None or "licence" not in description:
        description["licence"] = licence or LICENCE
    if to == "native":
        mark = write_native(out, generator, discriminator, half=half, **description)
        lines = [f"{out} ({out.stat().st_size / 1e6:.1f} MB, {precision}), fingerprint {mark[:12]}"]
    else:
        write = exchange.rosinality if to == "rosinality" else exchange.nvidia_keys
        with atomic_write(out) as file:
            torch.save(write(generator, discriminator), file)
        with atomic_write(out.with_suffix(".json")) as file:
            file.write((json.dumps(description, indent=1) + "\n").encode())
        lines = [f"{out} ({out.stat().st_size / 1e6:.1f} MB, {to})"]
        if to == "rosinality" and generator.synthesis.block(4).conv1.clamp is not None:
            lines.append("its activations are clamped, which rosinality's networks do not do; few images show it")
    lines += notes
    if half:
        lines.append(f"images move by {largest_move(generator, load_network(out)):.4f} at most (range -1 to 1)")
    return "\n".join(lines)


def read(
    path: Path, label: int | None = None
) -> tuple[Generator, Discriminator | None, dict[str, Any], tuple[str, ...]]:
    """Networks of a file, what is known of them for a sidecar, and what the file lacked.

    Args:
        path: file of any family.
        label: the class, for a class-conditional generator.

    Raises:
        CheckpointError: the file is missing, damaged, hostile or something else.
    """
    source = source_of(path, label)
    generator = network_of(source, path)
    discriminator = None
    if source.discriminator is not None:
        discriminator = discriminator_from_tensors(source.discriminator, f"discriminator of {path}")
    description = {name: value for name, value in source.description.items() if name not in WRITTEN}
    # A file of sisug's that is written anew keeps saying where it came from at first.
    description.setdefault("source", {"file": path.name, "sha256": sha256_of(path), "family": source.family.title})
    if source.family is not Family.SISUG:
        description["licence"] = source.family.licence
        description["completed"] = list(source.notes)
    return generator, discriminator, description, source.notes


WRITTEN = frozenset(
    ("format", "z_dim", "w_dim", "img_resolution", "channels", "mapping_layers", "mapping_lr_mul", "conv_clamp")
) | {"num_fp16_res", "crc32", "fingerprint", "discriminator_fingerprint", "precision"}
"""Entries of a sidecar that `write_native` makes itself."""


@torch.no_grad()
def largest_move(a: Generator, b: Generator) -> float:
    """Largest difference of a colour between the images of two generators, over 16 seeded latents."""
    z = torch.randn(16, a.z_dim, generator=torch.Generator().manual_seed(0))
    return float((a(z).clamp(-1, 1) - b(z).clamp(-1, 1)).abs().max())
