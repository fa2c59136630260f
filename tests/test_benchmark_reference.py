"""The plain StyleGAN2 that benchmarks time sisug against: the same function as sisug's networks (both ways)."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType
from typing import Literal

import pytest
import torch
from torch import Tensor, nn

from sisug.generators import Discriminator, Generator
from sisug.generators.losses import r1_penalty
from sisug.generators.stylegan2 import Architecture

SIZES = [{4: 12, 8: 10, 16: 6}, {4: 8, 8: 8, 16: 7, 32: 4}]


@pytest.fixture(scope="module")
def benchmark() -> ModuleType:
    path = Path(__file__).parents[1] / "benchmarks" / "plain" / "stylegan2.py"
    spec = importlib.util.spec_from_file_location("plain_stylegan2", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def networks(
    channels: dict[int, int],
    architecture: Architecture = "skip",
    adversary: Literal["resnet", "orig"] = "resnet",
    clamp: float | None = None,
) -> tuple[Generator, Discriminator]:
    """In float64, with noise and with biases that are not 0."""
    torch.manual_seed(0)
    generator = Generator(10, 9, channels, mapping_layers=3, architecture=architecture, clamp=clamp)
    discriminator = Discriminator(channels, architecture=adversary)
    for network in (generator, discriminator):
        for name, parameter in network.named_parameters():
            if name.endswith(("noise_strength", "bias")):
                nn.init.normal_(parameter, mean=parameter.detach().mean().item(), std=0.5)
    return generator.double(), discriminator.double()


def gradients(loss: Tensor, network: nn.Module) -> Tensor:
    """Of all that the loss depends on: without noise it does not depend on the noise's strength."""
    found = torch.autograd.grad(loss, list(network.parameters()), allow_unused=True)
    return torch.cat([gradient.flatten() for gradient in found if gradient is not None])


@pytest.mark.parametrize("channels", SIZES, ids=lambda channels: f"{max(channels)}px")
@pytest.mark.parametrize("noise_mode", ["none", "const", "random"])
@pytest.mark.parametrize("transposed", [False, True])
def test_images_and_their_gradients_agree(
    benchmark: ModuleType, channels: dict[int, int], noise_mode: str, transposed: bool
) -> None:
    generator, _ = networks(channels)
    z = torch.randn(3, generator.z_dim, dtype=torch.float64)
    # A style of its own for every layer, so that a layer that takes another's is found out.
    torch.manual_seed(1)
    shifts = torch.randn(3, generator.synthesis.num_ws, generator.w_dim, dtype=torch.float64)
    torch.manual_seed(2)
    ours = generator.synthesis(generator.mapping(z) + shifts, noise_mode)
    torch.manual_seed(2)
    ws = benchmark.plain_styles(generator.mapping, z)[:, None] + shifts
    theirs = benchmark.plain_images(generator.synthesis, ws, noise_mode, transposed=transposed)
    # Not closer, since demodulation adds up squares in float32 whatever the type.
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
    layer = generator.synthesis.block(8).conv0
    pair = [gradients(images.sin().sum(), layer) for images in (ours, theirs)]
    torch.testing.assert_close(*pair, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("architecture", ["skip", "resnet", "orig"])
@pytest.mark.parametrize("clamp", [None, 0.7])
def test_images_of_every_architecture_agree(
    benchmark: ModuleType, architecture: Architecture, clamp: float | None
) -> None:
    generator, _ = networks(SIZES[1], architecture, clamp=clamp)
    ws = torch.randn(3, generator.synthesis.num_ws, generator.w_dim, dtype=torch.float64)
    theirs = benchmark.plain_images(generator.synthesis, ws)
    assert theirs.std() > 0.1
    torch.testing.assert_close(generator.synthesis(ws), theirs, rtol=1e-5, atol=1e-5)


def test_second_gradients_agree(benchmark: ModuleType) -> None:
    """As a penalty on the path length takes them: how the gradient by the styles depends on the weights."""
    generator, _ = networks(SIZES[0])
    shape = (3, generator.synthesis.num_ws, generator.w_dim)
    ws = torch.randn(shape, dtype=torch.float64, requires_grad=True)
    weight = generator.synthesis.block(8).conv0.weight
    found = []
    for draw in (generator.synthesis, lambda ws: benchmark.plain_images(generator.synthesis, ws)):
        (gradient,) = torch.autograd.grad(draw(ws).sin().sum(), ws, create_graph=True)
        found.append(torch.autograd.grad(gradient.square().sum(), weight)[0])
    assert found[1].abs().max() > 0
    torch.testing.assert_close(*found, rtol=1e-3, atol=1e-5 * float(found[1].abs().max()))


@pytest.mark.parametrize("channels", SIZES, ids=lambda channels: f"{max(channels)}px")
@pytest.mark.parametrize("adversary", ["resnet", "orig"])
def test_logits_agree(benchmark: ModuleType, channels: dict[int, int], adversary: Literal["resnet", "orig"]) -> None:
    _, discriminator = networks(channels, adversary=adversary)
    images = torch.randn(8, 3, max(channels), max(channels), dtype=torch.float64)
    logits = discriminator(images)
    assert logits.std() > 1e-3, "logits of one value would agree by chance"
    torch.testing.assert_close(logits, benchmark.plain_logits(discriminator, images), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("channels", SIZES, ids=lambda channels: f"{max(channels)}px")
def test_the_gradient_penalty_agrees_with_pytorchs_own_gradients(
    benchmark: ModuleType, channels: dict[int, int]
) -> None:
    _, discriminator = networks(channels)
    discriminator.float()
    real = torch.randn(4, 3, max(channels), max(channels))
    ours = r1_penalty(discriminator, real)
    theirs = r1_penalty(lambda images: benchmark.plain_logits(discriminator, images), real)
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=0)
    weight = discriminator.get_submodule(f"b{max(channels)}.conv1").weight
    pair = [torch.autograd.grad(penalty, weight)[0] for penalty in (ours, theirs)]
    assert pair[0].abs().max() > 0
    torch.testing.assert_close(*pair, rtol=1e-3, atol=1e-5 * float(pair[0].abs().max()))
