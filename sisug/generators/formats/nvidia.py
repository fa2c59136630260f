"""NVIDIA's PyTorch files, and all others with its names (generators): the networks' attributes tell the settings."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor

from sisug.common.torch_files.arrays import LazyTensor
from sisug.common.torch_files.pickles import PersistentObject
from sisug.errors import CheckpointError
from sisug.generators.formats.containers import AnyTensor
from sisug.generators.formats.source import Renamed, State

MOST_DEPTH = 8
"""Modules within modules: a generator has four levels."""
MOST_MODULES = 5000
"""A network of 1024 px has a few hundred; a module that lies in many others would be visited without end."""


def module_tensors(
    module: PersistentObject, prefix: str = "", depth: int = 0, visited: list[str] | None = None
) -> dict[str, AnyTensor]:
    """Parameters and buffers of a module and those within it, by name.

    Raises:
        CheckpointError: modules lie in one another without end.
    """
    visited = [] if visited is None else visited
    visited.append(prefix)
    if depth > MOST_DEPTH or len(visited) > MOST_MODULES:
        raise CheckpointError(
            "the file's modules lie in one another without end", "no network does that", "get the file again"
        )
    found: dict[str, AnyTensor] = {}
    for kind in ("_parameters", "_buffers"):
        for name, value in _items(module, kind):
            if isinstance(value, LazyTensor):
                found[f"{prefix}{name}"] = value
    for name, part in _items(module, "_modules"):
        if isinstance(part, PersistentObject):
            found |= module_tensors(part, f"{prefix}{name}.", depth + 1, visited)
    return found


def _items(module: PersistentObject, kind: str) -> list[tuple[str, Any]]:
    entries = module.state.get(kind)
    return [(str(name), value) for name, value in entries.items()] if isinstance(entries, dict) else []


def part(module: PersistentObject, path: str) -> Mapping[str, Any]:
    """Attributes of a module within a module; empty where there is none."""
    for name in path.split("."):
        inner = dict(_items(module, "_modules")).get(name)
        if not isinstance(inner, PersistentObject):
            return {}
        module = inner
    return module.state


def settings(module: PersistentObject, where: str) -> dict[str, Any]:
    """Settings that names and shapes do not tell, from the attributes of the layers.

    Raises:
        CheckpointError: a setting that sisug's networks do not have.
    """
    sizes = sorted(int(name[1:]) for name, _ in _items_of(part(module, "synthesis")) if re.fullmatch(r"b\d{1,5}", name))
    layer = part(module, "synthesis.b4.conv1")
    for size in sizes:
        for name in ("conv0", "conv1"):
            activation = part(module, f"synthesis.b{size}.{name}").get("activation", "lrelu")
            if activation != "lrelu":
                raise CheckpointError(
                    f"{where} has another activation than lrelu",
                    "sisug's StyleGAN2 has leaky ReLUs",
                    "give another file",
                )
    half = [size for size in sizes if part(module, f"synthesis.b{size}").get("use_fp16") is True]
    return {
        "mapping_lr_mul": part(module, "mapping.fc0").get("bias_gain"),
        "conv_clamp": layer.get("conv_clamp"),
        "num_fp16_res": len(half),
    }


def _items_of(state: Mapping[str, Any]) -> list[tuple[str, Any]]:
    entries = state.get("_modules")
    return [(str(name), value) for name, value in entries.items()] if isinstance(entries, dict) else []


def is_nvidia(state: State) -> bool:
    """Whether these are its StyleGAN2 generator's names."""
    return "synthesis.b4.const" in state and "mapping.fc0.weight" in state


def is_stylegan3(state: Iterable[str]) -> bool:
    """Whether these are the names of StyleGAN3, in either configuration."""
    return any(re.match(r"synthesis\.(input\.|L\d{1,5}_\d{1,5}_\d{1,5}\.)", name) for name in state)


def generator_tensors(state: State, where: str) -> dict[str, Tensor]:
    """The generator as it is; layers without noise get none.

    Raises:
        CheckpointError: a tensor of another type than floating-point numbers.
    """
    renamed = Renamed(state, where)
    for name in state:
        renamed.take(name, name)
    return renamed.finished()


def discriminator_tensors(state: State, where: str) -> dict[str, Tensor]:
    """The discriminator, without the filters of its blocks, which its layers have too.

    Raises:
        CheckpointError: a tensor of another type than floating-point numbers.
    """
    renamed = Renamed(state, where)
    for name in state:
        if not re.fullmatch(r"b\d{1,5}\.resample_filter", name):
            renamed.take(name, name)
    return renamed.tensors
