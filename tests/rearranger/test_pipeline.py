"""The pipeline: its parts against the modules it was given, which it neither copies nor changes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from mapper.mappers import random_rearranger
from torch import Tensor, nn

from sisug.generators import Features, GeneratorBackbone
from sisug.rearranger.pipeline import RearrangementPipeline
from sisug.rearranger.trained import TrainedRearranger


@pytest.fixture(scope="module")
def trained(tiny_generator_file: Path) -> TrainedRearranger:
    return random_rearranger(tiny_generator_file)


def styles(trained: TrainedRearranger, count: int = 3) -> Tensor:
    z = torch.randn(count, trained.generator.z_dim, generator=torch.Generator().manual_seed(0))
    return trained.generator.map(z)


class Recorder(nn.Module):
    """Keeps what it was called with, and gives the features back."""

    def forward(
        self, features: Features, source_mask: Tensor, target_mask: Tensor, ws: Tensor, generator: GeneratorBackbone
    ) -> Features:
        self.called = (features, source_mask, target_mask, ws, generator)
        return features


def test_a_source_is_what_generator_and_codebook_give(trained: TrainedRearranger) -> None:
    ws = styles(trained)
    source = trained.pipeline.source(ws)
    features = trained.generator.features(ws)
    assert torch.equal(source.features.map, features.map)
    assert torch.equal(source.features.rgb, features.rgb)
    assert torch.equal(source.mask, trained.codebook.assign(features.map))
    assert source.ws is ws
    assert len(source) == 3


def test_the_network_gets_the_styles_of_the_source(trained: TrainedRearranger) -> None:
    network = Recorder()
    pipeline = RearrangementPipeline(trained.generator, trained.codebook, network)
    source = pipeline.source(styles(trained))
    target = source.mask.flip(0)
    assert pipeline.rearrange(source, target) is source.features
    features, source_mask, target_mask, ws, generator = network.called
    assert features is source.features
    assert source_mask is source.mask
    assert target_mask is target
    assert ws is source.ws
    assert generator is pipeline.generator


def test_images_are_rearranged_features_rendered_and_clamped(trained: TrainedRearranger) -> None:
    source = trained.pipeline.source(styles(trained))
    target = source.mask.roll(1, dims=0)
    features = trained.network(source.features, source.mask, target, source.ws)
    expected = trained.generator.render(features, source.ws)
    assert torch.equal(trained.pipeline.images(source, target), expected.clamp(-1, 1))
    loud = Features(features.map * 50, features.rgb * 50)
    assert float(trained.pipeline.render(loud, source.ws, clamp=False).abs().max()) > 1
    assert float(trained.pipeline.render(loud, source.ws).abs().max()) == 1


def test_unmodified_images_are_the_source_rendered(trained: TrainedRearranger) -> None:
    source = trained.pipeline.source(styles(trained))
    assert torch.equal(trained.generator.images(source.ws), trained.pipeline.render(source.features, source.ws))


@pytest.mark.parametrize("index", [torch.tensor([2, 0, 2]), slice(1, 3)])
def test_selected_samples_keep_their_parts_together(trained: TrainedRearranger, index: Tensor | slice) -> None:
    source = trained.pipeline.source(styles(trained))
    some = source.select(index)
    expected = trained.pipeline.source(source.ws[index])
    torch.testing.assert_close(some.features.map, expected.features.map)
    torch.testing.assert_close(some.features.rgb, expected.features.rgb)
    assert torch.equal(some.mask, expected.mask)
    assert torch.equal(some.ws, expected.ws)


def test_gradients_reach_the_network_and_a_soft_target(trained: TrainedRearranger) -> None:
    network = Recorder()
    pipeline = RearrangementPipeline(trained.generator, trained.codebook, network)
    assert pipeline.network is network  # the live module, not a copy
    live = random_rearranger(Path(trained.source))
    live.network.requires_grad_(True)
    source = live.pipeline.source(styles(live))
    target = nn.functional.one_hot(source.mask.flip(0), 4).permute(0, 3, 1, 2).float().requires_grad_()
    live.pipeline.render(live.pipeline.rearrange(source, target), source.ws, clamp=False).sum().backward()
    assert target.grad is not None
    assert any(parameter.grad is not None for parameter in live.network.parameters())
