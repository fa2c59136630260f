"""Labelled generator samples (stage 2), whoever labelled them: what the few-shot segmenter is trained on."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from sisug.errors import ConfigError
from sisug.generators import GeneratorBackbone
from sisug.labels.label_sets import LabelSet
from sisug.segmentation.judge import Judge
from sisug.types import Latents, Masks, Styles

BATCH = 32


@dataclass(frozen=True)
class LabelledSamples:
    """Samples of one generator with a mask each.

    Args:
        z: their latents.
        truncation: at which they were shown.
        masks: class numbers or `labels.ignore`, at the generator's resolution.
        labels: label set of the masks.
        names: one a sample, as in files ("sample-000").
        w: their styles after truncation, one for all layers; None where those of `z` are meant, as the generator maps
            them now.
    """

    z: Latents
    truncation: float
    masks: Masks
    labels: LabelSet
    names: tuple[str, ...]
    w: Float[Tensor, "batch w_dim"] | None = None

    def styles(self, generator: GeneratorBackbone) -> Styles:
        """Styles of the samples, on the generator's device.

        Args:
            generator: the one that made them.
        """
        device = next(generator.parameters()).device
        if self.w is None:
            return generator.map(self.z.to(device), self.truncation)
        return self.w.to(device)[:, None].repeat(1, generator.num_ws, 1)

    def first(self, count: int) -> LabelledSamples:
        """The first of the samples.

        Args:
            count: how many.

        Raises:
            ConfigError: there are fewer, or the number is below 1.
        """
        if not 1 <= count <= len(self.z):
            raise ConfigError(
                f"{count} labelled samples", f"there are {len(self.z)}", f"ask for 1 to {len(self.z)}, or for all"
            )
        w = None if self.w is None else self.w[:count]
        return LabelledSamples(self.z[:count], self.truncation, self.masks[:count], self.labels, self.names[:count], w)


def sample_names(count: int) -> tuple[str, ...]:
    """Names of samples in the order of their latents.

    Args:
        count: how many.
    """
    return tuple(f"sample-{number:03d}" for number in range(count))


@torch.no_grad()
def judged_samples(generator: GeneratorBackbone, judge: Judge, z: Latents, truncation: float) -> LabelledSamples:
    """Samples labelled by the judge: the research protocol, which needs nobody to paint.

    Args:
        generator: makes the images; on the same device as the judge.
        judge: makes the masks.
        z: latents of the samples.
        truncation: 1 for the generator's full range, 0 for the mean image.

    Returns:
        Masks lie on the device of `z`.
    """
    device = next(generator.parameters()).device
    masks = [
        judge.segment(generator(part.to(device), truncation).clamp(-1, 1)).to(z.device)
        for part in torch.split(z, BATCH)
    ]
    return LabelledSamples(z, truncation, torch.cat(masks), judge.labels, sample_names(len(z)))
