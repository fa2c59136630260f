"""What the tests of generator training share: toy images, a toy extractor, a generator small enough to train in a
second, and callbacks that note or spoil what happens in a run.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

import torch
import yaml
from jaxtyping import Float
from lightning.pytorch import Callback, LightningDataModule, LightningModule, Trainer
from rearranger.small import quiet_trainer
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from sisug.generators.module import GeneratorModule

Kind = Literal["gradients", "red"]


class ToyPictures(Dataset[dict[str, Any]]):
    """Pictures by number: two colours that run into each other, or one red for all."""

    def __init__(self, first: int, length: int, resolution: int, kind: Kind) -> None:
        self.first, self.length, self.resolution, self.kind = first, length, resolution, kind

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> dict[str, Any]:
        ramp = torch.linspace(0, 1, self.resolution)
        if self.kind == "red":
            image = torch.tensor([0.8, -0.6, -0.6])[:, None, None].expand(3, self.resolution, self.resolution)
        else:
            colours = torch.rand(2, 3, 1, 1, generator=torch.Generator().manual_seed(self.first + index)) * 2 - 1
            share = (ramp + ramp[:, None]) / 2
            image = colours[0] * share + colours[1] * (1 - share)
        return {"image": image.contiguous(), "index": self.first + index}


class ToyImages(LightningDataModule):
    """Training, validation and test images that share none.

    Args:
        resolution: height and width, pixels.
        images: of an epoch.
        val_length: for validation.
        test_length: for test.
        batch_size: images a step and rank.
        kind: what they show.
    """

    def __init__(
        self,
        resolution: int = 16,
        images: int = 8,
        val_length: int = 12,
        test_length: int = 20,
        batch_size: int = 4,
        kind: Kind = "gradients",
    ) -> None:
        super().__init__()
        self.resolution, self.batch_size, self.kind = resolution, batch_size, kind
        self.lengths = {"train": images, "val": val_length, "test": test_length}

    def pictures(self, split: str) -> ToyPictures:
        first = 1000 * ["train", "val", "test"].index(split)
        return ToyPictures(first, self.lengths[split], self.resolution, self.kind)

    def images(self, split: str) -> Float[Tensor, "count 3 height width"]:
        """All images of a split."""
        pictures = self.pictures(split)
        return torch.stack([pictures[i]["image"] for i in range(len(pictures))])

    def train_dataloader(self) -> DataLoader[Any]:
        return DataLoader(self.pictures("train"), batch_size=self.batch_size, drop_last=True)

    def val_dataloader(self) -> DataLoader[Any]:
        return DataLoader(self.pictures("val"), batch_size=self.batch_size)

    def test_dataloader(self) -> DataLoader[Any]:
        return DataLoader(self.pictures("test"), batch_size=self.batch_size)


class QuadrantColours(nn.Module):
    """Mean colour of each quarter of an image: features of 12 numbers, without weights; counts the images it sees."""

    name = "quadrants"
    num_features = 12

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[int] = []

    def forward(self, images: Tensor) -> Tensor:
        self.calls.append(len(images))
        return nn.functional.adaptive_avg_pool2d(images, 2).flatten(1)


def small_module(kind: type[GeneratorModule] = GeneratorModule, **settings: Any) -> GeneratorModule:
    """A module for images of 16 px, with styles of six layers; always the same weights."""
    small: dict[str, Any] = {"resolution": 16, "channel_base": 128, "channel_max": 8, "z_dim": 6, "w_dim": 7}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return kind(**(small | {"mapping_layers": 2} | settings))


def write_layer(path: Path, **data: Any) -> None:
    """Write the layer of a tiny experiment: four epochs of two batches of four images, all options of training on.

    Args:
        path: of the YAML file.
        data: data module, instead of the toy images: `class_path` and `init_args`.
    """
    module = {
        "class_path": "sisug.generators.module.GeneratorModule",
        "init_args": {
            "resolution": "${data.init_args.resolution}",
            "channel_base": 128,
            "channel_max": 8,
            "z_dim": 6,
            "w_dim": 7,
            "mapping_layers": 2,
            "learning_rate": 0.01,
            "decay_after": 20,
            "r1_every": 3,
            "path_length_weight": 2.0,
            "path_length_every": 2,
            "augment": "adaptive",
            "augment_target": -0.1,  # so that few steps do raise the probability
            "augment_ramp_images": 40,
        },
    }
    toy = {"class_path": "integration.generator_runs.ToyImages", "init_args": {"resolution": 16}}
    extractor = {"class_path": "integration.generator_runs.QuadrantColours"}
    callbacks = [
        {"class_path": "sisug.generators.sample_grid.SampleGrid", "init_args": {"rows": 2, "columns": 3}},
        {
            "class_path": "sisug.generators.quality.GeneratorQuality",
            "init_args": {"samples": 10, "extractor": extractor},
        },
        {
            "class_path": "lightning.pytorch.callbacks.ModelCheckpoint",
            "init_args": {
                "filename": "best",
                "monitor": "val/frechet_quadrants",
                "save_top_k": 1,
                "save_on_train_epoch_end": True,
                "enable_version_counter": False,
            },
        },
    ]
    trainer = {
        "accelerator": "cpu",
        "max_epochs": 4,
        "log_every_n_steps": 1,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "callbacks+": callbacks,
    }
    layer = {"seed_everything": 1, "run": {"name": "tiny"}, "model": module, "data": data or toy, "trainer": trainer}
    path.write_text(yaml.safe_dump(layer))


def train(
    module: GeneratorModule, folder: Path, *callbacks: Callback, data: ToyImages | None = None, **settings: Any
) -> Trainer:
    """Train on the images of one epoch (or more), without validation unless asked for."""
    trainer = quiet_trainer(folder, *callbacks, **({"limit_val_batches": 0} | settings))
    trainer.fit(module, datamodule=data or ToyImages(module.resolution))
    return trainer


class LocalMeans(GeneratorModule):
    """GeneratorModule whose running means stay within each rank."""

    def _over_ranks(self, value: Tensor) -> Tensor:
        return value


class ScriptedScore(Callback):
    """Logs a score that was decided beforehand, one an epoch, as `val/scripted`.

    Args:
        scores: by epoch.
    """

    def __init__(self, scores: list[float]) -> None:
        self.scores = scores

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        pl_module.log("val/scripted", self.scores[trainer.current_epoch])


class Poison(Callback):
    """Puts a NaN into the generator once so many images were seen.

    Args:
        images: when.
    """

    def __init__(self, images: int) -> None:
        self.images = images

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        assert isinstance(pl_module, GeneratorModule)
        if int(pl_module.images_seen) == self.images:
            with torch.no_grad():
                pl_module.generator.synthesis.block(8).conv1.weight[0, 0, 0, 0] = float("nan")


class AugmentationNotes(Callback):
    """Writes, for every step of each rank, the signs of the logits on real images and the probability after it.

    Args:
        folder: where `rank_N.json` is to lie.
    """

    def __init__(self, folder: str) -> None:
        self.folder = Path(folder)
        self.steps: list[dict[str, Any]] = []

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        augmentation = pl_module.augmentation
        assert isinstance(augmentation, nn.Module)
        observe = augmentation.observe

        def note(real_logits: Tensor) -> None:
            self.steps.append({"signs": real_logits.sign().flatten().tolist()})
            observe(real_logits)  # type: ignore[operator]

        augmentation.observe = note  # type: ignore[assignment]

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        self.steps[-1]["probability"] = float(pl_module.augmentation.probability)  # type: ignore[union-attr, arg-type]

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / f"rank_{trainer.global_rank}.json").write_text(json.dumps(self.steps))
