"""GeneratorModule under Lightning's Trainer: who learns what, when penalties come, what is averaged and kept."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import toy_training
from integration.generator_runs import Poison, ToyImages, small_module, train
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from rearranger.small import quiet_trainer
from torch import Tensor

from sisug.common.seeding import fixed_latents
from sisug.errors import CheckpointError, ConfigError, RunError
from sisug.generators import Discriminator, Generator
from sisug.generators import module as generators_module
from sisug.generators.module import GeneratorModule
from sisug.generators.native import write_native

PLAYERS = ("generator", "discriminator")


def copy_of(parameters: Any) -> list[Tensor]:
    return [parameter.detach().clone() for parameter in parameters]


def equal(a: list[Tensor], b: list[Tensor]) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


def unequal_tensors(a: GeneratorModule, b: GeneratorModule) -> list[str]:
    other = b.state_dict()
    return [name for name, value in a.state_dict().items() if not torch.equal(value, other[name])]


class Watched(GeneratorModule):
    """Notes what each step shows the networks, which loss goes back, and whose weights it changes."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.changed: list[tuple[str, set[str]]] = []
        self.losses: list[float] = []
        self.rates: list[list[float]] = []
        self.styles: list[Tensor] = []
        self.judged: list[Tensor] = []
        self.made: list[Tensor] = []
        self.generator.synthesis.register_forward_pre_hook(lambda _, inputs: self.styles.append(inputs[0].detach()))
        self.generator.synthesis.register_forward_hook(lambda _, inputs, images: self.made.append(images))
        self.discriminator.register_forward_pre_hook(lambda _, inputs: self.judged.append(inputs[0]))

    def configure_optimizers(self) -> list[torch.optim.Optimizer]:
        optimizers = super().configure_optimizers()
        for player, optimizer in zip(PLAYERS, optimizers, strict=True):
            optimizer.register_step_pre_hook(lambda *_: self.before())
            optimizer.register_step_post_hook(lambda *_, player=player: self.after(player))
        return optimizers

    def manual_backward(self, loss: Tensor, *arguments: Any, **settings: Any) -> None:
        self.losses.append(float(loss.detach()))
        super().manual_backward(loss, *arguments, **settings)

    def before(self) -> None:
        self.kept = {player: copy_of(self.get_submodule(player).parameters()) for player in PLAYERS}
        self.rates.append([group["lr"] for o in self.trainer.optimizers for group in o.param_groups])

    def after(self, player: str) -> None:
        changed = {
            name for name in PLAYERS if not equal(self.kept[name], copy_of(self.get_submodule(name).parameters()))
        }
        self.changed.append((player, changed))


class Note(Callback):
    """Keeps what was logged at each step."""

    def __init__(self) -> None:
        self.rows: list[dict[str, float]] = []

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        self.rows.append({name: float(value) for name, value in trainer.callback_metrics.items()})


def watched(**settings: Any) -> Watched:
    module = small_module(Watched, **settings)
    assert isinstance(module, Watched)
    return module


# --- who learns what -----------------------------------------------------------------------------------------------


def test_each_players_step_changes_its_own_weights_only(tmp_path: Path) -> None:
    module = watched(r1_every=2, path_length_weight=2.0, path_length_every=2, augment="adaptive")
    train(module, tmp_path, data=ToyImages(images=12))
    assert module.changed == 3 * [("generator", {"generator"}), ("discriminator", {"discriminator"})]


def test_both_players_share_the_samples_of_a_step(tmp_path: Path) -> None:
    module = watched(r1_gamma=0.0)
    data = ToyImages()
    train(module, tmp_path, data=data)
    assert len(module.made) == 2, "the generator runs once a step"
    for step, made in enumerate(module.made):
        for_generator, real, fake = module.judged[3 * step : 3 * step + 3]
        assert for_generator is made
        assert torch.equal(fake, made)
        assert not fake.requires_grad, "the discriminator's loss must not reach the generator"
        assert torch.equal(real, data.images("train")[4 * step : 4 * step + 4])


def test_every_latent_and_noise_is_new(tmp_path: Path) -> None:
    module = watched(style_mixing=0.0)
    train(module, tmp_path, data=ToyImages(images=12))
    latents = torch.cat(module.styles)[:, 0]
    assert len(latents.unique(dim=0)) == 12


# --- penalties -----------------------------------------------------------------------------------------------------


def test_r1_comes_every_so_many_steps_and_is_weighted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module, note, taken = watched(r1_gamma=0.7, r1_every=3), Note(), []
    penalty = generators_module.r1_penalty

    def counted(discriminator: Callable[[Tensor], Tensor], real: Tensor) -> Tensor:
        taken.append((int(module.images_seen) // 4, penalty(discriminator, real)))
        return taken[-1][1]

    monkeypatch.setattr(generators_module, "r1_penalty", counted)
    train(module, tmp_path, note, data=ToyImages(images=32))
    assert [step for step, _ in taken] == [0, 3, 6]
    values = dict(taken)
    for step, row in enumerate(note.rows):
        # Taken in one step of three, it counts three times: gamma / 2 a step on average.
        extra = 0.7 / 2 * 3 * float(values[step].detach()) if step in values else 0.0
        assert module.losses[2 * step + 1] == pytest.approx(row["train/discriminator"] + extra, rel=1e-5)
    assert note.rows[-1]["train/r1"] == pytest.approx(float(values[6].detach()))


def test_path_lengths_come_every_so_many_steps_against_their_running_mean(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module, note, taken = watched(path_length_weight=2.0, path_length_every=3, r1_gamma=0.0), Note(), {}
    lengths_of = generators_module.path_lengths

    def noted(images: Tensor, ws: Tensor) -> Tensor:
        lengths = lengths_of(images, ws)
        taken[int(module.images_seen) // 4] = lengths.detach().clone()
        return lengths

    monkeypatch.setattr(generators_module, "path_lengths", noted)
    train(module, tmp_path, note, data=ToyImages(images=28))
    assert list(taken) == [0, 3, 6]
    assert all(len(lengths) == 2 for lengths in taken.values()), "half a batch"
    mean = 0.0
    for step, row in enumerate(note.rows):
        extra = 0.0
        if step in taken:
            mean += 0.01 * (float(taken[step].mean()) - mean)
            extra = 2.0 * 3 * float((taken[step] - mean).square().mean())
            assert row["train/path_length"] == pytest.approx(float(taken[step].mean()))
        assert module.losses[2 * step] == pytest.approx(row["train/generator"] + extra, rel=1e-4)
    assert float(module.path_length_mean) == pytest.approx(mean, rel=1e-5)
    assert mean > 0


def test_the_path_length_penalty_trains_the_mapping_network_too(tmp_path: Path) -> None:
    with_penalty, without = watched(path_length_weight=50.0), watched()
    for module in (with_penalty, without):
        train(module, tmp_path, data=ToyImages(images=4))
    one, other = (module.generator.mapping.get_submodule("fc0").weight for module in (with_penalty, without))
    assert not torch.equal(one, other)


@pytest.mark.parametrize(("weight", "name"), [("r1_gamma", "r1"), ("path_length_weight", "path_length")])
def test_without_weight_no_penalty(tmp_path: Path, weight: str, name: str) -> None:
    logged = train(small_module(**{weight: 0.0}), tmp_path).callback_metrics
    assert f"train/{name}" not in logged
    assert logged.keys() >= {"train/generator", "train/discriminator", "train/real_sign"}


def test_real_sign_is_the_share_of_real_images_taken_for_real(tmp_path: Path) -> None:
    module, note, logits = small_module(r1_gamma=0.0), Note(), []
    module.discriminator.register_forward_hook(lambda _, inputs, out: logits.append(out.detach()))
    train(module, tmp_path, note, data=ToyImages(images=24))
    for row, real in zip(note.rows, logits[1::3], strict=True):
        assert row["train/real_sign"] == pytest.approx(2 * float((real > 0).float().mean()) - 1)


# --- styles --------------------------------------------------------------------------------------------------------


def styles_of(folder: Path, share: float) -> Tensor:
    """Styles of 320 samples."""
    module = watched(style_mixing=share, r1_gamma=0.0)
    train(module, folder, data=ToyImages(images=320, batch_size=64))
    return torch.cat(module.styles)


def cuts_of(styles: Tensor) -> Tensor:
    """For each sample, how many layers have another style than the layer before."""
    return (styles[:, 1:] != styles[:, :-1]).any(dim=2)


def test_without_mixing_a_sample_has_one_style(tmp_path: Path) -> None:
    styles = styles_of(tmp_path, 0.0)
    assert styles.shape == (320, 6, 7)
    assert not cuts_of(styles).any()


def test_mixed_samples_have_two_styles_cut_anywhere(tmp_path: Path) -> None:
    cuts = cuts_of(styles_of(tmp_path, 1.0))
    assert (cuts.sum(dim=1) == 1).all()
    # Uniform over the five places: 64 each, standard deviation 7.
    assert ((cuts.sum(dim=0) - 64).abs() < 29).all()


def test_a_share_of_samples_is_mixed(tmp_path: Path) -> None:
    cuts = cuts_of(styles_of(tmp_path, 0.7))
    assert set(cuts.sum(dim=1).tolist()) == {0, 1}
    assert abs(int(cuts.sum()) - 224) < 33  # four standard deviations


def test_the_mean_style_is_that_of_many_latents(tmp_path: Path) -> None:
    module = small_module(resolution=8, channel_max=2, learning_rate=0.0, r1_gamma=0.0)
    train(module, tmp_path, data=ToyImages(8, images=3840, batch_size=128, kind="red"))
    with torch.no_grad():
        w = module.generator.mapping(torch.randn(50_000, 6))[:, 0]
    # At the end the average's half-life is 192 images, so its standard deviation is 0.04 of that of w.
    error = (module.generator.mapping.w_avg - w.mean(dim=0)) / w.std(dim=0)
    assert error.abs().max() < 0.18
    assert (w.mean(dim=0) / w.std(dim=0)).abs().max() > 0.3  # zeros, which it starts from, would not pass


# --- averaged weights ----------------------------------------------------------------------------------------------


def test_samples_use_the_averaged_weights_and_give_the_trained_ones_back(tmp_path: Path) -> None:
    module = small_module(ema_half_life_images=50.0)
    train(module, tmp_path, data=ToyImages(images=40))
    trained = copy_of(module.generator.parameters())
    numbers = torch.tensor([0, 7, 3])
    samples = module.sample(numbers, "grid", truncation=0.6)
    assert equal(trained, copy_of(module.generator.parameters()))

    averaged = copy.deepcopy(module.generator)
    averaged.load_state_dict(module.average.state_dict_for_network(module.generator))
    assert not equal(trained, copy_of(averaged.parameters()))
    with torch.no_grad():
        z = fixed_latents(numbers, 6, seed=0, purpose="grid")
        assert torch.equal(samples, averaged(z, 0.6, "const").clamp(-1, 1))
        assert not torch.equal(samples, module.generator(z, 0.6, "const").clamp(-1, 1))
    torch.testing.assert_close(module.sample(torch.tensor([7]), "grid", 0.6)[0], samples[1])
    assert not torch.equal(module.sample(numbers, "val", 0.6), samples)


def test_averages_follow_each_step(tmp_path: Path) -> None:
    module = small_module(ema_half_life_images=4.0)
    expected: list[Tensor] = copy_of(module.generator.parameters())

    class Average(Callback):
        def on_train_batch_end(self, *_: Any) -> None:
            # A twentieth of the images before this step is the longest half-life; none of them: a copy.
            half_life = min(4.0, 0.05 * (int(module.images_seen) - 4))
            kept = 0.5 ** (4 / half_life) if half_life else 0.0
            for average, parameter in zip(expected, module.generator.parameters(), strict=True):
                average.copy_(kept * average + (1 - kept) * parameter.detach())

    train(module, tmp_path, Average(), data=ToyImages(images=100))
    averages = [value for name, value in module.average.named_buffers() if name != "images"]
    for average, wanted in zip(averages, expected, strict=True):
        torch.testing.assert_close(average, wanted, rtol=1e-4, atol=1e-6)


def test_images_are_counted(tmp_path: Path) -> None:
    module = small_module()
    train(module, tmp_path, data=ToyImages(images=14), max_epochs=2)  # 3 full batches of 4 an epoch
    assert int(module.images_seen) == 24
    assert int(module.average.images) == 24


# --- optimizers ----------------------------------------------------------------------------------------------------


def test_rates_and_betas_are_corrected_for_lazy_regularisation() -> None:
    module = small_module(learning_rate=0.002, r1_every=16, path_length_weight=2.0, path_length_every=4)
    generator, discriminator = module.configure_optimizers()
    # StyleGAN2, appendix B: c = k / (k + 1), the rate times c, the betas to its power.
    for optimizer, c in ((generator, 4 / 5), (discriminator, 16 / 17)):
        (group,) = optimizer.param_groups
        assert group["lr"] == pytest.approx(0.002 * c)
        assert group["betas"] == pytest.approx((0.0, 0.99**c))
    plain = small_module(learning_rate=0.002, r1_gamma=0.0).configure_optimizers()
    for optimizer in plain:
        assert optimizer.param_groups[0]["lr"] == pytest.approx(0.002)
        assert optimizer.param_groups[0]["betas"] == pytest.approx((0.0, 0.99))


def test_each_optimizer_holds_all_of_its_network() -> None:
    module = small_module()
    held = [{id(p) for g in o.param_groups for p in g["params"]} for o in module.configure_optimizers()]
    assert held == [{id(p) for p in module.get_submodule(player).parameters()} for player in PLAYERS]


def test_the_learning_rate_falls_with_the_root_of_the_images(tmp_path: Path) -> None:
    module = watched(learning_rate=0.01, decay_after=10.0, r1_every=3, path_length_weight=1.0, path_length_every=1)
    train(module, tmp_path, data=ToyImages(images=32))
    steps = module.rates[::2]
    assert len(steps) == 8
    assert module.rates[1::2] == steps  # both players step at the rates of their batch
    for number, (generator, discriminator) in enumerate(steps):
        decay = min(1.0, (10.0 / max(4 * number, 1)) ** 0.5)
        assert generator == pytest.approx(0.01 * decay * 1 / 2)
        assert discriminator == pytest.approx(0.01 * decay * 3 / 4)
    assert steps[-1][0] < 0.7 * steps[0][0]


def test_without_decay_the_learning_rate_stays(tmp_path: Path) -> None:
    module = watched(learning_rate=0.01, r1_gamma=0.0)
    train(module, tmp_path, data=ToyImages(images=32))
    assert {rate for rates in module.rates for rate in rates} == {0.01}


# --- repeatable steps ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("augment", ["none", "adaptive"])
def test_a_step_depends_on_its_position_only(tmp_path: Path, augment: str) -> None:
    settings = {"path_length_weight": 1.0, "path_length_every": 2, "augment": augment, "augment_ramp_images": 20}
    ends = []
    for global_seed in (1, 2):
        module = small_module(**settings)
        torch.manual_seed(global_seed)
        train(module, tmp_path)
        ends.append(module)
    assert unequal_tensors(*ends) == []
    other = small_module(seed=1, **settings)
    train(other, tmp_path)
    assert unequal_tensors(ends[0], other)


def test_steps_at_different_positions_differ(tmp_path: Path) -> None:
    module = watched(learning_rate=0.0, style_mixing=0.0)
    train(module, tmp_path, data=ToyImages(images=8))
    first, second = module.styles
    assert not torch.equal(first, second)


# --- augmentation --------------------------------------------------------------------------------------------------


def test_the_probability_follows_the_signs_on_real_images(tmp_path: Path) -> None:
    settings = {"augment": "adaptive", "augment_target": -0.1, "augment_ramp_images": 50, "learning_rate": 0.01}
    module, note = small_module(**settings), Note()
    train(module, tmp_path, note, data=ToyImages(images=80))
    p, moves = 0.0, set()
    for row in note.rows:
        moves.add(row["train/real_sign"] > -0.1)
        p = min(max(p + (1 if row["train/real_sign"] > -0.1 else -1) * 4 / 50, 0.0), 0.8)
        assert row["train/augment"] == pytest.approx(p, abs=1e-5)
    assert moves == {True, False}
    assert module.augmentation is not None
    state = module.state_dict()
    assert float(state["augmentation.probability"]) == pytest.approx(p, abs=1e-5)


def test_the_discriminator_sees_augmented_images_of_both_kinds(tmp_path: Path) -> None:
    module, data = watched(augment="adaptive", augment_ramp_images=10**9), ToyImages(images=4)
    assert module.augmentation is not None
    module.augmentation.probability.fill_(0.8)
    train(module, tmp_path, data=data)
    for_generator, real, fake, penalised = module.judged
    (made,) = module.made
    for seen, original in (
        (for_generator, made),
        (fake, made),
        (real, data.images("train")),
        (penalised, data.images("train")),
    ):
        assert seen.shape == original.shape
        assert not torch.equal(seen, original)


def test_samples_are_never_augmented(tmp_path: Path) -> None:
    plain, augmented = small_module(), small_module(augment="adaptive")
    for module in (plain, augmented):
        train(module, tmp_path, data=ToyImages(images=4), max_epochs=0)
    assert augmented.augmentation is not None
    augmented.augmentation.probability.fill_(0.8)
    assert torch.equal(plain.sample(torch.arange(4)), augmented.sample(torch.arange(4)))


# --- starting from a file ------------------------------------------------------------------------------------------


@pytest.fixture
def both_networks(tmp_path: Path) -> Path:
    """A file with a generator of other sizes than the small module's, and its discriminator."""
    with torch.random.fork_rng():
        torch.manual_seed(3)
        generator = Generator(5, 9, {4: 12, 8: 10, 16: 6}, mapping_layers=3, mapping_lr_multiplier=0.1)
        generator.mapping.w_avg.normal_()
        discriminator = Discriminator({4: 12, 8: 10, 16: 6})
    write_native(tmp_path / "both.safetensors", generator, discriminator)
    return tmp_path / "both.safetensors"


def test_training_starts_from_a_files_networks(both_networks: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file

    module = small_module(init=str(both_networks))
    stored = load_file(both_networks)
    for name, value in module.generator.state_dict().items():
        assert torch.equal(value, stored[name]), name
    for name, value in module.discriminator.state_dict().items():
        assert torch.equal(value, stored[f"discriminator.{name}"]), name
    for name, parameter in module.generator.named_parameters():
        assert torch.equal(module.average.state_dict_for_network(module.generator)[name], parameter)
    assert module.generator.z_dim == 5
    assert module.generator.mapping.get_submodule("fc0").bias_gain == 0.1  # of the sidecar
    before = copy_of(module.parameters())
    train(module, tmp_path)
    assert not equal(before, copy_of(module.parameters()))


def test_a_file_without_discriminator_gets_a_new_one(tiny_generator_file: Path, tmp_path: Path) -> None:
    module = small_module(init=str(tiny_generator_file))
    assert module.discriminator(torch.zeros(2, 3, 16, 16)).shape == (2, 1)
    train(module, tmp_path)


def test_a_file_of_another_resolution_is_refused(both_networks: Path) -> None:
    with pytest.raises(ConfigError, match=r"both\.saf.* of 16 px, and this run has 32 px.*Remedy.*at 16 px"):
        small_module(init=str(both_networks), resolution=32)


def test_a_file_that_is_not_there_is_refused() -> None:
    with pytest.raises(CheckpointError, match=r"none\.safetensors.*Remedy"):
        small_module(init="none.safetensors")


# --- checkpoints ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trained")
    module = small_module(augment="adaptive", augment_ramp_images=40, path_length_weight=1.0)
    train(module, folder).save_checkpoint(folder / "trained.ckpt")
    return folder / "trained.ckpt"


def test_a_checkpoint_holds_all_that_a_run_goes_on_with(checkpoint: Path) -> None:
    content = torch.load(checkpoint, weights_only=True)
    state = content["state_dict"]
    assert int(state["images_seen"]) == 8
    assert float(state["path_length_mean"]) > 0
    assert "augmentation.probability" in state
    assert state["generator.mapping.w_avg"].abs().sum() > 0
    parts = {name.split(".")[0] for name in state}
    assert parts == {"generator", "discriminator", "average", "augmentation", "images_seen", "path_length_mean"}
    assert len(content["optimizer_states"]) == 2
    assert content["provenance"]["images_seen"] == 8
    assert content["provenance"]["data"] == {"class": "ToyImages"}
    assert content["provenance"]["command"]


def test_a_checkpoint_needs_nothing_else_to_load(checkpoint: Path) -> None:
    module = GeneratorModule.load_from_checkpoint(checkpoint)
    stored = torch.load(checkpoint, weights_only=True)["state_dict"]
    assert module.state_dict().keys() == stored.keys()
    assert all(torch.equal(value, stored[name]) for name, value in module.state_dict().items())
    assert module.sample(torch.arange(2)).shape == (2, 3, 16, 16)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"w_dim": 9}, r"has shape \(7,.*this run \(9,.*config\.yaml"),
        ({"channel_max": 4}, "has shape"),
        ({"resolution": 32}, "missing .*b32"),
        ({"resolution": 8}, "unknown .*b16"),
        ({"mapping_layers": 3}, "missing .*fc2"),
        ({"augment": "none"}, "unknown augmentation"),
    ],
)
def test_other_networks_are_refused_by_name(checkpoint: Path, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        GeneratorModule.load_from_checkpoint(checkpoint, **settings)


def test_nothing_is_copied_from_a_refused_checkpoint(checkpoint: Path, tmp_path: Path) -> None:
    module = small_module(w_dim=9, augment="adaptive")
    before = {name: value.clone() for name, value in module.state_dict().items()}
    with pytest.raises(CheckpointError):
        quiet_trainer(tmp_path).fit(module, datamodule=ToyImages(), ckpt_path=checkpoint)
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())


def test_a_checkpoint_of_something_else_is_refused(tmp_path: Path) -> None:
    trainer = quiet_trainer(tmp_path)
    trainer.fit(toy_training.ToyModule(), datamodule=toy_training.ToyData())
    trainer.save_checkpoint(tmp_path / "toy.ckpt")
    with pytest.raises(CheckpointError, match=r"other networks than this run.*missing average.*that `sisug fit` wrote"):
        quiet_trainer(tmp_path).fit(small_module(), datamodule=ToyImages(), ckpt_path=tmp_path / "toy.ckpt")


def test_divergence_stops_the_run_and_keeps_the_last_checkpoint(tmp_path: Path) -> None:
    last = ModelCheckpoint(tmp_path, filename="last", save_on_train_epoch_end=True, enable_version_counter=False)
    trainer = Trainer(
        accelerator="cpu",
        max_epochs=4,
        callbacks=[last, Poison(images=12)],
        default_root_dir=tmp_path,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        limit_val_batches=0,
    )
    with pytest.raises(RunError, match=r"generator\.synthesis\..* not finite after 16 images.*Remedy.*learning_rate"):
        trainer.fit(small_module(), datamodule=ToyImages())
    kept = torch.load(tmp_path / "last.ckpt", weights_only=True)
    assert int(kept["state_dict"]["images_seen"]) == 8
    assert all(value.isfinite().all() for value in kept["state_dict"].values())


# --- what cannot work ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("resolution", 48),
        ("resolution", 4),
        ("resolution", 0),
        ("resolution", -16),
        ("channel_base", 0),
        ("channel_max", 0),
        ("z_dim", 0),
        ("w_dim", 0),
        ("mapping_layers", 0),
        ("style_mixing", 2.0),
        ("style_mixing", -0.1),
        ("style_mixing", float("nan")),
        ("learning_rate", -1.0),
        ("learning_rate", float("nan")),
        ("decay_after", 0.0),
        ("r1_gamma", -1.0),
        ("r1_every", 0),
        ("path_length_weight", -1.0),
        ("path_length_every", 0),
        ("augment_ramp_images", 0),
        ("ema_half_life_images", 0.0),
    ],
)
def test_numbers_out_of_range_are_named(name: str, value: float) -> None:
    with pytest.raises(ConfigError, match=rf"^{name} {value}\. Cause: .* Remedy: "):
        small_module(**{name: value})


def test_a_target_out_of_range_is_named() -> None:
    with pytest.raises(ConfigError, match=r"target 1\.5\. Cause: .* Remedy: "):
        small_module(augment="adaptive", augment_target=1.5)


@pytest.mark.parametrize("use", ["fit", "validate", "test"])
def test_images_of_another_size_are_refused_before_anything_runs(tmp_path: Path, use: str) -> None:
    module = watched()
    with pytest.raises(ConfigError, match=r"16 px, the data has 32 px.*data\.init_args\.resolution to 16"):
        getattr(quiet_trainer(tmp_path), use)(module, datamodule=ToyImages(resolution=32))
    assert module.losses == []
    assert module.judged == []


# --- learning ------------------------------------------------------------------------------------------------------


def test_the_generator_learns_a_colour(tmp_path: Path) -> None:
    """Losses of the wrong sign, samples that do not reach the generator, an average that stays: none would pass."""
    settings = {"learning_rate": 1e-2, "r1_gamma": 0.1, "r1_every": 4}
    module = small_module(resolution=8, ema_half_life_images=200.0, **settings)
    red = torch.tensor([0.8, -0.6, -0.6])

    def distance() -> float:
        return float((module.sample(torch.arange(64)).mean(dim=(0, 2, 3)) - red).abs().max())

    assert distance() > 0.4
    train(module, tmp_path, data=ToyImages(8, images=8 * 80, batch_size=8, kind="red"))
    assert distance() < 0.15
