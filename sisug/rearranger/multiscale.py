"""The rearranger inside the generator (stage 1): a style for the new layout, then content rearranged at several
resolutions between the generator's own layers.

The paper's rearranger is a cross-attention at the split. Here the same attention works at a coarser stage, where a
position holds a part rather than a piece of texture, and frozen layers of the generator draw what lies between the
stages and the split: the result keeps the textures of the generator, also where the source has nothing to copy. All of
it is our choice (docs/results.md has the figures).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor, nn

from sisug.errors import ConfigError
from sisug.generators import Features, GeneratorBackbone
from sisug.nn import Residual, position_code
from sisug.rearranger.network import LayoutMask

STYLE_CODE = 128
"""Size of the vector that tells residual blocks the source's style."""


class StyleEstimator(nn.Module):
    """Proxy mask to the style w that samples of this layout have in the mean.

    It is learnt by regression on random samples. The difference of two estimates moves a sample from one layout to the
    other along the generator's own manifold; what the masks do not tell of a style, the source keeps.

    Args:
        clusters: number of clusters of the masks, 2 or more.
        size: height and width of the masks, 16 or more.
        w_dim: size of a style.
        widths: channels of the resolutions from half of `size` downwards.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, clusters: int, size: int, w_dim: int, widths: Sequence[int] = (48, 96, 160, 256, 384)) -> None:
        super().__init__()
        self.embedding = nn.Embedding(clusters, 16)
        layers: list[nn.Module] = [nn.Conv2d(64, widths[0], 1)]
        size //= 2
        for before, after in itertools.pairwise(widths):
            stride = 2 if size > 2 else 1
            size //= stride
            layers += [nn.Conv2d(before, after, 3, stride, 1), nn.GroupNorm(8, after), nn.SiLU()]
            layers += [nn.Conv2d(after, after, 3, 1, 1), nn.GroupNorm(8, after), nn.SiLU()]
        self.convolutions = nn.Sequential(*layers)
        self.linear = nn.Sequential(nn.Linear(4 * widths[-1], w_dim), nn.SiLU(), nn.Linear(w_dim, w_dim))
        self.register_buffer("mean", torch.zeros(w_dim))
        self.register_buffer("std", torch.ones(w_dim))

    def forward(self, mask: LayoutMask) -> Float[Tensor, "batch w_dim"]:
        # (batch, 16, size, size) to (batch, 64, size / 2, size / 2): nothing is lost to the first stride.
        x = F.pixel_unshuffle(embedded(self.embedding, mask), 2)
        x = F.adaptive_avg_pool2d(self.convolutions(x.contiguous(memory_format=torch.channels_last)), 2)
        estimate: Tensor = self.linear(x.flatten(1)).float()
        return estimate * self.std + self.mean

    def loss(self, mask: Int64[Tensor, "batch size size"], w: Float[Tensor, "batch w_dim"]) -> Float[Tensor, ""]:
        """Share of the styles' variance that the estimates leave unexplained.

        Args:
            mask: proxy masks of samples.
            w: their styles.
        """
        return ((self(mask) - w) / self.std).square().mean()


class LayoutEncoder(nn.Module):
    """Layout to a context at every stage: what each position is, and what lies around it. A small U-shaped network.

    Args:
        clusters: number of clusters of the masks.
        size: height and width of the masks.
        widths: channels at full size, at half of it, and so on.
        num_frequencies: frequencies of the positional encoding.
    """

    code: Tensor

    def __init__(self, clusters: int, size: int, widths: Sequence[int], num_frequencies: int) -> None:
        super().__init__()
        self.size = size
        self.widths = {size >> i: width for i, width in enumerate(widths)}
        self.embedding = nn.Embedding(clusters, widths[0])
        self.register_buffer("code", position_code(size // 2, num_frequencies), persistent=False)
        self.position = nn.Conv2d(4 * num_frequencies, widths[1], 1)
        steps = list(itertools.pairwise(widths))
        self.down = nn.ModuleList(nn.Conv2d(a, b, 3, 2, 1) for a, b in steps)
        self.down_blocks = nn.ModuleList(Residual(b) for _, b in steps)
        self.up = nn.ModuleList(nn.Conv2d(b, a, 1) for a, b in steps[1:])
        self.up_blocks = nn.ModuleList(Residual(a) for a, _ in steps[1:])

    def forward(self, mask: LayoutMask) -> dict[int, Float[Tensor, "batch _ _ _"]]:
        """Contexts by their height.

        Args:
            mask: cluster numbers, or weights of the clusters in each position.
        """
        x = embedded(self.embedding, mask).contiguous(memory_format=torch.channels_last)
        contexts = {self.size: x}
        for down, block in zip(self.down, self.down_blocks, strict=True):
            x = down(x)
            if x.shape[2] == self.size // 2:
                x = x + self.position(self.code[None])
            x = block(x)
            contexts[x.shape[2]] = x
        for up, block in zip(reversed(self.up), reversed(self.up_blocks), strict=True):
            x = F.interpolate(up(x), scale_factor=2.0, mode="nearest")
            x = contexts[x.shape[2]] = block(contexts[x.shape[2]] + x)
        return contexts


class CrossAttention(nn.Module):
    """From positions of the target layout to those of the source: where each would take its content from.

    Args:
        context: channels of the layouts' contexts.
        channels: channels of the features.
        size: height and width of features and contexts; the matrix has size ** 4 entries.
        key_channels: channels of queries and keys.
        num_frequencies: frequencies of the positional encoding.
    """

    code: Tensor

    def __init__(self, context: int, channels: int, size: int, *, key_channels: int, num_frequencies: int) -> None:
        super().__init__()
        width = 2 * key_channels
        self.query = nn.Sequential(
            nn.Conv2d(context + channels, width, 1), nn.SiLU(), nn.Conv2d(width, key_channels, 1)
        )
        self.key = nn.Sequential(nn.Conv2d(context + channels, width, 1), nn.SiLU(), nn.Conv2d(width, key_channels, 1))
        self.register_buffer("code", position_code(size, num_frequencies), persistent=False)
        # Content outweighs position at the start: among positions of matching content the near ones count.
        self.log_temperature = nn.Parameter(torch.tensor([math.log(10.0), math.log(6.0)]) / 5)

    def forward(
        self,
        target: Float[Tensor, "batch target_channel height width"],
        source: Float[Tensor, "batch target_channel height width"],
        values: Float[Tensor, "batch channel height width"],
    ) -> Float[Tensor, "batch channel height width"]:
        """Values of the source, moved to the target's positions.

        Args:
            target: context and features of the target, joined.
            source: context and features of the source, joined.
            values: what is moved.
        """
        content, position = (5 * self.log_temperature).exp()  # learns five times as fast as weights
        code = rows(self.code[None]).expand(len(target), -1, -1)
        query = torch.cat([unit_rows(self.query(target)) * content, code * position], dim=2)
        key = torch.cat([unit_rows(self.key(source)), code], dim=2)
        dtype = values.dtype
        # batch, target positions, source positions. As one matrix: twice as fast here as fused attention, which wants
        # queries as wide as values.
        weights = torch.bmm(query.to(dtype), key.to(dtype).transpose(1, 2)).float().softmax(dim=2).to(dtype)
        moved = torch.bmm(weights, rows(values))
        return moved.reshape(len(values), *values.shape[2:], -1).permute(0, 3, 1, 2)


class Stage(nn.Module):
    """One resolution: content moved from the source, gated with what the layers before have made, and a correction.

    Args:
        channels: channels of the features, those of the colors so far among them.
        context: channels of the layout's context.
        detail: channels that tell the layout below a position; 0 where positions are as fine as the masks.
        width: channels of the residual blocks.
        blocks: number of residual blocks.
        attention: what moves content; None for a stage that only corrects.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self, channels: int, context: int, detail: int, *, width: int, blocks: int, attention: CrossAttention | None
    ) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(1, channels, 1, 1))
        self.register_buffer("std", torch.ones(1, channels, 1, 1))
        self.attention = attention
        moved = channels if attention is not None else 0
        self.project_in = nn.Conv2d(channels + moved + context + detail, width, 1)
        self.blocks = nn.ModuleList(Residual(width, STYLE_CODE) for _ in range(blocks))
        self.project_out = nn.Conv2d(width, channels, 1)
        nn.init.zeros_(self.project_out.weight)
        nn.init.zeros_(self.project_out.bias)  # type: ignore[arg-type]
        self.gate: nn.Conv2d | None = None
        if attention is not None:
            self.gate = nn.Conv2d(width, 1, 1)
            nn.init.zeros_(self.gate.weight)
            nn.init.constant_(self.gate.bias, -2.0)  # type: ignore[arg-type]  # an eighth is moved at the start

    def normalized(self, features: Features) -> Float[Tensor, "batch channel height width"]:
        """Features and colors as one map, in units of each channel's deviation over samples.

        Args:
            features: at this stage.
        """
        return (torch.cat([features.map, features.rgb.to(features.map.dtype)], dim=1) - self.mean) / self.std

    def forward(
        self,
        features: Features,
        context: Float[Tensor, "batch context height width"],
        detail: Float[Tensor, "batch detail height width"] | None,
        style: Float[Tensor, "batch code"],
        source: tuple[Features, Float[Tensor, "batch context height width"]] | None = None,
    ) -> Features:
        """Features of this resolution in the target layout.

        Args:
            features: what the layers before have made.
            context: of the target layout.
            detail: the target layout below a position; None where there is none.
            style: code of the source's style.
            source: the source's features at this resolution, and the context of its own layout; None where nothing is
                moved.
        """
        dtype = features.map.dtype
        x = self.normalized(features).to(dtype)
        parts = [x, context.to(dtype)] + ([] if detail is None else [detail.to(dtype)])
        moved: Tensor | None = None
        if self.attention is not None and source is not None:
            values = self.normalized(source[0]).to(dtype)
            joined = torch.cat([values, source[1].to(dtype)], dim=1)
            moved = self.attention(torch.cat(parts[:2], dim=1), joined, values)
            parts.append(moved)
        h = self.project_in(torch.cat(parts, dim=1))
        for block in self.blocks:
            h = block(h, style)
        change = self.project_out(h).float()
        if moved is not None and self.gate is not None:
            change = change + self.gate(h).sigmoid().float() * (moved - x).float()
        change = change * self.std
        channels = features.map.shape[1]
        return Features(features.map + change[:, :channels], features.rgb + change[:, channels:])


class MultiscaleRearranger(nn.Module):
    """R(F, target mask): a sample in another layout, made inside the generator.

    First a style: coarse layers get that of the source, moved by the difference between the estimates for the target
    mask and for the source's own (`StyleEstimator`), finer ones that of the source. Then stages: the generator's
    features at some resolutions are corrected towards the target mask, with content moved from the source at the last.
    Where target and source mask are the same, the style is the source's own.

    Args:
        channels: channels of the generator's features at each stage, by its resolution.
        clusters: number of clusters of the proxy masks.
        size: height and width of the masks (the split).
        w_dim: size of a style.
        coarse_styles: number of styles that follow the target layout, from the first one on.
        widths: channels of the residual blocks, one number per stage.
        blocks: number of residual blocks in each stage, 0 or more.
        context_widths: channels of the layout's context at the masks' size, at half of it, and so on.
        key_channels: channels of queries and keys; 0 moves nothing.
        num_frequencies: frequencies of the positional encoding.

    Raises:
        ConfigError: the stages do not fit the masks.
    """

    def __init__(
        self,
        channels: Mapping[int, int],
        clusters: int,
        size: int,
        w_dim: int,
        coarse_styles: int,
        *,
        widths: Sequence[int] = (192, 160),
        blocks: int = 2,
        context_widths: Sequence[int] = (48, 96, 128, 160),
        key_channels: int = 64,
        num_frequencies: int = 5,
    ) -> None:
        super().__init__()
        self.stages = tuple(sorted(channels))
        self.coarse_styles = coarse_styles
        last = self.stages[-1]
        coarsest = size >> (len(context_widths) - 1)
        if not (coarsest <= self.stages[0] and last <= size and size % last == 0 and len(widths) == len(channels)):
            raise ConfigError(
                f"stages {self.stages} of widths {tuple(widths)} for masks of {size} px",
                f"contexts reach from {size} down to {coarsest} px, and each stage has one width",
                "choose stages within that range, a width for each, or more context_widths",
            )
        self.estimator = StyleEstimator(clusters, size, w_dim)
        self.encoder = LayoutEncoder(clusters, size, context_widths, num_frequencies)
        self.style = nn.Linear(w_dim, STYLE_CODE)
        self.ratio = size // last
        detail = self.encoder.widths[last] if self.ratio > 1 else 0
        self.detail = nn.Conv2d(context_widths[0] * self.ratio**2, detail, 1) if detail else None
        self.steps = nn.ModuleList()
        for stage, width in zip(self.stages, widths, strict=True):
            context, all_channels = self.encoder.widths[stage], channels[stage] + 3
            attention = None
            if stage == last and key_channels:
                attention = CrossAttention(
                    context, all_channels, stage, key_channels=key_channels, num_frequencies=num_frequencies
                )
            self.steps.append(
                Stage(
                    all_channels,
                    context,
                    detail if stage == last else 0,
                    width=width,
                    blocks=blocks,
                    attention=attention,
                )
            )

    @torch.no_grad()
    def measure(self, generator: GeneratorBackbone, ws: Float[Tensor, "batch num_ws w_dim"]) -> None:
        """Take the scale of styles and features from samples, before training.

        Args:
            generator: frozen.
            ws: styles of some hundred samples.
        """
        self.estimator.mean.copy_(ws[:, 0].mean(dim=0))
        self.estimator.std.copy_(ws[:, 0].std(dim=0) + 1e-3)
        found = [generator.features_at(part, self.stages) for part in torch.split(ws, 16)]
        for i, step in enumerate(self.steps):
            assert isinstance(step, Stage)
            x = torch.cat([torch.cat([features[i].map, features[i].rgb], dim=1) for features in found])
            step.mean.copy_(x.mean(dim=(0, 2, 3), keepdim=True))
            step.std.copy_(x.std(dim=(0, 2, 3), keepdim=True) + 1e-3)

    def styles(
        self, ws: Float[Tensor, "batch num_ws w_dim"], source_mask: LayoutMask, target_mask: LayoutMask
    ) -> Float[Tensor, "batch num_ws w_dim"]:
        """Styles of the source, the coarse ones moved to the target layout. No gradient reaches the estimator: it
        learns from samples alone.

        Args:
            ws: styles of the source.
            source_mask: the source's own proxy mask.
            target_mask: the layout to take.
        """
        with torch.no_grad():
            offset = (self.estimator(target_mask) - self.estimator(source_mask)).to(ws.dtype)
        return torch.cat([ws[:, : self.coarse_styles] + offset[:, None], ws[:, self.coarse_styles :]], dim=1)

    def at_last_stage(
        self,
        generator: GeneratorBackbone,
        source: Features,
        source_mask: Int64[Tensor, "batch size size"],
        target_mask: LayoutMask,
        ws: Float[Tensor, "batch num_ws w_dim"],
    ) -> Features:
        """Features at the last stage in the target layout, before the generator carries them on to the split.

        Args:
            generator: frozen.
            source: the source's features at the last stage.
            source_mask: the source's own proxy mask.
            target_mask: the layout to take: cluster numbers, or weights of the clusters in each position.
            ws: styles of the source.
        """
        device = ws.device.type
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else torch.float32
        moved = self.styles(ws, source_mask, target_mask)
        contexts = self.encoder(target_mask)
        own = self.encoder(source_mask)[self.stages[-1]] if self._moves else contexts[self.stages[-1]]
        style = self.style((ws[:, 0] - self.estimator.mean) / self.estimator.std)
        detail = None
        if self.detail is not None:
            fine = contexts[self.encoder.size]
            detail = self.detail(F.pixel_unshuffle(fine, self.ratio))
        features = generator.features_at(moved, [self.stages[0]])[0]
        for stage, step in zip(self.stages, self.steps, strict=True):
            features = Features(features.map.to(dtype), features.rgb)
            features = generator.advance(features, moved, stage)
            last = stage == self.stages[-1]
            features = step(
                features,
                contexts[stage],
                detail if last else None,
                style,
                (source, own) if last and self._moves else None,
            )
        return features

    @property
    def _moves(self) -> bool:
        return getattr(self.steps[-1], "attention", None) is not None

    def forward(
        self,
        features: Features,
        source_mask: Int64[Tensor, "batch size size"],
        target_mask: LayoutMask,
        ws: Float[Tensor, "batch num_ws w_dim"],
        generator: GeneratorBackbone,
    ) -> Features:
        """Features at the split in the target layout.

        Args:
            features: the source's features at the split.
            source_mask: the source's own proxy mask.
            target_mask: the layout to take: cluster numbers, or weights of the clusters in each position, through which
                gradients pass to whatever chose them.
            ws: styles of the source.
            generator: frozen, whose layers are used.
        """
        last = self.stages[-1]
        at_last = features
        if last != features.map.shape[2]:
            at_last = (
                generator.features_at(ws, [last])[0] if self._moves else Features(ws.new_empty(0), ws.new_empty(0))
            )
        result = self.at_last_stage(generator, at_last, source_mask, target_mask, ws)
        return generator.advance(Features(result.map.float(), result.rgb), ws, features.map.shape[2])


def multiscale_rearranger(
    generator: GeneratorBackbone,
    clusters: int,
    stages: Sequence[int],
    coarse_below: int | None = None,
    **shape: Any,
) -> MultiscaleRearranger:
    """A `MultiscaleRearranger` of the sizes that a generator has.

    Args:
        generator: frozen, with layered styles and features of several resolutions.
        clusters: number of clusters of the proxy masks.
        stages: resolutions at which content is rearranged, increasing, pixels.
        coarse_below: styles of layers below this resolution follow the target layout, pixels; None for the last stage.
        shape: further arguments of `MultiscaleRearranger`.

    Raises:
        ConfigError: the generator cannot be stopped at the stages, or its styles are not layered.
    """
    with torch.no_grad():
        found = generator.features_at(generator.map(torch.zeros(1, generator.z_dim)), stages)
    return MultiscaleRearranger(
        {stage: features.map.shape[1] for stage, features in zip(stages, found, strict=True)},
        clusters,
        generator.split,
        generator.w_dim,
        generator.first_style(stages[-1] if coarse_below is None else coarse_below),
        **shape,
    ).to(memory_format=torch.channels_last)


def embedded(embedding: nn.Embedding, mask: LayoutMask) -> Float[Tensor, "batch channel size size"]:
    """A vector for each position's cluster; of weighted clusters, the mean of their vectors.

    Args:
        embedding: one vector per cluster.
        mask: cluster numbers, or weights of the clusters in each position.
    """
    if mask.is_floating_point():
        return (mask.permute(0, 2, 3, 1) @ embedding.weight).permute(0, 3, 1, 2)
    vectors: Tensor = embedding(mask)
    return vectors.permute(0, 3, 1, 2)


def rows(x: Float[Tensor, "batch channel height width"]) -> Float[Tensor, "batch position channel"]:
    """One row per position; no copy where channels lie last."""
    return x.permute(0, 2, 3, 1).flatten(1, 2)


def unit_rows(x: Float[Tensor, "batch channel height width"]) -> Float[Tensor, "batch position channel"]:
    """One row per position, of unit length."""
    return F.normalize(rows(x).float(), dim=2)
