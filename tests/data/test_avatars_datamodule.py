"""The avatars' data loaders and picture: contract of batches, mirroring, order, refusals."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from lightning.pytorch import LightningModule
from PIL import Image

from sisug.data.avatars.datamodule import AvatarsDataModule
from sisug.data.avatars.dataset import AvatarsDataset
from sisug.data.avatars.plotting import plot
from sisug.data.commands import plot as plot_command
from sisug.errors import ConfigError
from sisug.labels.label_sets import AVATARS


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AvatarsDataModule:
    monkeypatch.setenv("SISUG_CACHE", str(tmp_path))
    module = AvatarsDataModule(16, train_length=24, val_length=4, test_length=4, batch_size=5)
    module.prepare_data()
    for stage in ("fit", "test"):
        module.setup(stage)
    return module


class Counter(LightningModule):
    """A module that has seen so many images."""

    def __init__(self, seen: int) -> None:
        super().__init__()
        self.register_buffer("images_seen", torch.tensor(seen))


def pretend_training(module: AvatarsDataModule, epoch: int, training: bool = True, seen: int = 0) -> None:
    module.trainer = SimpleNamespace(  # type: ignore[assignment]
        current_epoch=epoch,
        training=training,
        world_size=1,
        global_rank=0,
        lightning_module=Counter(seen),
    )


def test_batches_keep_the_contract(data: AvatarsDataModule) -> None:
    loaders = {"train": data.train_dataloader(), "val": data.val_dataloader(), "test": data.test_dataloader()}
    assert {split: len(loader) for split, loader in loaders.items()} == {"train": 4, "val": 1, "test": 1}
    for split, loader in loaders.items():
        drawn = AvatarsDataset(split, 24, 16)  # type: ignore[arg-type]
        batch = next(iter(loader))
        assert set(batch) == {"image", "mask", "index"}
        for image, mask, index in zip(batch["image"], batch["mask"], batch["index"].tolist(), strict=True):
            assert torch.equal(image, drawn[index]["image"])
            assert torch.equal(mask, drawn[index]["mask"])


def test_order_depends_on_the_images_seen_only(data: AvatarsDataModule) -> None:
    def order(seen: int) -> list[int]:
        pretend_training(data, 0, seen=seen)
        return [index for batch in data.train_dataloader() for index in batch["index"].tolist()]

    first = order(0)
    torch.manual_seed(99)
    assert order(0) == first
    assert len(set(first)) == 20  # 4 batches of 5
    assert order(10)[:10] == first[10:]  # a run that goes on after 10 images
    assert len({*first, *order(20)[:4]}) == 24  # a pass holds each image once
    assert order(24)[:20] != first  # the next one is shuffled anew


def test_half_of_the_training_images_are_mirrored_with_their_masks(data: AvatarsDataModule) -> None:
    index = torch.arange(24)
    source = AvatarsDataset("train", 24, 16)
    batch = {
        "image": torch.stack([source[i]["image"] for i in range(24)]),
        "mask": torch.stack([source[i]["mask"] for i in range(24)]),
        "index": index,
    }
    chosen = []
    for epoch in (0, 0, 1):
        pretend_training(data, epoch)
        mirrored = data.on_after_batch_transfer(batch, 0)
        same = (mirrored["image"] == batch["image"]).flatten(1).all(dim=1)
        assert 4 < int(same.sum()) < 20
        assert torch.equal(mirrored["image"][~same], batch["image"][~same].flip(-1))
        assert torch.equal(mirrored["mask"][~same], batch["mask"][~same].flip(-1))
        assert torch.equal(mirrored["mask"][same], batch["mask"][same])
        chosen.append(same)
    assert torch.equal(chosen[0], chosen[1])
    assert not torch.equal(chosen[0], chosen[2])
    pretend_training(data, 0, training=False)
    assert data.on_after_batch_transfer(batch, 0) is batch


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"batch_size": 0}, "batches of 0"),
        ({"batch_size": 9, "train_length": 8}, "one whole batch"),
        ({"resolution": 4}, "16 to 1024"),
        ({"val_length": 0}, "0 avatars"),
    ],
)
def test_bad_arguments_are_refused_before_drawing(arguments: dict[str, int], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        AvatarsDataModule(**arguments)


def test_picture_shows_images_beside_masks_above_a_legend() -> None:
    dataset = AvatarsDataset("test", 6, 64)
    picture = plot(dataset, 2, 3)
    assert picture.size[0] == 3 * 2 * 128
    assert picture.size[1] > 2 * 128
    mask = dataset[4]["mask"]  # second row, second pair
    shown = picture.crop((3 * 128, 128, 4 * 128, 256)).resize((64, 64), Image.Resampling.NEAREST)
    expected = AVATARS.colorize(mask).permute(1, 2, 0)
    assert torch.equal(torch.frombuffer(bytearray(shown.tobytes()), dtype=torch.uint8).reshape(64, 64, 3), expected)
    legend = picture.crop((0, 256, *picture.size))
    colours = {colour for _, colour in legend.getcolors(100_000)}
    assert set(AVATARS.palette) <= colours


def test_picture_needs_enough_images() -> None:
    for rows, columns in ((2, 2), (0, 1)):
        with pytest.raises(ConfigError, match="rows"):
            plot(AvatarsDataset("test", 3, 16), rows, columns)


def test_command_writes_a_picture(tmp_path: Path) -> None:
    line = plot_command("avatars", "val", tmp_path / "faces.png", rows=1, columns=2, resolution=32)
    assert str(tmp_path / "faces.png") in line
    with Image.open(tmp_path / "faces.png") as picture:
        assert picture.size[0] == 2 * 2 * 128
    assert [path.name for path in tmp_path.iterdir()] == ["faces.png"]
    for out in (tmp_path / "faces.xyz", tmp_path / "none" / "faces.png"):
        with pytest.raises(ConfigError, match="faces"):
            plot_command(out=out)
