"""The rearranger's network (stage 1): attention that lays one sample's features out as a target proxy mask.

Which tensors go in and come out is the paper's (Fig. 2, project page); everything between is our choice, as the paper's
layers are not published.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor, nn

from sisug.generators import Features, GeneratorBackbone
from sisug.nn import Residual, position_code
from sisug.types import Styles

LayoutMask = Int64[Tensor, "batch size size"] | Float[Tensor, "batch cluster size size"]
"""A layout: labels, or weights of the labels in each cell."""

GAIN_RATE = 5.0
"""How much faster than weights the attention's sharpness learns."""


class MaskEncoder(nn.Module):
    """Proxy mask to one vector a cell that knows the cell's label, place and surroundings: a small U-shaped network.

    It descends at once, and tells the surroundings at half the size: convolutions cost most at full size.

    Args:
        clusters: labels of the masks.
        width: channels.
        size: height and width of the masks.
        coarsest: size at which it stops to descend; the global layout is seen there.
        bands: wavelengths of the position code.
    """

    code: Tensor

    def __init__(self, clusters: int, width: int, size: int, *, coarsest: int = 4, bands: int = 6) -> None:
        super().__init__()
        self.label = nn.Embedding(clusters, width)
        self.register_buffer("code", position_code(size, bands), persistent=False)
        self.place = nn.Conv2d(4 * bands, width, 1)
        halvings = max(1, int(math.log2(size // coarsest)))
        self.down = nn.ModuleList(Residual(width) for _ in range(halvings))
        self.up = nn.ModuleList(Residual(width) for _ in range(halvings - 1))

    def embed(self, mask: LayoutMask) -> Float[Tensor, "batch width size size"]:
        """A vector for every cell's label; of weighted labels, the mean of their vectors.

        Args:
            mask: labels, or weights of the labels.
        """
        if mask.is_floating_point():
            return (mask.permute(0, 2, 3, 1) @ self.label.weight).permute(0, 3, 1, 2)  # channels last, as all else
        embedded: Tensor = self.label(mask)
        return embedded.permute(0, 3, 1, 2)

    def forward(self, embedded: Float[Tensor, "batch width size size"]) -> Float[Tensor, "batch width size size"]:
        """What the cells mean where they lie.

        Args:
            embedded: of ``embed``.
        """
        x = (embedded + self.place(self.code[None])).contiguous(memory_format=torch.channels_last)
        skips = [x]
        for block in self.down:
            x = block(F.avg_pool2d(x, 2))
            skips.append(x)
        x = skips.pop()
        for block in [*self.up, nn.Identity()]:
            x = block(F.interpolate(x, scale_factor=2.0, mode="nearest") + skips.pop())
        return x


class Rearranger(nn.Module):
    """R(F, target mask): the content of F, laid out as the target.

    Queries come from the target mask, keys from the source's own mask and features, values are the features and the RGB
    skip themselves: one attention matrix moves both. A small refinement, zero at the start, repairs what no source cell
    can give.

    Args:
        channels: channels of the features.
        clusters: labels of the proxy masks.
        size: height and width of features and masks (the split).
        width: channels of the mask encoder and of the refinement.
        heads: attention maps; each cell blends them by weights that its query gives.
        key_channels: content channels of queries and keys.
        bands: wavelengths of the position code.
        refinement: residual blocks after the attention; 0 leaves pure rearrangement.
    """

    code: Tensor

    def __init__(
        self,
        channels: int,
        clusters: int,
        size: int,
        *,
        width: int = 64,
        heads: int = 1,
        key_channels: int = 64,
        bands: int = 6,
        refinement: int = 2,
    ) -> None:
        super().__init__()
        self.heads = heads
        self.encoder = MaskEncoder(clusters, width, size, bands=bands)
        self.query = _cellwise(width, 2 * width, heads * key_channels)
        self.key = _cellwise(width + channels, 2 * width, heads * key_channels)
        self.gate = nn.Conv2d(width, heads, 1) if heads > 1 else None
        self.register_buffer("code", position_code(size, bands), persistent=False)
        # Sharpness of content and of place, learnt per head. Content outweighs place at the start: among cells of
        # matching content the near ones count, not the reverse.
        self.content_gain = nn.Parameter(torch.full((heads,), math.log(20.0) / GAIN_RATE))
        self.place_gain = nn.Parameter(torch.linspace(math.log(12.0), math.log(6.0), heads) / GAIN_RATE)
        look_dim = 2 * channels
        self.refine_in = nn.Conv2d(channels + 3 + width, width, 1) if refinement else None
        self.refine = nn.ModuleList(Residual(width, look_dim) for _ in range(refinement))
        self.refine_out = nn.Conv2d(width, channels + 3, 1) if refinement else None
        if self.refine_out is not None:
            nn.init.zeros_(self.refine_out.weight)
            nn.init.zeros_(self.refine_out.bias)  # type: ignore[arg-type]

    def forward(
        self,
        features: Features,
        source_mask: Int64[Tensor, "batch size size"],
        target_mask: LayoutMask,
        ws: Styles,
        generator: GeneratorBackbone | None = None,
    ) -> Features:
        """Lay features out anew.

        Args:
            features: what G1 gave for the source.
            source_mask: the source's own proxy mask.
            target_mask: the layout to take: labels, or weights of the labels in each cell, through which gradients
                pass to whatever chose them.
            ws: styles of the source; this network reads the style from the features' own statistics instead.
            generator: not needed by this network.
        """
        normalised, mean, deviation = _normalised(features.map)
        source_code, target_code = self._encoded(source_mask, target_mask)
        moved = self._moved(target_code, self._keys(source_code, normalised), _joined(features.map, features.rgb))
        channels = features.map.shape[1]
        if self.refine_in is not None and self.refine_out is not None:
            look = torch.cat([mean, deviation], dim=1).flatten(1)
            scaled = (moved[:, :channels] - mean) / deviation
            h = self.refine_in(_joined(scaled, moved[:, channels:], target_code))
            for block in self.refine:
                h = block(h, look)
            change = self.refine_out(h).float()
            moved = moved + _joined(change[:, :channels] * deviation, change[:, channels:])
        return Features(moved[:, :channels].contiguous(memory_format=torch.channels_last), moved[:, channels:])

    def transfer(
        self,
        values: Float[Tensor, "source channel size size"],
        features: Float[Tensor, "source feature_channel size size"],
        source_masks: Int64[Tensor, "source size size"],
        target_masks: LayoutMask,
    ) -> Float[Tensor, "batch channel size size"]:
        """What lies in the sources' cells, in the cells of other layouts that correspond to them.

        Attention over the cells of all sources at once: each cell of a layout takes from where its content would come.
        Labels so pass from a few samples to every other (our choice).

        Args:
            values: to carry, such as shares of classes.
            features: of the sources at the split.
            source_masks: proxy masks of the sources.
            target_masks: the layouts to carry to.
        """
        batch = len(target_masks)
        source, target = self._encoded(source_masks, target_masks)
        keys = self._keys(source, _normalised(features)[0]).transpose(0, 1).flatten(1, 2)
        below = values.transpose(0, 1).flatten(1, 2)[None]  # the sources below each other, as their keys are
        return self._moved(target, keys[None].expand(batch, -1, -1, -1), below.expand(batch, -1, -1, -1))

    def _encoded(self, source_mask: Tensor, target_mask: Tensor) -> tuple[Tensor, Tensor]:
        embedded = torch.cat([self.encoder.embed(source_mask), self.encoder.embed(target_mask)])
        source, target = self.encoder(embedded).split([len(source_mask), len(target_mask)])
        return source, target

    def _keys(self, code: Tensor, normalised: Tensor) -> Tensor:
        """(batch, heads, cells, channel) of sources."""
        return self._heads(self.key(_joined(code, normalised)))

    def _moved(self, target_code: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """Values of sources where the target's cells attend to them; (batch, channel, size, size)."""
        moved = self._attend(self._heads(self.query(target_code)), keys, values)
        if self.gate is None:
            return moved[:, 0]
        return (moved * self.gate(target_code).softmax(dim=1)[:, :, None]).sum(dim=1)

    def _heads(self, x: Tensor) -> Tensor:
        """(batch, heads * channel, size, size) to (batch, heads, cells, channel), of unit mean square."""
        x = _cells(x)
        x = x.reshape(*x.shape[:2], self.heads, -1).transpose(1, 2).float()
        return x * torch.rsqrt(x.square().mean(dim=-1, keepdim=True) + 1e-6) / math.sqrt(x.shape[-1])

    def _attend(self, query: Tensor, key: Tensor, values: Tensor) -> Tensor:
        """Attention of every target cell over all source cells; (batch, heads, channel, size, size)."""
        channels = values.shape[1]
        place = _cells(self.code[None])[:, None].expand(*query.shape[:3], -1)
        source_place = place.repeat(1, 1, key.shape[2] // place.shape[2], 1)
        gain, place_gain = ((GAIN_RATE * g).exp()[None, :, None, None] for g in (self.content_gain, self.place_gain))
        v = _cells(values)[:, None].expand(-1, self.heads, -1, -1)
        # The fast kernels want one size for queries, keys and values, best a multiple of 8; zeros change no product.
        used = query.shape[-1] + place.shape[-1]
        size = -(-max(used, channels) // 8) * 8
        v = F.pad(v, (0, size - channels))
        zeros = query.new_zeros(()).expand(*key.shape[:3], size - used)
        q = torch.cat([query * gain, place * place_gain, zeros[:, :, : query.shape[2]]], dim=-1)
        k = torch.cat([key, source_place, zeros], dim=-1)
        # In float32: the values are the image, and bfloat16 would round them to three digits.
        with torch.autocast(values.device.type, enabled=False):
            out = F.scaled_dot_product_attention(q, k, v, scale=1.0)[..., :channels]
        return out.transpose(2, 3).reshape(*out.shape[:2], channels, *self.code.shape[1:])


def _cellwise(before: int, between: int, after: int) -> nn.Sequential:
    """A network of two layers for each cell on its own."""
    return nn.Sequential(nn.Conv2d(before, between, 1), nn.SiLU(), nn.Conv2d(between, after, 1))


def _normalised(features: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Features without each sample's mean and deviation of its channels, and these two."""
    mean = features.mean(dim=(2, 3), keepdim=True)
    centred = features - mean  # faster than `std_mean` where channels lie last
    deviation = centred.square().mean(dim=(2, 3), keepdim=True).sqrt() + 1e-3
    return centred / deviation, mean, deviation


def _cells(x: Float[Tensor, "batch channel height width"]) -> Float[Tensor, "batch cells channel"]:
    """One row a cell; no copy where channels lie last."""
    return x.permute(0, 2, 3, 1).flatten(1, 2)


def _joined(*maps: Tensor) -> Tensor:
    """Channels of several maps in one, channels last: joining such maps along dim 1 would lay them out anew."""
    return torch.cat([x.permute(0, 2, 3, 1) for x in maps], dim=3).permute(0, 3, 1, 2)
