"""The reader (stage 2): a segmenter of images that was taught by one of features, without further labels.

The few-shot segmenter needs all features of a plain sample. A rearranged image has no coarse ones of its own, and the
mapper's losses need a gradient through many images; a small network of images serves both.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR

from sisug.common.image_bytes import to_bytes
from sisug.common.seeding import fixed_latents, generator_for, seed_for
from sisug.errors import ConfigError, check_range
from sisug.generators import GeneratorBackbone
from sisug.labels.label_sets import LabelSet
from sisug.segmentation.degradation import degrade
from sisug.segmentation.losses import SegmentationLoss
from sisug.segmentation.network import JudgeNetwork
from sisug.types import Images, Masks, Styles

LARGEST = 256
"""Images above this size are read at it, pixels."""

BATCH = 16


class Reader(nn.Module):
    """Names the parts in images; frozen, but gradients pass through to the images.

    Args:
        num_classes: classes to tell apart.
        resolution: of the images that it learns from, pixels; a multiple of 8 once it is cut to ``LARGEST``.

    Raises:
        ConfigError: images too small for its encoder.
    """

    def __init__(self, num_classes: int, resolution: int) -> None:
        super().__init__()
        self.size = min(resolution, LARGEST)
        if self.size % 8:
            raise ConfigError(
                f"images of {resolution} px", "a reader halves them three times", "take a generator of at least 8 px"
            )
        self.network = JudgeNetwork(num_classes).to(memory_format=torch.channels_last)
        self.requires_grad_(False)
        super().train(False)

    def train(self, mode: bool = True) -> Reader:
        """Stays in eval; ``teach`` alone trains it."""
        return super().train(False)

    def forward(self, images: Images) -> Float[Tensor, "batch classes height width"]:
        """Logits of the classes at the images' size.

        Args:
            images: in [-1, 1].
        """
        small = self._resized(images)
        logits: Tensor = self.network(small)
        if logits.shape[-2:] != images.shape[-2:]:
            logits = F.interpolate(logits, images.shape[-2:], mode="bilinear")
        return logits

    def _resized(self, images: Images) -> Float[Tensor, "batch 3 size size"]:
        size = (self.size, self.size)
        if images.shape[-2:] != size:
            images = F.interpolate(images, size, mode="bilinear", antialias=True)
        return images.contiguous(memory_format=torch.channels_last)


def teach(
    reader: Reader,
    generator: GeneratorBackbone,
    teacher: Callable[[Styles], Masks],
    labels: LabelSet,
    *,
    images: int = 2048,
    epochs: int = 3,
    learning_rate: float = 4e-3,
    truncation: float = 1.0,
    seed: int = 0,
) -> None:
    """Train a reader on a generator's samples and what a teacher says of them, in place.

    Args:
        reader: to train.
        generator: gives the images.
        teacher: styles of samples to their masks, at the images' size.
        labels: label set of the masks.
        images: samples, each labelled once.
        epochs: rounds over them; half of the pictures are degraded, each time in another way.
        learning_rate: highest of AdamW.
        truncation: of the samples.
        seed: of all draws.

    Raises:
        ConfigError: a number out of range.

    Source: distillation to a network of images follows N. Tritrong et al. 2021 (section 4); its form is our choice.
    """
    check_range(images=images, epochs=epochs, learning_rate=learning_rate, above=0)
    device = next(reader.parameters()).device
    pictures, masks = _labelled(reader, generator, teacher, images, truncation, seed, device)
    loss_of = SegmentationLoss(ignore=labels.ignore)
    network = reader.network
    with torch.random.fork_rng(devices=[]):  # its first weights
        torch.manual_seed(seed_for(seed=seed, rank=0, images_seen=0, purpose="reader"))
        network.load_state_dict(JudgeNetwork(labels.num_classes).state_dict())
    network.requires_grad_(True).train(True)
    optimizer = torch.optim.AdamW(network.parameters(), lr=learning_rate, weight_decay=1e-2)
    steps = epochs * math.ceil(images / BATCH)
    stream = generator_for(seed=seed, rank=0, images_seen=0, purpose="reader batches")
    # Up in a tenth of the time, then half a cosine, to nothing.
    schedule = LambdaLR(
        optimizer, lambda step: min(1.0, 10 * (step + 1) / steps) * 0.5 * (1 + math.cos(math.pi * step / steps))
    )
    for _ in range(steps):
        index = torch.randint(images, (min(BATCH, images),), generator=stream)
        x = pictures[index].to(device).float() / 127.5 - 1
        x = degrade(x, 0.5, stream).contiguous(memory_format=torch.channels_last)
        loss = loss_of(network(x), masks[index].to(device).long())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    network.requires_grad_(False).train(False)


@torch.no_grad()
def _labelled(
    reader: Reader,
    generator: GeneratorBackbone,
    teacher: Callable[[Styles], Masks],
    images: int,
    truncation: float,
    seed: int,
    device: torch.device,
) -> tuple[Tensor, Tensor]:
    """Pictures and masks in bytes, at the reader's size."""
    pictures, masks = [], []
    for start in range(0, images, BATCH):
        index = torch.arange(start, min(start + BATCH, images), device=device)
        ws = generator.map(fixed_latents(index, generator.z_dim, seed=seed, purpose="reader"), truncation)
        # Large images take much memory each.
        parts = torch.split(ws, BATCH if generator.resolution <= LARGEST else 2)
        image = torch.cat([reader._resized(generator.images(part)) for part in parts])
        mask = teacher(ws)
        if mask.shape[-1] != reader.size:
            mask = F.interpolate(mask[:, None].float(), (reader.size, reader.size), mode="nearest-exact")[:, 0].long()
        pictures.append(to_bytes(image).cpu())
        masks.append(mask.to(torch.uint8).cpu())
    return torch.cat(pictures), torch.cat(masks)
