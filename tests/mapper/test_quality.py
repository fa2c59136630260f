"""Scores of held-out drawings: what is logged and recorded, and that they tell a good mapper from a bad one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from lightning.pytorch.loggers import CSVLogger
from mapper.mappers import module_of
from rearranger.small import quiet_trainer

from sisug.data.latents import LatentDataModule
from sisug.errors import ConfigError
from sisug.mapper import DrawnConditionQuality


@pytest.mark.filterwarnings("ignore:.*does not have many workers")
def test_scores_are_logged_and_recorded_with_their_protocol(
    rearranger_file: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SISUG_CACHE", str(tmp_path / "cache"))
    quality = DrawnConditionQuality(val_masks=3, test_masks=4)
    trainer = quiet_trainer(tmp_path, quality, logger=CSVLogger(tmp_path, "run"))
    module = module_of(rearranger_file)
    data = LatentDataModule(4, val_pairs=2, test_pairs=2, batch_size=4)
    trainer.fit(module, datamodule=data)
    assert {"val/drawn_miou", "val/drawn_accuracy", "val/drawn_frechet", "val/drawn_frechet_plain"} <= set(
        trainer.logged_metrics
    )
    (result,) = trainer.test(module, datamodule=data, verbose=False)
    assert 0 <= result["test/drawn_miou"] <= 1
    assert 0 <= result["test/sample_miou"] <= result["test/sample_accuracy"] <= 1
    records = {path.stem: json.loads(path.read_text()) for path in tmp_path.rglob("evaluation/*.json")}
    assert records["drawn_miou"]["value"] == pytest.approx(result["test/drawn_miou"])
    assert records["drawn_miou"]["samples"] == {"inputs": 4}
    assert records["drawn_miou"]["segmenter"] == "avatars-judge-unet-v1"
    assert records["drawn_frechet"]["samples"] == {"inputs": 4, "drawn": 4}
    assert len([name for name in records if name.startswith("drawn_iou_")]) == 11


def test_images_of_the_very_inputs_score_as_the_judge_reads_them(
    rearranger_file: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A mapper and rearranger that gave back the drawn avatars would reach the judge's own score."""
    monkeypatch.setenv("SISUG_CACHE", str(tmp_path / "cache"))
    from sisug.data.avatars import MaterialisedAvatars

    module = module_of(rearranger_file, judge="avatars")
    drawn = MaterialisedAvatars("val", 8, 16)
    images = torch.stack([drawn[i]["image"] for i in range(4)])
    monkeypatch.setattr(module, "synthesise", lambda z, target: images[: len(z)])
    trainer = quiet_trainer(tmp_path, DrawnConditionQuality(val_masks=4))
    trainer.validate(module, datamodule=LatentDataModule(4, 2, 2, 4), verbose=False)
    perfect = trainer.logged_metrics["val/drawn_miou"]
    monkeypatch.setattr(module, "synthesise", lambda z, target: torch.zeros_like(images[: len(z)]))
    trainer.validate(module, datamodule=LatentDataModule(4, 2, 2, 4), verbose=False)
    assert perfect > 2 * trainer.logged_metrics["val/drawn_miou"]


def test_too_few_inputs_are_refused() -> None:
    with pytest.raises(ConfigError, match="test_masks 1"):
        DrawnConditionQuality(test_masks=1)
