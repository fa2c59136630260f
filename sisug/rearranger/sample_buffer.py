"""Samples that stage 1 learns from, each used in several steps (stage 1)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from sisug.common.seeding import generator_for
from sisug.generators import Features
from sisug.rearranger.pipeline import SourceSamples
from sisug.types import Styles


class SampleBuffer:
    """The newest samples of an endless sequence, in memory.

    Making a sample's features costs as much as learning from them, so each stays for several steps. Which samples it
    holds follows from how many were drawn: a resumed run holds what the broken one held.

    Args:
        capacity: number of samples that it holds.
        fresh: number of samples that are drawn together and replace the oldest ones; divides `capacity`.
        z_dim: size of a latent.
        seed: of the run.
        rank: number of the process, from 0.
    """

    def __init__(self, capacity: int, fresh: int, z_dim: int, *, seed: int, rank: int) -> None:
        self.capacity, self.fresh, self.z_dim, self.seed, self.rank = capacity, fresh, z_dim, seed, rank
        self.drawn = 0
        self._tensors: dict[str, Tensor] = {}

    def clear(self) -> None:
        """Forget all samples, as when their proxy masks are out of date."""
        self.drawn = 0

    @torch.no_grad()
    def draw_until(self, drawn: int, sample: Callable[[Tensor], SourceSamples]) -> None:
        """Hold samples `drawn - capacity` to `drawn` of the sequence.

        Args:
            drawn: a multiple of `fresh`, `capacity` or more.
            sample: latents (batch z_dim) to samples with the features that are to be kept.
        """
        first = max(self.drawn, drawn - self.capacity)
        for start in range(first, drawn, self.fresh):
            rng = generator_for(seed=self.seed, rank=self.rank, images_seen=start, purpose="buffer")
            found = sample(torch.randn(self.fresh, self.z_dim, generator=rng))
            parts = {"ws": found.ws, "map": found.features.map, "rgb": found.features.rgb, "mask": found.mask}
            place = start % self.capacity
            for name, values in parts.items():
                # Features need half the memory so, and training rounds them to this type anyway.
                kept = values.bfloat16() if name == "map" else values
                if name not in self._tensors:
                    self._tensors[name] = kept.new_empty(self.capacity, *kept.shape[1:])
                self._tensors[name][place : place + self.fresh] = kept
        self.drawn = drawn

    def batch(self, count: int, step: int) -> SourceSamples:
        """Some of the samples, each once.

        Args:
            count: number of samples, `capacity` at most.
            step: number of the training step, which decides which ones.
        """
        rng = generator_for(seed=self.seed, rank=self.rank, images_seen=step, purpose="batch")
        index = torch.randperm(self.capacity, generator=rng)[:count]
        taken = {name: values[index.to(values.device)] for name, values in self._tensors.items()}
        features = Features(taken["map"].float().contiguous(memory_format=torch.channels_last), taken["rgb"])
        return SourceSamples(taken["ws"], features, taken["mask"])

    def masks_and_styles(self, count: int, step: int) -> tuple[Tensor, Styles]:
        """Proxy masks and styles of some of the samples, without their features.

        Args:
            count: number of samples, `capacity` at most.
            step: number of the training step, which decides which ones.
        """
        rng = generator_for(seed=self.seed, rank=self.rank, images_seen=step, purpose="estimate")
        index = torch.randperm(self.capacity, generator=rng)[:count]
        mask, ws = self._tensors["mask"], self._tensors["ws"]
        return mask[index.to(mask.device)], ws[index.to(ws.device)]
