"""What a generator file of any family comes to (generators): tensors under NVIDIA's names, settings, and what was
missing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

import torch
from torch import Tensor

from sisug.common.torch_files.arrays import LazyTensor
from sisug.errors import CheckpointError
from sisug.generators.formats.containers import AnyTensor

MOST_SHARED = 1_000_000
"""Elements that tensors may share before it is taken for an attack."""

State = Mapping[str, AnyTensor]
"""Tensors by name, none of them read yet."""

NVIDIA_TERMS = (
    "NVIDIA's own weights, and weights made with its code, are for research and evaluation only, not for commercial use"
)


class Family(Enum):
    """Who wrote a file: its title, and what its licence usually says."""

    SISUG = "sisug", "what the images that it was trained on allow; see the sidecar"
    NVIDIA = "NVIDIA stylegan2-ada-pytorch", NVIDIA_TERMS
    STYLEGAN3 = "NVIDIA stylegan3, StyleGAN2 networks", NVIDIA_TERMS
    NVIDIA_KEYS = "state dict with NVIDIA's names", NVIDIA_TERMS
    ROSINALITY = "rosinality stylegan2-pytorch", f"as of the weights that it was converted from; {NVIDIA_TERMS}"
    PSP = "pixel2style2pixel (its decoder)", f"as of its StyleGAN2 decoder; {NVIDIA_TERMS}"
    TENSORFLOW = "NVIDIA StyleGAN2, TensorFlow", NVIDIA_TERMS
    GENFORCE = "GenForce", f"as of the weights that it was converted from; {NVIDIA_TERMS}"

    def __init__(self, title: str, licence: str) -> None:
        self.title, self.licence = title, licence


@dataclass(frozen=True)
class Source:
    """A generator that was read from a file.

    Args:
        family: who wrote the file.
        generator: its tensors in float32 under NVIDIA's names (`mapping.*`, `synthesis.*`), complete.
        discriminator: of its adversary, where the file has one that sisug can use.
        settings: those that names and shapes do not tell: `mapping_lr_mul`, `conv_clamp`, `num_fp16_res`.
        num_labels: classes of a class-conditional file; 0 for none.
        notes: what was missing, and what stands in its place.
        description: what is known of its making, for the sidecar.
    """

    family: Family
    generator: dict[str, Tensor]
    discriminator: dict[str, Tensor] | None = None
    settings: dict[str, Any] = field(default_factory=dict)
    num_labels: int = 0
    notes: tuple[str, ...] = ()
    description: dict[str, Any] = field(default_factory=dict)


MOST_BLOCKS = 11
"""From 4 px to 4096."""


def checked_settings(given: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Settings as numbers, with StyleGAN2's own where a file says nothing.

    Args:
        given: `mapping_lr_mul`, `conv_clamp` and `num_fp16_res`, or some of them.
        where: what to call their source in messages.

    Raises:
        CheckpointError: one of them is no number, or out of range.
    """
    found = {"mapping_lr_mul": 0.01, "conv_clamp": None, "num_fp16_res": 0}
    found |= {name: given[name] for name in found if given.get(name) is not None}
    for name, value in found.items():
        number = isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value < 1e6
        if value is not None and not (number and (name == "num_fp16_res" or value > 0)):
            large = isinstance(value, int) and abs(value) >= 1e6  # Python refuses to write numbers of 4,300 digits
            shown = f"{value!r:.50}" if isinstance(value, (int, float, str)) and not large else type(value).__name__
            shown = "too large a number" if large else shown
            raise CheckpointError(f"{where}: {name} is {shown}", "it must be a positive number", "restore the file")
    found["num_fp16_res"] = min(int(found["num_fp16_res"] or 0), MOST_BLOCKS)
    return found


class Renamed:
    """Tensors of a file under their new names, read and turned as the family asks.

    Args:
        state: the file's tensors.
        where: what to call them in messages.
    """

    def __init__(self, state: State, where: str) -> None:
        self.state, self.where = state, where
        self.tensors: dict[str, Tensor] = {}
        self.left = set(state)
        # Tensors of one storage that are read one by one would make much of little.
        lazy = [tensor for tensor in state.values() if isinstance(tensor, LazyTensor)]
        storages = {id(tensor.storage): tensor.storage for tensor in lazy}.values()
        held = sum(storage.elements for storage in storages)
        if sum(math.prod(tensor.shape) for tensor in lazy) > 2 * held + MOST_SHARED:
            raise CheckpointError(
                f"{where} has {len(lazy):,} tensors of {held:,} numbers in all",
                "they are the same numbers again and again, which no network's are",
                "give the file as its trainer wrote it",
            )
        with ThreadPoolExecutor(max_workers=torch.get_num_threads()) as threads:  # checksums take most of the time
            list(threads.map(lambda storage: storage.tensor(), storages))

    def __contains__(self, name: object) -> bool:
        return name in self.state

    def take(self, old: str, new: str, change: Callable[[Tensor], Tensor] | None = None) -> Tensor:
        """Read a tensor and keep it under its new name.

        Args:
            old: name in the file.
            new: NVIDIA's name.
            change: turns it the way NVIDIA's files have it.

        Raises:
            CheckpointError: the file lacks it, or it holds no floating-point numbers.
        """
        found = self._found(old).tensor()
        self.left.discard(old)
        if not found.is_floating_point():
            raise CheckpointError(
                f"{self.where}: {old} holds numbers of type {found.dtype}",
                "weights are floating-point numbers",
                "give the file as its trainer wrote it",
            )
        try:
            changed = found.float() if change is None else change(found.float())
            # Of its own, since the file is closed before long.
            shared = changed.untyped_storage().data_ptr() == found.untyped_storage().data_ptr()
            made = changed.clone(memory_format=torch.contiguous_format) if shared else changed.contiguous()
        except (RuntimeError, IndexError) as error:
            raise CheckpointError(
                f"{self.where}: {old} has shape {tuple(found.shape)}",
                f"it does not fit ({str(error).splitlines()[0]})",
                "give the file as its trainer wrote it",
            ) from error
        self.tensors[new] = made
        return made

    def put(self, new: str, value: Tensor) -> None:
        """Keep a tensor that the file does not have."""
        self.tensors[new] = value.clone()

    def skip(self, *names: str) -> None:
        """Tensors of the file that carry nothing of their own."""
        self.left.difference_update(names)

    def finished(self) -> dict[str, Tensor]:
        """All tensors under their new names.

        Raises:
            CheckpointError: the file has more than was taken: it is another network than it seemed.
        """
        if self.left:
            names = sorted(self.left)
            more = f" and {len(names) - 4} more" if len(names) > 4 else ""
            raise CheckpointError(
                f"{self.where} has tensors that no StyleGAN2 generator of this family has",
                f"{', '.join(name[:60] for name in names[:4])}{more}",
                "give the file as its trainer wrote it",
            )
        return self.tensors

    def _found(self, name: str) -> AnyTensor:
        try:
            return self.state[name]
        except KeyError:
            raise CheckpointError(
                f"{self.where} is incomplete", f"the tensor {name} is missing", "give the file as its trainer wrote it"
            ) from None


def flat(tensor: Tensor) -> Tensor:
    """Without dimensions of size 1."""
    return tensor.reshape(-1)


def first(tensor: Tensor) -> Tensor:
    """Without the batch's dimension, which must be 1."""
    if tensor.shape[0] != 1:
        raise RuntimeError(f"the first size is {tensor.shape[0]}, not 1")
    return tensor[0]


def square(tensor: Tensor) -> Tensor:
    """The last two dimensions; all others must be 1."""
    if tensor.dim() < 2 or tensor.numel() != tensor.shape[-1] * tensor.shape[-2]:
        raise RuntimeError("it is no single image")
    return tensor.reshape(tensor.shape[-2:])


def number(tensor: Tensor) -> Tensor:
    """A single number, of no dimension."""
    if tensor.numel() != 1:
        raise RuntimeError("it is no single number")
    return tensor.reshape(())


def unit_sum(tensor: Tensor) -> Tensor:
    """A filter of sum one, as NVIDIA's files have it."""
    kernel = square(tensor)
    total = kernel.sum()
    if not bool(torch.isfinite(total)) or float(total) == 0:
        raise RuntimeError("it is no filter")
    return kernel / total
