"""Generators for other tools (generators): under NVIDIA's names or as rosinality's files."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from sisug.errors import ConfigError
from sisug.generators.discriminator import Discriminator
from sisug.generators.stylegan2 import Generator


def nvidia_keys(generator: Generator, discriminator: Discriminator | None) -> dict[str, Any]:
    """State dicts with NVIDIA's names, as its `Generator(...).load_state_dict` takes them."""
    out = {"G_ema": _state(generator)}
    if discriminator is not None:
        state = _state(discriminator)
        for block in {name.split(".")[0] for name in state} - {"b4"}:
            state[f"{block}.resample_filter"] = state[f"{block}.conv1.resample_filter"].clone()
        out["D"] = state
    return out


def rosinality(generator: Generator, discriminator: Discriminator | None) -> dict[str, Any]:
    """A file as rosinality's converter writes it: `g_ema`, `latent_avg`, and `d` where there is a discriminator.

    Raises:
        ConfigError: the networks are of an architecture that it does not have, or have clamped layers.
    """
    if generator.architecture != "skip":
        raise ConfigError(
            f"a generator of architecture {generator.architecture}",
            "rosinality's networks have skip connections of colours",
            "write it with --to nvidia-keys",
        )
    state = _state(generator)
    taps = state["synthesis.b4.resample_filter"] * 4
    out: dict[str, Tensor] = {}
    for i in range(generator.mapping.num_layers):
        for part in ("weight", "bias"):
            out[f"style.{i + 1}.{part}"] = state[f"mapping.fc{i}.{part}"]
    out["input.input"] = state["synthesis.b4.const"][None]
    sizes = sorted(generator.channels)
    for i, size in enumerate(sizes):
        block = f"synthesis.b{size}"
        if i:
            _convolution(out, state, f"{block}.conv0", f"convs.{2 * i - 2}", f"noises.noise_{2 * i - 1}")
            out[f"convs.{2 * i - 2}.conv.blur.kernel"] = taps.clone()
            out[f"to_rgbs.{i - 1}.upsample.kernel"] = taps.clone()
        name = f"convs.{2 * i - 1}" if i else "conv1"
        _convolution(out, state, f"{block}.conv1", name, f"noises.noise_{2 * i}")
        colours = f"to_rgbs.{i - 1}" if i else "to_rgb1"
        _styled(out, state, f"{block}.torgb", colours)
        out[f"{colours}.bias"] = state[f"{block}.torgb.bias"].reshape(1, -1, 1, 1)
    made: dict[str, Any] = {"g_ema": out, "latent_avg": state["mapping.w_avg"]}
    if discriminator is not None:
        made["d"] = _discriminator(discriminator)
    return made


def _state(network: torch.nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().cpu().contiguous() for name, value in network.state_dict().items()}


def _styled(out: dict[str, Tensor], state: Mapping[str, Tensor], old: str, new: str) -> None:
    out[f"{new}.conv.weight"] = state[f"{old}.weight"][None]
    for part in ("weight", "bias"):
        out[f"{new}.conv.modulation.{part}"] = state[f"{old}.affine.{part}"]


def _convolution(out: dict[str, Tensor], state: Mapping[str, Tensor], old: str, new: str, noise: str) -> None:
    _styled(out, state, old, new)
    out[f"{new}.noise.weight"] = state[f"{old}.noise_strength"].reshape(1)
    out[f"{new}.activate.bias"] = state[f"{old}.bias"]
    out[noise] = state[f"{old}.noise_const"][None, None]


def _discriminator(network: Discriminator) -> dict[str, Tensor]:
    if network.architecture != "resnet":
        raise ConfigError(
            "a discriminator without residual paths", "rosinality's has them", "write it with --to nvidia-keys"
        )
    state = _state(network)
    kernel = state["b4.conv.resample_filter"] * 1.0
    out: dict[str, Tensor] = {}
    for i, size in enumerate(network.resolutions, start=1):
        block = f"b{size}"
        if i == 1:
            out["convs.0.0.weight"], out["convs.0.1.bias"] = (state[f"{block}.fromrgb.{p}"] for p in ("weight", "bias"))
        names = {"conv1.0.weight": "conv0.weight", "conv1.1.bias": "conv0.bias"}
        names |= {"conv2.1.weight": "conv1.weight", "conv2.2.bias": "conv1.bias", "skip.1.weight": "skip.weight"}
        for new, old in names.items():
            out[f"convs.{i}.{new}"] = state[f"{block}.{old}"]
        for new in ("conv2.0.kernel", "skip.0.kernel"):
            out[f"convs.{i}.{new}"] = kernel.clone()
    out["final_conv.0.weight"], out["final_conv.1.bias"] = state["b4.conv.weight"], state["b4.conv.bias"]
    for i, layer in enumerate(("fc", "out")):
        for part in ("weight", "bias"):
            out[f"final_linear.{i}.{part}"] = state[f"b4.{layer}.{part}"]
    return out
