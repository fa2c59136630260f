"""Looks (synthesis): the samples whose content is laid out anew, from seeds or from a picture."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sisug.common.seeding import fixed_latents
from sisug.errors import ConfigError
from sisug.generators import Features, GeneratorBackbone
from sisug.rearranger.trained import TrainedRearranger
from sisug.synthesis.inversion import invert
from sisug.synthesis.layouts import LONGEST
from sisug.synthesis.pictures import read_picture_of
from sisug.types import ProxyMasks, Styles

log = logging.getLogger(__name__)

POOR = 15.0
"""PSNR in dB below which a picture was hardly found by inversion. Our choice."""

LARGEST_SEED = 2**63 - 1

Seed = int
Source = Seed | str | Path | Tensor
"""What gives one look: a seed, a picture's file, or a picture in [-1, 1]."""


@dataclass(frozen=True)
class Looks:
    """Samples, with what the rearranger needs of them: computed once, for all layouts.

    Args:
        labels: one a look, for file names.
        ws: styles.
        features: at the split.
        masks: their own proxy masks.
        record: how to make them again; JSON values.
    """

    labels: tuple[str, ...]
    ws: Styles
    features: Features
    masks: ProxyMasks
    record: dict[str, Any]

    def __len__(self) -> int:
        return len(self.labels)


def styles_of_seed(generator: GeneratorBackbone, seed: Seed, truncation: float, device: torch.device) -> Styles:
    """Styles of a seed, the same on every device and in every company.

    Args:
        generator: on the device.
        seed: any whole number.
        truncation: 1 for the full range, 0 for the mean style.
        device: of the result; latents are drawn on the CPU.

    Raises:
        ConfigError: the seed is below 0 or beyond 63 bits.
    """
    if not 0 <= seed <= LARGEST_SEED:
        raise ConfigError(f"seed {seed}", f"seeds lie from 0 to {LARGEST_SEED}", "choose another")
    z = fixed_latents(torch.tensor([seed]), generator.z_dim, seed=0, purpose="look")
    return generator.map(z.to(device), truncation)


def styles_of(
    generator: GeneratorBackbone, source: Source, truncation: float, device: torch.device
) -> tuple[Styles, str, dict[str, Any]]:
    """Styles of a seed or a picture, a label, and how to make them again.

    Args:
        generator: on the device.
        source: a picture is inverted, which takes some seconds.
        truncation: of seeds; pictures are taken as they are.
        device: of the generator.

    Raises:
        DataError: the picture cannot be used.
    """
    if isinstance(source, Seed):
        return styles_of_seed(generator, source, truncation, device), f"seed{source}", {"seed": source}
    picture, record = read_picture_of(source, generator.resolution)
    label = "picture" if isinstance(source, Tensor) else Path(source).stem[:LONGEST]
    log.info("%s: looking for it among the generator's images (inversion)", label)
    found = invert(generator, picture.to(device))
    log.log(
        logging.WARNING if found.psnr < POOR else logging.INFO,
        "%s: inverted at %.1f dB PSNR%s", label, found.psnr,
        ": the generator makes no such picture, so expect little of it" if found.psnr < POOR else "",
    )  # fmt: skip
    return found.ws, label, record | {"psnr": round(found.psnr, 2)}


@torch.inference_mode()
def look_up(
    rearranger: TrainedRearranger,
    styles: Iterable[Styles],
    labels: Sequence[str],
    record: dict[str, Any],
    fine: Styles | None = None,
) -> Looks:
    """Features and proxy masks of looks.

    One sample at a time: numbers move in their last digits with the batch, and where two clusters are equally near,
    labels would too.

    Args:
        rearranger: with its generator, on one device.
        styles: of each look.
        labels: one a look.
        record: how to make them again.
        fine: styles that replace theirs from the split on.
    """
    generator = rearranger.generator
    first = 0 if fine is None else generator.first_style(generator.split)
    rows: list[Tensor] = []
    maps: list[Tensor] = []
    skips: list[Tensor] = []
    masks: list[Tensor] = []
    for ws in styles:
        mixed = ws if fine is None else torch.cat([ws[:, :first], fine[:, first:]], dim=1)
        source = rearranger.pipeline.source(mixed)
        rows.append(mixed)
        maps.append(source.features.map)
        skips.append(source.features.rgb)
        masks.append(source.mask)
    if not rows:
        raise ConfigError("no seeds", "every image takes its look from one", "give at least one seed")
    return Looks(tuple(labels), torch.cat(rows), Features(torch.cat(maps), torch.cat(skips)), torch.cat(masks), record)
