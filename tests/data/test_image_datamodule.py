"""Loaders of an image folder: contract of batches, endless order, mirroring, resume, refusals."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader

from sisug.data.images.datamodule import ImageFolderDataModule
from sisug.data.order import EndlessOrder
from sisug.errors import ConfigError, DataError

IMAGES = 10


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Ten images of 8 px: image i is i in its left half and 100 + i in its right half."""
    monkeypatch.setenv("SISUG_CACHE", str(tmp_path / "caches"))
    (tmp_path / "photos").mkdir()
    for i in range(IMAGES):
        pixels = np.full((8, 8, 3), i, np.uint8)
        pixels[:, 4:] += 100
        Image.fromarray(pixels).save(tmp_path / f"photos/{i}.png")
    return str(tmp_path / "photos")


def values(batch: dict[str, Tensor]) -> list[int]:
    """The value in the left upper corner of each image: its number, plus 100 where it is mirrored."""
    return ((batch["image"][:, 0, 0, 0] + 1) * 127.5).round().int().tolist()


def joined(parts: Iterable[list[int]]) -> list[int]:
    return [item for part in parts for item in part]


# --- order -------------------------------------------------------------------------------------------------------


def order(start: int = 0, epoch: int = 40, batch: int = 4, **options: Any) -> EndlessOrder:
    return EndlessOrder(IMAGES, epoch, batch, lambda: start, **options)


def test_each_image_comes_once_a_pass() -> None:
    stream = list(order(epoch=100, batch=4))
    assert len(stream) == 100
    passes = [stream[first : first + IMAGES] for first in range(0, 100, IMAGES)]
    assert all(sorted(one) == list(range(IMAGES)) for one in passes)
    assert len({tuple(one) for one in passes}) == 10


def test_epochs_continue_the_stream_wherever_they_are_cut() -> None:
    whole = list(order(epoch=120))
    for length in (4, 12, 16):
        parts = [list(order(start, epoch=length)) for start in range(0, 48, length)]
        assert joined(parts) == whole[:48]


def test_epoch_is_cut_to_whole_steps_of_all_ranks() -> None:
    assert len(order(epoch=43)) == 40
    assert len(list(order(epoch=43))) == 40
    halves = order(epoch=47, num_ranks=2, rank=1)
    assert len(halves) == len(list(halves)) == 20


@pytest.mark.parametrize("ranks", [2, 3])
@pytest.mark.parametrize("start", [0, 7])
def test_ranks_share_the_stream_of_a_single_one(ranks: int, start: int) -> None:
    # Batches of 4 on n ranks are batches of 4n on one.
    parts = [list(order(start, 60, num_ranks=ranks, rank=rank, flip=True)) for rank in range(ranks)]
    steps = [[part[at : at + 4] for part in parts] for at in range(0, len(parts[0]), 4)]
    assert [i for step in steps for rank in step for i in rank] == list(order(start, 60, 4 * ranks, flip=True))


def test_ranks_have_no_image_in_common_within_a_pass() -> None:
    parts = [list(order(epoch=10, batch=5, num_ranks=2, rank=rank)) for rank in range(2)]
    assert len(parts[0]) == len(parts[1]) == 5
    assert sorted(parts[0] + parts[1]) == list(range(IMAGES))


def test_order_depends_on_seed_and_position_only() -> None:
    first = list(order(24))
    torch.manual_seed(99)
    assert list(order(24)) == first
    again = order(24)
    assert list(again) == list(again) == first
    assert list(order(24, seed=1)) != first
    assert list(order(28)) == list(order(24, epoch=44))[4:]


def test_half_is_mirrored_and_the_order_stays() -> None:
    plain, flipped = (list(order(epoch=4000, flip=flip)) for flip in (False, True))
    assert [index % IMAGES for index in flipped] == plain
    assert all(0 <= index < 2 * IMAGES for index in flipped)
    mirrored = [index >= IMAGES for index in flipped]
    assert abs(sum(mirrored) - 2000) < 5 * 32  # five standard deviations
    for image in range(IMAGES):  # others in every pass
        own = [index >= IMAGES for index in flipped if index % IMAGES == image]
        assert 100 < sum(own) < 300


# --- loaders -----------------------------------------------------------------------------------------------------


def test_training_batches_keep_the_contract(photos: str) -> None:
    module = ImageFolderDataModule(photos, 8, batch_size=4, images_per_epoch=50, flip=True)
    loader = module.train_dataloader()
    batches = list(loader)
    assert len(batches) == len(loader) == 12
    seen: Counter[int] = Counter()
    for batch in batches:
        assert set(batch) == {"image", "index"}
        assert batch["image"].shape == (4, 3, 8, 8)
        assert batch["image"].dtype == torch.float32
        assert batch["index"].dtype == torch.int64
        assert [value % 100 for value in values(batch)] == batch["index"].tolist()
        # Exact: value 0 is -1 and 255 would be 1.
        left, right = batch["image"][..., :4].mean((1, 2, 3)), batch["image"][..., 4:].mean((1, 2, 3))
        assert torch.allclose(abs(left - right), torch.tensor(100 / 127.5), atol=1e-5)
        seen.update(batch["index"].tolist())
    assert set(seen.values()) <= {4, 5}  # 48 of 10 images
    mirrored = sum(value >= 100 for batch in batches for value in values(batch))
    assert 8 < mirrored < 40


def test_without_flip_nothing_is_mirrored(photos: str) -> None:
    module = ImageFolderDataModule(photos, 8, batch_size=4)
    batches = list(module.train_dataloader())
    assert len(batches) == 2  # of ten images
    assert all(value < 100 for batch in batches for value in values(batch))


@pytest.mark.parametrize("workers", [0, 2])
def test_validation_serves_each_image_once_in_order(photos: str, workers: int) -> None:
    module = ImageFolderDataModule(photos, 8, batch_size=4, flip=True, num_workers=workers)
    for loader in (module.val_dataloader(), module.test_dataloader()):
        batches = list(loader)
        assert [len(batch["image"]) for batch in batches] == [4, 4, 2]
        assert joined(values(batch) for batch in batches) == list(range(IMAGES))
        assert torch.cat([batch["index"] for batch in batches]).tolist() == list(range(IMAGES))


@pytest.mark.parametrize(("length", "expected"), [(3, [0, 3, 6]), (5, [0, 2, 4, 6, 8]), (10, list(range(10)))])
def test_fewer_validation_images_are_spread_over_the_folder(photos: str, length: int, expected: list[int]) -> None:
    module = ImageFolderDataModule(photos, 8, batch_size=4, val_length=length)
    assert joined(batch["index"].tolist() for batch in module.val_dataloader()) == expected


def test_describes_itself_without_a_path(photos: str) -> None:
    module = ImageFolderDataModule(photos, 8, batch_size=4, flip=True)
    (Path(photos) / "10.png").touch()
    with pytest.raises(DataError, match=r"10\.png"):
        _ = module.length
    module = ImageFolderDataModule(photos, 8, batch_size=4, flip=True, skip_bad=True)
    assert module.length == IMAGES
    assert module.description == {
        "folder": "photos",
        "images": IMAGES,
        "left_out": 1,
        "sha256": module.images.digest,
        "resolution": 8,
        "flip": True,
    }


def test_log_says_what_the_images_are_on_every_run(photos: str, caplog: pytest.LogCaptureFixture) -> None:
    Image.new("L", (9, 8)).save(Path(photos) / "grey.png")
    (Path(photos) / "bad.png").touch()
    for _ in range(2):
        caplog.clear()
        with caplog.at_level(logging.INFO, "sisug"):
            ImageFolderDataModule(photos, 8, batch_size=4, skip_bad=True).prepare_data()
        assert "11 of 12 images usable at 8 px" in caplog.text
        assert "1 grey, converted to RGB: grey.png" in caplog.text
        assert "1 not square, cropped" in caplog.text
        warnings = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
        assert warnings == ["left out, as skip_bad says: 1 unreadable: bad.png (empty file)"]


# --- in Lightning ------------------------------------------------------------------------------------------------


class Recorder(pl.LightningModule):
    """Trains one number, counts images, and keeps what it saw."""

    images_seen: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.register_buffer("images_seen", torch.zeros((), dtype=torch.int64))
        self.seen: list[list[int]] = []

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        self.seen.append(values(batch))
        self.images_seen += len(batch["image"]) * self.trainer.world_size
        return self.weight * batch["image"].mean()

    def validation_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        assert max(values(batch)) < 100

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def fit(photos: str, folder: Path, epochs: int, workers: int, ckpt_path: Path | None = None) -> list[list[int]]:
    """Train with 3 steps of 4 images an epoch, keeping a checkpoint of every step and every epoch."""
    data = ImageFolderDataModule(photos, 8, batch_size=4, images_per_epoch=15, flip=True, num_workers=workers)
    module = Recorder()
    each = ModelCheckpoint(folder, "step{step}", save_top_k=-1, every_n_train_steps=1, auto_insert_metric_name=False)
    ends = ModelCheckpoint(folder, "epoch{epoch}", save_top_k=-1, every_n_epochs=1, auto_insert_metric_name=False)
    trainer = pl.Trainer(
        accelerator="cpu",
        max_epochs=epochs,
        callbacks=[each, ends],
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(module, datamodule=data, ckpt_path=ckpt_path)
    return module.seen


# Lightning cannot know that the order of a resumed epoch is that of an unbroken one; this is the test of it.
@pytest.mark.filterwarnings("ignore:.*resuming from a checkpoint that ended before the epoch ended")
@pytest.mark.filterwarnings("ignore:.*The dirpath has changed from")
@pytest.mark.parametrize("workers", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_a_resumed_run_sees_what_an_unbroken_one_sees(photos: str, tmp_path: Path, workers: int) -> None:
    whole = fit(photos, tmp_path / "whole", 4, workers)
    assert len(whole) == 12
    for name, done in (("epoch0", 3), ("epoch2", 9), ("step1", 1), ("step3", 3), ("step5", 5), ("step6", 6)):
        checkpoint = tmp_path / "whole" / f"{name}.ckpt"
        resumed = fit(photos, tmp_path / f"from_{name}", 4, workers, checkpoint)
        assert resumed == whole[done:], name


class TwoRanks:
    """Answers Lightning's questions about the run as the second of two ranks does."""

    world_size, global_rank = 2, 1

    def __init__(self) -> None:
        self.lightning_module = Recorder()
        self.lightning_module.images_seen += 16


def test_second_rank_of_two(photos: str) -> None:
    module = ImageFolderDataModule(photos, 8, batch_size=4, images_per_epoch=16)
    module.trainer = TwoRanks()  # type: ignore[assignment]
    got = joined(batch["index"].tolist() for batch in module.train_dataloader())
    whole = list(EndlessOrder(IMAGES, 32, 4, lambda: 0))
    assert got == whole[20:24] + whole[28:32]


def test_lightning_leaves_the_order_of_data_parallel_runs_alone(photos: str) -> None:
    module = ImageFolderDataModule(photos, 8, batch_size=4)
    loader = module.train_dataloader()
    trainer = pl.Trainer(accelerator="cpu", devices=2, strategy="ddp", logger=False, enable_checkpointing=False)
    connector = trainer._data_connector
    assert not connector._requires_distributed_sampler(loader)
    # The question is a real one: a plain loader's sampler would be replaced.
    assert connector._requires_distributed_sampler(DataLoader(range(8), 4, shuffle=True))  # type: ignore[arg-type]


# --- refusals ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"batch_size": 0}, "batch_size 0"),
        ({"val_length": 0}, "val_length 0"),
        ({"images_per_epoch": 31}, "images_per_epoch 31 with batches of 32"),
        ({"num_workers": -1}, "num_workers -1"),
        ({"resolution": 2}, "resolution 2"),
        ({"background": (0, 0, 300)}, "background"),
    ],
)
def test_bad_arguments_are_refused_at_once(photos: str, tmp_path: Path, arguments: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        ImageFolderDataModule(photos, **{"resolution": 8, **arguments})
    assert not (tmp_path / "caches").exists()


def test_a_missing_folder_is_refused_at_once(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not exist"):
        ImageFolderDataModule(str(tmp_path / "nothing"), 8)


@pytest.mark.parametrize(
    ("arguments", "kind", "message"),
    [
        ({"batch_size": 11}, DataError, "10 images in .* with 11 a step.*lower data.batch_size to 10"),
        ({"batch_size": 4, "val_length": 11}, ConfigError, "val_length 11 of 10 images"),
    ],
)
def test_too_few_images_are_refused_before_training(photos: str, arguments: Any, kind: Any, message: str) -> None:
    module = ImageFolderDataModule(photos, 8, **arguments)
    for check in (module.prepare_data, lambda: module.setup("fit")):
        with pytest.raises(kind, match=message):
            check()


def test_too_few_images_for_all_ranks(photos: str) -> None:
    for arguments, kind, message in (
        ({"batch_size": 6}, DataError, "12 a step.*to 5 or less"),
        ({"batch_size": 4, "images_per_epoch": 7}, ConfigError, "8 images a step over all ranks"),
    ):
        module = ImageFolderDataModule(photos, 8, **arguments)
        module.trainer = TwoRanks()  # type: ignore[assignment]
        with pytest.raises(kind, match=message):
            module.setup("fit")


def test_smaller_images_are_refused_with_counts(photos: str) -> None:
    module = ImageFolderDataModule(photos, 9, batch_size=4)
    with pytest.raises(DataError, match=r"10 of 10 images .* 10 smaller than 9 px: 0.png \(8x8\)"):
        module.prepare_data()
