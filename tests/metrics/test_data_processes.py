"""However many processes read the images, the metrics stay the same."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from data.masks.trees import FACE, image_masks
from torch import Tensor, nn

from sisug.data.masks.datamodule import ImageMaskDataModule
from sisug.metrics import FrechetDistance, KernelDistance, SegmentationScore


class Blocks(nn.Module):
    """Features are the mean colours of a picture's four quarters."""

    num_features = 12

    def forward(self, images: Tensor) -> Tensor:
        return F.adaptive_avg_pool2d(images, 2).flatten(1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("processes")
    (root / "face.json").write_text(json.dumps(FACE.to_dict()))
    image_masks(root / "tree", [f"{number:03}" for number in range(70)], size=8)
    (root / "tree/splits").mkdir()
    for split, names in (("train", range(2)), ("val", range(2, 32)), ("test", range(32, 70))):
        (root / f"tree/splits/{split}.txt").write_text("\n".join(f"{number:03}" for number in names))
    return root


def scores(folder: Path, processes: int) -> list[float]:
    data = ImageMaskDataModule(str(folder / "tree"), 8, str(folder / "face.json"), batch_size=2, num_workers=processes)
    data.setup("validate")
    data.setup("test")
    frechet, kernel, layout = (
        FrechetDistance(Blocks(), "blocks"),
        KernelDistance(Blocks(), "blocks"),
        SegmentationScore(3, 255),
    )
    for batch in data.val_dataloader():
        frechet.update(batch["image"], real=True)
        kernel.update(batch["image"], real=True)
    for batch in data.test_dataloader():
        frechet.update(batch["image"], real=False)
        kernel.update(batch["image"], real=False)
        brightest = batch["image"].argmax(dim=1)
        layout.update(brightest, batch["mask"])
    return [
        *(float(value) for value in torch.stack([frechet.compute(), kernel.compute()])),
        float(layout.compute().miou),
    ]


@pytest.mark.filterwarnings("ignore:This DataLoader will create")
@pytest.mark.parametrize("processes", [1, 2])
def test_processes_that_read_change_no_metric(folder: Path, processes: int) -> None:
    expected = scores(folder, 0)
    assert expected[0] > 1e-3
    assert 0 < expected[2] < 1
    assert scores(folder, processes) == pytest.approx(expected, rel=1e-6)
