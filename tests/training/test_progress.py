"""Progress in images, speed, and the line a run ends with."""

from __future__ import annotations

import csv
import logging
from pathlib import Path
from typing import Any

import pytest
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from toy_training import ToyData, ToyModule

from sisug.errors import ConfigError
from sisug.training import throughput
from sisug.training.closing_line import ClosingLine
from sisug.training.csv_logger import RunCSVLogger
from sisug.training.throughput import Throughput, images_seen_of


class Clock:
    """Stands still; each training step moves it on."""

    def __init__(self) -> None:
        self.now = 0.0

    def perf_counter(self) -> float:
        return self.now


class TimedModule(ToyModule):
    """Takes half a second a batch and a hundred seconds to validate, by the clock given."""

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self.clock = clock

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        self.clock.now += 0.5
        return super().training_step(batch, batch_idx)

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.clock.now += 100
        super().validation_step(batch, batch_idx)


def trainer_with(tmp_path: Path, *callbacks: Any, **arguments: Any) -> Trainer:
    return Trainer(
        logger=RunCSVLogger(str(tmp_path), name="toy"),
        callbacks=list(callbacks),
        accelerator="cpu",
        log_every_n_steps=2,
        enable_progress_bar=False,
        enable_model_summary=False,
        **arguments,
    )


@pytest.mark.filterwarnings("ignore:Attribute 'clock' is an instance")
def test_speed_leaves_validation_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    monkeypatch.setattr(throughput, "time", clock)
    trainer_with(tmp_path, Throughput(), max_epochs=2).fit(TimedModule(clock), ToyData(images=24, batch_size=4))
    with (tmp_path / "toy" / "version_0" / "metrics.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["progress/kimg"]]
    assert [float(row["progress/images_per_second"]) for row in rows] == [8.0] * 6  # 4 images in half a second
    assert [float(row["progress/kimg"]) for row in rows] == pytest.approx([0.008, 0.016, 0.024, 0.032, 0.040, 0.048])


def test_a_module_must_count_images() -> None:
    with pytest.raises(ConfigError, match="counted in images"):
        images_seen_of(LightningModule())


def test_closing_line_names_the_files(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "sisug")
    trainer_with(tmp_path, ClosingLine(), ModelCheckpoint(filename="last"), max_epochs=1).fit(ToyModule(), ToyData())
    (line,) = [record.getMessage() for record in caplog.records if record.name.startswith("sisug")]
    run = tmp_path / "toy" / "version_0"
    assert "16 images seen" in line
    assert str(run / "checkpoints" / "last.ckpt") in line
    assert str(run / "metrics.csv") in line
    assert "grids" not in line  # there are none


def test_closing_line_of_an_interrupted_run(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    trainer = trainer_with(tmp_path, ClosingLine(), max_epochs=1)
    with pytest.raises(SystemExit):
        trainer.fit(ToyModule(interrupt_at=4), ToyData())
    assert "Interrupted after 4 images seen" in caplog.text
    assert "nothing to continue from" in caplog.text
