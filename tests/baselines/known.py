"""A generator whose classes are known to be linear in its features, with the weights that name them."""

from __future__ import annotations

import torch
from torch import Tensor

from sisug.baselines.lineargan import LinearExtractor
from sisug.generators.backbone import Features, GeneratorBackbone
from sisug.labels.label_sets import LabelSet

THREE = LabelSet("three", ("left", "right", "bottom"), ((0, 0, 0), (255, 0, 0), (0, 0, 255)))

CHANNELS = {4: 5, 8: 4, 16: 5}


class KnownGenerator(GeneratorBackbone):
    """Class 1 lies to the right of an edge and class 2 below another; styles place the edges.

    The finest layer holds the two coordinates, the two edges and a constant; coarser layers hold patterns that styles
    weigh and that say nothing of the classes.
    """

    def __init__(self) -> None:
        super().__init__()
        self.resolution, self.split, self.feature_channels = 16, 8, 4
        self.num_ws, self.z_dim, self.w_dim, self.source = 2, 6, 6, "known"
        stream = torch.Generator().manual_seed(5)
        self.patterns = {r: torch.randn(CHANNELS[r], r, r, generator=stream) for r in (4, 8)}
        self.freeze()

    @property
    def fingerprint(self) -> str:
        return "known" * 8

    def map(self, z: Tensor, truncation: float = 1.0) -> Tensor:
        return (truncation * torch.tanh(z))[:, None].expand(-1, self.num_ws, -1)

    def layers(self, ws: Tensor) -> list[Tensor]:
        w = ws[:, 0]
        coarse = [self.patterns[r].to(w) * w[:, -CHANNELS[r] :, None, None] for r in (4, 8)]
        line = ((torch.arange(16) + 0.5) / 8 - 1).to(w)
        ones = torch.ones(len(w), 16, 16).to(w)
        edges = [ones * w[:, i, None, None] for i in (0, 1)]
        fine = torch.stack([ones * line, ones * line[:, None], *edges, ones], dim=1)
        return [*coarse, fine]

    def features(self, ws: Tensor) -> Features:
        middle = self.layers(ws)[1]
        return Features(middle, middle.new_zeros(len(ws), 3, 8, 8))

    def render(self, features: Features, ws: Tensor) -> Tensor:
        return self.layers(ws)[-1][:, :3]

    def first_style(self, resolution: int) -> int:
        return 0 if resolution == 4 else 1

    def splits(self) -> tuple[int, ...]:
        return tuple(CHANNELS)


def true_extractor(generator: KnownGenerator) -> LinearExtractor:
    """The extractor that defines the classes: right of the edge by x - w0, below the other by 2 (y - w1)."""
    extractor = LinearExtractor(list(CHANNELS.values()), THREE, generator.fingerprint)
    with torch.no_grad():
        extractor.weight[1, -5:] = 8 * torch.tensor([1.0, 0, -1, 0, 0])
        extractor.weight[2, -5:] = 8 * torch.tensor([0, 2.0, 0, -2, 0])
    return extractor.requires_grad_(False)
