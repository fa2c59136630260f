"""Inversion (synthesis): the styles whose image is nearest to a given picture, so that pictures too give styles."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from sisug.common.seeding import fixed_latents
from sisug.generators import GeneratorBackbone
from sisug.types import Images, Styles

logger = logging.getLogger(__name__)

CANDIDATES = 512
"""Samples of which the nearest ones are where the search starts."""

CANDIDATE_TRUNCATION = 0.7
"""Of those samples: near the mean style, steps lead to more places."""

STARTS = 2
"""Searches, of which the best counts."""

STEPS = 250
"""Steps of each search."""

LEARNING_RATE = 0.1
"""Largest step, in deviations of the styles."""

SPREAD_WEIGHT = 1e-3
"""Of the distance from the mean style, in deviations: far from it, images hold together no longer, and neither do
their features once they are laid out anew."""

SCALES = 4
"""Sizes at which pictures are compared: whole, half and so on."""


@dataclass(frozen=True)
class Inversion:
    """What was found for a picture.

    Args:
        ws: its styles.
        image: what the generator makes of them, in [-1, 1].
        psnr: of that image against the picture, dB; above 20 the colours of the parts are right.
        warnings: what a user should know about the search; the log has said it too.
    """

    ws: Styles
    image: Images
    psnr: float
    warnings: tuple[str, ...] = ()


def invert(generator: GeneratorBackbone, picture: Images) -> Inversion:
    """Search the styles of a picture, one a layer; deterministic.

    The search starts at the nearest of some samples and follows the gradient of the squared difference at several
    sizes.

    Args:
        generator: frozen.
        picture: one, in [-1, 1], at the generator's resolution; on its device.

    Source: optimisation in W+ as in Abdal et al., "Image2StyleGAN", 2019, with squared differences at several sizes in
    the place of a perceptual network, whose weights not everybody has; numbers are our choice, measured on avatars.
    """
    warnings = []
    if not generator.layered_styles:
        warnings.append(
            f"The generator {generator.source} has no layered styles: the picture is sought with one style for all "
            "layers (W in place of W+), which finds fewer pictures"
        )
        logger.warning("%s", warnings[0])
    # Callers may have switched gradients off.
    with torch.inference_mode(False), torch.enable_grad():
        return replace(_search(generator, picture.clone()), warnings=tuple(warnings))


def _search(generator: GeneratorBackbone, picture: Images) -> Inversion:
    samples = torch.arange(CANDIDATES)
    with torch.no_grad():
        z = fixed_latents(samples, generator.z_dim, seed=0, purpose="inversion").to(picture.device)
        all_ws = generator.map(z)
        mean, deviation = all_ws.mean(dim=0), all_ws.std(dim=0) + 1e-6
        near = mean + CANDIDATE_TRUNCATION * (all_ws - mean)
        images = torch.cat([generator.render(generator.features(ws), ws) for ws in torch.split(near, 32)])
        best = _difference(images, picture).argsort(stable=True)[:STARTS]
        start = (near[best] - mean) / deviation
    offset = start.clone().requires_grad_()
    optimizer = torch.optim.Adam([offset], lr=LEARNING_RATE, betas=(0.9, 0.99))
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, total_steps=STEPS + 1, pct_start=0.1)
    for _ in range(STEPS):
        ws = mean + deviation * offset
        loss = _difference(generator.render(generator.features(ws), ws), picture)
        loss = loss + SPREAD_WEIGHT * offset.square().mean(dim=(1, 2))
        optimizer.zero_grad()
        loss.sum().backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
    with torch.no_grad():
        ws = mean + deviation * offset
        found = generator.images(ws)
        error = (found - picture).square().mean(dim=(1, 2, 3))
        nearest = int(error.argmin())
    psnr = float(10 * torch.log10(4 / error[nearest].clamp_min(1e-9)))
    return Inversion(ws[nearest : nearest + 1].clone(), found[nearest : nearest + 1].clone(), psnr)


def _difference(images: Images, picture: Float[Tensor, "1 3 height width"]) -> Float[Tensor, " batch"]:
    """Squared difference, the mean over several sizes: small sizes pull parts that do not overlap yet."""
    difference = images - picture
    total = difference.square().mean(dim=(1, 2, 3))
    for _ in range(SCALES - 1):
        difference = F.avg_pool2d(difference, 2)
        total = total + difference.square().mean(dim=(1, 2, 3))
    return total / SCALES
