"""The contract of the frozen generator, cut in two at its split (generators): what every later stage builds on."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple, TypeVar

from jaxtyping import Float
from torch import Tensor, nn

from sisug.common.fingerprint import fingerprint as fingerprint_of
from sisug.errors import ConfigError

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


class GeneratorBackbone(nn.Module, ABC):
    """An unconditional generator G = G2(G1(.)), always frozen and in evaluation mode (paper, Fig. 2: both halves carry
    a snowflake).

    A subclass sets the attributes, writes `map`, `features`, `render` and `layers`, and calls `freeze()` at the end of
    its constructor; `sisug.testing.check_backbone` says whether it keeps the contract. Images and features are square,
    their sizes powers of two, and features lie under the pixels that they become. So StyleGAN3 does not fit, whose
    features reach beyond the image, nor does a diffusion model, whose image is no function of one feature map.

    Attributes:
        resolution: height and width of the images, pixels.
        split: height and width of the features that pass from G1 to G2, pixels.
        feature_channels: number of channels of those features.
        num_ws: number of styles that an image takes.
        z_dim: size of a latent.
        w_dim: size of a style.
        source: file, preset or class that it came from, for messages.
        reference: how a configuration names it, which checkpoints of later stages repeat: a preset, a file, or
            `class_path` with `init_args`; None for one that was made in Python.
    """

    resolution: int
    split: int
    feature_channels: int
    num_ws: int
    z_dim: int
    w_dim: int
    source: str = ""
    reference: str | dict[str, Any] | None = None

    _fingerprint: tuple[tuple[tuple[int, int], ...], str] | None = None

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

    def features_at(self, ws: Float[Tensor, "batch num_ws w_dim"], resolutions: Sequence[int]) -> list[Features]:
        """Features at several resolutions up to the split, each as `features` gives them where the split is there.

        Args:
            ws: styles of the samples.
            resolutions: increasing, some of `splits`, pixels.

        Raises:
            ConfigError: this generator gives features at its split only.
        """
        if list(resolutions) != [self.split]:
            raise self._only_split()
        return [self.features(ws)]

    def advance(self, features: Features, ws: Float[Tensor, "batch num_ws w_dim"], resolution: int) -> Features:
        """Carry features on to a finer resolution, up to the split, through the generator's own layers.

        `advance(features_at(ws, [r])[0], ws, split)` equals `features(ws)`. Gradients pass; the computation has the
        type of the features, unless autocast chooses another.

        Args:
            features: at one of `splits`.
            ws: styles of the samples.
            resolution: where to stop, one of `splits`, pixels.

        Raises:
            ConfigError: this generator gives features at its split only.
        """
        if features.map.shape[2] != resolution:
            raise self._only_split()
        return features

    def _only_split(self) -> ConfigError:
        return ConfigError(
            f"the generator {self.source or type(self).__name__} with features of several resolutions",
            "its class gives features at the split only",
            "write `features_at` and `advance` for it, or train with `RearrangerModule`, which acts at the split",
        )

    def images(self, ws: Float[Tensor, "batch num_ws w_dim"]) -> Float[Tensor, "batch 3 height width"]:
        """Unmodified images of styles, in float32, clamped to [-1, 1]."""
        return self.render(self.features(ws), ws).float().clamp(-1, 1)

    @abstractmethod
    def layers(self, ws: Float[Tensor, "batch num_ws w_dim"]) -> list[Float[Tensor, "batch _ _ _"]]:
        """Features after every layer, coarse to fine, in float32: what few-shot segmenters and LinearGAN read. Those
        at the split are among them.
        """

    def layers_and_images(
        self, ws: Float[Tensor, "batch num_ws w_dim"]
    ) -> tuple[list[Float[Tensor, "batch _ _ _"]], Float[Tensor, "batch 3 height width"]]:
        """`layers` and `images` of the same styles; a subclass may take both from one pass."""
        return self.layers(ws), self.images(ws)

    def discriminator(self) -> nn.Module | None:
        """Its own discriminator, a new copy at every call, from which stages 1 and 2 may start: images in [-1, 1] to
        one logit each (batch, 1). None where there is none.
        """
        return None

    @property
    def channels(self) -> dict[int, int]:
        """Resolution in pixels to channels, from 4 up to the image's: sizes a new discriminator of equal strength.

        Halved with every doubling of the resolution, 512 at most, as in StyleGAN2 (our choice).
        """
        at_one_pixel = self.feature_channels * self.split
        sizes = [2**i for i in range(2, self.resolution.bit_length())]
        return {size: min(512, max(8, at_one_pixel // size)) for size in sizes}

    @property
    def layered_styles(self) -> bool:
        """Whether coarse and fine layers take styles of their own, so that style mixing changes colours and leaves the
        layout.
        """
        return self.num_ws > 1

    def first_style(self, resolution: int) -> int:
        """Index of the first style that acts at `resolution`; those before it act below.

        Raises:
            ConfigError: its styles are not layered.
        """
        raise ConfigError(
            f"the generator {self.source or type(self).__name__} with styles of single layers",
            "one style acts on all of its layers",
            "leave out what mixes styles, or take a generator with layered styles, such as StyleGAN2",
        )

    def splits(self) -> tuple[int, ...]:
        """Resolutions at which this generator can be cut, pixels."""
        return (self.split,)

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the weights, which checkpoints of later stages name."""
        versions = self._versions()
        if self._fingerprint is None or self._fingerprint[0] != versions:
            self._fingerprint = (versions, fingerprint_of(self.weights()))
        return self._fingerprint[1]

    def weights(self) -> dict[str, Tensor]:
        """The tensors that `fingerprint` covers."""
        return dict(self.state_dict())

    def remember(self, fingerprint: str) -> None:
        """Take a fingerprint that is known from the weights' file; it holds until they change."""
        self._fingerprint = (self._versions(), fingerprint)

    def _versions(self) -> tuple[tuple[int, int], ...]:
        """Places and counts of changes of the weights: a fingerprint holds as long as they stay."""
        return tuple(
            (value.data_ptr(), 0 if value.is_inference() else value._version) for value in self.weights().values()
        )

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


def default_split(resolution: int) -> int:
    """Half the image's resolution, 64 px at most: the paper's masks measure 64 px; our choice for smaller images."""
    return min(64, resolution // 2)
