"""A judge trained on a clean tree through the command line, and then used: data, loaders and judges together."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from data.masks.trees import celebamask

from sisug.data.masks import ImageMaskFolder, check_batch
from sisug.segmentation.judges import NetworkJudge, judge_for

BASE = Path(__file__).parents[3] / "experiments" / "base.yaml"


@pytest.mark.filterwarnings("ignore:.*`val_dataloader` is set to shuffle")
def test_from_published_files_to_a_judge(sisug: Callable[..., int], tmp_path: Path) -> None:
    celebamask(tmp_path / "faces", list(range(12)))
    assert sisug("data", "convert", "faces", "--to", "tree", "--resolution", 16) == 0
    for split, names in (("train", range(8)), ("val", range(8, 10)), ("test", range(10, 12))):
        (tmp_path / f"tree/splits/{split}.txt").write_text("".join(f"{name:05d}\n" for name in names))
    model = ("--model", "sisug.segmentation.module.JudgeModule", "--model.labels", "celebamask-hq")
    data = ("--data", "sisug.data.masks.datamodule.ImageMaskDataModule", "--data.folder", "tree")
    arguments = (*data, "--data.resolution", 16, "--data.batch_size", 4, "--data.flip", "true")
    trainer = ("--trainer.max_epochs", 1, "--trainer.accelerator", "cpu", "--trainer.enable_progress_bar", "false")
    names = ("--run.name", "judge", "--run.root", tmp_path / "runs")
    assert sisug("fit", "--config", BASE, *model, *arguments, *trainer, *names) == 0

    from sisug.segmentation.module import JudgeModule

    checkpoint = tmp_path / "runs/judge/version_0/checkpoints/last.ckpt"
    module = JudgeModule.load_from_checkpoint(checkpoint, map_location="cpu", weights_only=True)
    held_out = ImageMaskFolder(tmp_path / "tree", 16, names=tmp_path / "tree/splits/test.txt")
    images = torch.stack([held_out[index]["image"] for index in range(2)])
    masks = torch.stack([held_out[index]["mask"] for index in range(2)])
    check_batch(images, masks, held_out.label_set)
    judge = judge_for(NetworkJudge(module.network, "celebamask-hq", "own", 16), held_out.label_set)
    assert judge.segment(images).shape == masks.shape
