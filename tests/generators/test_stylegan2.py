"""The generator as a whole: the shipped file against its published reference, the split, truncation and noise."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from generators.published_formula import image, styles
from safetensors.torch import load_file

from sisug import generators
from sisug.common.fingerprint import fingerprint
from sisug.generators import Generator, load_generator
from sisug.generators.stylegan2 import Architecture
from sisug.generators.stylegan2_backbone import StyleGAN2Backbone

ASSET = Path(generators.__file__).parent / "assets" / "avatars-64.safetensors"

ARCHITECTURES: tuple[Architecture, ...] = ("skip", "resnet", "orig")


@pytest.fixture(scope="module")
def shipped():
    return load_generator("avatars")


def randomised(
    resolution: int,
    channels: int = 6,
    z_dim: int = 5,
    w_dim: int = 7,
    layers: int = 2,
    seed: int = 0,
    clamp: float | None = None,
    architecture: Architecture = "skip",
) -> Generator:
    """Random weights with noise, biases and w_avg that matter."""
    torch.manual_seed(seed)
    sizes = {}
    r = 4
    while r <= resolution:
        sizes[r] = channels + r // 4
        r *= 2
    generator = Generator(z_dim, w_dim, sizes, mapping_layers=layers, clamp=clamp, architecture=architecture)
    with torch.no_grad():
        for name, parameter in generator.named_parameters():
            if name.endswith(("bias", "noise_strength")):
                parameter.add_(torch.randn_like(parameter) * 0.3)
        generator.mapping.w_avg.normal_()
    return generator


def test_shipped_generator_gives_the_images_of_the_published_formula(shipped):
    """In float64 and written out, without any of sisug's code."""
    weights = {name: value.double() for name, value in load_file(ASSET).items()}
    z = torch.randn(4, 128, generator=torch.Generator().manual_seed(0))
    expected = image(weights, styles(weights, z)[:, None].expand(-1, 10, -1))
    torch.testing.assert_close(shipped(z).double(), expected, atol=2e-5, rtol=0)


def test_shipped_record_says_what_made_the_file():
    record = json.loads(ASSET.with_suffix(".json").read_text())
    assert record["images_seen"] >= 600_000
    weights = {name: value for name, value in load_file(ASSET).items() if not name.startswith("discriminator.")}
    assert record["fingerprint"] == fingerprint(weights)
    assert record["measured"]
    assert " /" not in record["command"], "no path of the machine that trained it"


@pytest.mark.parametrize("split", [4, 8, 16, 32, 64])
def test_split_is_exact_at_every_block_of_the_shipped_generator(split):
    backbone = load_generator("avatars", split)
    ws = backbone.map(torch.randn(2, 128))
    # A style of its own for every layer, so that a wrong index shows.
    ws = ws + 0.1 * torch.randn_like(ws)
    assert torch.equal(backbone.render(backbone.features(ws), ws), backbone.generator.synthesis(ws))


@pytest.mark.parametrize("resolution", [8, 16, 32])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_split_is_exact_with_noise_and_biases(resolution, architecture):
    generator = randomised(resolution, architecture=architecture)
    for split in generator.synthesis.resolutions:
        backbone = StyleGAN2Backbone(generator, split)
        ws = torch.randn(3, backbone.num_ws, backbone.w_dim)
        features = backbone.features(ws)
        assert features.map.shape == (3, backbone.feature_channels, split, split)
        assert features.rgb.shape == (3, 3, split, split)
        assert architecture == "skip" or not features.rgb.any()
        assert torch.equal(backbone.render(features, ws), generator.synthesis(ws))


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_style_reaches_the_image(architecture):
    generator = randomised(16, architecture=architecture)
    ws = torch.randn(1, generator.synthesis.num_ws, 7)
    image = generator.synthesis(ws)
    for i in range(generator.synthesis.num_ws):
        changed = ws.clone()
        changed[:, i] += 1
        assert (generator.synthesis(changed) - image).abs().max() > 1e-3, i


def nvidia_keys(architecture: Architecture, resolutions: list[int], layers: int) -> set[str]:
    """Names of a trained file's tensors, as its authors' code writes them."""
    keys = {"mapping.w_avg", "synthesis.b4.const"}
    keys |= {f"mapping.fc{i}.{name}" for i in range(layers) for name in ("weight", "bias")}
    for r in resolutions:
        keys.add(f"synthesis.b{r}.resample_filter")
        for conv in ("conv1",) if r == 4 else ("conv0", "conv1"):
            names = ("weight", "bias", "affine.weight", "affine.bias", "noise_strength", "noise_const")
            keys |= {f"synthesis.b{r}.{conv}.{name}" for name in (*names, "resample_filter")}
        if architecture == "skip" or r == resolutions[-1]:
            keys |= {f"synthesis.b{r}.torgb.{name}" for name in ("weight", "bias", "affine.weight", "affine.bias")}
        if architecture == "resnet" and r > 4:
            keys |= {f"synthesis.b{r}.skip.weight", f"synthesis.b{r}.skip.resample_filter"}
    return keys


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_names_are_those_of_nvidias_files(architecture):
    generator = Generator(4, 4, {4: 6, 8: 5, 16: 3}, mapping_layers=3, architecture=architecture)
    tensors = generator.state_dict()
    assert set(tensors) == nvidia_keys(architecture, [4, 8, 16], 3)
    assert generator.synthesis.num_ws == 6
    if architecture == "resnet":
        assert tensors["synthesis.b16.skip.weight"].shape == (3, 5, 1, 1)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_network_without_storage_takes_tensors_as_they_are(architecture):
    """Loading a large file draws no random numbers and copies nothing."""
    trained = randomised(16, architecture=architecture)
    state = torch.get_rng_state()
    with torch.device("meta"):
        generator = Generator(5, 7, trained.channels, mapping_layers=2, architecture=architecture)
    generator.load_state_dict(trained.state_dict(), assign=True)
    assert torch.equal(torch.get_rng_state(), state)
    assert not any(tensor.is_meta for tensor in (*generator.parameters(), *generator.buffers()))
    pair = [network.get_parameter("synthesis.b8.conv0.weight") for network in (generator, trained)]
    assert pair[0].data_ptr() == pair[1].data_ptr()
    z = torch.randn(2, 5)
    assert torch.equal(generator(z), trained(z))
    backbone = StyleGAN2Backbone(generator)
    torch.testing.assert_close(backbone(z), trained(z))


def test_construction_without_storage_imports_nothing():
    """PyTorch's first operations on the meta device import for a second, as long as loading takes."""
    code = """
import sys, torch
from sisug.generators import Discriminator, Generator
before = set(sys.modules)
with torch.device("meta"):
    Generator(4, 4, {4: 4, 8: 4}, architecture="resnet"), Discriminator({4: 4, 8: 4})
print(len(set(sys.modules) - before))
"""
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(found.stdout) < 10


def test_truncation_moves_towards_the_mean_style():
    backbone = StyleGAN2Backbone(randomised(8))
    z = torch.randn(4, 5)
    full, mean = backbone.map(z), backbone.generator.mapping.w_avg
    torch.testing.assert_close(backbone.map(z, 0.0), mean.expand_as(full))
    torch.testing.assert_close(backbone.map(z, 0.6), mean + 0.6 * (full - mean))


def test_noise_modes():
    generator = randomised(8)
    z = torch.randn(2, 5)
    torch.manual_seed(3)
    const, none, random = (generator(z, noise_mode=mode) for mode in ("const", "none", "random"))
    assert torch.equal(const, generator(z, noise_mode="const"))
    assert (const - none).abs().max() > 1e-3
    assert (random - generator(z, noise_mode="random")).abs().max() > 1e-3


def test_features_stay_in_float32_under_autocast(shipped):
    ws = shipped.map(torch.randn(1, 128))
    plain = shipped.features(ws)
    with torch.autocast("cpu", torch.bfloat16):
        cast = shipped.features(ws)
    assert torch.equal(plain.map, cast.map)
    assert torch.equal(plain.rgb, cast.rgb)
