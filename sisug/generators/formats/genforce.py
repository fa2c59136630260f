"""GenForce's StyleGAN2 files (generators), and LinearGAN's, which have an earlier layout."""

from __future__ import annotations

import re

from torch import Tensor

from sisug.errors import CheckpointError
from sisug.generators.formats.source import MOST_BLOCKS, Renamed, State, first, flat, number, square, unit_sum


def is_genforce(state: State) -> bool:
    """Whether these are its generator's names."""
    return "synthesis.early_layer.const" in state and any(f"mapping.{name}" in state for name in (NEW, EARLY))


NEW = "dense0.weight"
EARLY = "dense0.fc.weight"
"""The earlier layout: fully connected layers within another, and convolutions with their channels last (HWIO)."""


def generator_tensors(state: State, where: str) -> dict[str, Tensor]:
    """The generator under NVIDIA's names.

    Args:
        state: its tensors.
        where: what to call them in messages.

    Raises:
        CheckpointError: something is missing, left over or of another shape.

    Source: it keeps TensorFlow's orientation, so upsampling convolutions are flipped and styles lack their 1.
    """
    renamed = Renamed(state, where)
    layers = sum(1 for name in state if re.fullmatch(r"mapping\.dense\d{1,5}\.bias", name))
    for layer in range(layers):
        _dense(renamed, f"mapping.dense{layer}", f"mapping.fc{layer}")
    if "truncation.w_avg" in renamed:
        renamed.take("truncation.w_avg", "mapping.w_avg", _one_style)
    renamed.take("synthesis.early_layer.const", "synthesis.b4.const", first)
    kernel = renamed.take("synthesis.upsample.kernel", "filter", unit_sum)
    del renamed.tensors["filter"]
    outputs = sum(1 for name in state if re.fullmatch(r"synthesis\.output\d{1,5}\.bias", name))
    if not 0 < outputs <= MOST_BLOCKS:
        raise CheckpointError(
            f"{where} holds no StyleGAN2 generator", f"it has {outputs} blocks", "give a whole generator"
        )
    for k in range(outputs):
        block = f"synthesis.b{4 * 2**k}"
        if k:
            _layer(renamed, 2 * k - 1, f"{block}.conv0", kernel, upsample=True)
        _layer(renamed, 2 * k, f"{block}.conv1", kernel)
        _styled(renamed, f"synthesis.output{k}", f"{block}.torgb")
        renamed.put(f"{block}.resample_filter", kernel)
    renamed.skip(*(name for name in state if name.endswith(".filter.kernel") or name.startswith("truncation.")))
    renamed.skip("synthesis.lod")
    return renamed.finished()


def _one_style(tensor: Tensor) -> Tensor:
    styles = tensor.reshape(-1, tensor.shape[-1])
    if not styles.eq(styles[0]).all():
        raise RuntimeError("it has a mean of its own for each layer")
    return styles[0]


def _layer(renamed: Renamed, i: int, new: str, kernel: Tensor, *, upsample: bool = False) -> None:
    old = f"synthesis.layer{i}"
    _styled(renamed, old, new, flip=upsample)
    renamed.take(f"{old}.noise_strength", f"{new}.noise_strength", number)
    if f"{old}.noise" in renamed:
        renamed.take(f"{old}.noise", f"{new}.noise_const", square)
    renamed.put(f"{new}.resample_filter", kernel)


def _styled(renamed: Renamed, old: str, new: str, *, flip: bool = False) -> None:
    early = _is_early(renamed)

    def turned(weight: Tensor) -> Tensor:
        weight = weight.permute(3, 2, 0, 1) if early else weight
        return weight.flip(2, 3) if flip else weight

    renamed.take(f"{old}.weight", f"{new}.weight", turned)
    renamed.take(f"{old}.bias", f"{new}.bias", flat)
    _dense(renamed, f"{old}.style", f"{new}.affine", offset=1.0)


def _dense(renamed: Renamed, old: str, new: str, *, offset: float = 0.0) -> None:
    renamed.take(f"{old}.fc.weight" if _is_early(renamed) else f"{old}.weight", f"{new}.weight")
    renamed.take(f"{old}.bias", f"{new}.bias", lambda bias: bias + offset)


def _is_early(renamed: Renamed) -> bool:
    return f"mapping.{EARLY}" in renamed
