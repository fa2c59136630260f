"""Adaptive discriminator augmentation (training of generators): images are changed at random before the discriminator
sees them, more often the more it overfits.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from sisug.errors import ConfigError, check_range
from sisug.generators.augmentation import draw_colour, draw_geometry, inverse_map, recolour, warp
from sisug.types import Images


class AdaptiveAugmentation(nn.Module):
    """Augmentation of all images, real and generated, that the discriminator sees (ADA).

    Each transformation is applied to each sample with probability p. As long as p is well below one, only one
    distribution of images looks like the augmented reals once it is augmented itself: the reals'. So a generator that
    matches them makes images that are not augmented: nothing leaks. That holds for mirroring too: a sample is mirrored
    with probability p / 2 < 0.5, so a set with a left and a right keeps them.

    Only the global random stream of the images' device is drawn from, so a step that seeds it can be repeated. Nothing
    is read back to the host on a GPU. The gradient penalty (R1) is taken through the augmentation, with respect to the
    images that go in, as the authors' code does. On a GPU the gradient's sums are exact to the bit only under
    `torch.use_deterministic_algorithms(True)`.

    Attributes:
        probability: p now; a buffer, like the sums since the last `adapt()`, so that a resumed run goes on exactly.

    Args:
        flip: mirror left and right.
        blit: turn by quarters and shift by whole pixels.
        geometry: scale, rotate, stretch and shift by fractions of pixels.
        colour: brightness, contrast, luma negation, hue and saturation.
        probability: p at the start, in [0, 1].
        target: mean sign of the discriminator's logits on real images that p is steered to, in (-1, 1); 0 is no
            overfitting, 1 is full. None leaves p where it is.
        ramp_images: images in which p goes from 0 to 1 if it always rises.
        limit: largest p that adaptation may reach, in (0, 1].

    Raises:
        ConfigError: numbers out of range, a start above the limit, or no transformation at all.

    Source: Karras et al. 2020, sections 2.2 and 3: target 0.6, 500,000 images; in practice leaks are unlikely as long
    as p stays below about 0.8. To bound p there is our choice (the paper bounds it from below only).
    """

    probability: Tensor
    sign_sum: Tensor
    sign_count: Tensor

    def __init__(
        self,
        *,
        flip: bool = True,
        blit: bool = True,
        geometry: bool = True,
        colour: bool = True,
        probability: float = 0.0,
        target: float | None = 0.6,
        ramp_images: int = 500_000,
        limit: float = 0.8,
    ) -> None:
        super().__init__()
        check_range(probability=probability)
        check_range(above=0, ramp_images=ramp_images, limit=limit)
        if limit > 1 or probability > 1:
            raise ConfigError(
                f"augmentation probability {probability}, limit {limit}",
                "probabilities are at most 1",
                "the paper's values are a start of 0 and a limit of 0.8",
            )
        if target is not None and not -1 < target < 1:
            raise ConfigError(
                f"augmentation target {target}",
                "it is compared with a mean of signs, which lies between -1 and 1",
                "0.6 is the paper's; null keeps the probability fixed",
            )
        if target is not None and probability > limit:
            raise ConfigError(
                f"augmentation probability {probability} with limit {limit}",
                "adaptation would set it to the limit at once",
                "start at or below the limit, or set the target to null for a fixed probability",
            )
        if not (flip or blit or geometry or colour):
            raise ConfigError(
                "augmentation without flip, blit, geometry and colour",
                "nothing is left to apply",
                "switch one of them on, or leave the augmentation out",
            )
        self.flip, self.blit, self.geometry, self.colour = flip, blit, geometry, colour
        self.target, self.ramp_images, self.limit = target, ramp_images, limit
        self.register_buffer("probability", torch.tensor(float(probability)))
        # Whole numbers: their sum over ranks is the same in any order.
        self.register_buffer("sign_sum", torch.zeros((), dtype=torch.int64))
        self.register_buffer("sign_count", torch.zeros((), dtype=torch.int64))

    def forward(self, images: Images) -> Images:
        """Augment each image by itself; differentiable twice.

        A sample of which nothing is drawn comes out equal to the bit, one that is only recoloured keeps its sharpness.
        Type and memory format stay.

        Args:
            images: in [-1, 1], at least 2 px in height and width; results may leave the range.
        """
        channels_last = images.is_contiguous(memory_format=torch.channels_last)
        out = images
        with torch.autocast(images.device.type, enabled=False):
            if images.dtype != torch.float64:
                out = out.float()
            if self.flip or self.blit or self.geometry:
                out = self._move(out)
            if self.colour:
                out = recolour(out, draw_colour(self.probability, images.shape[0]))
        memory_format = torch.channels_last if channels_last else torch.contiguous_format
        return out.to(images.dtype).contiguous(memory_format=memory_format)

    def _move(self, images: Tensor) -> Tensor:
        batch, _, height, width = images.shape
        drawn = draw_geometry(self.probability, batch, flip=self.flip, blit=self.blit, geometry=self.geometry)
        inverse = inverse_map(drawn, height, width)
        moved = (inverse != torch.eye(2, 3, device=inverse.device)).any(dim=2).any(dim=1)
        if images.device.type == "cpu" and not moved.any():
            return images  # a GPU would have to wait for this answer
        return torch.where(moved[:, None, None, None], warp(images, inverse), images)

    @torch.no_grad()
    def observe(self, real_logits: Float[Tensor, "batch 1"]) -> None:
        """Take note of the discriminator's verdict on augmented real images.

        Args:
            real_logits: positive where it takes an image for real.
        """
        self.sign_sum += real_logits.sign().long().sum()
        self.sign_count += real_logits.numel()

    @torch.no_grad()
    def adapt(self, images: int) -> Float[Tensor, ""]:
        """Move p by one step towards the target, and start to observe anew; every rank must call it.

        Args:
            images: images trained on since the last call, over all ranks (the paper calls it every 4 batches).

        Returns:
            Mean sign over all ranks since the last call (r_t of the paper), for the log; NaN if nothing was observed.
        """
        sums = torch.stack([self.sign_sum, self.sign_count])
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            torch.distributed.all_reduce(sums)
        total, count = sums.unbind()
        if self.target is not None:
            # Without observations this is 0, and p stays.
            direction = torch.sign(total - self.target * count)
            self.probability.add_(direction * (images / self.ramp_images)).clamp_(0.0, self.limit)
        self.sign_sum.zero_()
        self.sign_count.zero_()
        return total / count
