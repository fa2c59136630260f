"""Training of the few-shot segmenter (stage 2): minutes on a CPU, from one to a few labelled generator samples."""

from __future__ import annotations

import logging
import math

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR

from sisug.common.seeding import generator_for
from sisug.errors import DataError, check_range
from sisug.generators import GeneratorBackbone
from sisug.labels.label_sets import LabelSet
from sisug.mapper.few_shot.network import FewShotNetwork, columns_of, last_of_each_size
from sisug.mapper.few_shot.transfer import named, resized
from sisug.types import Masks, Styles

logger = logging.getLogger(__name__)

BATCH = 2
WARP = torch.tensor([[0.08, 0.03, 0.08], [0.03, 0.08, 0.08]])
"""Spread of the random affine maps: scale and shear, and shift in halves of the image."""


class FewShotSegmenter(nn.Module):
    """Names the parts of a generator's samples; frozen once it is trained.

    Args:
        network: with trained weights.
        labels: label set of its masks.
        generator_fingerprint: of the generator whose features it reads.
        seen: pixels of each class among the labelled ones; a class without any is never named.
    """

    def __init__(
        self,
        network: FewShotNetwork,
        labels: LabelSet,
        generator_fingerprint: str,
        seen: Int64[Tensor, " classes"],
    ) -> None:
        super().__init__()
        self.network = network.to(memory_format=torch.channels_last)
        self.labels = labels
        self.generator_fingerprint = generator_fingerprint
        self.seen: Tensor
        self.register_buffer("seen", seen)
        self.requires_grad_(False)

    @torch.no_grad()
    def probabilities(self, generator: GeneratorBackbone, ws: Styles) -> Float[Tensor, "batch classes side side"]:
        """Probabilities of the classes, at the images' size or at the largest that features are compared at.

        Args:
            generator: the one that it was trained for.
            ws: styles of the samples.

        Raises:
            DataError: another generator.
        """
        if generator.fingerprint != self.generator_fingerprint:
            raise DataError(
                f"the segmenter was trained for the generator {self.generator_fingerprint[:12]}",
                f"this one is {generator.source} ({generator.fingerprint[:12]}), whose features mean other things",
                "train a segmenter for it, or give the generator that it was trained for",
            )
        logits: Tensor = self.network(columns_of(*generator.layers_and_images(ws)))
        return logits.float().softmax(dim=1)

    def segment(self, generator: GeneratorBackbone, ws: Styles) -> Masks:
        """Masks of samples, at the images' size.

        Args:
            generator: the one that it was trained for.
            ws: styles of the samples.

        Raises:
            DataError: another generator.
        """
        return named(resized(self.probabilities(generator, ws), generator.resolution), self.labels)


def train_few_shot(
    generator: GeneratorBackbone,
    ws: Styles,
    masks: Int64[Tensor, "labelled height width"],
    labels: LabelSet,
    *,
    looks: int = 16,
    steps: int = 200,
    learning_rate: float = 1e-3,
    width: int = 64,
    seed: int = 0,
) -> FewShotSegmenter:
    """Train a segmenter on labelled samples of a generator.

    A few labels go further in two ways that cost no label (our choice, measured): each sample is shown in other looks,
    by other styles above the split, which leave its layout; and features and mask are moved, scaled and sheared
    together. Where styles are not layered, samples are shown in their own look alone.

    Args:
        generator: frozen; its split decides which styles make the look.
        ws: styles of the labelled samples.
        masks: their masks, at the images' size.
        labels: label set of the masks.
        looks: in which each sample is shown, its own among them.
        steps: of the optimizer, two images each.
        learning_rate: of Adam, at the start.
        width: channels of the network.
        seed: of all draws.

    Raises:
        DataError: masks of another size or number, values outside of the label set, or nothing but ignored pixels.
        ConfigError: a number out of range.
    """
    check_range(looks=looks, steps=steps, learning_rate=learning_rate, width=width, above=0)
    expected = (len(ws), generator.resolution, generator.resolution)
    if masks.shape != expected:
        raise DataError(
            f"masks of shape {tuple(masks.shape)}",
            f"{len(ws)} samples of {generator.resolution} px have masks of shape {expected}",
            "give one mask a sample, at the images' size",
        )
    counts = labels.histogram(masks)
    if not bool(counts.any()):
        raise DataError("no pixel of the masks is labelled", f"all are {labels.ignore} (ignored)", "label some")
    if not generator.layered_styles and looks > 1:
        logger.warning(
            "The generator %s has no layered styles: the few-shot segmenter sees each labelled sample in its own look "
            "alone, not in %d, and may know fewer colours",
            generator.source,
            looks,
        )
        looks = 1
    stream = generator_for(seed=seed, rank=0, images_seen=0, purpose="few-shot segmenter")
    with torch.no_grad():
        shown = in_other_looks(generator, ws, looks, stream)
        columns = torch.cat([columns_of(*generator.layers_and_images(part)) for part in torch.split(shown, 8)])
        channels = [each.shape[1] for each in last_of_each_size(generator.layers(ws[:1]))]
    side = (columns.shape[-1], columns.shape[-1])
    targets = F.interpolate(masks[:, None].float(), side, mode="nearest-exact")[:, 0].long()
    targets = targets.repeat_interleave(looks, dim=0)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(torch.randint(2**31, (), generator=stream)))
        network = FewShotNetwork(channels, labels.num_classes, width)
    network = network.to(columns.device).to(memory_format=torch.channels_last)
    optimizer = torch.optim.Adam(network.parameters(), learning_rate, weight_decay=1e-3)
    half_a_cosine = LambdaLR(optimizer, lambda step: 0.5 * (1 + math.cos(math.pi * step / steps)))
    for _ in range(steps):
        index = torch.randint(len(targets), (BATCH,), generator=stream).to(columns.device)
        x, y = moved(columns[index], targets[index], labels, stream)
        loss = F.cross_entropy(network(x), y, ignore_index=labels.ignore)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        half_a_cosine.step()
    return FewShotSegmenter(network, labels, generator.fingerprint, counts)


def in_other_looks(
    generator: GeneratorBackbone, ws: Styles, looks: int, stream: torch.Generator
) -> Float[Tensor, "shown num_ws w_dim"]:
    """Each sample as it is and with the styles above the split of random others.

    Args:
        generator: its split decides which styles make the look.
        ws: styles of the samples.
        looks: of each sample, its own among them.
        stream: of the draws.
    """
    shown = ws.repeat_interleave(looks, dim=0)
    z = torch.randn(len(shown), generator.z_dim, generator=stream).to(ws.device)
    if looks == 1:
        return shown
    others = generator.map(z).clone()
    others[::looks] = ws  # the sample's own look
    first = generator.first_style(generator.split)
    return torch.cat([shown[:, :first], others[:, first:]], dim=1)


def moved(
    columns: Float[Tensor, "batch channel height width"], masks: Masks, labels: LabelSet, stream: torch.Generator
) -> tuple[Float[Tensor, "batch channel height width"], Masks]:
    """Features and masks, mirrored in half of the calls and moved together at random.

    Args:
        columns: features.
        masks: of the same size.
        labels: swaps left and right where the mirror does.
        stream: of the draws.
    """
    if float(torch.rand((), generator=stream)) < 0.5:
        columns, masks = columns.flip(-1), labels.flip(masks)
    change = torch.eye(2, 3) + torch.randn(len(masks), 2, 3, generator=stream) * WARP
    grid = F.affine_grid(change, [len(masks), 1, *masks.shape[1:]], align_corners=False).to(columns.device)
    x = F.grid_sample(columns, grid, padding_mode="border", align_corners=False)
    y = F.grid_sample(masks[:, None].float(), grid, mode="nearest", padding_mode="border", align_corners=False)
    return x.contiguous(memory_format=torch.channels_last), y[:, 0].round().long()
