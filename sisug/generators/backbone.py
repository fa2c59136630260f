"""The frozen generator, cut in two at its split (generators): what every later stage of the method builds on."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Literal, NamedTuple, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from sisug.common.fingerprint import fingerprint as fingerprint_of
from sisug.errors import ConfigError
from sisug.generators.stylegan2 import Generator

Backbone = TypeVar("Backbone", bound="GeneratorBackbone")
Precision = Literal["fp32", "bf16", "fp16"]


class Features(NamedTuple):
    """What passes the split: the output of G1 and the input of G2.

    Args:
        map: features after the last convolution of the split's block.
        rgb: image so far, upsampled to the split, before this block adds its own colours. It must be laid out anew
            together with `map`, else the old layout shows through. Zeros where only the last block gives colours.
    """

    map: Float[Tensor, "batch channel height width"]
    rgb: Float[Tensor, "batch 3 height width"]


class Pyramid(NamedTuple):
    """All that a generator knows about an image.

    Args:
        maps: features after the last convolution of every block, from 4 px up.
        image: in [-1, 1] (a generator may overshoot).
    """

    maps: list[Float[Tensor, "batch map_channel map_height map_width"]]
    image: Float[Tensor, "batch 3 height width"]


class GeneratorBackbone(nn.Module, ABC):
    """An unconditional generator G = G2(G1(.)), always frozen and in evaluation mode (paper, Fig. 2: both halves carry
    a snowflake).

    Attributes:
        resolution: height and width of the images, pixels.
        split: height and width of the features that pass from G1 to G2.
        feature_channels: channels of those features.
        channels: resolution in pixels to channels, from 4 up to the image's; sizes an adversary of equal strength.
        num_ws: styles an image takes.
        z_dim: size of a latent.
        w_dim: size of a style.
        source: file or preset that the weights came from.
    """

    resolution: int
    split: int
    feature_channels: int
    channels: dict[int, int]
    num_ws: int
    z_dim: int
    w_dim: int
    source: str

    @property
    @abstractmethod
    def fingerprint(self) -> str:
        """SHA-256 of the weights, which checkpoints of later stages name."""

    @abstractmethod
    def map(self, z: Float[Tensor, "batch z_dim"], truncation: float = 1.0) -> Float[Tensor, "batch num_ws w_dim"]:
        """Latents to styles; truncation 1 leaves them as they are, 0 gives the mean style."""

    @abstractmethod
    def features(self, ws: Float[Tensor, "batch num_ws w_dim"]) -> Features:
        """G1: styles to the features at the split, in float32 whatever autocast says: clusters must not move with
        precision.
        """

    @abstractmethod
    def render(
        self, features: Features, ws: Float[Tensor, "batch num_ws w_dim"]
    ) -> Float[Tensor, "batch 3 height width"]:
        """G2: features to images in [-1, 1] (a generator may overshoot); `render(features(ws), ws)` equals `G(ws)` to
        the bit.
        """

    def images(self, ws: Float[Tensor, "batch num_ws w_dim"]) -> Float[Tensor, "batch 3 height width"]:
        """Unmodified images of styles, in float32, clamped to [-1, 1]."""
        return self.render(self.features(ws), ws).float().clamp(-1, 1)

    @abstractmethod
    def pyramid(self, ws: Float[Tensor, "batch num_ws w_dim"]) -> Pyramid:
        """Features of every resolution and the image, in float32: what few-shot segmenters read."""

    @abstractmethod
    def first_style(self, resolution: int) -> int:
        """Index of the first style that acts at `resolution`; those before it act below."""

    @abstractmethod
    def splits(self) -> tuple[int, ...]:
        """Resolutions at which this generator can be cut."""

    def forward(
        self, z: Float[Tensor, "batch z_dim"], truncation: float = 1.0
    ) -> Float[Tensor, "batch 3 height width"]:
        """Latents to images."""
        ws = self.map(z, truncation)
        return self.render(self.features(ws), ws)

    def freeze(self: Backbone) -> Backbone:
        """Take every parameter out of training; subclasses call this at the end of their constructor."""
        self.requires_grad_(False)
        return self.train(False)

    def train(self: Backbone, mode: bool = True) -> Backbone:
        """Stay in evaluation mode: Lightning calls `train()` on the whole module at every epoch."""
        return super().train(False)

    def requires_grad_(self: Backbone, requires_grad: bool = True) -> Backbone:
        """Stay frozen. (The same call on a module that holds this one goes past it, so such modules call `freeze()`
        before training.)
        """
        return super().requires_grad_(False)


class StyleGAN2Backbone(GeneratorBackbone):
    """StyleGAN2 behind the contract, with constant noise, so that features are a function of the styles (our choice).

    Args:
        generator: network with trained weights.
        split: resolution at which it is cut; None takes half the image's resolution, 64 px at most (the paper's figures
            show 64).
        fingerprint: SHA-256 of the weights; None computes it when it is first asked for.
        source: file or preset that the weights came from.
        precision: type in which G2's blocks compute, those above the split: "fp32"; "bf16"; or "fp16", in which only
            the finest resolutions compute that the file was trained with (`Generator.num_fp16_res`, never below 8 px),
            and none where it names none. Styles, features at the split, the sum of colours and images are float32 in
            all of them. With "fp32", autocast may choose the type of G2.

    Raises:
        ConfigError: the generator has no block of that resolution.
    """

    def __init__(
        self,
        generator: Generator,
        split: int | None = None,
        *,
        fingerprint: str | None = None,
        source: str = "",
        precision: Precision = "fp32",
    ) -> None:
        super().__init__()
        self.generator = generator
        self.precision: Precision = precision
        self.resolution = generator.resolution
        self.z_dim = generator.z_dim
        self.w_dim = generator.w_dim
        self.num_ws = generator.synthesis.num_ws
        self.split = default_split(self.resolution) if split is None else split
        if self.split not in self.splits():
            raise ConfigError(
                f"split {self.split}",
                f"the generator {source or ''} ({self.resolution} px) has features of {self.splits()} px",
                f"choose one of them, or leave the split out for {default_split(self.resolution)}",
            )
        self.channels = generator.channels
        self.feature_channels = generator.channels[self.split]
        self._fingerprint = fingerprint
        self.source = source
        # channels_last is twice as fast on CPUs. Transposed convolutions read weights the other way round, with output
        # channels innermost, and would copy them at every call.
        for name, parameter in generator.named_parameters():
            if name.endswith(".conv0.weight"):
                out, into, height, width = parameter.shape
                turned = parameter.data.flatten(1).t().contiguous()
                parameter.data = turned.view(into, height, width, out).permute(3, 0, 1, 2)
            elif parameter.ndim == 4:
                parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
        self.freeze()

    @property
    def fingerprint(self) -> str:
        if self._fingerprint is None:
            self._fingerprint = fingerprint_of(self.generator.state_dict())
        return self._fingerprint

    def splits(self) -> tuple[int, ...]:
        return tuple(self.generator.synthesis.resolutions)

    def first_style(self, resolution: int) -> int:
        return self.generator.synthesis.first_ws(resolution)

    def map(self, z: Float[Tensor, "batch z_dim"], truncation: float = 1.0) -> Float[Tensor, "batch num_ws w_dim"]:
        styles: Tensor = self.generator.mapping(z, truncation)
        return styles

    def features(self, ws: Float[Tensor, "batch num_ws w_dim"]) -> Features:
        synthesis = self.generator.synthesis
        with torch.autocast(ws.device.type, enabled=False):
            ws = ws.float()
            x: Tensor | None = None
            rgb: Tensor | None = None
            for resolution in synthesis.resolutions:
                block, i = synthesis.block(resolution), synthesis.first_ws(resolution)
                x = block.convolve(x, ws[:, i : i + block.num_convs], "const")
                if rgb is not None:
                    rgb = block.upsample_rgb(rgb)
                if resolution == self.split:
                    break
                rgb = block.colour(x, ws[:, i + block.num_convs], rgb)
        assert x is not None
        return Features(x, x.new_zeros(x.shape[0], synthesis.img_channels, *x.shape[2:]) if rgb is None else rgb)

    def pyramid(self, ws: Float[Tensor, "batch num_ws w_dim"]) -> Pyramid:
        synthesis = self.generator.synthesis
        maps: list[Tensor] = []
        rgb: Tensor | None = None
        with torch.autocast(ws.device.type, enabled=False):
            ws = ws.float()
            for resolution in synthesis.resolutions:
                block, i = synthesis.block(resolution), synthesis.first_ws(resolution)
                maps.append(block.convolve(maps[-1] if maps else None, ws[:, i : i + block.num_convs], "const"))
                rgb = None if rgb is None else block.upsample_rgb(rgb)
                rgb = block.colour(maps[-1], ws[:, i + block.num_convs], rgb)
        assert rgb is not None
        return Pyramid(maps, rgb)

    def render(
        self, features: Features, ws: Float[Tensor, "batch num_ws w_dim"]
    ) -> Float[Tensor, "batch 3 height width"]:
        if self.precision == "fp32":
            return self._render(features, ws)
        with torch.autocast(ws.device.type, enabled=False):
            return self._render(Features(features.map.float(), features.rgb.float()), ws.float())

    def _dtype(self, resolution: int) -> torch.dtype | None:
        """Type in which the block at `resolution` computes above the split; None for that of its input."""
        if self.precision == "fp32":
            return None
        if self.precision == "bf16":
            return torch.bfloat16
        finest = 2 * self.resolution >> self.generator.num_fp16_res
        return torch.float16 if resolution >= max(finest, 8) else torch.float32

    def _render(
        self, features: Features, ws: Float[Tensor, "batch num_ws w_dim"]
    ) -> Float[Tensor, "batch 3 height width"]:
        synthesis = self.generator.synthesis
        x = features.map
        # Where only the last block gives colours, there is no image before it.
        rgb = features.rgb if synthesis.architecture == "skip" else None
        for resolution in synthesis.resolutions[synthesis.resolutions.index(self.split) :]:
            block, i = synthesis.block(resolution), synthesis.first_ws(resolution)
            if resolution != self.split:
                x = block.convolve(x.to(self._dtype(resolution)), ws[:, i : i + block.num_convs], "const")
                rgb = None if rgb is None else block.upsample_rgb(rgb)
            rgb = block.colour(x, ws[:, i + block.num_convs], rgb)
        assert rgb is not None
        return rgb if self.precision == "fp32" else rgb.float()


def default_split(resolution: int) -> int:
    """Half the image's resolution, 64 px at most: the paper's masks measure 64 px; our choice for smaller images."""
    return min(64, resolution // 2)
