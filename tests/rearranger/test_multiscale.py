"""The rearranger inside the generator: network, discriminator, losses, buffer, and its training from end to end."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from rearranger.small import quiet_trainer, train
from torch import Tensor

from sisug.data.latents import LatentDataModule
from sisug.errors import ConfigError
from sisug.generators import Features, GeneratorBackbone, load_generator
from sisug.rearranger import MultiscaleRearranger, MultiscaleRearrangerModule, load_rearranger, write_rearranger
from sisug.rearranger.losses import stage_style_loss, style_loss
from sisug.rearranger.multiscale import multiscale_rearranger
from sisug.rearranger.pipeline import SourceSamples
from sisug.rearranger.sample_buffer import SampleBuffer
from sisug.rearranger.segmentation_discriminator import (
    SegmentationDiscriminator,
    balanced_cross_entropy,
    discriminator_loss,
)

CLUSTERS = 4


@pytest.fixture(scope="module")
def generator(tiny_generator_file: Path) -> GeneratorBackbone:
    return load_generator(str(tiny_generator_file), 8)


def small(generator: GeneratorBackbone, **settings: Any) -> MultiscaleRearranger:
    torch.manual_seed(0)
    sizes = {"stages": (4, 8), "widths": (8, 8), "blocks": 1, "context_widths": (8, 8), "key_channels": 8}
    return multiscale_rearranger(generator, CLUSTERS, **(sizes | {"num_frequencies": 2} | settings))


def samples(generator: GeneratorBackbone, count: int = 3) -> tuple[Tensor, Features, Tensor]:
    rng = torch.Generator().manual_seed(1)
    ws = generator.map(torch.randn(count, generator.z_dim, generator=rng))
    return ws, generator.features(ws), torch.randint(CLUSTERS, (count, 8, 8), generator=rng)


# --- stopping inside the generator ---------------------------------------------------------------------------------


@pytest.mark.parametrize("stop", [4, 8, 16])
def test_features_on_the_way_carried_on_are_those_of_the_split(tiny_generator_file: Path, stop: int) -> None:
    generator = load_generator(str(tiny_generator_file), 16)
    ws, *_ = samples(generator)
    (found,) = generator.features_at(ws, [stop])
    assert found.map.shape[2] == stop
    carried, expected = generator.advance(found, ws, 16), generator.features(ws)
    assert torch.equal(carried.map, expected.map)
    assert torch.equal(carried.rgb, expected.rgb)
    if stop > 4:
        other = load_generator(str(tiny_generator_file), stop).features(ws)
        assert torch.equal(found.map, other.map)
        assert torch.equal(found.rgb, other.rgb)


def test_several_stops_are_those_taken_one_by_one(generator: GeneratorBackbone) -> None:
    ws, *_ = samples(generator)
    for stop, found in zip((4, 8), generator.features_at(ws, (4, 8)), strict=True):
        assert torch.equal(found.map, generator.features_at(ws, [stop])[0].map)


# --- the network ---------------------------------------------------------------------------------------------------


def test_a_sample_in_its_own_layout_stays_as_it_is_before_training(generator: GeneratorBackbone) -> None:
    network = small(generator, key_channels=0)
    ws, features, mask = samples(generator)
    result = network(features, mask, mask, ws, generator)
    torch.testing.assert_close(result.map, features.map, atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(result.rgb, features.rgb, atol=1e-6, rtol=1e-6)


def test_styles_move_by_the_difference_of_the_estimates_in_coarse_layers_only(generator: GeneratorBackbone) -> None:
    network = small(generator)
    ws, _, mask = samples(generator)
    target = mask.roll(1, dims=0)
    moved = network.styles(ws, mask, target)
    expected = ws[:, 0] + network.estimator(target) - network.estimator(mask)
    assert network.coarse_styles == generator.first_style(8)
    torch.testing.assert_close(moved[:, 0], expected)
    assert torch.equal(moved[:, network.coarse_styles :], ws[:, network.coarse_styles :])
    assert not torch.allclose(moved[:, 0], ws[:, 0])


def test_weights_of_clusters_mean_what_cluster_numbers_mean(generator: GeneratorBackbone) -> None:
    network = small(generator)
    ws, features, mask = samples(generator)
    target = mask.roll(1, dims=0)
    weights = F.one_hot(target, CLUSTERS).permute(0, 3, 1, 2).float()
    by_number, by_weight = (network(features, mask, each, ws, generator) for each in (target, weights))
    torch.testing.assert_close(by_number.map, by_weight.map)


def test_gradients_reach_the_layout_and_never_the_generator_or_the_estimator(generator: GeneratorBackbone) -> None:
    network = small(generator)
    for step in network.steps:
        torch.nn.init.normal_(step.project_out.weight)
    ws, features, mask = samples(generator)
    weights = F.one_hot(mask, CLUSTERS).permute(0, 3, 1, 2).float().requires_grad_()
    network(features, mask, weights, ws, generator).map.square().sum().backward()
    assert weights.grad is not None
    assert float(weights.grad.abs().sum()) > 0
    assert all(parameter.grad is None for parameter in generator.parameters())
    assert all(parameter.grad is None for parameter in network.estimator.parameters())
    assert all(parameter.grad is not None for parameter in network.steps.parameters())


def test_attention_moves_the_mean_of_what_it_cannot_tell_apart(generator: GeneratorBackbone) -> None:
    attention = small(generator).steps[-1].attention
    with torch.no_grad():
        attention.log_temperature.fill_(-9.0)  # nothing is sharper than anything else
    target, source = torch.randn(2, 2, attention.query[0].in_channels, 8, 8).unbind(0)
    values = torch.randn(2, 5, 8, 8)
    moved = attention(target, source, values)
    torch.testing.assert_close(moved, values.mean(dim=(2, 3), keepdim=True).expand_as(moved), atol=1e-4, rtol=0)


def test_measured_scales_are_those_of_the_samples(generator: GeneratorBackbone) -> None:
    network = small(generator)
    ws, *_ = samples(generator, 20)
    network.measure(generator, ws)
    features = generator.features_at(ws, [8])[0]
    normalized = network.steps[-1].normalized(features)
    joined = torch.cat([features.map, features.rgb], dim=1).numpy()
    expected = (joined - joined.mean(axis=(0, 2, 3), keepdims=True)) / (
        joined.std(axis=(0, 2, 3), ddof=1, keepdims=True) + 1e-3
    )
    np.testing.assert_allclose(normalized.numpy(), expected, atol=1e-4)
    np.testing.assert_allclose(network.estimator.mean.numpy(), ws[:, 0].numpy().mean(axis=0), atol=1e-5)


def test_the_estimators_loss_is_the_unexplained_share_of_variance(generator: GeneratorBackbone) -> None:
    network = small(generator)
    ws, _, mask = samples(generator, 8)
    network.measure(generator, ws)
    with torch.no_grad():
        network.estimator.linear[-1].weight.zero_()
        network.estimator.linear[-1].bias.zero_()  # it says the mean, whatever the mask
    unexplained = float(network.estimator.loss(mask, ws[:, 0]).detach())
    assert unexplained == pytest.approx(7 / 8, rel=0.05)  # variance over count of one over count - 1


@pytest.mark.parametrize(
    "settings", [{"stages": (4, 8), "widths": (8,)}, {"stages": (8,), "widths": (8,), "context_widths": (8,)}]
)
def test_stages_that_do_not_fit_are_refused(generator: GeneratorBackbone, settings: dict[str, Any]) -> None:
    if settings["stages"] == (8,):
        small(generator, **settings | {"context_widths": (8, 8)})
        return
    with pytest.raises(ConfigError, match="stages"):
        small(generator, **settings)


# --- discriminator and losses --------------------------------------------------------------------------------------


def test_classes_come_at_the_resolution_of_the_masks() -> None:
    classes, whole = SegmentationDiscriminator(6, CLUSTERS, 2, widths=(8, 8))(torch.randn(3, 6, 8, 8))
    assert classes.shape == (3, CLUSTERS + 1, 16, 16)
    assert whole.shape == (3, 1)


def test_balanced_cross_entropy_by_hand() -> None:
    rng = np.random.default_rng(0)
    logits, target = rng.normal(size=(2, 3, 4, 4)), rng.choice(3, size=(2, 4, 4), p=[0.8, 0.15, 0.05])
    log_probabilities = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    counts = np.bincount(target.ravel(), minlength=3)
    weights = counts.sum() / np.maximum(counts, 1) * (counts > 0)
    weights = np.minimum(weights / weights[weights > 0].mean(), 5)
    losses = -np.take_along_axis(log_probabilities, target[:, None], axis=1)[:, 0]
    expected = (losses * weights[target]).sum() / weights[target].sum()
    found = balanced_cross_entropy(torch.tensor(logits), torch.tensor(target))
    assert float(found) == pytest.approx(expected, rel=1e-5)


def test_the_discriminators_loss_is_small_only_where_it_is_right() -> None:
    mask = torch.randint(CLUSTERS, (2, 4, 4))
    sure = 20.0
    clusters = F.one_hot(mask, CLUSTERS + 1).permute(0, 3, 1, 2) * sure
    made = F.one_hot(torch.full_like(mask, CLUSTERS), CLUSTERS + 1).permute(0, 3, 1, 2) * sure
    yes, no = torch.full((2, 1), sure), torch.full((2, 1), -sure)
    assert float(discriminator_loss((clusters, yes), mask, (made, no))) < 1e-5
    for real, fake in [((made, yes), (made, no)), ((clusters, yes), (clusters, no)), ((clusters, no), (made, yes))]:
        assert float(discriminator_loss(real, mask, fake)) > 10


def test_style_at_a_stage_as_fine_as_the_masks_is_the_style_loss() -> None:
    result, source = torch.randn(2, 2, 5, 8, 8).unbind(0)
    a, b = torch.randint(CLUSTERS, (2, 2, 8, 8)).unbind(0)
    expected = style_loss(result, a, source, b, CLUSTERS)
    torch.testing.assert_close(stage_style_loss(result, a, source, b, CLUSTERS), expected)


def test_style_at_a_coarser_stage_knows_no_difference_where_there_is_none() -> None:
    flat = torch.randn(2, 5, 1, 1).expand(-1, -1, 4, 4)
    a, b = torch.randint(CLUSTERS, (2, 2, 8, 8)).unbind(0)
    assert float(stage_style_loss(flat, a, flat, b, CLUSTERS)) < 0.2 * float(
        stage_style_loss(flat + 1, a, flat, b, CLUSTERS)
    )


# --- buffer --------------------------------------------------------------------------------------------------------


def echo(z: Tensor) -> SourceSamples:
    """Samples whose every tensor tells the latent."""
    ws = z[:, None].expand(-1, 2, -1)
    return SourceSamples(ws, Features(z[:, :, None, None], z[:, :1, None, None]), z[:, :1, None].long())


def test_a_resumed_buffer_holds_what_the_unbroken_one_holds() -> None:
    unbroken, resumed = (SampleBuffer(8, 2, 3, seed=5, rank=0) for _ in range(2))
    for drawn in range(8, 21, 2):
        unbroken.draw_until(drawn, echo)
    resumed.draw_until(20, echo)
    for a, b in zip(unbroken.batch(8, 4).ws.sort(dim=0)[0], resumed.batch(8, 4).ws.sort(dim=0)[0], strict=True):
        assert torch.equal(a, b)
    assert torch.equal(unbroken.batch(3, 7).ws, resumed.batch(3, 7).ws)


def test_fresh_samples_replace_the_oldest() -> None:
    buffer = SampleBuffer(6, 2, 3, seed=5, rank=0)
    buffer.draw_until(6, echo)
    before = {tuple(each) for each in buffer.batch(6, 0).ws[:, 0].tolist()}
    buffer.draw_until(8, echo)
    after = {tuple(each) for each in buffer.batch(6, 0).ws[:, 0].tolist()}
    assert len(before & after) == 4
    buffer.clear()
    buffer.draw_until(6, echo)
    assert {tuple(each) for each in buffer.batch(6, 0).ws[:, 0].tolist()} == before


def test_ranks_draw_other_samples() -> None:
    first, second = (SampleBuffer(4, 2, 3, seed=5, rank=rank) for rank in (0, 1))
    for buffer in (first, second):
        buffer.draw_until(4, echo)
    assert not torch.equal(first.batch(4, 0).ws, second.batch(4, 0).ws)


# --- training ------------------------------------------------------------------------------------------------------


def module_of(file: Path, **settings: Any) -> MultiscaleRearrangerModule:
    torch.manual_seed(0)
    sizes: dict[str, Any] = {"generator": str(file), "split": 8, "clusters": CLUSTERS, "normalisation": "instance"}
    sizes |= {"stages": (4, 8), "widths": (8, 8), "blocks": 1, "context_widths": (8, 8), "key_channels": 8}
    sizes |= {"estimator_batch": 4, "buffer_images": 8}
    return MultiscaleRearrangerModule(**(sizes | settings))


def test_training_changes_what_learns_and_nothing_else(tiny_generator_file: Path, tmp_path: Path) -> None:
    module = module_of(tiny_generator_file)
    before = {name: value.detach().clone() for name, value in module.state_dict().items()}
    logged = train(module, tmp_path).logged_metrics
    changed = {name for name, value in module.state_dict().items() if not torch.equal(value, before[name])}
    assert not any(name.startswith("generator.") for name in changed)
    for part in ("rearranger.estimator.", "rearranger.encoder.", "rearranger.steps.", "discriminator.", "average."):
        assert any(name.startswith(part) for name in changed), part
    terms = ("reconstruction", "style", "segmentation", "adversarial", "estimate", "discriminator")
    assert all(bool(torch.isfinite(logged[f"train/{term}"])) for term in terms)


def test_a_trained_file_gives_what_the_module_gives(tiny_generator_file: Path, tmp_path: Path) -> None:
    module = module_of(tiny_generator_file)
    trainer = train(module, tmp_path)
    checkpoint = tmp_path / "last.ckpt"
    trainer.save_checkpoint(checkpoint)
    trained = load_rearranger(checkpoint)
    assert isinstance(trained.network, MultiscaleRearranger)
    ws, features, mask = samples(module.generator)
    target = mask.roll(1, dims=0)
    with torch.no_grad(), module.average.average(module.rearranger):
        expected = module.pipeline.rearrange(SourceSamples(ws, features, mask), target)
    found = trained.pipeline.rearrange(SourceSamples(ws, features, mask), target)
    torch.testing.assert_close(found.map, expected.map)
    write_rearranger(trained, tmp_path / "small.safetensors")
    again = load_rearranger(tmp_path / "small.safetensors")
    small_result = again.pipeline.rearrange(SourceSamples(ws, features, mask), target)
    torch.testing.assert_close(small_result.map, expected.map, atol=0.05, rtol=0.05)  # half precision


def test_a_resumed_run_equals_an_unbroken_one(tiny_generator_file: Path, tmp_path: Path) -> None:
    unbroken = module_of(tiny_generator_file)
    train(unbroken, tmp_path, max_epochs=2, images=8)
    first = module_of(tiny_generator_file)
    trainer = train(first, tmp_path, max_epochs=1, images=8)
    trainer.save_checkpoint(tmp_path / "half.ckpt")
    resumed = module_of(tiny_generator_file)
    data = LatentDataModule(8, val_pairs=4, test_pairs=4, batch_size=4)
    quiet_trainer(tmp_path, max_epochs=2).fit(resumed, datamodule=data, ckpt_path=str(tmp_path / "half.ckpt"))
    for (name, a), b in zip(unbroken.state_dict().items(), resumed.state_dict().values(), strict=True):
        assert torch.equal(a, b), name


@pytest.mark.parametrize(
    "settings",
    [{"own_fraction": 1.0}, {"fresh_fraction": 0.0}, {"mask_noise": 1.0}, {"buffer_images": 2}, {"widths": (8, 9)}],
)
def test_arguments_out_of_range_are_refused(tiny_generator_file: Path, settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        module_of(tiny_generator_file, **settings)


def test_the_estimator_learns_what_masks_tell_of_styles(generator: GeneratorBackbone) -> None:
    """Masks that are a function of the style let it explain most of the variance."""
    rng = torch.Generator().manual_seed(0)
    direction = torch.randn(generator.w_dim, generator=rng)
    sign = torch.randint(2, (64,), generator=rng)
    w = (2.0 * sign - 1)[:, None] * direction
    left = torch.arange(8).expand(8, -1) < 4
    masks = torch.where(left, sign[:, None, None], 1 - sign[:, None, None])  # which half is which
    torch.manual_seed(0)
    estimator = small(generator).estimator
    estimator.std.copy_(w.std(dim=0) + 1e-3)
    optimizer = torch.optim.Adam(estimator.parameters(), 3e-3)
    losses = []
    for _ in itertools.repeat(None, 120):
        loss = estimator.loss(masks, w)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.5 * losses[0], losses
