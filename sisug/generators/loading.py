"""From a file or a preset's name to the frozen backbone (generators): the one entry that every stage uses."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from sisug.common.fingerprint import checksum, fingerprint
from sisug.errors import CheckpointError, FingerprintMismatch, check_local
from sisug.generators.backbone import GeneratorBackbone, Precision, StyleGAN2Backbone
from sisug.generators.discriminator import Discriminator
from sisug.generators.formats import Family, Source, read_source
from sisug.generators.formats.source import checked_settings
from sisug.generators.mobilestylegan.backbone import MobileStyleGANBackbone
from sisug.generators.mobilestylegan.conversion import beside_others, converted
from sisug.generators.mobilestylegan.native import is_native, read_native
from sisug.generators.native import discriminator_from_tensors, generator_from_tensors, read_sidecar
from sisug.generators.preset import preset, preset_file, preset_names
from sisug.generators.stylegan2 import Generator

logger = logging.getLogger(__name__)


def generator_path(path_or_preset: str | Path) -> Path:
    """The file behind a path or a preset's name; a preset's file is fetched where it is not there.

    Args:
        path_or_preset: a file named like a preset is reached as ./name.

    Raises:
        CheckpointError: it is neither, or the download failed.
        ConfigError: an address.
    """
    if str(path_or_preset) in preset_names():
        return preset_file(preset(str(path_or_preset)))
    check_local(path_or_preset, "generator")
    path = Path(path_or_preset).expanduser()
    if not path.exists():
        raise CheckpointError(
            f"generator {str(path_or_preset)!r} was not found",
            f"there is no such file, and the presets are: {', '.join(preset_names())}",
            "check the path or name a preset",
        )
    return converted(path, beside_others(path)) if path.suffix == ".whl" else path


def load_network(path_or_preset: str | Path, label: int | None = None) -> Generator:
    """The generator's network itself, to be trained further.

    Args:
        path_or_preset: file of any family that sisug reads, or a preset's name.
        label: the class, for a class-conditional generator.

    Raises:
        CheckpointError: the file is missing, unreadable or holds something else.
    """
    path = generator_path(path_or_preset)
    return network_of(source_of(path, label, discriminator=False), path)


def load_generator(
    path_or_preset: str | Path, split: int | None = None, *, label: int | None = None, precision: Precision = "fp32"
) -> GeneratorBackbone:
    """Load a generator as the frozen backbone.

    Args:
        path_or_preset: file of any family that sisug reads (NVIDIA's PyTorch and TensorFlow files, rosinality,
            pixel2style2pixel, GenForce, safetensors, a training run's checkpoint), told by its content; or a preset's
            name ("avatars" ships with sisug). Nothing in the file is run.
        split: resolution at which to cut it, pixels; None for half the image's, 64 at most.
        label: the class, for a class-conditional generator.
        precision: in which images are rendered; features are always in float32.

    Raises:
        CheckpointError: the file is missing, unreadable or holds something else.
        ConfigError: the generator has no features of that resolution.
    """
    path = generator_path(path_or_preset)
    if is_native(path):
        network, mean, mark = read_native(path)
        source_name = str(path_or_preset)
        return MobileStyleGANBackbone(network, mean, split, fingerprint=mark, source=source_name, precision=precision)
    source = source_of(path, label, discriminator=False)
    recorded = source.description.get("fingerprint") if source.family is Family.SISUG else None
    return StyleGAN2Backbone(
        network_of(source, path),
        split,
        fingerprint=recorded,  # of a file that was compared with its sidecar
        source=str(path_or_preset),
        precision=precision,
    )


def load_discriminator(path_or_preset: str | Path, label: int | None = None) -> Discriminator | None:
    """The discriminator that a generator's file carries; None where it carries none.

    Args:
        path_or_preset: file of any family that sisug reads, or a preset's name.
        label: the class, for a class-conditional generator.

    Raises:
        CheckpointError: the file is missing, unreadable or its discriminator does not fit.
    """
    path = generator_path(path_or_preset)
    if is_native(path):
        return None
    tensors = source_of(path, label).discriminator
    return discriminator_from_tensors(tensors, f"discriminator of {path}") if tensors else None


def network_of(source: Source, path: Path) -> Generator:
    """The network of a file that was read; what it lacked is logged."""
    for note in source.notes:
        logger.info("%s: %s.", path.name, note)
    return generator_from_tensors(source.generator, source.settings, str(path))


def source_of(path: Path, label: int | None = None, *, discriminator: bool = True) -> Source:
    """Read a file of any family; for one of sisug's own, with what its sidecar says.

    Args:
        path: the file.
        label: the class, for a class-conditional generator.
        discriminator: read that too, where there is one.

    Raises:
        CheckpointError: the file is missing, damaged, hostile, no StyleGAN2, or not what its sidecar describes.
    """
    source = read_source(path, label, discriminator=discriminator)
    if source.family is not Family.NVIDIA_KEYS or path.suffix != ".safetensors":
        return source
    sidecar = read_sidecar(path)
    if not sidecar:
        return source
    _compare(path, source, sidecar)
    own = str(sidecar.get("format", "")).startswith("sisug")
    return Source(
        Family.SISUG if own else source.family,
        source.generator,
        source.discriminator,
        checked_settings(source.settings | sidecar, str(path.with_suffix(".json"))),
        source.num_labels,
        source.notes,
        sidecar,
    )


def _compare(path: Path, source: Source, sidecar: dict[str, Any]) -> None:
    """Refuse a file that is not the one that its sidecar was written with."""
    if "crc32" in sidecar:
        same = sidecar["crc32"] == checksum(path)
    else:  # of an earlier version
        same = sidecar.get("fingerprint") in (None, fingerprint(source.generator))
    if not same:
        raise FingerprintMismatch(
            f"the weights in {path} are not those that {path.with_suffix('.json').name} describes",
            "one of the two files was damaged or belongs to another generator",
            "copy both again",
        )
