"""GeneratorQuality against the same numbers computed by hand, and the records that it leaves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from integration.generator_runs import QuadrantColours, ToyImages, small_module, train
from rearranger.small import quiet_trainer
from scipy import linalg
from torch import Tensor, nn

from sisug.common.fingerprint import fingerprint
from sisug.errors import ConfigError, DataError
from sisug.generators.module import GeneratorModule
from sisug.generators.quality import GeneratorQuality
from sisug.metrics import ProtocolRecord


def features(images: Tensor) -> Any:
    """Mean colours of the quarters, by slices."""
    half = images.shape[2] // 2
    parts = [images[:, :, y : y + half, x : x + half].mean(dim=(2, 3)) for y in (0, half) for x in (0, half)]
    return torch.stack(parts, dim=2).flatten(1).double().numpy()


def frechet(real: Tensor, made: Tensor) -> float:
    """Heusel et al. 2017, equation 6, with scipy's matrix root."""
    a, b = features(real), features(made)
    covariances = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    root = linalg.sqrtm(covariances[0] @ covariances[1])
    return float(((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(covariances[0] + covariances[1] - 2 * root.real))


def variety(real: Tensor, made: Tensor) -> float:
    return float(features(made).var(axis=0, ddof=1).sum() / features(real).var(axis=0, ddof=1).sum())


def expect(logged: dict[str, float], stage: str, real: Tensor, made: Tensor) -> None:
    """The logged values are those of these images."""
    assert float(logged[f"{stage}/frechet_quadrants"]) == pytest.approx(frechet(real, made), rel=1e-4)
    assert float(logged[f"{stage}/variety_quadrants"]) == pytest.approx(variety(real, made), rel=1e-4)


@pytest.fixture(scope="module")
def module(tmp_path_factory: pytest.TempPathFactory) -> GeneratorModule:
    """A module whose averaged weights differ from its trained ones; tests leave it as it is."""
    module = small_module(ema_half_life_images=50.0)
    train(module, tmp_path_factory.mktemp("trained"), data=ToyImages(images=40))
    return module


DATA = {"val_length": 40, "test_length": 60, "batch_size": 8}


def test_values_are_those_of_the_samples_and_the_real_images(module: GeneratorModule, tmp_path: Path) -> None:
    data = ToyImages(**DATA)
    trainer = quiet_trainer(tmp_path, GeneratorQuality(QuadrantColours(), samples=50, batch_size=7))
    (logged,) = trainer.validate(module, datamodule=data, verbose=False)
    assert logged.keys() == {"val/frechet_quadrants", "val/variety_quadrants"}
    expect(logged, "val", data.images("val"), module.sample(torch.arange(50), "val"))


def test_batch_sizes_do_not_matter(module: GeneratorModule, tmp_path: Path) -> None:
    logged = []
    for size in (3, 40):
        quality = GeneratorQuality(QuadrantColours(), samples=50, batch_size=size)
        data = ToyImages(**(DATA | {"batch_size": size}))
        logged.append(quiet_trainer(tmp_path, quality).validate(module, datamodule=data, verbose=False)[0])
    assert logged[0] == pytest.approx(logged[1], rel=1e-4)


def test_the_real_side_is_computed_once_a_run(tmp_path: Path) -> None:
    extractor = QuadrantColours()
    module = small_module()
    quality = GeneratorQuality(extractor, samples=20, batch_size=5)
    data = ToyImages(**DATA)
    settings = {"limit_val_batches": 1.0, "max_epochs": 3, "limit_train_batches": 1}
    trainer = train(module, tmp_path, quality, data=data, **settings)
    first, later = 5 * [8] + 4 * [5], 4 * [5]  # 40 real images in batches of 8, 20 samples in batches of 5
    assert extractor.calls == first + later + later
    expect(trainer.callback_metrics, "val", data.images("val"), module.sample(torch.arange(20), "val"))


def test_a_trial_before_training_leaves_no_half_of_the_real_images(tmp_path: Path) -> None:
    module, data = small_module(), ToyImages(**DATA)
    quality = GeneratorQuality(QuadrantColours(), samples=20)
    settings = {"limit_val_batches": 1.0, "num_sanity_val_steps": 2, "limit_train_batches": 1}
    trainer = train(module, tmp_path, quality, data=data, **settings)
    expect(trainer.callback_metrics, "val", data.images("val"), module.sample(torch.arange(20), "val"))


def test_validation_and_test_of_one_trainer_have_their_own_images(module: GeneratorModule, tmp_path: Path) -> None:
    data = ToyImages(**DATA)
    trainer = quiet_trainer(tmp_path, GeneratorQuality(QuadrantColours(), samples=30))
    for use, stage in ((trainer.validate, "val"), (trainer.test, "test"), (trainer.validate, "val")):
        (logged,) = use(module, datamodule=data, verbose=False)
        expect(logged, stage, data.images(stage), module.sample(torch.arange(30), stage))


class Copier(GeneratorModule):
    """Its samples are the validation images."""

    def sample(self, index: Tensor, purpose: str = "samples", truncation: float = 1.0) -> Tensor:
        return ToyImages(**DATA).images("val")[index]


class Collapsed(GeneratorModule):
    """Its samples are all alike."""

    def sample(self, index: Tensor, purpose: str = "samples", truncation: float = 1.0) -> Tensor:
        return torch.full((len(index), 3, 16, 16), 0.3)


def test_a_perfect_generator_and_a_collapsed_one(tmp_path: Path) -> None:
    data = ToyImages(**DATA)
    scores = {}
    for kind in (Copier, Collapsed):
        trainer = quiet_trainer(tmp_path, GeneratorQuality(QuadrantColours(), samples=40))
        (scores[kind],) = trainer.validate(small_module(kind), datamodule=data, verbose=False)
    assert scores[Copier]["val/frechet_quadrants"] == pytest.approx(0.0, abs=1e-5)
    assert scores[Copier]["val/variety_quadrants"] == pytest.approx(1.0, rel=1e-5)
    spread = features(data.images("val")).var(axis=0, ddof=1).sum()
    distance = ((features(data.images("val")).mean(axis=0) - 0.3) ** 2).sum()
    assert scores[Collapsed]["val/variety_quadrants"] == pytest.approx(0.0, abs=1e-6)
    assert scores[Collapsed]["val/frechet_quadrants"] == pytest.approx(spread + distance, rel=1e-4)


def test_a_test_leaves_records_that_say_how_it_was_measured(module: GeneratorModule, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    trainer = quiet_trainer(folder, GeneratorQuality(QuadrantColours(), samples=30, batch_size=7))
    trainer.validate(module, datamodule=ToyImages(**DATA), verbose=False)
    assert not (folder / "evaluation").exists()
    (logged,) = trainer.test(module, datamodule=ToyImages(**DATA), verbose=False)
    files = {path.name for path in (folder / "evaluation").iterdir()}
    assert files == {"frechet_quadrants.json", "variety_quadrants.json"}
    for name in ("frechet_quadrants", "variety_quadrants"):
        record = ProtocolRecord.read(folder / "evaluation" / f"{name}.json")
        assert record.metric == f"test/{name}"
        assert record.value == pytest.approx(float(logged[f"test/{name}"]), rel=1e-6)
        assert record.samples == {"real": 60, "generated": 30}
        assert (record.split, record.extractor, record.seeds) == ("test", "quadrants", {"latents": 0})
        averaged = module.average.state_dict_for_network(module.generator)
        assert record.fingerprints == {"generator": fingerprint(averaged)}
        assert record.fingerprints["generator"] != fingerprint(module.generator.state_dict())


def test_the_extractor_is_no_part_of_what_is_trained_or_kept(tmp_path: Path) -> None:
    class Weighted(QuadrantColours):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.ones(12))

        def forward(self, images: Tensor) -> Tensor:
            return super().forward(images) * self.scale

    extractor = Weighted()
    module = small_module()
    trainer = train(module, tmp_path, GeneratorQuality(extractor, samples=20), limit_val_batches=1.0)
    assert not extractor.training
    assert not extractor.scale.requires_grad
    trainer.save_checkpoint(tmp_path / "run.ckpt")
    assert not any("scale" in name for name in torch.load(tmp_path / "run.ckpt", weights_only=True)["state_dict"])


def test_an_extractor_needs_a_name() -> None:
    class Nameless(nn.Module):
        num_features = 12

    with pytest.raises(ConfigError, match=r"Nameless has no name.*Remedy: give it an attribute `name`"):
        GeneratorQuality(Nameless())


def test_an_extractor_says_how_wide_its_features_are() -> None:
    class Widthless(nn.Module):
        name = "widthless"

    with pytest.raises(ConfigError, match=r"'widthless' has None features.*Remedy"):
        GeneratorQuality(Widthless())


@pytest.mark.parametrize(("name", "value"), [("samples", 1), ("samples", 0), ("batch_size", 0)])
def test_numbers_out_of_range_are_named(name: str, value: int) -> None:
    with pytest.raises(ConfigError, match=rf"^{name} {value}\. Cause: .* Remedy: "):
        GeneratorQuality(QuadrantColours(), **{name: value})


def test_one_real_image_is_too_few(module: GeneratorModule, tmp_path: Path) -> None:
    trainer = quiet_trainer(tmp_path, GeneratorQuality(QuadrantColours(), samples=20))
    with pytest.raises(DataError, match=r"1 real images.*at least 2"):
        trainer.validate(module, datamodule=ToyImages(val_length=1), verbose=False)
