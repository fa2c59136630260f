"""RearrangerModule under Lightning's Trainer: who learns what, what stays frozen, and what a checkpoint holds."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import toy_training
from lightning.pytorch import Callback, LightningModule, Trainer
from rearranger.small import TERMS, quiet_trainer, small_module, train
from torch import Tensor

from sisug.data.latents import LatentDataModule
from sisug.errors import CheckpointError, CodebookError, ConfigError, FingerprintMismatch
from sisug.generators import Generator, load_generator
from sisug.generators.native import write_native
from sisug.rearranger import Rearrangement, RearrangerModule
from sisug.rearranger import module as rearranger_module

Make = Callable[..., RearrangerModule]


@pytest.fixture(scope="module")
def make(tiny_generator_file: Path) -> Make:
    return partial(small_module, tiny_generator_file)


def copy_of(parameters: Any) -> list[Tensor]:
    return [parameter.detach().clone() for parameter in parameters]


def equal(a: list[Tensor], b: list[Tensor]) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


# --- who learns what -----------------------------------------------------------------------------------------------


class Watched(RearrangerModule):
    """Notes, around every optimizer step, whose weights it changed and whose gradients were there."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.changed: list[tuple[str, set[str]]] = []
        self.norms: list[float] = []
        self.untouched: list[bool] = []

    def weights_by_player(self) -> dict[str, list[Tensor]]:
        return {
            player: copy_of(self.get_submodule(player).parameters())
            for player in ("generator", "rearranger", "discriminator")
        }

    def configure_optimizers(self) -> list[torch.optim.Optimizer]:
        optimizers = super().configure_optimizers()
        for player, optimizer in zip(("rearranger", "discriminator"), optimizers, strict=True):
            optimizer.register_step_pre_hook(lambda *_, player=player: self.before(player))
            optimizer.register_step_post_hook(lambda *_, player=player: self.after(player))
        return optimizers

    def before(self, player: str) -> None:
        self.kept = self.weights_by_player()
        gradients = [p.grad for p in self.rearranger.parameters() if p.grad is not None]
        if player == "rearranger":
            self.norms.append(float(torch.stack([g.norm() for g in gradients]).norm()))
            self.gradients = copy_of(gradients)
        else:  # the discriminator's backward pass must leave the rearranger's gradients as they were
            self.untouched.append(equal(self.gradients, gradients))

    def after(self, player: str) -> None:
        now = self.weights_by_player()
        self.changed.append((player, {name for name in now if not equal(now[name], self.kept[name])}))


def test_each_players_step_changes_its_own_weights_only(make: Make, tmp_path: Path) -> None:
    module = make(Watched, gradient_clip=0.01)
    assert isinstance(module, Watched)
    train(module, tmp_path)
    assert module.changed == 3 * [("rearranger", {"rearranger"}), ("discriminator", {"discriminator"})]
    assert module.untouched == [True] * 3
    assert max(module.norms) <= 0.01 * 1.001  # clipped


class Thaw(Callback):
    """Calls what would train the generator if it let it, at every moment of a run."""

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        pl_module.train()
        pl_module.generator.train(True)  # type: ignore[union-attr]
        pl_module.generator.requires_grad_(True)  # type: ignore[operator, union-attr]

    on_train_start = on_validation_end = on_train_epoch_start


@pytest.mark.parametrize("thaw", ["train", "requires_grad_", "unfreeze", "in callbacks"])
def test_the_generator_stays_as_it_is_whatever_is_called(make: Make, tmp_path: Path, thaw: str) -> None:
    module = make()
    before = {name: value.clone() for name, value in module.generator.state_dict().items()}
    callbacks = [Thaw()] if thaw == "in callbacks" else []
    if not callbacks:
        getattr(module, thaw)()
    train(module, tmp_path, *callbacks, max_epochs=2)
    changed = [name for name, value in module.generator.state_dict().items() if not torch.equal(value, before[name])]
    assert changed == []
    assert all(parameter.grad is None for parameter in module.generator.parameters())
    assert not any(parameter.requires_grad for parameter in module.generator.parameters())
    assert not any(part.training for part in module.generator.modules())
    held = {id(p) for o in module.trainer.optimizers for group in o.param_groups for p in group["params"]}
    assert held.isdisjoint(id(p) for p in module.generator.parameters())


def test_part_of_a_batch_is_laid_out_as_itself_the_rest_as_its_neighbours(make: Make, tmp_path: Path) -> None:
    module, calls = make(own_share=0.5, warped_share=0.0), []
    module.rearranger.register_forward_pre_hook(lambda _, inputs: calls.append(inputs))
    train(module, tmp_path, images=4, limit_val_batches=0)
    ((_, mask, target, *_),) = calls
    assert torch.equal(target[:2], mask[:2])
    assert torch.equal(target[2], mask[1])
    assert torch.equal(target[3], mask[2])


@pytest.mark.parametrize("share", [0.01, 0.99])
def test_every_batch_has_both_kinds(make: Make, tmp_path: Path, share: float) -> None:
    trainer = train(make(own_share=share, warped_share=0.0), tmp_path, images=4)
    assert all(torch.isfinite(trainer.logged_metrics[f"train/{term}"]) for term in TERMS)


# --- losses --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("term", TERMS)
def test_a_weight_of_zero_leaves_its_term_out(make: Make, tmp_path: Path, term: str) -> None:
    module = make(**{f"{term}_weight": 0.0})
    discriminator, judged = copy_of(module.discriminator.parameters()), []
    module.discriminator.register_forward_hook(lambda *_: judged.append(True))
    logged = train(module, tmp_path).logged_metrics
    assert {name for name in TERMS if f"train/{name}" in logged} == set(TERMS) - {term}
    trains = term != "adversarial"
    assert equal(discriminator, copy_of(module.discriminator.parameters())) is not trains
    assert bool(judged) is trains
    assert ("train/discriminator" in logged) is trains


@pytest.mark.parametrize("share", [0.25, 0.5])
def test_the_gradient_penalty_comes_every_so_many_steps(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, share: float
) -> None:
    module, steps = make(r1_every=3, own_share=share), []
    penalty = rearranger_module.r1_penalty

    def counted(*arguments: Any) -> Tensor:
        steps.append(int(module.images_seen) // 4)
        return penalty(*arguments)

    monkeypatch.setattr(rearranger_module, "r1_penalty", counted)
    train(module, tmp_path, images=32, limit_val_batches=0)
    assert steps == [0, 3, 6]


def test_the_gradient_penalty_weighs_half_of_gamma_for_every_step_it_stands_for(make: Make, tmp_path: Path) -> None:
    module, losses = make(r1_gamma=3.0, r1_every=4), []
    backward = module.manual_backward
    module.manual_backward = lambda loss: (losses.append(float(loss.detach())), backward(loss))  # type: ignore[method-assign]
    logged = train(module, tmp_path, images=4, limit_val_batches=0).logged_metrics
    assert float(logged["train/r1"]) > 0
    expected = logged["train/discriminator"] + 3 / 2 * 4 * logged["train/r1"]
    assert losses[1] == pytest.approx(float(expected), rel=1e-5)


def test_without_gamma_no_penalty(make: Make, tmp_path: Path) -> None:
    assert "train/r1" not in train(make(r1_gamma=0.0), tmp_path).logged_metrics


@pytest.mark.slow
def test_losses_fall(make: Make, tmp_path: Path) -> None:
    module, seen = make(adversarial_weight=0.0, perceptual_weight=0.0, learning_rate=5e-3), []

    class Note(Callback):
        def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
            seen.append({name: float(value) for name, value in trainer.callback_metrics.items()})

    trainer = train(module, tmp_path, Note(), images=1600)
    for term in ("reconstruction", "image", "mask"):
        first, last = (sum(row[f"train/{term}"] for row in part) for part in (seen[:20], seen[-20:]))
        assert last < 0.7 * first, term
    assert float(trainer.callback_metrics["val/proxy_accuracy"]) > 0.6


# --- counting and averaging ----------------------------------------------------------------------------------------


def test_images_are_counted(make: Make, tmp_path: Path) -> None:
    module = make()
    train(module, tmp_path, images=14, max_epochs=2)  # 3 full batches of 4 an epoch
    assert int(module.images_seen) == 24
    assert int(module.average.images) == 24


def test_validation_uses_the_averaged_weights_and_gives_the_trained_ones_back(make: Make, tmp_path: Path) -> None:
    module = make(ema_half_life_images=50.0)
    train(module, tmp_path)
    trained = copy_of(module.rearranger.parameters())
    assert not equal(trained, [v for k, v in module.average.named_buffers() if k != "images"])
    z, target = torch.randn(2, 3, module.generator.z_dim)
    done = module.rearrange(z, target)
    assert equal(trained, copy_of(module.rearranger.parameters()))

    module.rearranger.load_state_dict(module.average.state_dict_for_network(module.rearranger))
    with torch.no_grad():
        ws = module.generator.map(z)
        features = module.generator.features(ws)
        laid_out = module.rearranger(features, done.source_mask, done.target_mask, ws)
        assert torch.equal(module.generator.render(laid_out, ws).clamp(-1, 1), done.result)


def test_a_rearrangement_is_what_it_says(make: Make, tmp_path: Path) -> None:
    module = make(truncation=0.7)
    train(module, tmp_path)
    z, target = torch.randn(2, 3, module.generator.z_dim)
    done = module.rearrange(z, target)
    generator = load_generator(module.generator.source, 8)
    for image, mask, latent in ((done.source, done.source_mask, z), (done.target, done.target_mask, target)):
        assert torch.equal(image, generator(latent, 0.7).clamp(-1, 1))
        assert torch.equal(mask, module.codebook.assign(generator.features(generator.map(latent, 0.7)).map))
    same = module.rearrange(z, z)
    assert torch.equal(same.result, same.reconstruction)
    assert torch.equal(same.reconstruction, done.reconstruction)


def test_scores_do_not_depend_on_the_batch_size(make: Make, tmp_path: Path) -> None:
    module = make()
    train(module, tmp_path)
    trainer = quiet_trainer(tmp_path)
    scores = []
    for batch_size in (2, 3, 10):
        data = LatentDataModule(12, val_pairs=10, test_pairs=10, batch_size=batch_size)
        scores.append(trainer.validate(module, datamodule=data, verbose=False)[0])
    assert set(scores[0]) >= {"val/proxy_miou", "val/proxy_accuracy", "val/self_psnr"}
    for other in scores[1:]:
        assert other == pytest.approx(scores[0], rel=1e-4)
    data = LatentDataModule(12, val_pairs=10, test_pairs=10, batch_size=5)
    tested = trainer.test(module, datamodule=data, verbose=False)[0]
    assert {name.removeprefix("test/") for name in tested} == {name.removeprefix("val/") for name in scores[0]}
    assert tested["test/self_psnr"] != scores[0]["val/self_psnr"]  # other pairs


def test_scores_are_of_results_against_targets(make: Make, tmp_path: Path) -> None:
    module, seen = make(), []

    class Note(Callback):
        def on_validation_batch_end(self, trainer: Trainer, pl_module: LightningModule, outputs: Any, *_: Any) -> None:
            seen.append(outputs)

    scores = train(module, tmp_path, Note()).callback_metrics
    (done,) = seen
    assert isinstance(done, Rearrangement)
    accuracy = (done.result_mask == done.target_mask).float().mean()
    assert float(scores["val/proxy_accuracy"]) == pytest.approx(float(accuracy))
    error = (done.reconstruction - done.source).square().mean(dim=(1, 2, 3))
    assert float(scores["val/self_psnr"]) == pytest.approx(float((10 * torch.log10(4 / error)).mean()), rel=1e-4)


# --- checkpoints ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def checkpoint(make: Make, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trained")
    train(make(), folder).save_checkpoint(folder / "trained.ckpt")
    return folder / "trained.ckpt"


def test_a_checkpoint_names_its_generator_instead_of_holding_it(checkpoint: Path, tiny_generator_file: Path) -> None:
    loaded = torch.load(checkpoint, weights_only=True)
    assert not any(name.startswith("generator.") for name in loaded["state_dict"])
    assert loaded["generator"] == {
        "source": str(tiny_generator_file),
        "fingerprint": load_generator(tiny_generator_file).fingerprint,
    }
    parts = {name.split(".")[0] for name in loaded["state_dict"]}
    assert parts >= {"codebook", "rearranger", "average", "discriminator", "images_seen"}


def test_a_checkpoint_needs_nothing_else_to_load(checkpoint: Path, make: Make, tiny_generator_file: Path) -> None:
    module = RearrangerModule.load_from_checkpoint(checkpoint)
    stored = torch.load(checkpoint, weights_only=True)["state_dict"]
    own = {k: v for k, v in module.state_dict().items() if not k.startswith("generator.")}
    assert own.keys() == stored.keys()
    assert all(torch.equal(own[name], stored[name]) for name in own)
    assert (module.generator.split, module.codebook.clusters) == (8, 4)
    assert module.generator.fingerprint == load_generator(tiny_generator_file).fingerprint


def test_a_generator_that_moved_is_the_same_generator(
    checkpoint: Path, tiny_generator_file: Path, tmp_path: Path
) -> None:
    moved = shutil.copy(tiny_generator_file, tmp_path / "moved.safetensors")
    assert RearrangerModule.load_from_checkpoint(checkpoint, generator=str(moved)).codebook.is_fitted


def test_other_generator_weights_are_refused(checkpoint: Path, tmp_path: Path) -> None:
    torch.manual_seed(1)
    other = tmp_path / "other.safetensors"
    write_native(other, Generator(6, 7, {4: 8, 8: 8, 16: 6}, mapping_layers=2))
    with pytest.raises(FingerprintMismatch, match=r"tiny\.saf.*other\.saf.*--model\.init_args\.generator"):
        RearrangerModule.load_from_checkpoint(checkpoint, generator=str(other))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"clusters": 7}, r"has shape \(4,.*this run \(7,"),
        ({"split": 16}, "key.*has shape"),
        ({"refinement": 2}, "missing .*refine.1"),
        ({"refinement": 0}, "unknown .*refine"),
        ({"heads": 2}, "has shape"),
    ],
)
def test_other_networks_are_refused_by_name(checkpoint: Path, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        RearrangerModule.load_from_checkpoint(checkpoint, **settings)


def test_nothing_is_copied_from_a_refused_checkpoint(checkpoint: Path, make: Make, tmp_path: Path) -> None:
    module = make(clusters=7)
    before = {name: value.clone() for name, value in module.state_dict().items()}
    with pytest.raises(CheckpointError):
        quiet_trainer(tmp_path).validate(
            module, datamodule=LatentDataModule(4, 2, 2, 2), ckpt_path=checkpoint, verbose=False
        )
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())


def test_a_checkpoint_of_something_else_is_refused(make: Make, tmp_path: Path) -> None:
    trainer = quiet_trainer(tmp_path)
    trainer.fit(toy_training.ToyModule(), datamodule=toy_training.ToyData())
    other = tmp_path / "toy.ckpt"
    trainer.save_checkpoint(other)
    with pytest.raises(CheckpointError, match=r"holds no rearranger.*`sisug fit`"):
        train(make(), tmp_path).validate(make(), datamodule=LatentDataModule(4, 2, 2, 2), ckpt_path=other)


# --- what cannot work ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_a_batch_needs_both_kinds(make: Make, share: float) -> None:
    with pytest.raises(ConfigError, match="own_share"):
        make(own_share=share)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("width", 0),
        ("width", 12),
        ("heads", 0),
        ("r1_every", 0),
        ("refinement", -1),
        ("mask_temperature", 0.0),
        ("style_weight", -1.0),
        ("learning_rate", float("nan")),
        ("ema_half_life_images", 0.0),
    ],
)
def test_numbers_out_of_range_are_named(make: Make, name: str, value: float) -> None:
    with pytest.raises(ConfigError, match=rf"^{name} {value}\. Cause: .* Remedy: "):
        make(**{name: value})


def test_without_a_codebook_there_is_no_layout(make: Make, tmp_path: Path) -> None:
    module, data = make(), LatentDataModule(8, 2, 2, 4)
    for use in (
        lambda: quiet_trainer(tmp_path).fit(module, datamodule=data),
        lambda: quiet_trainer(tmp_path).validate(module, datamodule=data),
        lambda: module.rearrange(torch.randn(1, 6), torch.randn(1, 6)),
    ):
        with pytest.raises(CodebookError, match=r"OnlineClustering|--ckpt_path"):
            use()


def test_warped_sources_keep_their_own_target(make: Make, tmp_path: Path) -> None:
    module, calls = make(own_share=0.25, warped_share=0.5), []
    module.rearranger.register_forward_pre_hook(lambda _, inputs: calls.append(inputs))
    train(module, tmp_path, images=4, limit_val_batches=0)
    ((features, mask, target, *_),) = calls
    assert torch.equal(target[0], mask[0])
    assert torch.equal(module.codebook.assign(features.map[1:3]), mask[1:3]), "a warped source has the mask of its warp"
    assert not torch.equal(target[1:3], mask[1:3])
