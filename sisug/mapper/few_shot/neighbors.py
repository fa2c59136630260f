"""Labels of a few samples carried to any other by nearest neighbors in the generator's own features (stage 2)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor

from sisug.common.seeding import fixed_latents, generator_for
from sisug.errors import ConfigError, DataError, check_range
from sisug.generators import GeneratorBackbone
from sisug.labels.label_sets import LabelSet
from sisug.mapper.few_shot.network import last_of_each_size
from sisug.mapper.few_shot.transfer import named, resized
from sisug.types import Masks, Styles

GRID = 64
"""Size at which samples are compared, at most, pixels."""

COMPONENTS = 64
"""Principal components that are kept of the features of each resolution."""

CELLS = 600
"""Cells of each sample that the components are fitted to."""

COARSEST_WEIGHT = 0.5
"""Of the features of the coarsest resolution, where those of the others have 1: they say where, less what."""

WINDOW = 2
"""Reach of the smoothing, and how far from another class the inside of a part begins, cells."""

AFFINITY = 0.15
"""Squared distance of descriptors at which a neighboring cell counts a third in the smoothing."""

Descriptors = Float[Tensor, "cell descriptor"]


class NeighborSegmenter:
    """Names the parts of a generator's samples by the labels of the most similar cells of labeled ones.

    A cell's descriptor joins the features of four resolutions around the grid, each normalized per sample and channel
    and to unit length, and its position. Votes are smoothed among similar cells nearby. Nothing is trained by
    gradients.

    Args:
        generator: frozen.
        ws: styles of the labeled samples.
        masks: their masks, at the images' size.
        labels: label set of the masks.
        resolutions: of the features that are compared; None for those from a quarter of the grid to twice the grid.
        neighbors: how many cells vote.
        temperature: squared distance beyond the nearest one's at which a vote counts a third.
        position_weight: weight of a cell's position, -1 to 1 across the image, in its descriptor.
        smoothing: rounds of smoothing.
        thinning: of the cells inside of large parts one in so many is kept, and counts for all of them. Cells near
            other classes are all kept: where they were thinned out, small parts lost.
        unlabeled: samples without labels that the principal components are fitted to, beside the labeled ones.
        truncation: of those.
        seed: of all draws.

    Raises:
        ConfigError: a number out of range.
        DataError: masks of another size or number, or nothing labeled.

    Source: our choice; `benchmarks/face_labels.py` measures it on faces. A whitening by the covariance within classes
        of samples without labels helped with one label and cost with four.
    """

    def __init__(
        self,
        generator: GeneratorBackbone,
        ws: Styles,
        masks: Int64[Tensor, "labeled height width"],
        labels: LabelSet,
        *,
        resolutions: Sequence[int] | None = None,
        neighbors: int = 20,
        temperature: float = 0.2,
        position_weight: float = 1.0,
        smoothing: int = 2,
        thinning: int = 4,
        unlabeled: int = 16,
        truncation: float = 0.7,
        seed: int = 0,
    ) -> None:
        check_range(neighbors=neighbors, temperature=temperature, thinning=thinning, above=0)
        check_range(unlabeled=unlabeled, smoothing=smoothing, position_weight=position_weight)
        self.generator, self.labels = generator, labels
        self.neighbors, self.temperature, self.position_weight = neighbors, temperature, position_weight
        self.smoothing = smoothing
        self.grid = min(GRID, generator.resolution)
        self.resolutions = tuple(self.grid * 2**step // 4 for step in range(4)) if resolutions is None else resolutions
        shares = self._shares(ws, masks)
        rng = generator_for(seed=seed, rank=0, images_seen=0, purpose="neighbors")
        others = ws[:0]
        if unlabeled:
            index = torch.arange(unlabeled, device=ws.device)
            z = fixed_latents(index, generator.z_dim, seed=seed, purpose="neighbors")
            others = generator.map(z, truncation)
        self.components = self._principal(torch.cat([ws, others]), rng)
        described = torch.stack([each for each, _ in self._described(ws)])
        self._keep(described, shares, thinning, rng)

    @torch.no_grad()
    def probabilities(self, ws: Styles) -> Float[Tensor, "batch classes side side"]:
        """Shares of the votes for each class in each cell of samples; they add up to 1.

        Args:
            ws: styles of the samples.
        """
        rows = []
        for described, local in self._described(ws):
            votes = self._votes(described)
            rows.append(self._smoothed(votes.t().reshape(1, -1, self.grid, self.grid), local))
        return torch.cat(rows)

    def segment(self, ws: Styles) -> Masks:
        """Masks of samples, at the images' size.

        Args:
            ws: styles of the samples.
        """
        return named(resized(self.probabilities(ws), self.generator.resolution), self.labels)

    def _shares(
        self, ws: Styles, masks: Int64[Tensor, "labeled height width"]
    ) -> Float[Tensor, "labeled cell classes"]:
        """How much of each cell each class has, of what is labeled; all 0 where less than half of it is."""
        expected = (len(ws), self.generator.resolution, self.generator.resolution)
        if masks.shape != expected:
            raise DataError(
                f"masks of shape {tuple(masks.shape)}",
                f"{len(ws)} samples of {self.generator.resolution} px have masks of shape {expected}",
                "give one mask per sample, at the images' size",
            )
        self.labels.check(masks)
        rows = []
        for mask in masks:  # one at a time: one-hot masks of large images are large
            known = mask != self.labels.ignore
            one_hot = F.one_hot(mask.masked_fill(~known, 0), self.labels.num_classes) * known[..., None]
            cells = F.adaptive_avg_pool2d(one_hot.permute(2, 0, 1).float()[None], self.grid)[0].flatten(1).t()
            total = cells.sum(dim=1, keepdim=True)
            rows.append(torch.where(total >= 0.5, cells / total.clamp_min(1e-6), 0))
        shares = torch.stack(rows)
        if not bool(shares.any()):
            raise DataError("no pixel of the masks is labeled", f"all are {self.labels.ignore} (ignored)", "label some")
        return shares

    def _features(self, ws: Styles) -> list[Float[Tensor, "cell channel"]]:
        """Features of one sample at the compared resolutions, each brought to the grid."""
        rows = []
        for layer in self._layers(ws):
            unit = F.normalize(F.instance_norm(layer.float()), dim=1)
            rows.append(resized(unit, self.grid)[0].flatten(1).t())
        return rows

    def _layers(self, ws: Styles) -> list[Float[Tensor, "batch _ _ _"]]:
        """Features at the compared resolutions; finer ones, which take most of the time, are left out where that can
        be.
        """
        try:
            return [each.map for each in self.generator.features_at(ws, self.resolutions)]
        except ConfigError:  # a generator of a foreign class: at its split only
            layers = last_of_each_size(self.generator.layers(ws))
            return [layer for layer in layers if layer.shape[-1] in self.resolutions]

    @torch.no_grad()
    def _principal(self, ws: Styles, rng: torch.Generator) -> list[Float[Tensor, "channel component"]]:
        """Directions of each resolution's features in which samples differ most: distances hardly change by them."""
        moments: list[Tensor] = []
        for one in torch.split(ws, 1):
            cells = torch.randperm(self.grid**2, generator=rng)[:CELLS].to(ws.device)
            picked = [rows[cells] for rows in self._features(one)]
            products = [rows.t() @ rows for rows in picked]
            moments = [a + b for a, b in zip(moments, products, strict=True)] if moments else products
        return [torch.linalg.eigh(each)[1][:, -COMPONENTS:] for each in moments]

    @torch.no_grad()
    def _described(self, ws: Styles) -> Iterator[tuple[Descriptors, Descriptors]]:
        """For each sample its cells' descriptors, and those without position and the coarsest resolution."""
        line = (torch.arange(self.grid, device=ws.device) + 0.5) * 2 / self.grid - 1
        position = torch.stack(torch.meshgrid(line, line, indexing="xy"), dim=-1).reshape(-1, 2) * self.position_weight
        for one in torch.split(ws, 1):
            parts = [rows @ axes for rows, axes in zip(self._features(one), self.components, strict=True)]
            yield torch.cat([COARSEST_WEIGHT * parts[0], *parts[1:], position], dim=1), torch.cat(parts[1:], dim=1)

    def _keep(
        self,
        described: Float[Tensor, "labeled cell descriptor"],
        shares: Float[Tensor, "labeled cell classes"],
        thinning: int,
        rng: torch.Generator,
    ) -> None:
        """Take labeled cells as references, of those inside of large parts a part."""
        classes = torch.where(shares.sum(dim=2) > 0, shares.argmax(dim=2), -1)
        grids = classes.view(-1, 1, self.grid, self.grid).float()
        edge = F.pad(grids, (WINDOW,) * 4, mode="replicate")
        highest, lowest = (sign * F.max_pool2d(sign * edge, 2 * WINDOW + 1, stride=1) for sign in (1, -1))
        inside = (highest == lowest).flatten()
        drawn = torch.rand(len(inside), generator=rng).to(inside.device) < 1 / thinning
        kept = (classes.flatten() >= 0) & (drawn | ~inside)
        weights = torch.where(inside, float(thinning), 1.0)[kept, None]
        self.references, self.votes = described.flatten(0, 1)[kept], shares.flatten(0, 1)[kept] * weights
        self.squares = self.references.square().sum(dim=1)

    def _votes(self, described: Descriptors) -> Float[Tensor, "cell classes"]:
        """Shares of the votes of each cell's neighbors."""
        rows = []
        for part in torch.split(described, 1024):  # a table of all cells and references would be large
            distances = torch.addmm(self.squares, part, self.references.t(), alpha=-2)
            near, index = distances.topk(min(self.neighbors, len(self.references)), dim=1, largest=False)
            weights = torch.exp((near[:, :1] - near) / self.temperature)
            votes = (self.votes[index] * weights[..., None]).sum(dim=1)
            rows.append(votes / votes.sum(dim=1, keepdim=True))
        return torch.cat(rows)

    def _smoothed(
        self, votes: Float[Tensor, "1 classes side side"], local: Descriptors
    ) -> Float[Tensor, "1 classes side side"]:
        """Votes averaged with those of similar cells nearby."""
        side, reach = self.grid, 2 * WINDOW + 1
        features = local.t().reshape(1, -1, side, side)
        edge = (WINDOW,) * 4
        around = F.pad(features, edge, mode="replicate")
        shifts = [(y, x) for y in range(reach) for x in range(reach)]
        gaps = [around[..., y : y + side, x : x + side] - features for y, x in shifts]
        weights = [torch.exp(-gap.square().sum(dim=1, keepdim=True) / AFFINITY) for gap in gaps]
        total = torch.stack(weights).sum(dim=0)
        for _ in range(self.smoothing):
            near = F.pad(votes, edge, mode="replicate")
            sums = torch.zeros_like(votes)
            for (y, x), weight in zip(shifts, weights, strict=True):
                sums += weight * near[..., y : y + side, x : x + side]
            votes = sums / total
        return votes
