"""MobileStyleGAN behind the contract of the frozen generator (generators)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from sisug.errors import ConfigError
from sisug.generators.backbone import Features, GeneratorBackbone, Precision
from sisug.generators.mobilestylegan.native import read_native
from sisug.generators.mobilestylegan.network import MobileStyleGAN

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


class MobileStyleGANBackbone(GeneratorBackbone):
    """MobileStyleGAN cut at its split. It has no image beside its features: `Features.rgb` is zeros.

    Args:
        network: with trained weights.
        mean_style: of many samples, towards which truncation pulls.
        split: resolution at which it is cut, pixels; None takes the finest one, 64 px at most.
        fingerprint: SHA-256 of the weights; None computes it when it is first asked for.
        source: file or preset that the weights came from.
        precision: type in which G2 computes: "fp32"; "bf16"; or "fp16". Styles, features at the split and images are
            float32 in all of them.

    Raises:
        ConfigError: the generator has no block of that resolution.
    """

    mean_style: Tensor

    def __init__(
        self,
        network: MobileStyleGAN,
        mean_style: Float[Tensor, " w_dim"],
        split: int | None = None,
        *,
        fingerprint: str | None = None,
        source: str = "",
        precision: Precision = "fp32",
    ) -> None:
        super().__init__()
        self.network = network.to(memory_format=torch.channels_last)
        self.precision: Precision = precision
        self.resolution = network.resolution
        self.z_dim, self.w_dim, self.num_ws = network.z_dim, network.w_dim, network.num_ws
        self.split = default_cut(network) if split is None else split
        if self.split not in self.splits():
            raise ConfigError(
                f"split {self.split}",
                f"the generator {source or 'MobileStyleGAN'} ({self.resolution} px) has features of {self.splits()} px",
                f"choose one of them, or leave the split out for {default_cut(network)}",
            )
        self.feature_channels = network.channels[self.split]
        self.register_buffer("mean_style", mean_style)
        self.source = source
        self.freeze()
        if fingerprint is not None:
            self.remember(fingerprint)

    def weights(self) -> dict[str, Tensor]:
        return dict(self.network.state_dict())

    @property
    def channels(self) -> dict[int, int]:
        # Our choice for the image's own size, which has no features: a quarter, as wavelets make of four bands one.
        return self.network.channels | {self.resolution: self.network.channels[self.resolution // 2] // 4}

    def splits(self) -> tuple[int, ...]:
        return cuts(self.network)

    def first_style(self, resolution: int) -> int:
        return self.network.first_style(resolution)

    def map(self, z: Float[Tensor, "batch z_dim"], truncation: float = 1.0) -> Float[Tensor, "batch num_ws w_dim"]:
        w: Tensor = self.network.mapping(z)
        if truncation != 1.0:
            w = self.mean_style + truncation * (w - self.mean_style)
        return w[:, None, :].expand(-1, self.num_ws, -1)

    def features(self, ws: Float[Tensor, "batch num_ws w_dim"]) -> Features:
        return self.features_at(ws, [self.split])[0]

    def features_at(self, ws: Float[Tensor, "batch num_ws w_dim"], resolutions: Sequence[int]) -> list[Features]:
        with torch.autocast(ws.device.type, enabled=False):
            ws = ws.float()
            x = self.network.begin(ws[:, 0])
            features = Features(x, x.new_zeros(len(x), 3, *x.shape[2:]))
            found: list[Features] = []
            for resolution in resolutions:
                features = self.advance(features, ws, resolution)
                found.append(features)
        return found

    def advance(self, features: Features, ws: Float[Tensor, "batch num_ws w_dim"], resolution: int) -> Features:
        x = features.map
        with torch.autocast(ws.device.type, enabled=False):
            for size in self.network.sizes[1:]:
                if x.shape[2] < size <= resolution:
                    x = self.network.grow(x, ws.float(), size)
        return Features(x, features.rgb.new_zeros(len(x), 3, *x.shape[2:]))

    def render(
        self, features: Features, ws: Float[Tensor, "batch num_ws w_dim"]
    ) -> Float[Tensor, "batch 3 height width"]:
        with torch.autocast(ws.device.type, enabled=False):
            x, ws = features.map.to(DTYPES[self.precision]), ws.float()
            for size in self.network.sizes[1:-1]:
                if size > self.split:
                    x = self.network.grow(x, ws, size)
            return self.network.finish(x, ws)

    def layers(self, ws: Float[Tensor, "batch num_ws w_dim"]) -> list[Float[Tensor, "batch _ _ _"]]:
        """Features of every resolution, coarse to fine, in float32: what few-shot segmenters read."""
        with torch.autocast(ws.device.type, enabled=False):
            ws = ws.float()
            maps = [self.network.begin(ws[:, 0])]
            for size in self.network.sizes[1:]:
                maps.append(self.network.grow(maps[-1], ws, size))
        return maps

    def layers_and_images(
        self, ws: Float[Tensor, "batch num_ws w_dim"]
    ) -> tuple[list[Float[Tensor, "batch _ _ _"]], Float[Tensor, "batch 3 height width"]]:
        maps = self.layers(ws)
        with torch.autocast(ws.device.type, enabled=False):
            return maps, self.network.color(maps[-1], ws.float()).clamp(-1, 1)


def load_backbone(path: Path, split: int | None, precision: Precision) -> MobileStyleGANBackbone:
    """The generator of a file of sisug's own format.

    Args:
        path: the file.
        split: resolution at which to cut it, pixels; None for the default.
        precision: in which images are rendered.

    Raises:
        CheckpointError: the file is damaged, too large, of a later version, or holds something else.
        ConfigError: the generator has no features of that resolution.
    """
    network, mean, mark = read_native(path)
    return MobileStyleGANBackbone(network, mean, split, fingerprint=mark, precision=precision)


def cuts(network: MobileStyleGAN) -> tuple[int, ...]:
    """Resolutions at which a network can be cut: from 8 px to a quarter of the image's.

    Above that, no features are kept as a whole: the last block and its colors are drawn in strips.
    """
    return tuple(size for size in network.sizes[1:] if 4 * size <= network.resolution)


def default_cut(network: MobileStyleGAN) -> int:
    """The finest of `cuts`, 64 px at most: the paper's masks measure 64 px."""
    return min(64, cuts(network)[-1])
