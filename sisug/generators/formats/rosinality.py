"""rosinality's StyleGAN2 files, and others with its names (generators)."""

from __future__ import annotations

import re

import torch
from torch import Tensor

from sisug.errors import CheckpointError
from sisug.generators.formats.source import MOST_BLOCKS, Renamed, State, first, flat, number, square, unit_sum


def is_rosinality(state: State) -> bool:
    """Whether these are its generator's names."""
    return "input.input" in state and "style.1.weight" in state


def generator_tensors(state: State, where: str) -> dict[str, Tensor]:
    """The generator under NVIDIA's names; noise constants are absent in early files.

    Args:
        state: its tensors.
        where: what to call them in messages.

    Raises:
        CheckpointError: something is missing, left over or of another shape.

    Source: weights lie as in NVIDIA's PyTorch files (no flip); filters have sum 4 instead of 1.
    """
    renamed = Renamed(state, where)
    layers = sorted(int(m[1]) for name in state if (m := re.fullmatch(r"style\.(\d{1,5})\.weight", name)))
    for layer in layers:
        for part in ("weight", "bias"):
            renamed.take(f"style.{layer}.{part}", f"mapping.fc{layer - 1}.{part}")
    renamed.take("input.input", "synthesis.b4.const", first)
    if "latent_avg" in renamed:  # in files without room for it beside the weights
        renamed.take("latent_avg", "mapping.w_avg", flat)
    blocks = sum(1 for name in state if re.fullmatch(r"to_rgbs\.\d{1,5}\.bias", name))
    kernel = _filter(renamed, blocks)
    _convolution(renamed, "conv1", "synthesis.b4.conv1", "noises.noise_0", kernel)
    _colours(renamed, "to_rgb1", "synthesis.b4", kernel)
    for k in range(blocks):
        block = f"synthesis.b{8 * 2**k}"
        _convolution(renamed, f"convs.{2 * k}", f"{block}.conv0", f"noises.noise_{2 * k + 1}", kernel)
        _convolution(renamed, f"convs.{2 * k + 1}", f"{block}.conv1", f"noises.noise_{2 * k + 2}", kernel)
        _colours(renamed, f"to_rgbs.{k}", block, kernel)
    return renamed.finished()


def _filter(renamed: Renamed, blocks: int) -> Tensor:
    """The one filter of all upsampling."""
    names = [f"convs.{2 * k}.conv.blur.kernel" for k in range(blocks)]
    names += [f"to_rgbs.{k}.upsample.kernel" for k in range(blocks)]
    if not 0 < blocks < MOST_BLOCKS:
        raise CheckpointError(
            f"{renamed.where} holds no StyleGAN2 generator",
            f"it has {blocks} blocks above 4 px",
            "give a whole generator",
        )
    kernels = [renamed.take(name, "filter", unit_sum) for name in names if name in renamed]
    renamed.tensors.pop("filter", None)
    if not kernels or any(kernel.shape != kernels[0].shape or not kernel.equal(kernels[0]) for kernel in kernels):
        cause = "none is there" if not kernels else "they are not all the same"
        raise CheckpointError(
            f"{renamed.where}: the filters of upsampling", cause, "give the file as its trainer wrote it"
        )
    return kernels[0]


def _convolution(renamed: Renamed, old: str, new: str, noise: str, kernel: Tensor) -> None:
    renamed.take(f"{old}.conv.weight", f"{new}.weight", first)
    for part in ("weight", "bias"):
        renamed.take(f"{old}.conv.modulation.{part}", f"{new}.affine.{part}")
    renamed.take(f"{old}.noise.weight", f"{new}.noise_strength", number)
    renamed.take(f"{old}.activate.bias", f"{new}.bias", flat)
    if noise in renamed:
        renamed.take(noise, f"{new}.noise_const", square)
    renamed.put(f"{new}.resample_filter", kernel)


def _colours(renamed: Renamed, old: str, block: str, kernel: Tensor) -> None:
    renamed.take(f"{old}.conv.weight", f"{block}.torgb.weight", first)
    for part in ("weight", "bias"):
        renamed.take(f"{old}.conv.modulation.{part}", f"{block}.torgb.affine.{part}")
    renamed.take(f"{old}.bias", f"{block}.torgb.bias", flat)
    renamed.put(f"{block}.resample_filter", kernel)


def discriminator_tensors(state: State, where: str) -> dict[str, Tensor]:
    """The discriminator under NVIDIA's names.

    Args:
        state: its tensors.
        where: what to call them in messages.

    Raises:
        CheckpointError: something is missing, left over or of another shape.
    """
    renamed = Renamed(state, where)
    blocks = sum(1 for name in state if re.fullmatch(r"convs\.\d{1,5}\.skip\.1\.weight", name))
    if not 0 < blocks < MOST_BLOCKS:
        raise CheckpointError(f"{where} is none", f"it has {blocks} blocks", "train without it")
    sizes = [4 * 2 ** (blocks - i) for i in range(blocks)]
    line = torch.tensor([1.0, 3.0, 3.0, 1.0])
    kernel = unit_sum(torch.outer(line, line))
    for i, size in enumerate(sizes, start=1):
        for name in ("conv2.0.kernel", "skip.0.kernel"):
            found = renamed.take(f"convs.{i}.{name}", "filter", unit_sum) if f"convs.{i}.{name}" in renamed else kernel
            if not torch.allclose(found, kernel):
                raise CheckpointError(
                    f"{where}: {name} is another filter", "all of them are [1, 3, 3, 1]", "train without it"
                )
        block = f"b{size}"
        if i == 1:
            renamed.take("convs.0.0.weight", f"{block}.fromrgb.weight")
            renamed.take("convs.0.1.bias", f"{block}.fromrgb.bias", flat)
            renamed.put(f"{block}.fromrgb.resample_filter", kernel)
        renamed.take(f"convs.{i}.conv1.0.weight", f"{block}.conv0.weight")
        renamed.take(f"convs.{i}.conv1.1.bias", f"{block}.conv0.bias", flat)
        renamed.take(f"convs.{i}.conv2.1.weight", f"{block}.conv1.weight")
        renamed.take(f"convs.{i}.conv2.2.bias", f"{block}.conv1.bias", flat)
        renamed.take(f"convs.{i}.skip.1.weight", f"{block}.skip.weight")
        for layer in ("conv0", "conv1", "skip"):
            renamed.put(f"{block}.{layer}.resample_filter", kernel)
    renamed.tensors.pop("filter", None)
    renamed.take("final_conv.0.weight", "b4.conv.weight")
    renamed.take("final_conv.1.bias", "b4.conv.bias", flat)
    renamed.put("b4.conv.resample_filter", kernel)
    for i, layer in enumerate(("fc", "out")):
        for part in ("weight", "bias"):
            renamed.take(f"final_linear.{i}.{part}", f"b4.{layer}.{part}")
    return renamed.finished()
