"""The pipeline (both stages, evaluation, synthesis): features, proxy mask, rearrange, render. Plain torch."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from sisug.generators import Features, GeneratorBackbone
from sisug.proxies.codebook import Codebook
from sisug.rearranger.network import LayoutMask
from sisug.types import Images, ProxyMasks, Styles


@dataclass(frozen=True)
class SourceSamples:
    """Samples whose content is rearranged, with all that the rearranger needs of them.

    Args:
        ws: styles of the samples.
        features: what G1 gives for them.
        mask: their own proxy masks.
    """

    ws: Styles
    features: Features
    mask: ProxyMasks

    def __len__(self) -> int:
        return len(self.ws)

    def select(self, index: Tensor | slice) -> SourceSamples:
        """Some of the samples, in the order of the index.

        Args:
            index: numbers of the samples, or a slice.
        """
        features = Features(self.features.map[index], self.features.rgb[index])
        return SourceSamples(self.ws[index], features, self.mask[index])


@dataclass(frozen=True)
class RearrangementPipeline:
    """Generator, codebook and rearranger as one computation (paper, Fig. 2).

    It owns nothing: a LightningModule gives its live modules, a `TrainedRearranger` its frozen ones, and gradients pass
    wherever the caller lets them.

    Args:
        generator: frozen.
        codebook: vocabulary of the proxy masks.
        network: called with features, source mask, target mask, styles of the source and the generator; gives features.
    """

    generator: GeneratorBackbone
    codebook: Codebook
    network: nn.Module

    def source(self, ws: Styles) -> SourceSamples:
        """Features and proxy masks of samples.

        Args:
            ws: styles of the samples.
        """
        features = self.generator.features(ws)
        return SourceSamples(ws, features, self.codebook.assign(features.map))

    def rearrange(self, source: SourceSamples, target: LayoutMask) -> Features:
        """Features of samples in another layout.

        Args:
            source: the samples, whose content is taken.
            target: the layouts to take, one per sample: cluster numbers, or weights of the clusters in each position.
        """
        result: Features = self.network(source.features, source.mask, target, source.ws, self.generator)
        return result

    def render(self, features: Features, ws: Styles, *, clamp: bool = True) -> Images:
        """Images of features, in float32.

        Args:
            features: of `source` or `rearrange`.
            ws: styles of the samples.
            clamp: whether values are cut to [-1, 1]; losses take them as they are, as a clamp has no gradient beyond.
        """
        images = self.generator.render(features, ws).float()
        return images.clamp(-1, 1) if clamp else images

    def images(self, source: SourceSamples, target: LayoutMask) -> Images:
        """Images of samples in another layout, in [-1, 1].

        Args:
            source: the samples, whose content is taken.
            target: see `rearrange`.
        """
        return self.render(self.rearrange(source, target), source.ws)
