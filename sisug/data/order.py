"""The order in which images are trained on: endless, shuffled, and the same after a resume."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch.utils.data import DistributedSampler

from sisug.common.seeding import generator_for


class EndlessOrder(DistributedSampler[int]):
    """Shuffled passes over the images, one after another without end, cut into epochs of any length.

    Each pass holds every image once. Where a run stands in this stream is the number of images it has seen, so a run
    that goes on after any checkpoint, within an epoch too, sees what an unbroken one would have seen. Each step takes
    the next ``num_ranks`` batches of the stream, one a rank: ranks share no position, and the stream does not depend
    on their number.

    With ``flip``, half of each pass, chosen anew, is mirrored: index i becomes i + the number of images, which is the
    mirrored image in `PreparedImages`.

    A `DistributedSampler`, because Lightning replaces every other sampler in data-parallel runs.

    Args:
        images: how many there are.
        images_per_epoch: over all ranks; rounded down to whole steps.
        batch_size: images a step and rank.
        start: asked at the beginning of each epoch for the images seen so far, over all ranks.
        num_ranks: processes that train.
        rank: this one, from 0.
        flip: mirror half of the images.
        seed: of the order and the flips.

    Source: our choice, after the endless sampler of StyleGAN2-ADA and EDM2's counting in images.
    """

    def __init__(
        self,
        images: int,
        images_per_epoch: int,
        batch_size: int,
        start: Callable[[], int],
        num_ranks: int = 1,
        rank: int = 0,
        flip: bool = False,
        seed: int = 0,
    ) -> None:
        # Of the data set it asks for the length only.
        super().__init__(range(images), num_ranks, rank, seed=seed, drop_last=True)  # type: ignore[arg-type]
        self.images = images
        self.batch_size, self.start, self.flip = batch_size, start, flip
        self.steps = images_per_epoch // (batch_size * num_ranks)
        self.num_samples = self.steps * batch_size
        self.total_size = self.num_samples * num_ranks
        self._pass: tuple[int, list[int]] = (-1, [])

    def __iter__(self) -> Iterator[int]:
        first = self.start() + self.rank * self.batch_size
        for step in range(self.steps):
            position = first + step * self.batch_size * self.num_replicas
            for current in range(position, position + self.batch_size):
                yield self._at(current)

    def __len__(self) -> int:
        return self.num_samples

    def _at(self, position: int) -> int:
        number, place = divmod(position, self.images)
        if number != self._pass[0]:
            self._pass = (number, self._shuffled(number))
        return self._pass[1][place]

    def _shuffled(self, number: int) -> list[int]:
        stream = generator_for(seed=self.seed, rank=0, images_seen=number * self.images, purpose="image order")
        order = torch.randperm(self.images, generator=stream)
        if self.flip:
            order += self.images * (torch.rand(self.images, generator=stream) < 0.5)
        indices: list[int] = order.tolist()
        return indices
