"""Features of an untrained network, for Fréchet distances where no trained extractor is at hand (evaluation)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torchvision.models import resnet18

from sisug.types import Images


class RandomFeatures(nn.Module):
    """A ResNet-18 with random weights of a fixed seed, averaged over the image: works on any pictures, offline.

    Good enough to follow one training and to pick its best checkpoint. Distances are no FID, and are not comparable
    between data sets; for published numbers take trained features.

    Args:
        seed: of the weights, part of the name.

    Source: M. F. Naeem et al., "Reliable Fidelity and Diversity Metrics for Generative Models" (2020), section 4.2:
        random embeddings rank generators of any domain; the network is our choice, for speed.
    """

    num_features = 512

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        self.name = f"random-resnet18-{seed}"
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.network = resnet18(weights=None)
        self.network.fc = nn.Identity()

    def forward(self, images: Images) -> Float[Tensor, "batch 512"]:
        """Rows of features.

        Args:
            images: in [-1, 1], of any size; resized to 64 px.
        """
        if images.shape[-1] != 64:
            images = F.interpolate(images, (64, 64), mode="bilinear", antialias=True)
        features: Tensor = self.network(images)
        return features
