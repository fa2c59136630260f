"""Array types that every stage shares; shapes are checked while the tests run."""

from __future__ import annotations

from jaxtyping import Float, Int64
from torch import Tensor

Images = Float[Tensor, "batch 3 height width"]
"""RGB images in [-1, 1]."""

FeatureMap = Float[Tensor, "batch channel height width"]
"""Generator features."""

Masks = Int64[Tensor, "batch height width"]
"""Label or cluster numbers; 255 = ignore."""

ProxyMasks = Int64[Tensor, "batch split split"]
"""Cluster numbers at the generator's split, which is smaller than its images."""

ProxyWeights = Float[Tensor, "batch cluster split split"]
"""How probable each cluster is in each cell, in place of one number a cell."""

Latents = Float[Tensor, "batch z_dim"]
"""Samples of the generator's input distribution."""

Styles = Float[Tensor, "batch num_ws w_dim"]
"""One style a layer."""
