"""Exponential moving average of one trained network's parameters (rearranger, mapper, generator training)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class ExponentialMovingAverage(nn.Module):
    """Averaged weights of one network, for validation and synthesis.

    What is averaged are the parameters only. The network's buffers (a codebook, running statistics) are taken as they
    are, since the average of a codebook before and after a refresh is no codebook. The averages are buffers of this
    module, so they travel in its `state_dict` and no optimizer sees them. The network itself is no child of this
    module: it is passed in, and its weights are stored once.

    Lightning's `EMAWeightAveraging` is not used because it copies the whole LightningModule (frozen generator
    included), averages buffers by default and never updates with two optimizers and an even interval (2.6).

    Args:
        network: the network whose parameters are averaged; its present weights are the start.
        half_life_images: images after which a weight has lost half of its influence. Counted in images, so the average
            does not depend on batch size or number of ranks.
        ramp_up: the half-life is at most this share of the images seen, so that the random start is forgotten quickly;
            None for none.

    Raises:
        ValueError: a half-life or ramp-up that is not positive.

    Source: StyleGAN2-ADA's `ema_kimg` (10 thousand images there) and `ema_rampup` (0.05).
    """

    def __init__(self, network: nn.Module, half_life_images: float = 10_000, ramp_up: float | None = 0.05) -> None:
        super().__init__()
        if half_life_images <= 0:
            raise ValueError(f"half_life_images must be positive, got {half_life_images}")
        if ramp_up is not None and ramp_up <= 0:
            raise ValueError(f"ramp_up must be positive or None, got {ramp_up}")
        self.half_life_images = half_life_images
        self.ramp_up = ramp_up
        self.images: Tensor
        self.register_buffer("images", torch.zeros((), dtype=torch.int64))
        # Buffer names may not hold dots, so "blocks.0.weight" is kept as "blocks/0/weight".
        for name, parameter in network.named_parameters():
            self.register_buffer(_buffer_name(name), parameter.detach().clone())
        self._in_use = False

    @torch.no_grad()
    def update(self, network: nn.Module, images: int) -> None:
        """Move the averages towards the network's weights; call it after each optimizer step.

        Args:
            network: the network given at construction.
            images: images that the step trained on, over all ranks.

        Raises:
            RuntimeError: called while the averaged weights are in the network, which would average the average.
        """
        if self._in_use:
            raise RuntimeError("update() inside average(): the network holds its averaged weights now")
        half_life = torch.full((), float(self.half_life_images), device=self.images.device)
        if self.ramp_up is not None:
            # On the device, since reading the count on the host would wait for a GPU at every step.
            half_life = torch.minimum(half_life, self.images * self.ramp_up)
        # At the very first update the ramp is 0, the exponent infinite, the kept share 0: a plain copy.
        kept = torch.pow(0.5, images / half_life.clamp_min(1e-8))
        for name, parameter in network.named_parameters():
            average = self._average_of(name)
            average.lerp_(parameter.detach().to(average.dtype), (1 - kept).to(average.dtype))
        self.images += images

    @contextmanager
    def average(self, network: nn.Module) -> Iterator[nn.Module]:
        """Give the network its averaged weights for the length of a `with` block, in place.

        Keep the block within one hook (say, one validation step): a checkpoint written inside it would hold the
        averaged weights as the trained ones. An exception inside restores the trained weights too.

        Args:
            network: the network given at construction.

        Yields:
            The same network.

        Raises:
            RuntimeError: entered a second time before it was left.
        """
        if self._in_use:
            raise RuntimeError("average() entered twice: the network holds its averaged weights already")
        with torch.no_grad():
            trained = {name: parameter.detach().clone() for name, parameter in network.named_parameters()}
            for name, parameter in network.named_parameters():
                parameter.copy_(self._average_of(name))
        self._in_use = True
        try:
            yield network
        finally:
            with torch.no_grad():
                for name, parameter in network.named_parameters():
                    parameter.copy_(trained[name])
            self._in_use = False

    def state_dict_for_network(self, network: nn.Module) -> dict[str, Tensor]:
        """The network's `state_dict` with its parameters averaged and its buffers as they are, for export."""
        state: dict[str, Tensor] = dict(network.state_dict())
        for name, _ in network.named_parameters():
            state[name] = self._average_of(name).clone()
        return state

    def _average_of(self, name: str) -> Tensor:
        average = getattr(self, _buffer_name(name))
        assert isinstance(average, Tensor)
        return average


def _buffer_name(parameter_name: str) -> str:
    return "average:" + parameter_name.replace(".", "/")
