"""Fixtures of the tests of whole runs: a rearranger's experiment of seconds, and `sisug` in a process of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml
from integration.runs import Layers, Process

EXPERIMENTS = Path(__file__).parents[2] / "experiments"


@pytest.fixture
def tiny(tmp_path: Path, tiny_generator_file: Path) -> Layers:
    """Layers of an experiment on the generator of 16 px: four epochs of two batches of four images.

    The codebook is refreshed after 12 and after 24 images: once on either side of the middle, both within an epoch.
    """
    layer = tmp_path / "tiny.yaml"
    layer.write_text(
        yaml.safe_dump(
            {
                "run": {"name": "tiny"},
                "model": {
                    "class_path": "sisug.rearranger.RearrangerModule",
                    "init_args": {
                        "generator": str(tiny_generator_file),
                        "split": 8,
                        "clusters": 4,
                        "width": 8,
                        "key_channels": 8,
                        "bands": 2,
                        "refinement": 1,
                        "perceptual_weight": 0.5,
                        "r1_every": 3,
                    },
                },
                "data": {
                    "class_path": "sisug.data.latents.LatentDataModule",
                    "init_args": {"images_per_epoch": 8, "val_pairs": 6, "test_pairs": 10, "batch_size": 4},
                },
                "trainer": {
                    "accelerator": "cpu",
                    "max_epochs": 4,
                    "log_every_n_steps": 1,
                    "enable_progress_bar": False,
                    "enable_model_summary": False,
                    "callbacks+": [
                        {
                            "class_path": "sisug.proxies.OnlineClustering",
                            "init_args": {
                                "sample_images": 8,
                                "rows_per_image": 32,
                                "refresh_every": 12,
                                "freeze_after": 1000,
                                "iterations": 4,
                                "restarts": 1,
                            },
                        },
                        {"class_path": "sisug.rearranger.RearrangementGrid", "init_args": {"columns": 3}},
                    ],
                },
            }
        )
    )
    return ("--config", str(EXPERIMENTS / "base.yaml"), "--config", str(layer))


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Process]]:
    """Start `sisug ARGUMENTS` in `tmp_path`; whatever happens, it ends with the test."""
    started: list[Process] = []

    def run(*arguments: object) -> Process:
        started.append(Process(tmp_path, arguments))
        return started[-1]

    yield run
    for process in started:
        process.end()
