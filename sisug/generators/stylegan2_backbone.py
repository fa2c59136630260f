"""StyleGAN2 behind the contract of the frozen generator (generators)."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from sisug.errors import ConfigError
from sisug.generators.backbone import Features, GeneratorBackbone, Precision, default_split
from sisug.generators.discriminator import Discriminator
from sisug.generators.stylegan2 import Generator


class StyleGAN2Backbone(GeneratorBackbone):
    """StyleGAN2 behind the contract, with constant noise, so that features are a function of the styles (our choice).

    Args:
        generator: network with trained weights.
        split: resolution at which it is cut; None takes half the image's resolution, 64 px at most (the paper's figures
            show 64).
        fingerprint: SHA-256 of the weights; None computes it when it is first asked for.
        source: file or preset that the weights came from.
        discriminator: the generator's own; None where there is none.
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
        discriminator: Discriminator | None = None,
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
        self.feature_channels = generator.channels[self.split]
        self.source = source
        # In a tuple, where it is no part of this module: it is not frozen, and stays out of the weights.
        self._own_discriminator = (discriminator,)
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
        if fingerprint is not None:
            self.remember(fingerprint)

    def weights(self) -> dict[str, Tensor]:
        return dict(self.generator.state_dict())

    @property
    def channels(self) -> dict[int, int]:
        return self.generator.channels

    def discriminator(self) -> Discriminator | None:
        return copy.deepcopy(self._own_discriminator[0])

    def splits(self) -> tuple[int, ...]:
        return tuple(self.generator.synthesis.resolutions)

    def first_style(self, resolution: int) -> int:
        return self.generator.synthesis.first_ws(resolution)

    def map(self, z: Float[Tensor, "batch z_dim"], truncation: float = 1.0) -> Float[Tensor, "batch num_ws w_dim"]:
        styles: Tensor = self.generator.mapping(z, truncation)
        return styles

    def features(self, ws: Float[Tensor, "batch num_ws w_dim"]) -> Features:
        return self.features_at(ws, [self.split])[0]

    def features_at(self, ws: Float[Tensor, "batch num_ws w_dim"], resolutions: Sequence[int]) -> list[Features]:
        synthesis = self.generator.synthesis
        with torch.autocast(ws.device.type, enabled=False):
            ws = ws.float()
            first = synthesis.resolutions[0]
            x: Tensor = synthesis.block(first).convolve(None, ws[:, : synthesis.block(first).num_convs], "const")
            features = Features(x, x.new_zeros(x.shape[0], synthesis.img_channels, *x.shape[2:]))
            found: list[Features] = []
            for resolution in resolutions:
                features = self.advance(features, ws, resolution)
                found.append(features)
        return found

    def advance(self, features: Features, ws: Float[Tensor, "batch num_ws w_dim"], resolution: int) -> Features:
        synthesis = self.generator.synthesis
        x: Tensor = features.map
        rgb: Tensor | None = features.rgb
        for size in synthesis.resolutions:
            if x.shape[2] < size <= resolution:
                # Only the sum of all colors at the end shows; where the last block alone gives them, there is no sum.
                if synthesis.architecture == "skip":
                    before = synthesis.block(size // 2)
                    style = ws[:, synthesis.first_ws(size // 2) + before.num_convs]
                    # 4 px is the first block: there is no sum that its colors could be added to.
                    rgb = before.colour(x, style, None if size // 2 == synthesis.resolutions[0] else rgb)
                    assert rgb is not None
                    rgb = synthesis.block(size).upsample_rgb(rgb)
                else:
                    rgb = x.new_zeros(x.shape[0], synthesis.img_channels, size, size)
                block, i = synthesis.block(size), synthesis.first_ws(size)
                x = block.convolve(x, ws[:, i : i + block.num_convs], "const")
        assert rgb is not None
        return Features(x, rgb)

    def layers(self, ws: Float[Tensor, "batch num_ws w_dim"]) -> list[Float[Tensor, "batch _ _ _"]]:
        """Features after every convolution, two at each resolution above 4 px, the second with the residual path where
        there is one. (With the second alone, LinearGAN is weaker: on avatars with 16 labels mIoU 0.36 instead of 0.43
        on samples truncated by 0.5, measured against the judge.)
        """
        return self.layers_and_images(ws)[0]

    def layers_and_images(
        self, ws: Float[Tensor, "batch num_ws w_dim"]
    ) -> tuple[list[Float[Tensor, "batch _ _ _"]], Float[Tensor, "batch 3 height width"]]:
        synthesis = self.generator.synthesis
        layers: list[Tensor] = []
        x: Tensor | None = None
        rgb: Tensor | None = None
        with torch.autocast(ws.device.type, enabled=False):
            ws = ws.float()
            for resolution in synthesis.resolutions:
                block, i = synthesis.block(resolution), synthesis.first_ws(resolution)
                if x is None:
                    x = block.convolve(None, ws[:, i : i + 1], "const")
                else:
                    layers.append(block.conv0(x, ws[:, i], "const"))
                    x = block.join(x, block.conv1(layers[-1], ws[:, i + 1], "const"))
                layers.append(x)
                rgb = None if rgb is None else block.upsample_rgb(rgb)
                rgb = block.colour(x, ws[:, i + block.num_convs], rgb)
        assert rgb is not None
        return layers, rgb.clamp(-1, 1)

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
