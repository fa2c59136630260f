"""NVIDIA's original StyleGAN2 files, which TensorFlow wrote (generators); no TensorFlow is needed."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from sisug.common.torch_files.arrays import Number, NumpyArray
from sisug.common.torch_files.pickles import TensorFlowNetwork
from sisug.errors import CheckpointError
from sisug.generators.formats.source import Renamed, State, first, flat, number, square, unit_sum


def variables(network: TensorFlowNetwork, prefix: str = "", depth: int = 0) -> dict[str, NumpyArray | Number]:
    """Arrays of a network and of those within it, by name."""
    found: dict[str, NumpyArray | Number] = {}
    listed = network.state.get("variables")
    for pair in listed if isinstance(listed, list) else []:
        if not isinstance(pair, (tuple, list)) or len(pair) != 2:
            continue
        name, value = pair
        if isinstance(value, NumpyArray):
            found[f"{prefix}{name}"] = value
        elif isinstance(value, float):
            found[f"{prefix}{name}"] = Number(value)
    components = network.state.get("components")
    if isinstance(components, dict) and depth < 2:
        for name, part in components.items():
            if isinstance(part, TensorFlowNetwork):
                found |= variables(part, f"{prefix}{name}/", depth + 1)
    return found


def settings(network: TensorFlowNetwork) -> dict[str, Any]:
    """Settings that shapes do not tell.

    Raises:
        CheckpointError: a setting that sisug's networks do not have.
    """
    given = network.state.get("static_kwargs")
    known: Mapping[str, Any] = given if isinstance(given, dict) else {}
    for name, expected in {"nonlinearity": "lrelu", "act": "lrelu", "mapping_nonlinearity": "lrelu"}.items():
        if known.get(name, expected) != expected:
            raise CheckpointError(
                f"the generator has another {name} than {expected}",
                "sisug's StyleGAN2 has no other",
                "give another file",
            )
    return {
        "mapping_lr_mul": known.get("mapping_lrmul"),
        "conv_clamp": known.get("conv_clamp"),
        "num_fp16_res": known.get("num_fp16_res"),
    }


def is_stylegan1(state: State) -> bool:
    """Whether these are StyleGAN's names, of before StyleGAN2."""
    return any("StyleMod" in name for name in state)


def generator_tensors(state: State, kwargs: Mapping[str, Any], where: str) -> dict[str, Tensor]:
    """The generator under NVIDIA's PyTorch names.

    Args:
        state: variables of Gs and its components.
        kwargs: its static settings (`resample_kernel`).
        where: what to call them in messages.

    Raises:
        CheckpointError: something is missing, left over or of another shape.
    """
    state = _of_progressive_growing(state, "synthesis/", "ToRGB")
    renamed = Renamed(state, where)
    layers = sorted({int(m[1]) for name in state if (m := re.fullmatch(r"mapping/Dense(\d{1,5})/weight", name))})
    for layer in layers:
        _dense(renamed, f"mapping/Dense{layer}", f"mapping.fc{layer}")
    if "mapping/LabelEmbed/weight" in renamed:
        _dense(renamed, "mapping/LabelEmbed", "mapping.embed")
    if "dlatent_avg" in renamed:
        renamed.take("dlatent_avg", "mapping.w_avg")
    kernel = _kernel(kwargs, where)
    renamed.take("synthesis/4x4/Const/const", "synthesis.b4.const", first)
    sizes = sorted({int(m[1]) for name in state if (m := re.match(r"synthesis/(\d{1,5})x\1/", name))})
    for i, size in enumerate(sizes):
        old, block = f"synthesis/{size}x{size}", f"synthesis.b{size}"
        if i:
            _convolution(renamed, f"{old}/Conv0_up", f"{block}.conv0", f"synthesis/noise{2 * i - 1}", kernel, flip=True)
        name = "Conv1" if i else "Conv"
        _convolution(renamed, f"{old}/{name}", f"{block}.conv1", f"synthesis/noise{2 * i}", kernel)
        colours = f"{old}/ToRGB"
        if f"{colours}/weight" in renamed:
            _styled(renamed, colours, f"{block}.torgb")
        if f"{old}/Skip/weight" in renamed:
            renamed.take(f"{old}/Skip/weight", f"{block}.skip.weight", lambda w: _oihw(w).flip(2, 3))
            renamed.put(f"{block}.skip.resample_filter", kernel)
        renamed.put(f"{block}.resample_filter", kernel)
    renamed.skip("lod", "synthesis/lod")
    return renamed.finished()


def discriminator_tensors(state: State, kwargs: Mapping[str, Any], where: str) -> dict[str, Tensor]:
    """The discriminator under NVIDIA's PyTorch names.

    Args:
        state: variables of D.
        kwargs: its static settings.
        where: what to call them in messages.

    Raises:
        CheckpointError: something is missing, left over or of another shape.
    """
    state = _of_progressive_growing(state, "", "FromRGB")
    renamed = Renamed(state, where)
    kernel = _kernel(kwargs, where)
    sizes = sorted({int(m[1]) for name in state if (m := re.match(r"(\d{1,5})x\1/", name))})
    for size in sizes:
        old, block = f"{size}x{size}", f"b{size}"
        pairs = {"Conv": "conv"} if size == 4 else {"Conv0": "conv0", "Conv1_down": "conv1"}
        if f"{old}/FromRGB/weight" in renamed:
            pairs["FromRGB"] = "fromrgb"
        for name, new in pairs.items():
            renamed.take(f"{old}/{name}/weight", f"{block}.{new}.weight", _oihw)
            renamed.take(f"{old}/{name}/bias", f"{block}.{new}.bias", flat)
            renamed.put(f"{block}.{new}.resample_filter", kernel)
        if f"{old}/Skip/weight" in renamed:
            renamed.take(f"{old}/Skip/weight", f"{block}.skip.weight", _oihw)
            renamed.put(f"{block}.skip.resample_filter", kernel)
    _dense(renamed, "4x4/Dense0", "b4.fc")
    _dense(renamed, "Output", "b4.out")
    renamed.skip("lod")
    return renamed.finished()


def _of_progressive_growing(state: State, prefix: str, layer: str) -> State:
    """The layer of colours that is in use, by its usual name: "orig" networks have one for each time of their growth,
    counted from the finest.
    """
    grown = f"{prefix}{layer}_lod"
    if not any(name.startswith(grown) for name in state):
        return state
    sizes = [int(m[1]) for name in state if (m := re.match(rf"{prefix}(\d{{1,5}})x\1/", name))]
    kept = {name: value for name, value in state.items() if not name.startswith(grown)}
    last = f"{grown}0/"
    here = f"{prefix}{max(sizes, default=4)}x{max(sizes, default=4)}/{layer}/"
    return kept | {here + name.removeprefix(last): v for name, v in state.items() if name.startswith(last)}


def _kernel(kwargs: Mapping[str, Any], where: str) -> Tensor:
    taps = kwargs.get("resample_kernel", [1, 3, 3, 1])
    if (
        not isinstance(taps, (list, tuple))
        or not 1 <= len(taps) <= 16
        or not all(type(t) in (int, float) for t in taps)
    ):
        raise CheckpointError(f"{where}: resample_kernel", "it is no list of numbers", "give another file")
    line = torch.tensor([float(tap) for tap in taps])
    return unit_sum(torch.outer(line, line))


def _oihw(weight: Tensor) -> Tensor:
    return weight.permute(3, 2, 0, 1)


def _dense(renamed: Renamed, old: str, new: str) -> None:
    renamed.take(f"{old}/weight", f"{new}.weight", lambda weight: weight.reshape(-1, weight.shape[-1]).t())
    renamed.take(f"{old}/bias", f"{new}.bias", flat)


def _styled(renamed: Renamed, old: str, new: str, *, flip: bool = False) -> None:
    renamed.take(f"{old}/weight", f"{new}.weight", lambda w: _oihw(w).flip(2, 3) if flip else _oihw(w))
    renamed.take(f"{old}/bias", f"{new}.bias", flat)
    renamed.take(f"{old}/mod_weight", f"{new}.affine.weight", lambda weight: weight.t())
    renamed.take(f"{old}/mod_bias", f"{new}.affine.bias", lambda bias: bias + 1)


def _convolution(renamed: Renamed, old: str, new: str, noise: str, kernel: Tensor, *, flip: bool = False) -> None:
    _styled(renamed, old, new, flip=flip)
    renamed.take(f"{old}/noise_strength", f"{new}.noise_strength", number)
    if noise in renamed:
        renamed.take(noise, f"{new}.noise_const", square)
    renamed.put(f"{new}.resample_filter", kernel)
