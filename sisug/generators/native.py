"""sisug's own generator files (generators): safetensors with NVIDIA's key names, and a JSON sidecar for people.

The tensors decide every setting but two that leave no trace in shapes, which the sidecar may name: `mapping_lr_mul` and
`conv_clamp`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor

from sisug.common.atomic_file import atomic_write
from sisug.common.fingerprint import checksum, fingerprint
from sisug.common.state_dicts import differences, finite, listed
from sisug.errors import CheckpointError, ConfigError
from sisug.generators.discriminator import Discriminator
from sisug.generators.stylegan2 import Architecture, Generator

CONVERT_HINT = "give the file as its trainer wrote it, or the shipped preset 'avatars'"

DISCRIMINATOR_PREFIX = "discriminator."


def read_sidecar(path: Path) -> dict[str, Any]:
    """The JSON file beside a safetensors file; empty where there is none.

    Raises:
        CheckpointError: it is there but holds no JSON object.
    """
    sidecar = path.with_suffix(".json")
    if not sidecar.is_file():
        return {}
    try:
        content = json.loads(sidecar.read_text())
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"{sidecar} cannot be read", f"it is no JSON ({error})", "restore it or delete it: the tensors suffice"
        ) from error
    if not isinstance(content, dict):
        raise CheckpointError(
            f"{sidecar} cannot be used", "it holds no JSON object", "restore it or delete it: the tensors suffice"
        )
    return content


def generator_from_tensors(tensors: Mapping[str, Tensor], settings: Mapping[str, Any], name: str) -> Generator:
    """Network with these weights, which it takes as they are; its sizes come from their names and shapes.

    Args:
        tensors: NVIDIA key names, `mapping.*` and `synthesis.*`, in float32.
        settings: what they do not tell: `mapping_lr_mul`, `conv_clamp` and `num_fp16_res`, where they differ from
            0.01, none and 0.
        name: what to call the source in messages.

    Raises:
        CheckpointError: tensors are missing, left over or of a shape that does not fit the others.
    """
    blocks = sorted({int(m[1]) for key in tensors if (m := re.match(r"synthesis\.b(\d{1,5})\.", key))})
    layers = len({m[1] for key in tensors if (m := re.match(r"mapping\.fc(\d{1,5})\.weight$", key))})
    expected = [4 * 2**i for i in range(len(blocks))]
    if not blocks or blocks != expected or layers == 0:
        raise CheckpointError(
            f"{name} holds no StyleGAN2 generator",
            f"it has blocks {blocks[:12]} and {layers} mapping layers; blocks must go 4, 8, 16, ...",
            CONVERT_HINT,
        )
    try:
        channels = {r: tensors[f"synthesis.b{r}.conv1.weight"].shape[0] for r in blocks}
        w_dim, z_dim = tensors["mapping.fc0.weight"].shape
        kernel = tensors["synthesis.b4.resample_filter"]
        taps = kernel.sum(dim=0).tolist()
        img_channels = tensors[f"synthesis.b{blocks[-1]}.torgb.weight"].shape[0]
    except (KeyError, ValueError, IndexError, RuntimeError) as error:
        raise CheckpointError(f"{name} is incomplete", f"{error} is missing or misshapen", CONVERT_HINT) from error
    if kernel.dim() != 2 or kernel.shape[0] != kernel.shape[1] or not kernel.equal(kernel.flip(0, 1)):
        raise CheckpointError(
            f"{name} resamples with an unusual filter", "sisug's StyleGAN2 takes symmetric ones", CONVERT_HINT
        )
    if any(f"synthesis.b{r}.skip.weight" in tensors for r in blocks):
        architecture: Architecture = "resnet"
    else:
        architecture = "skip" if "synthesis.b4.torgb.weight" in tensors else "orig"
    try:
        with torch.device("meta"):  # its own weights would be drawn at random, and replaced at once
            generator = Generator(
                z_dim,
                w_dim,
                channels,
                mapping_layers=layers,
                mapping_lr_multiplier=settings.get("mapping_lr_mul") or 0.01,
                img_channels=img_channels,
                taps=taps,
                clamp=settings.get("conv_clamp"),
                architecture=architecture,
                num_fp16_res=settings.get("num_fp16_res") or 0,
            )
    except (RuntimeError, ArithmeticError, ValueError) as error:
        raise _impossible(name, error) from error
    load_strictly(generator, tensors, name)
    return generator


def discriminator_from_tensors(tensors: Mapping[str, Tensor], name: str) -> Discriminator:
    """Discriminator with these weights, which it takes as they are (NVIDIA key names, no prefix, float32).

    Raises:
        CheckpointError: tensors are missing, left over or of a wrong shape.
    """
    blocks = sorted({int(m[1]) for key in tensors if (m := re.match(r"b(\d{1,5})\.", key))})
    try:
        channels = {r: tensors[f"b{r}.conv0.weight"].shape[0] for r in blocks if r > 4}
        channels[4] = tensors["b4.conv.weight"].shape[0]
        img_channels = tensors[f"b{blocks[-1]}.fromrgb.weight"].shape[1]
    except (KeyError, IndexError) as error:
        raise CheckpointError(
            f"{name} holds no StyleGAN2 discriminator", f"{error} is missing", CONVERT_HINT
        ) from error
    residual = any(f"b{r}.skip.weight" in tensors for r in blocks)
    try:
        with torch.device("meta"):
            discriminator = Discriminator(
                channels, img_channels=img_channels, architecture="resnet" if residual else "orig"
            )
    except (RuntimeError, ArithmeticError, ValueError, KeyError) as error:
        raise _impossible(name, error) from error
    load_strictly(discriminator, tensors, name)
    return discriminator


def _impossible(name: str, error: Exception) -> CheckpointError:
    return CheckpointError(
        f"the tensors of {name} make no network", str(error).splitlines()[0] if str(error) else "sizes", CONVERT_HINT
    )


def load_strictly(network: torch.nn.Module, tensors: Mapping[str, Tensor], name: str) -> None:
    """Copy tensors into a network of exactly these names and shapes.

    Raises:
        CheckpointError: names what is missing, left over, of a wrong shape or not finite.
    """
    problems = differences(network.state_dict(), tensors)
    problems += [f"{key} is not finite" for key, value in tensors.items() if not finite(value)]
    if problems:
        raise CheckpointError(f"{name} does not fit StyleGAN2's networks", listed(problems, 5), CONVERT_HINT)
    network.load_state_dict(dict(tensors), assign=True)


def untraced_settings(generator: Generator) -> dict[str, Any]:
    """The settings that tensors' names and shapes do not tell, by their names in the sidecar."""
    return {
        "mapping_lr_mul": generator.mapping.get_submodule("fc0").bias_gain,
        "conv_clamp": generator.synthesis.block(4).conv1.clamp,
        "num_fp16_res": generator.num_fp16_res,
    }


def write_native(
    path: Path,
    generator: Generator,
    discriminator: Discriminator | None = None,
    *,
    half: bool = False,
    **description: Any,
) -> str:
    """Write a generator, and its discriminator where there is one, with a sidecar; the fingerprint is returned.

    Both files appear under their names only when they are complete.

    Args:
        path: target, ending in .safetensors.
        generator: network to write.
        discriminator: its adversary, which later stages start from; under the prefix `discriminator.`.
        half: store weights in float16.
        description: further entries of the sidecar (data, images seen, licence, ...), JSON values.

    Raises:
        ConfigError: weights are too large for float16.
        RunError: the disk is full.
    """
    tensors = _stored(generator, half)
    mark = fingerprint(tensors)
    if discriminator is not None:
        adversary = _stored(discriminator, half)
        tensors |= {f"{DISCRIMINATOR_PREFIX}{name}": value for name, value in adversary.items()}
    sidecar = {
        "format": "sisug generator, version 1: safetensors with NVIDIA's StyleGAN2 key names",
        "z_dim": generator.z_dim,
        "w_dim": generator.w_dim,
        "img_resolution": generator.resolution,
        "channels": {str(r): c for r, c in generator.channels.items()},
        "mapping_layers": generator.mapping.num_layers,
        **untraced_settings(generator),
        "precision": "fp16" if half else "fp32",
        "crc32": "",
        "fingerprint": mark,
        **({} if discriminator is None else {"discriminator_fingerprint": fingerprint(adversary)}),
    } | description
    with atomic_write(path) as file:  # not save_file, whose files nobody else may read
        file.write(save(tensors))
    sidecar["crc32"] = checksum(path)
    with atomic_write(path.with_suffix(".json")) as file:
        file.write((json.dumps(sidecar, indent=1) + "\n").encode())
    return mark


def _stored(network: torch.nn.Module, half: bool) -> dict[str, Tensor]:
    """A network's tensors as they go to disk."""
    tensors = {key: value.detach().cpu().contiguous() for key, value in network.state_dict().items()}
    if not half:
        return tensors
    small = {key: value.half() if value.is_floating_point() else value for key, value in tensors.items()}
    lost = [key for key, value in small.items() if not value.isfinite().all() and tensors[key].isfinite().all()]
    if lost:
        raise ConfigError(
            "the generator cannot be stored in fp16",
            f"numbers above 65,504 in {', '.join(lost[:3])}",
            "store it in fp32",
        )
    return small
