"""Image grids: each pixel where it belongs, files whole, loggers served."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import numpy as np
import pytest
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.loggers import TensorBoardLogger, WandbLogger
from PIL import Image
from toy_training import ToyModule

from sisug.common.image_grid import make_grid, save_grid
from sisug.errors import ConfigError
from sisug.training.csv_logger import RunCSVLogger
from sisug.training.grid_logging import log_grid


def cells(grid: Image.Image, rows: int, columns: int, size: int, gap: int = 2) -> np.ndarray[Any, Any]:
    """Cut a grid apart again, counted from its right edge, since the labels' width depends on the font."""
    pixels = np.asarray(grid)
    left = pixels.shape[1] - columns * (size + gap) - gap
    return np.stack(
        [
            np.stack(
                [
                    pixels[
                        gap + r * (size + gap) : gap + r * (size + gap) + size,
                        left + gap + c * (size + gap) : left + gap + c * (size + gap) + size,
                    ]
                    for c in range(columns)
                ]
            )
            for r in range(rows)
        ]
    )


def test_every_image_is_in_its_place() -> None:
    images = torch.rand(3, 3, 8, 8) * 2 - 1
    masks = torch.randint(0, 256, (3, 3, 8, 8), dtype=torch.uint8)
    found = cells(make_grid([images, masks], ["images", "masks"]), 2, 3, 8)
    expected = ((images + 1) * 127.5).round().permute(0, 2, 3, 1).numpy()
    np.testing.assert_array_equal(found[0], expected.astype(np.uint8))
    np.testing.assert_array_equal(found[1], masks.permute(0, 2, 3, 1).numpy())


def test_range_is_clamped_and_ends_map_to_the_ends() -> None:
    row = torch.tensor([-5.0, -1.0, 0.0, 1.0, 5.0]).view(5, 1, 1, 1).expand(5, 3, 4, 4)
    found = cells(make_grid([row], [""]), 1, 5, 4)[0]
    assert found[:, 0, 0, 0].tolist() == [0, 0, 128, 255, 255]


def test_short_rows_are_filled_with_paper() -> None:
    grid = make_grid([torch.full((2, 3, 8, 8), -1.0), torch.full((1, 3, 8, 8), -1.0)], ["two", "one"])
    found = cells(grid, 2, 2, 8)
    assert (found[1, 0] == 0).all()
    assert (found[1, 1] == 255).all()


def test_labels_stand_beside_their_rows() -> None:
    rows = [torch.ones(1, 3, 32, 32)] * 2  # white on white: what is dark is text
    grid = np.asarray(make_grid(rows, ["", "masks"]).convert("L"))
    dark = np.argwhere(grid < 128)
    assert dark.size
    assert dark[:, 0].min() > 34  # below the first row
    assert dark[:, 1].max() < grid.shape[1] - 34  # left of the images


@pytest.mark.parametrize(
    ("rows", "labels"),
    [([], []), ([torch.zeros(1, 3, 4, 4)], []), ([torch.zeros(1, 3, 4, 4), torch.zeros(1, 3, 8, 8)], ["a", "b"])],
)
def test_bad_rows(rows: list[torch.Tensor], labels: list[str]) -> None:
    with pytest.raises(ValueError, match="grid"):
        make_grid(rows, labels)


def test_save_grid_writes_what_it_returns(tmp_path: Path) -> None:
    path = tmp_path / "new" / "grid.png"
    grid = save_grid([torch.rand(2, 3, 8, 8)], path, ["images"])
    np.testing.assert_array_equal(np.asarray(Image.open(path)), np.asarray(grid))
    assert [each.name for each in path.parent.iterdir()] == ["grid.png"]  # no temporary file


def trainer_with(tmp_path: Path, *loggers: Any, images_seen: int = 0, module: Any = None) -> Trainer:
    trainer = Trainer(
        logger=[RunCSVLogger(str(tmp_path), name="toy"), *loggers],
        accelerator="cpu",
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    module = module or ToyModule()
    if hasattr(module, "images_seen"):
        module.images_seen.fill_(images_seen)
    trainer.strategy.connect(module)
    return trainer


def test_log_grid_names_the_file_by_kimg(tmp_path: Path) -> None:
    grid = make_grid([torch.zeros(1, 3, 8, 8)], ["a"])
    path = log_grid(trainer_with(tmp_path, images_seen=12_345), "val/rearranged", grid)
    assert path == tmp_path / "toy" / "version_0" / "grids" / "val-rearranged-000012.png"
    assert path is not None
    np.testing.assert_array_equal(np.asarray(Image.open(path)), np.asarray(grid))


def test_log_grid_sends_to_tensorboard_and_wandb(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    tensorboard = TensorBoardLogger(str(tmp_path), name="tb", version=0)
    wandb = MagicMock(spec=WandbLogger)
    wandb.__class__ = WandbLogger
    grid = make_grid([torch.zeros(1, 3, 8, 8)], ["a"])
    log_grid(trainer_with(tmp_path, tensorboard, wandb, images_seen=2000), "val/rearranged", grid)
    tensorboard.experiment.flush()
    events = EventAccumulator(str(tmp_path / "tb" / "version_0"))
    events.Reload()
    (image,) = events.Images("val/rearranged")
    assert (image.step, image.width, image.height) == (2000, *grid.size)
    wandb.log_image.assert_called_once_with("val/rearranged", images=[grid], caption=["2 kimg"])


def test_log_grid_needs_an_image_count(tmp_path: Path) -> None:
    from lightning.pytorch import LightningModule

    with pytest.raises(ConfigError, match="register_buffer"):
        log_grid(trainer_with(tmp_path, module=LightningModule()), "x", make_grid([torch.zeros(1, 3, 8, 8)], ["a"]))
