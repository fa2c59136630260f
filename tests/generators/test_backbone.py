"""The contract of the frozen backbone."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from sisug.errors import ConfigError
from sisug.generators import Generator, StyleGAN2Backbone, load_generator
from sisug.generators.backbone import Precision, default_split


def test_contract_of_the_shipped_generator():
    backbone = load_generator("avatars")
    assert (backbone.resolution, backbone.split, backbone.feature_channels) == (64, 32, 64)
    assert (backbone.num_ws, backbone.z_dim, backbone.w_dim) == (10, 128, 128)
    assert len(backbone.fingerprint) == 64
    assert load_generator("avatars", 16).fingerprint == backbone.fingerprint


def test_frozen_whatever_is_called(tiny_generator_file):
    backbone = load_generator(tiny_generator_file)
    holder = nn.ModuleDict({"generator": backbone})
    holder.train()
    holder.requires_grad_(True)
    backbone.train(True)
    backbone.requires_grad_(True)
    assert not any(module.training for module in backbone.modules())
    assert not any(parameter.requires_grad for parameter in backbone.parameters())


def test_gradients_pass_through_but_stay_out_of_the_weights(tiny_generator_file):
    backbone = load_generator(tiny_generator_file, 8)
    ws = backbone.map(torch.randn(2, backbone.z_dim))
    features = backbone.features(ws)
    moved = features.map.clone().requires_grad_(True)
    backbone.render(features._replace(map=moved), ws).square().sum().backward()
    assert moved.grad is not None
    assert moved.grad.abs().max() > 0
    assert all(parameter.grad is None for parameter in backbone.parameters())


@pytest.mark.parametrize(("resolution", "split"), [(16, 8), (64, 32), (128, 64), (256, 64), (1024, 64)])
def test_default_split(resolution, split):
    assert default_split(resolution) == split


@pytest.mark.parametrize("split", [0, 5, 128])
def test_wrong_split_names_the_right_ones(split):
    with pytest.raises(ConfigError, match=r"\(4, 8, 16, 32, 64\).*leave the split out for 32"):
        load_generator("avatars", split)


@pytest.fixture(scope="module")
def shipped() -> Generator:
    """The shipped network, as if it had been trained with float16 in its last three resolutions."""
    generator = load_generator("avatars").generator
    generator.num_fp16_res = 3
    return generator


# Root mean squares; images go from -1 to 1 and have 8 bits a colour, of 0.008 each.
@pytest.mark.parametrize(
    ("precision", "split", "bound"), [("bf16", 4, 0.012), ("bf16", 32, 0.005), ("fp16", 4, 0.0015), ("fp16", 32, 7e-4)]
)
def test_lower_precision_hardly_moves_images(shipped, precision, split, bound):
    exact, lower = (StyleGAN2Backbone(shipped, split, precision=name) for name in ("fp32", precision))
    ws = exact.map(torch.randn(4, 128, generator=torch.Generator().manual_seed(0)))
    features = lower.features(ws)
    assert torch.equal(lower.map(torch.ones(1, 128)), exact.map(torch.ones(1, 128)))
    assert all(torch.equal(pair[0], pair[1]) for pair in zip(features, exact.features(ws), strict=True))
    expected, images = exact.render(features, ws), lower.render(features, ws)
    assert images.dtype == torch.float32
    moved = (images - expected).square().mean().sqrt().item()
    # Where it did not move, nothing would have been computed in another type.
    assert bound / 10 < moved < bound


@pytest.mark.parametrize(
    ("precision", "last", "low"),
    [
        ("fp32", 4, []),
        ("bf16", 0, [8, 16, 32]),
        ("fp16", 0, []),
        ("fp16", 1, [32]),
        ("fp16", 2, [16, 32]),
        ("fp16", 4, [8, 16, 32]),
    ],
)
def test_blocks_compute_in_the_type_that_is_asked_for(precision: Precision, last: int, low: list[int]):
    """float16 in the last resolutions of the file, never at 4 px; the split's own block in float32."""
    generator = Generator(4, 4, {4: 4, 8: 4, 16: 4, 32: 4}, mapping_layers=1, num_fp16_res=last)
    backbone = StyleGAN2Backbone(generator, 4, precision=precision)
    types: dict[int, set[torch.dtype]] = {}

    def note(resolution: int):
        return lambda module, inputs, output: types.setdefault(resolution, set()).update(
            {inputs[0].dtype, output.dtype}
        )

    for resolution in (8, 16, 32):
        block = generator.synthesis.block(resolution)
        for layer in (block.conv0, block.conv1, block.torgb):
            layer.register_forward_hook(note(resolution))
    assert backbone(torch.randn(2, 4)).dtype == torch.float32
    half = torch.bfloat16 if precision == "bf16" else torch.float16
    assert types == {r: {half if r in low else torch.float32} for r in (8, 16, 32)}


@pytest.mark.parametrize("architecture", ["skip", "resnet", "orig"])
def test_large_activations_do_not_overflow_float16(architecture):
    """Products of weights, styles and clamped activations are far beyond 65,504 here."""
    torch.manual_seed(0)
    generator = Generator(
        8,
        8,
        {4: 64, 8: 64, 16: 32, 32: 16},
        mapping_layers=1,
        clamp=256.0,
        architecture=architecture,
        num_fp16_res=3,
    )
    with torch.no_grad():
        generator.synthesis.block(4).conv1.bias.fill_(250.0)
        for resolution in (8, 16, 32):
            block = generator.synthesis.block(resolution)
            for layer in (block.conv0, block.conv1):
                layer.weight.mul_(500)
                layer.affine.weight.mul_(300)
                layer.noise_strength.fill_(0.3)
                layer.bias.normal_()
    exact, half = (StyleGAN2Backbone(generator, 4, precision=name) for name in ("fp32", "fp16"))
    z = torch.randn(4, 8)
    assert exact.features(exact.map(z)).map.max() > 200
    images, expected = half(z), exact(z)
    assert images.isfinite().all()
    assert (images - expected).abs().max() < 0.01 * expected.abs().max()


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_gradients_pass_through_lower_precision(shipped, precision):
    """As in float32, to the features and to the styles."""
    found = []
    for name in ("fp32", precision):
        backbone = StyleGAN2Backbone(shipped, 32, precision=name)
        ws = backbone.map(torch.randn(2, 128, generator=torch.Generator().manual_seed(0))).detach()
        features = backbone.features(ws)
        moved, styles = features.map.clone().requires_grad_(True), ws.clone().requires_grad_(True)
        loss = backbone.render(features._replace(map=moved), styles).square().mean()
        found.append(torch.autograd.grad(loss, (moved, styles)))
    for expected, gradient in zip(*found, strict=True):
        assert gradient.dtype == torch.float32
        assert torch.cosine_similarity(expected.flatten(), gradient.flatten(), dim=0) > 0.99
