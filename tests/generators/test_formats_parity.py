"""Files of every family give the images of the published formula, computed independently in float64; wrong orientations
and settings are noticed.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
import torch
from generators import checkpoint_files as files
from generators import published_formula as formula
from generators.checkpoint_files import FAMILIES, STYLEGAN3, Model, random_model
from torch import Tensor

from sisug.errors import CheckpointError
from sisug.generators import load_discriminator, load_generator
from sisug.generators.formats import read_source
from sisug.generators.loading import load_network
from sisug.generators.stylegan2_backbone import StyleGAN2Backbone

TOLERANCE = 1e-4
TRUNCATION = 0.7


@cache
def plain() -> Model:
    return random_model(16)


def latents(model: Model, batch: int = 2) -> Tensor:
    return torch.randn(batch, model.z_dim, generator=torch.Generator().manual_seed(3))


def own_styles(model: Model, batch: int = 2) -> Tensor:
    """A style of its own for every layer, so that a wrong index shows."""
    draw = torch.Generator().manual_seed(4)
    return torch.randn(batch, model.num_ws, model.w_dim, generator=draw)


def rendered(backbone: StyleGAN2Backbone, ws: Tensor) -> Tensor:
    return backbone.render(backbone.features(ws), ws)


def greatest(a: Tensor, b: Tensor) -> float:
    return float((a.detach().double() - b.detach().double()).abs().max())


def assert_equal_to_formula(path: Path, model: Model, label: int | None = None) -> StyleGAN2Backbone:
    """Styles, images of per-layer styles and images of latents agree with the formula."""
    backbone = load_generator(path, label=label)
    z, ws = latents(model), own_styles(model)
    settings = {"truncation": TRUNCATION, "label": label, "lr_multiplier": model.lr_multiplier}
    w = formula.styles(model.generator, z, **settings)
    mapped = backbone.map(z, TRUNCATION)
    assert mapped.shape == (len(z), model.num_ws, model.w_dim)
    assert greatest(mapped, w[:, None]) < TOLERANCE
    assert greatest(rendered(backbone, ws), formula.image(model.generator, ws, clamp=model.clamp)) < TOLERANCE
    expected = formula.image(model.generator, w[:, None].expand(-1, model.num_ws, -1), clamp=model.clamp)
    assert expected.std() > 0.1, "the formula's images are not empty"
    assert greatest(backbone(z, TRUNCATION), expected) < TOLERANCE
    return backbone


# --- the same weights in every family --------------------------------------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES)
def test_images_are_the_formulas_and_the_fingerprint_is_the_weights(tmp_path, family):
    model = plain()
    backbone = assert_equal_to_formula(FAMILIES[family](tmp_path / "file", model), model)
    assert backbone.fingerprint == files.fingerprint_of(model.generator), "every family holds all tensors, to the bit"


@pytest.mark.parametrize("family", files.WITH_DISCRIMINATOR)
def test_discriminators_give_the_formulas_logits(tmp_path, family):
    model = plain()
    discriminator = load_discriminator(FAMILIES[family](tmp_path / "file", model))
    assert discriminator is not None
    for batch in (1, 8):
        images = torch.randn(batch, 3, 16, 16, generator=torch.Generator().manual_seed(5))
        expected = formula.logits(model.discriminator, images)
        assert expected.abs().max() > 0.05
        assert greatest(discriminator(images), expected) < TOLERANCE


@pytest.mark.parametrize("family", ["rosinality-exported", "torch-nvidia", "psp", "rosinality-no-discriminator"])
def test_files_without_a_discriminator_have_none(tmp_path, family):
    assert load_discriminator(FAMILIES[family](tmp_path / "file", plain())) is None


@pytest.mark.parametrize("family", ["ada-3", "rosinality-exported", "tensorflow-4", "genforce"])
@pytest.mark.parametrize(("resolution", "layers"), [(32, 8), (64, 2)])
def test_other_sizes_and_depths(tmp_path, family, resolution, layers):
    model = random_model(resolution, z_dim=8, w_dim=16, layers=layers, seed=resolution)
    backbone = assert_equal_to_formula(FAMILIES[family](tmp_path / "file", model), model)
    assert backbone.resolution == resolution
    assert backbone.channels == files.channels_of(resolution)
    assert load_network(tmp_path / "file").mapping.num_layers == layers


@pytest.mark.parametrize(
    ("family", "title"),
    [
        ("ada-2", "NVIDIA"),
        ("stylegan3-no-settings", "STYLEGAN3"),
        ("rosinality-trained", "ROSINALITY"),
        ("psp", "PSP"),
        ("tensorflow-2", "TENSORFLOW"),
        ("genforce", "GENFORCE"),
        ("safetensors", "NVIDIA_KEYS"),
    ],
)
def test_families_are_named(tmp_path, family, title):
    assert read_source(FAMILIES[family](tmp_path / "file", random_model(8))).family.name == title


# --- orientation -----------------------------------------------------------------------------------------------------


def unflipped(model: Model) -> Model:
    """Upsampling kernels turned the other way round: what a file of the wrong orientation comes to."""
    turned = {
        name: value.flip(2, 3) if name.endswith("conv0.weight") else value for name, value in model.generator.items()
    }
    return replace(model, generator=turned)


@pytest.mark.parametrize("family", ["ada-3", "rosinality-converted", "tensorflow-4", "genforce"])
def test_a_file_of_the_wrong_orientation_gives_other_images(tmp_path, family):
    """The comparison above would notice a flip that is missing, or one too many."""
    model = plain()
    backbone = load_generator(FAMILIES[family](tmp_path / "file", unflipped(model)))
    ws = own_styles(model)
    assert greatest(rendered(backbone, ws), formula.image(model.generator, ws)) > 0.1


def test_weights_in_training_are_others_than_the_averaged_ones(tmp_path):
    """The comparisons above would notice G in place of G_ema."""
    model, ws = plain(), own_styles(plain())
    trained = formula.image(files.averaging(model).generator, ws)
    assert greatest(trained, formula.image(model.generator, ws)) > 0.1


# --- settings --------------------------------------------------------------------------------------------------------

STATEFUL = ["ada-3", "ada-no-settings", "stylegan3", "stylegan3-no-settings"]
"""Files whose layers tell their settings."""


@pytest.mark.parametrize("family", [*STATEFUL, "native"])
def test_clamp_is_kept(tmp_path, family):
    model = random_model(16, clamp=0.7, seed=1)
    ws = own_styles(model)
    free = formula.image(model.generator, ws)
    assert greatest(free, formula.image(model.generator, ws, clamp=0.7)) > 0.1, "the bound is reached"
    path = FAMILIES[family](tmp_path / "file", model)
    assert load_network(path).synthesis.block(16).conv1.clamp == 0.7
    assert_equal_to_formula(path, model)


@pytest.mark.parametrize(("family", "half_blocks"), [("ada-3", 2), ("stylegan3", 2), ("stylegan3-no-settings", 0)])
def test_blocks_in_half_precision_are_named_and_computed_in_single(tmp_path, family, half_blocks):
    model = random_model(16, half_blocks=half_blocks, clamp=256.0)
    path = FAMILIES[family](tmp_path / "file", model)
    source = read_source(path)
    assert source.settings["num_fp16_res"] == half_blocks
    assert source.settings["conv_clamp"] == 256.0
    assert_equal_to_formula(path, model)


@pytest.mark.parametrize("family", ["ada-3", "stylegan3", "tensorflow-4", "native"])
def test_learning_rate_multiplier_of_the_mapping_network(tmp_path, family):
    model = random_model(8, lr_multiplier=0.05)
    assert_equal_to_formula(FAMILIES[family](tmp_path / "file", model), model)


@pytest.mark.parametrize("family", ["ada-3", "tensorflow-4", "safetensors"])
@pytest.mark.parametrize("architecture", ["resnet", "orig"])
def test_other_architectures(tmp_path, family, architecture):
    model = random_model(16, architecture=architecture, discriminator_architecture=architecture, seed=2)
    path = FAMILIES[family](tmp_path / "file", model)
    assert_equal_to_formula(path, model)
    if family in files.WITH_DISCRIMINATOR:
        discriminator = load_discriminator(path)
        assert discriminator is not None
        images = torch.randn(4, 3, 16, 16, generator=torch.Generator().manual_seed(5))
        assert greatest(discriminator(images), formula.logits(model.discriminator, images)) < TOLERANCE


def test_clamp_of_the_residual_architecture(tmp_path):
    """The second convolution's bound is scaled like its gain."""
    model = random_model(16, architecture="resnet", clamp=0.7, seed=1)
    assert_equal_to_formula(files.write_nvidia(tmp_path / "file", model), model)


# --- classes ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("family", "label"), [("ada-3", 0), ("ada-3", 2), ("stylegan3", 2), ("tensorflow-4", 2)])
def test_class_conditional_generators_with_a_label(tmp_path, family, label):
    model = random_model(16, labels=3, seed=6)
    path = FAMILIES[family](tmp_path / "file", model)
    assert read_source(path, label).num_labels == 3
    assert_equal_to_formula(path, model, label)
    z = latents(model)
    other = formula.styles(model.generator, z, label=1)
    assert greatest(other, formula.styles(model.generator, z, label=label)) > 0.1, "the class matters"


@pytest.mark.parametrize("family", ["ada-3"])
@pytest.mark.parametrize("label", [0, 2])
def test_class_conditional_discriminators_with_a_label(tmp_path, family, label):
    model = random_model(16, labels=3, seed=6)
    discriminator = load_discriminator(FAMILIES[family](tmp_path / "file", model), label=label)
    assert discriminator is not None
    images = torch.randn(4, 3, 16, 16, generator=torch.Generator().manual_seed(5))
    expected = formula.logits(model.discriminator, images, label=label)
    assert greatest(discriminator(images), expected) < TOLERANCE
    assert greatest(formula.logits(model.discriminator, images, label=1), expected) > 0.01, "the class matters"


@pytest.mark.parametrize(("family", "label"), [("ada-3", None), ("ada-3", 3), ("ada-3", -1), ("tensorflow-4", None)])
def test_class_conditional_generators_ask_for_a_label_that_they_have(tmp_path, family, label):
    path = FAMILIES[family](tmp_path / "file", random_model(16, labels=3))
    with pytest.raises(CheckpointError, match=r"label|class"):
        load_generator(path, label=label)


def test_a_label_for_a_generator_without_classes_is_refused(tmp_path):
    path = files.write_nvidia(tmp_path / "file", plain())
    with pytest.raises(CheckpointError, match=r"label|class"):
        load_generator(path, label=1)


# --- what is missing -------------------------------------------------------------------------------------------------


def test_missing_mean_style_is_the_mean_of_many_samples(tmp_path):
    model = plain()
    path = files.write_rosinality(tmp_path / "file", model, "trained", mean_style=False)
    z = torch.randn(40_000, model.z_dim, generator=torch.Generator().manual_seed(9))
    styles = formula.styles(model.generator, z)
    mean = load_network(path).mapping.w_avg
    # Two means of independent samples: five standard errors, of 10,000 and of 40,000.
    error = styles.std(dim=0) * (1 / 10_000 + 1 / 40_000) ** 0.5
    assert ((mean - styles.mean(dim=0)).abs() < 5 * error).all()
    assert (mean - model.generator["mapping.w_avg"]).abs().max() > 0.1, "not the one that the file lacks"
    assert torch.equal(mean, load_network(path).mapping.w_avg)
    assert any("w_avg" in note or "latent_avg" in note for note in read_source(path).notes)


def test_missing_noise_is_made_with_a_fixed_seed(tmp_path):
    model = plain()
    path = files.write_rosinality(tmp_path / "file", model, noises=False)
    source = read_source(path)
    assert any("noise" in note for note in source.notes)
    drawn = {name: value for name, value in source.generator.items() if name.endswith("noise_const")}
    assert {name: value.shape for name, value in drawn.items()} == {
        name: value.shape for name, value in model.generator.items() if name.endswith("noise_const")
    }
    everything = torch.cat([value.flatten() for value in drawn.values()])
    assert abs(float(everything.mean())) < 0.2
    assert 0.8 < float(everything.std()) < 1.2
    assert_equal_to_formula(path, replace(model, generator=model.generator | drawn))
    torch.manual_seed(123)
    assert load_generator(path).fingerprint == files.fingerprint_of(model.generator | drawn)


@pytest.mark.parametrize("family", ["ada-3", "rosinality-converted", "tensorflow-4", "genforce", "native"])
def test_nothing_is_said_to_be_missing_where_nothing_is(tmp_path, family):
    path = FAMILIES[family](tmp_path / "file", plain())
    notes = [note for note in read_source(path).notes if "filter" not in note]  # TensorFlow's files hold none
    assert notes == []


# --- not StyleGAN2 ---------------------------------------------------------------------------------------------------


def test_stylegan3_is_refused_by_name(tmp_path):
    with pytest.raises(CheckpointError, match="StyleGAN3"):
        load_generator(files.write_stylegan3(tmp_path / "file"))


def test_stylegan1_is_refused_by_name(tmp_path):
    with pytest.raises(CheckpointError, match=r"StyleGAN.*first"):
        load_generator(files.write_stylegan1(tmp_path / "file"))


@pytest.mark.parametrize("layout", [files.ADA, STYLEGAN3], ids=["ada", "stylegan3"])
def test_hidden_layers_of_another_width_are_refused(tmp_path, layout):
    """`layer_features` may differ from w_dim in NVIDIA's code; sisug's mapping network has one width."""
    model = random_model(8, layers=3)
    wide = dict(model.generator)
    wide["mapping.fc0.weight"] = torch.randn(13, model.z_dim)
    wide["mapping.fc0.bias"] = torch.randn(13)
    wide["mapping.fc1.weight"] = torch.randn(model.w_dim, 13)
    with pytest.raises(CheckpointError):
        load_generator(files.write_nvidia(tmp_path / "file", replace(model, generator=wide), layout))


def test_weights_in_training_are_taken_with_a_word(tmp_path):
    """Where a file has no averaged weights, its images are not what its publisher shows."""
    model = random_model()
    content = files.nvidia_content(model)
    del content["G_ema"]
    pickled = files.write_pickle(tmp_path / "network.pkl", content)
    trained = tmp_path / "trained.pt"
    torch.save({"g": files.rosinality_generator(model.generator)}, trained)
    bare = tmp_path / "bare.pt"
    torch.save(files.rosinality_generator(model.generator), bare)
    for path, said in ((pickled, True), (trained, True), (bare, False)):
        assert any("averaged weights" in note for note in read_source(path).notes) == said, path
