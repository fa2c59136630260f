"""From a file or a preset's name to the frozen backbone (generators): the one entry that every stage uses."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from sisug.errors import CheckpointError
from sisug.generators.backbone import StyleGAN2Backbone
from sisug.generators.discriminator import Discriminator
from sisug.generators.native import (
    discriminator_from_tensors,
    fingerprint,
    generator_from_tensors,
    part_of,
    read_sidecar,
    read_tensors,
)
from sisug.generators.stylegan2 import Generator

ASSETS = Path(__file__).parent / "assets"
PRESETS = {"avatars": ASSETS / "avatars-64.safetensors"}
"""Generators by name; a file named like a preset is reached as ./name."""

DISCRIMINATOR_PREFIX = "discriminator."


def generator_path(path_or_preset: str | Path) -> Path:
    """The file behind a path or a preset's name.

    Raises:
        CheckpointError: it is neither.
    """
    preset = PRESETS.get(str(path_or_preset))
    if preset is not None:
        return preset
    path = Path(path_or_preset).expanduser()
    if not path.exists():
        raise CheckpointError(
            f"generator {str(path_or_preset)!r} was not found",
            f"there is no such file, and the presets are: {', '.join(sorted(PRESETS))}",
            "check the path or name a preset",
        )
    return path


def load_network(path_or_preset: str | Path) -> Generator:
    """The generator's network itself, to be trained further.

    Args:
        path_or_preset: a .safetensors file with NVIDIA's key names, or a preset's name.

    Raises:
        CheckpointError: the file is missing, unreadable or holds something else.
    """
    path = generator_path(path_or_preset)
    return generator_from_tensors(_generator_tensors(path), read_sidecar(path), str(path))


def _generator_tensors(path: Path) -> dict[str, Tensor]:
    return {k: v for k, v in read_tensors(path).items() if not k.startswith(DISCRIMINATOR_PREFIX)}


def load_generator(path_or_preset: str | Path, split: int | None = None) -> StyleGAN2Backbone:
    """Load a generator as the frozen backbone.

    Args:
        path_or_preset: a .safetensors file with NVIDIA's key names, or a preset's name ("avatars" ships with sisug).
        split: resolution at which to cut it, pixels; None for half the image's, 64 at most.

    Raises:
        CheckpointError: the file is missing, unreadable or holds something else.
        ConfigError: the generator has no features of that resolution.
    """
    path = generator_path(path_or_preset)
    tensors = _generator_tensors(path)
    generator = generator_from_tensors(tensors, read_sidecar(path), str(path))
    return StyleGAN2Backbone(generator, split, fingerprint=fingerprint(tensors), source=str(path_or_preset))


def load_discriminator(path_or_preset: str | Path) -> Discriminator | None:
    """The discriminator that a generator's file carries; None where it carries none.

    Raises:
        CheckpointError: the file is missing, unreadable or its discriminator does not fit.
    """
    path = generator_path(path_or_preset)
    tensors = part_of(read_tensors(path), DISCRIMINATOR_PREFIX)
    return discriminator_from_tensors(tensors, str(path)) if tensors else None
