"""For classes of your own (every stage): the smallest generator, and a check of the contract that generators keep."""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from sisug.errors import ConfigError, SisugError
from sisug.generators.backbone import Features, GeneratorBackbone


class ToyBackbone(GeneratorBackbone):
    """A generator of random weights, small enough for tests: coarse styles make its layout, fine ones its colors.

    >>> toy = ToyBackbone()
    >>> toy.images(toy.map(torch.zeros(2, toy.z_dim))).shape
    torch.Size([2, 3, 16, 16])

    Args:
        resolution: height and width of the images, pixels; a power of two, 8 or more.
        split: height and width of the features that are cut; None for half the resolution.
        channels: number of channels at every resolution, 1 or more.
        layered: styles of their own for coarse and fine layers; False for one style for all.
        seed: of the weights, 0 or more.
    """

    def __init__(
        self,
        resolution: int = 16,
        split: int | None = None,
        channels: int = 6,
        layered: bool = True,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.resolution, self.split = resolution, resolution // 2 if split is None else split
        self.sizes = [2**i for i in range(2, resolution.bit_length())]
        self.feature_channels, self.z_dim, self.w_dim = channels, 8, 8
        self.num_ws = len(self.sizes) if layered else 1
        self.source = "toy"
        if self.split not in self.splits():
            raise ConfigError(f"split {self.split}", f"the toy has features of {self.splits()} px", "choose one")
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.mapping = nn.Linear(self.z_dim, self.w_dim)
            self.const = nn.Parameter(torch.randn(channels, 4, 4))
            self.convs = nn.ModuleList(nn.Conv2d(channels, channels, 3, padding=1) for _ in self.sizes)
            self.affines = nn.ModuleList(nn.Linear(self.w_dim, channels) for _ in self.sizes)
            self.colors = nn.Conv2d(channels, 3, 1)
        self.freeze()

    def splits(self) -> tuple[int, ...]:
        return tuple(self.sizes)

    def first_style(self, resolution: int) -> int:
        return self.sizes.index(resolution) if self.layered_styles else super().first_style(resolution)

    def map(self, z: Float[Tensor, "batch z_dim"], truncation: float = 1.0) -> Float[Tensor, "batch num_ws w_dim"]:
        mean = torch.tanh(self.mapping.bias)
        w = mean + truncation * (torch.tanh(self.mapping(z)) - mean)
        return w[:, None].expand(-1, self.num_ws, -1)

    def features(self, ws: Float[Tensor, "batch num_ws w_dim"]) -> Features:
        with torch.autocast(ws.device.type, enabled=False):
            x = self._walk(self.const.expand(len(ws), -1, -1, -1), ws.float(), 0, self.sizes.index(self.split) + 1)[-1]
        return Features(x, x.new_zeros(len(x), 3, self.split, self.split))

    def render(
        self, features: Features, ws: Float[Tensor, "batch num_ws w_dim"]
    ) -> Float[Tensor, "batch 3 height width"]:
        layers = self._walk(features.map, ws, self.sizes.index(self.split) + 1, len(self.sizes))
        return self._colored([features.map, *layers][-1], features.rgb)

    def layers(self, ws: Float[Tensor, "batch num_ws w_dim"]) -> list[Float[Tensor, "batch _ _ _"]]:
        with torch.autocast(ws.device.type, enabled=False):
            return self._walk(self.const.expand(len(ws), -1, -1, -1), ws.float(), 0, len(self.sizes))

    def _walk(self, x: Tensor, ws: Tensor, start: int, stop: int) -> list[Tensor]:
        """Features after the blocks from `start` to before `stop`."""
        found: list[Tensor] = []
        for i in range(start, stop):
            if x.shape[-1] != self.sizes[i]:
                x = F.interpolate(x, (self.sizes[i], self.sizes[i]), mode="nearest")
            scale = self.affines[i](ws[:, i if self.layered_styles else 0])[:, :, None, None]
            x = F.leaky_relu(self.convs[i](x * (1 + scale)), 0.2)
            found.append(x)
        return found

    def _colored(self, x: Tensor, rgb: Tensor) -> Tensor:
        """Colors, over the image at the split that the features bring along."""
        below = F.interpolate(rgb, x.shape[2:], mode="nearest")
        return torch.tanh(self.colors(x)) + below


class ContractError(SisugError):
    """A class does not keep the contract that it says it keeps."""


def check_backbone(
    backbone: GeneratorBackbone, cut: Callable[[int], GeneratorBackbone] | None = None, batch: int = 3
) -> None:
    """Check that a generator keeps the contract of `GeneratorBackbone`: what every stage relies on.

    >>> check_backbone(ToyBackbone(split=8), cut=lambda split: ToyBackbone(split=split))

    That is: sizes, shapes and types; frozen whatever is called; features in float32 under autocast; equal results of
    equal styles; an image that is the same to the bit whether it is cut or not, with gradients through G2; truncation;
    styles that act where they say; a fingerprint that follows the weights.

    Args:
        backbone: on the device where it is to work; it stays as it is.
        cut: makes the same generator cut at a resolution of `splits()`, pixels; None where it is cut at one alone, and
            nothing is compared.
        batch: number of samples to try it with, 2 or more.

    Raises:
        ContractError: what it does not keep, and what to change.
    """
    before = backbone.fingerprint
    device = next((value.device for value in backbone.state_dict().values()), torch.device("cpu"))
    rng = torch.Generator().manual_seed(0)
    z = torch.randn(batch, _size(backbone, "z_dim"), generator=rng).to(device)
    _check_sizes(backbone)
    _check_frozen(backbone)
    ws = backbone.map(z)
    _shape("map", ws, (batch, backbone.num_ws, backbone.w_dim))
    _check_truncation(backbone, z, ws)
    _check_features(backbone, ws)
    _check_images(backbone, z, ws)
    if cut is not None:
        _check_cuts(backbone, cut, ws)
    _check_layers(backbone, ws)
    _check_styles(backbone, z, ws)
    _check_fingerprint(backbone, before)


def _size(backbone: GeneratorBackbone, name: str) -> int:
    value = getattr(backbone, name, None)
    _need(isinstance(value, int) and value > 0, f"{name} is {value!r}", "set it in the constructor: a number above 0")
    assert isinstance(value, int)
    return value


def _check_sizes(backbone: GeneratorBackbone) -> None:
    sizes = {name: _size(backbone, name) for name in ("resolution", "split", "feature_channels", "num_ws", "w_dim")}
    for name in ("resolution", "split"):
        power = sizes[name].bit_count() == 1 and sizes[name] >= 4
        _need(power, f"{name} is {sizes[name]}", "images and features are square, of 4, 8, 16, ... px")
    _need(sizes["split"] <= sizes["resolution"], "the split lies above the resolution", "cut it below")
    _need(sizes["split"] in backbone.splits(), f"splits() is {backbone.splits()}", f"it lacks split {sizes['split']}")


def _check_frozen(backbone: GeneratorBackbone) -> None:
    holder = nn.ModuleDict({"generator": backbone})
    holder.train()
    backbone.train(True)
    backbone.requires_grad_(True)
    _need(not any(each.training for each in backbone.modules()), "it can be put into training", "do not override train")
    trains = [name for name, each in backbone.named_parameters() if each.requires_grad]
    _need(not trains, f"{trains[:1]} would be trained", "call freeze() at the end of the constructor")


def _check_truncation(backbone: GeneratorBackbone, z: Tensor, ws: Tensor) -> None:
    _same("map(z, 1)", backbone.map(z, 1.0), ws)
    mean = backbone.map(z, 0.0)
    _need(
        torch.allclose(mean, mean[:1].expand_as(mean), atol=1e-5),
        "truncation 0 leaves styles of several samples different",
        "truncation pulls styles towards their mean: mean + truncation * (w - mean)",
    )
    _need(not torch.equal(ws[0], ws[1]), "two latents have the same styles", "let map depend on z")


def _check_features(backbone: GeneratorBackbone, ws: Tensor) -> None:
    features = backbone.features(ws)
    place = (len(ws), backbone.feature_channels, backbone.split, backbone.split)
    _shape("features(ws).map", features.map, place)
    _shape("features(ws).rgb", features.rgb, (len(ws), 3, backbone.split, backbone.split))
    _same("features(ws), called again", backbone.features(ws).map, features.map)
    with torch.autocast(ws.device.type, torch.bfloat16):
        under = backbone.features(ws)
    _same("features(ws) under autocast", under.map, features.map, "compute them within torch.autocast(enabled=False)")


def _check_images(backbone: GeneratorBackbone, z: Tensor, ws: Tensor) -> None:
    features = backbone.features(ws)
    images = backbone.render(features, ws)
    _shape("render(features, ws)", images, (len(ws), 3, backbone.resolution, backbone.resolution))
    _same("forward(z)", backbone(z), images)
    clamped = backbone.images(ws)
    _need(clamped.dtype == torch.float32, f"images(ws) are {clamped.dtype}", "give float32")
    _same("images(ws)", clamped, images.float().clamp(-1, 1), "they are render(features(ws), ws) within [-1, 1]")
    _need(not torch.equal(images[0], images[1]), "two samples have the same image", "let the image depend on ws")
    turned = features.map.flip(-1).detach().requires_grad_(True)
    moved = backbone.render(features._replace(map=turned), ws)
    _need(not torch.equal(moved, images), "render does not depend on the features", "make the image of them")
    (gradient,) = torch.autograd.grad(moved.square().sum(), turned)
    _need(bool(gradient.abs().max() > 0), "no gradient reaches the features", "do not detach them in render")


def _check_cuts(backbone: GeneratorBackbone, cut: Callable[[int], GeneratorBackbone], ws: Tensor) -> None:
    images = backbone.images(ws)
    for split in backbone.splits():
        other = cut(split).to(ws.device)
        _need(other.split == split, f"cut({split}) is cut at {other.split} px", "cut it where it was asked for")
        _need(
            other.fingerprint == backbone.fingerprint, f"cut({split}) has another fingerprint", "take the same weights"
        )
        _check_features(other, ws)
        _same(
            f"the image, cut at {split} px,", other.images(ws), images, "render(features(ws), ws) is G(ws) at any split"
        )


def _check_layers(backbone: GeneratorBackbone, ws: Tensor) -> None:
    layers, images = backbone.layers_and_images(ws)
    sizes = [layer.shape[-1] for layer in layers]
    _need(len(layers) > 0 and sizes == sorted(sizes), f"layers(ws) have {sizes} px", "give them coarse to fine")
    for layer in layers:
        kept = layer.dtype == torch.float32 and len(layer) == len(ws) and layer.shape[-1] == layer.shape[-2]
        _need(kept, f"a layer of shape {tuple(layer.shape)}, {layer.dtype}", "give square maps in float32")
    features = backbone.features(ws).map
    among = any(torch.equal(layer, features) for layer in layers)
    _need(among, "no layer is what features(ws) gives", "the features at the split are one of the layers")
    for ours, theirs in zip(backbone.layers(ws), layers, strict=True):
        _same("layers(ws)", ours, theirs)
    _same("the images of layers_and_images(ws)", images, backbone.images(ws))


def _check_styles(backbone: GeneratorBackbone, z: Tensor, ws: Tensor) -> None:
    if not backbone.layered_styles:
        return
    first = backbone.first_style(backbone.split)
    fits = 0 <= first < backbone.num_ws
    _need(fits, f"first_style({backbone.split}) is {first}", f"it is an index among the {backbone.num_ws} styles")
    other = backbone.map(z.flip(0))
    coarse = backbone.first_style(backbone.layers(ws)[0].shape[-1])
    _need(coarse == 0, f"the first style of the coarsest layer is {coarse}", "all styles from 0 on act somewhere")
    fine = torch.cat([ws[:, :-1], other[:, -1:]], dim=1)
    changes = not torch.equal(backbone.images(fine), backbone.images(ws))
    _need(changes, "the last style changes no image", "let it act, or say layered_styles False")


def _check_fingerprint(backbone: GeneratorBackbone, before: str) -> None:
    _need(
        len(before) >= 32, f"the fingerprint is {before!r}", "give the SHA-256 of the weights, as the base class does"
    )
    changed = copy.deepcopy(backbone)
    values = [each for each in changed.state_dict().values() if each.is_floating_point()]
    with torch.no_grad():
        for value in values:
            value.add_(0.5)
    _need(not values or changed.fingerprint != before, "the fingerprint does not follow the weights", "do not fix it")
    _need(backbone.fingerprint == before, "the fingerprint changed by use", "no call may change a weight")


def _shape(what: str, found: Tensor, expected: tuple[int, ...]) -> None:
    _need(tuple(found.shape) == expected, f"{what} has shape {tuple(found.shape)}", f"it must have {expected}")
    _need(found.dtype == torch.float32, f"{what} is {found.dtype}", "it must be float32")


def _same(what: str, found: Tensor, expected: Tensor, remedy: str = "the same styles give the same bits") -> None:
    same = found.shape == expected.shape and found.dtype == expected.dtype and torch.equal(found, expected)
    _need(same, f"{what} is not the same to the bit", remedy)


def _need(kept: bool, state: str, remedy: str) -> None:
    if not kept:
        raise ContractError(f"the generator breaks its contract: {state}", "every stage relies on it", remedy)
