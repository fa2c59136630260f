"""A trained rearranger and mapper of random weights over the tiny generator: what tests of stage 2 share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from sisug.conditions.registry import condition
from sisug.generators import load_generator
from sisug.labels.label_sets import LabelSet
from sisug.mapper import Mapper, MapperModule, TrainedMapper
from sisug.proxies.codebook import Codebook
from sisug.rearranger import Rearranger
from sisug.rearranger.trained import TrainedRearranger, assemble

THREE = LabelSet("three", ("left", "right", "rest"), ((200, 0, 0), (0, 200, 0), (0, 0, 200)), flip_pairs=((0, 1),))
SETTINGS = {
    "split": 8,
    "clusters": 4,
    "normalisation": "instance",
    "width": 8,
    "heads": 1,
    "key_channels": 8,
    "bands": 2,
    "refinement": 1,
    "truncation": 0.9,
}


def random_rearranger(generator_file: Path) -> TrainedRearranger:
    """Of random weights, with centroids; always the same."""
    generator = load_generator(generator_file, 8)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        codebook = Codebook(4, generator.feature_channels, "instance")
        codebook.update(torch.randn(4, generator.feature_channels), 1.0, torch.full((4,), 99_999.0), 0)
        shape = {name: SETTINGS[name] for name in ("width", "heads", "key_channels", "bands", "refinement")}
        network = Rearranger(generator.feature_channels, 4, 8, **shape)
    tensors = {f"codebook.{name}": value for name, value in codebook.state_dict().items()}
    tensors |= {f"rearranger.{name}": value for name, value in network.state_dict().items()}
    return assemble(SETTINGS, tensors, generator, generator_file)


def random_mapper(generator_file: Path, kind: str = "seg", labels: LabelSet | None = THREE) -> TrainedMapper:
    """Of random weights, over `random_rearranger`; always the same."""
    rearranger = random_rearranger(generator_file)
    reads = condition(kind, labels)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = Mapper(reads.channels, 4, 16, 8, width=8).requires_grad_(False).eval()
    return TrainedMapper(rearranger, network, reads, 8, {}, "random")


def module_of(rearranger_file: Path, **settings: Any) -> MapperModule:
    """A mapper that learns in a second; always the same weights."""
    torch.manual_seed(0)
    small = {"rearranger": str(rearranger_file), "looks": 1, "segmenter_steps": 2, "reader_images": 8, "width": 8}
    return MapperModule(**(small | settings))
