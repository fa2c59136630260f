"""From a file or a preset's name to the frozen backbone (generators): the one entry that every stage uses."""

from __future__ import annotations

import importlib
import inspect
import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sisug.common.class_path import build, class_spec, find_class, spec_of_file
from sisug.common.fingerprint import checksum, fingerprint
from sisug.errors import CheckpointError, ConfigError, FingerprintMismatch, check_local
from sisug.generators.backbone import GeneratorBackbone, Precision
from sisug.generators.discriminator import Discriminator
from sisug.generators.formats import Family, Source, read_source
from sisug.generators.formats.source import checked_settings
from sisug.generators.mobilestylegan.conversion import beside_others, converted
from sisug.generators.native import discriminator_from_tensors, generator_from_tensors, read_sidecar
from sisug.generators.preset import preset, preset_file, preset_names
from sisug.generators.stylegan2 import Generator
from sisug.generators.stylegan2_backbone import StyleGAN2Backbone

logger = logging.getLogger(__name__)

FAMILIES: dict[str, str] = {"sisug-mobilestylegan": "sisug.generators.mobilestylegan.backbone:load_backbone"}
"""Formats of generator files beside StyleGAN2's, as a safetensors file's metadata or sidecar names them under `format`,
without their version; and what reads each: "module:function", which takes the file, the split and the precision, and
gives a `GeneratorBackbone`."""

MOST_HEADER = 1 << 20
"""Bytes of a safetensors file's header in which a format is looked for."""

GeneratorReference = str | dict[str, Any] | GeneratorBackbone
"""How a generator is named: a preset, a file, a class's full name, `class_path` with `init_args`, or itself."""


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
            "check the path or name a preset; or give a class, by class_path and init_args",
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
    generator: str | Path | Mapping[str, Any] | GeneratorBackbone,
    split: int | None = None,
    *,
    label: int | None = None,
    precision: Precision = "fp32",
) -> GeneratorBackbone:
    """Load a generator as the frozen backbone, with its own discriminator where its file carries one.

    Args:
        generator: file of any family that sisug reads (NVIDIA's PyTorch and TensorFlow files, rosinality,
            pixel2style2pixel, GenForce, safetensors, a training run's checkpoint), told by its content; a preset's
            name ("avatars" ships with sisug); any `GeneratorBackbone`, by its full name, or by `class_path` and
            `init_args`; or such an object, which is taken as it is. Nothing in a file is run.
        split: resolution at which to cut it, pixels; None for half the image's, 64 at most, or what a class chooses.
        label: the class, for a class-conditional generator of a file.
        precision: in which images are rendered, for a generator of a file; features are always in float32.

    Raises:
        CheckpointError: the file is missing, unreadable or holds something else.
        ConfigError: the generator has no features of that resolution; or the class cannot be made, or is none of a
            generator.
    """
    if isinstance(generator, GeneratorBackbone):
        return _checked(generator, split)
    return _load(generator_reference(generator), split, label, precision)


def generator_reference(generator: str | Path | Mapping[str, Any] | GeneratorBackbone) -> str | dict[str, Any]:
    """How checkpoints name a generator: plain data, which `load_generator` takes.

    Args:
        generator: see `load_generator`.

    Raises:
        ConfigError: a mapping that names no class, or arguments that are no plain data.
    """
    if isinstance(generator, GeneratorBackbone):
        kind = type(generator)
        # Without arguments, which nobody knows any longer.
        unknown = {"class_path": f"{kind.__module__}.{kind.__qualname__}", "init_args": None}
        return unknown if generator.reference is None else generator.reference
    if isinstance(generator, str | Path):
        text = str(generator)
        if text in preset_names() or Path(text).expanduser().exists():
            return text
        return class_spec(text, "generator") or text
    spec = class_spec(generator, "generator")
    assert spec is not None
    return spec


def generator_record(generator: GeneratorBackbone) -> dict[str, Any]:
    """How checkpoints and files of later stages name a generator: its reference and its fingerprint; plain data."""
    return {"source": generator_reference(generator), "fingerprint": generator.fingerprint}


def recorded_generator(
    recorded: Any, split: int | None, given: GeneratorReference | Path | None, path: Path
) -> GeneratorBackbone:
    """The generator that a checkpoint or sidecar names, or the one that the user gives in its place.

    A file may name a preset, a file and sisug's own classes; code of others runs only where the user names it.

    Args:
        recorded: the file's reference.
        split: resolution of the cut, pixels; None for the default.
        given: the user's; None for none. Without init_args, a class takes those that the file has for it.
        path: the file, for messages.

    Raises:
        CheckpointError: the file names foreign code, or a generator that cannot be found.
        ConfigError: what is given cannot be used.
    """
    if isinstance(given, GeneratorBackbone):
        return _checked(given, split)
    reference = None if given is None else generator_reference(given)
    if isinstance(recorded, Mapping) and not isinstance(reference, str):
        reference = spec_of_file(recorded, reference, path, "generator", "generator")
    return _load(str(recorded) if reference is None else reference, split)


def _load(
    reference: str | dict[str, Any], split: int | None, label: int | None = None, precision: Precision = "fp32"
) -> GeneratorBackbone:
    backbone: GeneratorBackbone
    if isinstance(reference, str):
        backbone = _from_file(reference, split, label, precision)
    elif label is not None or precision != "fp32":
        raise ConfigError(
            f"the generator {reference['class_path']} with a label or precision",
            "both are for generators of files",
            "give such settings of the class in init_args",
        )
    else:
        backbone = _from_class(reference, split)
        reference = {"class_path": reference["class_path"], "init_args": reference.get("init_args") or {}}
    backbone.reference = reference
    return backbone


def _from_file(path_or_preset: str, split: int | None, label: int | None, precision: Precision) -> GeneratorBackbone:
    path = generator_path(path_or_preset)
    family = family_of(path)
    if family is not None:
        if label is not None:
            raise ConfigError(f"label {label}", f"{path.name} knows no classes", "leave the label out")
        module, _, function = FAMILIES[family].partition(":")
        backbone: GeneratorBackbone = getattr(importlib.import_module(module), function)(path, split, precision)
        backbone.source = path_or_preset
        return backbone
    source = source_of(path, label)
    recorded = source.description.get("fingerprint") if source.family is Family.SISUG else None
    return StyleGAN2Backbone(
        network_of(source, path),
        split,
        fingerprint=recorded,  # of a file that was compared with its sidecar
        source=path_or_preset,
        discriminator=_discriminator_of(source, path),
        precision=precision,
    )


def _from_class(spec: Mapping[str, Any], split: int | None) -> GeneratorBackbone:
    kind = find_class(spec["class_path"], GeneratorBackbone, "generator")  # type: ignore[type-abstract]
    arguments = spec.get("init_args") or {}
    if split is not None and "split" in inspect.signature(kind).parameters and "split" not in arguments:
        spec = {**spec, "init_args": {**arguments, "split": split}}
    backbone = build(spec, GeneratorBackbone, "generator")  # type: ignore[type-abstract]
    backbone.source = backbone.source or str(spec["class_path"])
    return _checked(backbone, split)


def _checked(backbone: GeneratorBackbone, split: int | None) -> GeneratorBackbone:
    """Refuse a backbone that lacks what every stage reads of it, or that is cut elsewhere."""
    kind = type(backbone).__name__
    numbers = ("resolution", "split", "feature_channels", "num_ws", "z_dim", "w_dim")
    lacking = [name for name in numbers if not isinstance(getattr(backbone, name, None), int)]
    if lacking:
        raise ConfigError(
            f"the generator {kind} has no {', '.join(lacking)}",
            "every stage reads these numbers of a GeneratorBackbone",
            "set them in its constructor; sisug.testing.check_backbone checks all of the contract",
        )
    if split is not None and split != backbone.split:
        raise ConfigError(
            f"split {split}",
            f"the generator {backbone.source or kind} is cut at {backbone.split} px",
            f"leave the split out, or cut it there yourself; it can be cut at {backbone.splits()}",
        )
    return backbone


def load_discriminator(path_or_preset: str | Path, label: int | None = None) -> Discriminator | None:
    """The discriminator that a StyleGAN2 generator's file carries; None where it carries none.

    Args:
        path_or_preset: file of any family that sisug reads, or a preset's name.
        label: the class, for a class-conditional generator.

    Raises:
        CheckpointError: the file is missing, unreadable or its discriminator does not fit.
    """
    path = generator_path(path_or_preset)
    return None if family_of(path) is not None else _discriminator_of(source_of(path, label), path)


def _discriminator_of(source: Source, path: Path) -> Discriminator | None:
    tensors = source.discriminator
    return discriminator_from_tensors(tensors, f"discriminator of {path}") if tensors else None


def family_of(path: Path) -> str | None:
    """Which of `FAMILIES` a safetensors file belongs to, by its metadata or its sidecar; None for none of them.

    Args:
        path: the file.
    """
    for read in (_metadata, _sidecar):
        try:
            family = str(read(path)["format"]).rpartition("-")[0]
        except (OSError, ValueError, KeyError, TypeError, RecursionError):  # whoever reads the file says what is wrong
            continue
        if family in FAMILIES:
            return family
    return None


def _metadata(path: Path) -> Any:
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if length > MOST_HEADER or (start := file.read(length))[:1] != b"{":
            raise ValueError("no header")
    return json.loads(start)["__metadata__"]


def _sidecar(path: Path) -> Any:
    if path.suffix != ".safetensors":
        raise ValueError("no sidecar")
    return json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))


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
