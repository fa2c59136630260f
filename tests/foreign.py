"""What a user brings from outside of sisug: a generator of another family, and a condition of a kind of their own."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sisug.conditions.condition import Condition
from sisug.generators import Features, GeneratorBackbone
from sisug.labels.label_sets import LabelSet
from sisug.labels.pictures import Picture


class DCGAN(GeneratorBackbone):
    """A DCGAN (Radford et al. 2016) of 64 px, layer by layer as PyTorch's tutorial has it; one style for all layers.

    Args:
        weights: file with `netG_state_dict`; None for random weights.
        width: number of channels before the image.
        z_dim: size of a latent.
        split: resolution at which it is cut: 4, 8, 16 or 32 px.
    """

    def __init__(self, weights: str | None = None, width: int = 8, z_dim: int = 16, split: int = 32) -> None:
        super().__init__()
        self.resolution, self.split, self.feature_channels = 64, split, width * 32 // split
        self.num_ws, self.z_dim, self.w_dim = 1, z_dim, z_dim
        sizes, layers = [z_dim, 8 * width, 4 * width, 2 * width, width], list[nn.Module]()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            for i in range(4):
                stride, padding = (1, 0) if i == 0 else (2, 1)
                layers.append(nn.ConvTranspose2d(sizes[i], sizes[i + 1], 4, stride, padding, bias=False))
                layers += [nn.BatchNorm2d(sizes[i + 1]), nn.ReLU()]
            self.main = nn.Sequential(*layers, nn.ConvTranspose2d(width, 3, 4, 2, 1, bias=False), nn.Tanh())
        if weights is not None:
            self.load_state_dict(torch.load(weights, map_location="cpu", weights_only=True)["netG_state_dict"])
        self.freeze()

    def splits(self) -> tuple[int, ...]:
        return (4, 8, 16, 32)

    def map(self, z: Tensor, truncation: float = 1.0) -> Tensor:
        return (truncation * z)[:, None]

    def layers(self, ws: Tensor) -> list[Tensor]:
        with torch.autocast(ws.device.type, enabled=False):
            found = [ws[:, 0, :, None, None].float()]
            for i in range(4):
                found.append(self.main[3 * i : 3 * i + 3](found[-1]))
        return found[1:]

    def features(self, ws: Tensor) -> Features:
        x = self.layers(ws)[self.splits().index(self.split)]
        return Features(x, x.new_zeros(len(x), 3, self.split, self.split))

    def render(self, features: Features, ws: Tensor) -> Tensor:
        images: Tensor = self.main[3 * self.splits().index(self.split) + 3 :](features.map)
        return images


class Brightness(Condition):
    """How bright each place is, in a few steps.

    Args:
        labels: kept for the checkpoint; brightness needs none.
        levels: number of steps, 2 or more.
    """

    name = "brightness"

    def __init__(self, labels: LabelSet | None = None, levels: int = 4) -> None:
        super().__init__(labels)
        self.levels = levels

    @property
    def options(self) -> dict[str, Any]:
        return {"levels": self.levels}

    def extract(self, images: Tensor, masks: Tensor | None, random: torch.Generator) -> Tensor:
        return self.steps(images.mean(dim=1, keepdim=True) / 2 + 0.5)

    def from_picture(self, picture: Picture, size: int) -> Tensor:
        gray = torch.from_numpy(np.array(picture.image.convert("L"), dtype=np.float32) / 255)
        return self.steps(F.interpolate(gray[None, None], (size, size), mode="area")[0])

    def steps(self, brightness: Tensor) -> Tensor:
        return (brightness * self.levels).floor().clamp(0, self.levels - 1) / (self.levels - 1)
