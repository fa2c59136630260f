"""Styles (synthesis): the samples that images take their content from, named by seeds or found for a picture."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from sisug.common.fingerprint import sha256_of
from sisug.common.seeding import fixed_latents
from sisug.errors import ConfigError, DataError
from sisug.generators import Features, GeneratorBackbone
from sisug.labels.image_files import examine, examine_image
from sisug.rearranger.pipeline import RearrangementPipeline, SourceSamples
from sisug.synthesis.inversion import invert
from sisug.synthesis.layouts import LONGEST, as_image, record_of, sha256_of_values
from sisug.synthesis.options import check_truncation
from sisug.types import Images, Styles

logger = logging.getLogger(__name__)

POOR = 15.0
"""PSNR in dB below which a picture was hardly found by inversion. Our choice."""

LARGEST_SEED = 2**63 - 1

WHITE = (255, 255, 255)
"""What lies behind transparent parts of pictures."""

Seed = int
Reference = Seed | str | Path | Image.Image | np.ndarray | Tensor
"""What names one sample: a seed; or a picture, whose sample is found by inversion: its file, one of Pillow, an array of
bytes in RGB or RGBA, or a tensor in [-1, 1] at the generator's resolution."""


@dataclass(frozen=True, repr=False)
class StyleSamples:
    """Samples that give the style, with what the rearranger needs of them: computed once, for any number of drawings.

    Args:
        captions: one per sample, for file names and sheets: "seed3", or a picture's name.
        source: styles, features and proxy masks of the samples.
        record: how to make them again; JSON values.
        warnings: what a user should know about them.
    """

    captions: tuple[str, ...]
    source: SourceSamples
    record: dict[str, Any]
    warnings: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.captions)

    def __repr__(self) -> str:
        return f"StyleSamples({', '.join(self.captions)})"


def ws_of_seed(generator: GeneratorBackbone, seed: Seed, truncation: float, device: torch.device) -> Styles:
    """Styles of a seed: the same on every device, and whatever other seeds are asked for.

    Args:
        generator: on the device.
        seed: 0 or more.
        truncation: 0 to 1; 1 for the full range, 0 for the mean style.
        device: of the result; latents are drawn on the CPU.

    Raises:
        ConfigError: the seed or the truncation is out of range.
    """
    check_truncation(truncation)
    if not 0 <= seed <= LARGEST_SEED:
        raise ConfigError(f"seed {seed}", f"seeds lie from 0 to {LARGEST_SEED}", "choose another")
    z = fixed_latents(torch.tensor([seed]), generator.z_dim, seed=0, purpose="look")
    return generator.map(z.to(device), truncation)


def ws_of(
    generator: GeneratorBackbone, reference: Reference, truncation: float, device: torch.device
) -> tuple[Styles, dict[str, Any], list[str]]:
    """Styles of a seed or a picture, how to make them again, and what a user should know about them.

    Args:
        generator: on the device.
        reference: a picture is inverted, which takes some seconds.
        truncation: of seeds, 0 to 1; pictures are taken as they are.
        device: of the generator.

    Raises:
        DataError: the picture cannot be used.
        ConfigError: the seed or the truncation is out of range.
    """
    if isinstance(reference, Seed):
        return ws_of_seed(generator, reference, truncation, device), {"seed": reference}, []
    check_truncation(truncation)
    picture, record = _read(reference, generator.resolution)
    name = caption_of(reference)
    logger.info("%s: looking for it among the generator's images (inversion)", name)
    found = invert(generator, picture.to(device))
    inverted = f"{name}: inverted at {found.psnr:.1f} dB PSNR"
    warnings = list(found.warnings)
    if found.psnr < POOR:
        warnings.append(f"{inverted}: the generator makes no such picture, so expect little of it")
        logger.warning("%s", warnings[-1])
    else:
        logger.info("%s", inverted)
    return found.ws, record | {"psnr": round(found.psnr, 2)}, warnings


def caption_of(reference: Reference) -> str:
    """What a sample is called: by its seed, or by its picture's file.

    Args:
        reference: of the sample.
    """
    if isinstance(reference, Seed):
        return f"seed{reference}"
    return Path(reference).stem[:LONGEST] if isinstance(reference, str | Path) else "picture"


@torch.inference_mode()
def style_samples(
    pipeline: RearrangementPipeline,
    rows: Iterable[Styles],
    captions: Sequence[str],
    record: dict[str, Any],
    warnings: Sequence[str] = (),
    fine: Styles | None = None,
) -> StyleSamples:
    """Features and proxy masks of samples.

    One sample at a time: numbers move in their last digits with the batch, and where two clusters are equally near, the
    clusters of positions would too.

    Args:
        pipeline: all of it on one device.
        rows: styles of each sample, (1, num_ws, w_dim).
        captions: one per sample.
        record: how to make them again; JSON values.
        warnings: what a user should know about them.
        fine: styles that replace theirs from the split on.

    Raises:
        ConfigError: there is no sample.
    """
    first = 0 if fine is None else pipeline.generator.first_style(pipeline.generator.split)
    samples = []
    for ws in rows:
        mixed = ws if fine is None else torch.cat([ws[:, :first], fine[:, first:]], dim=1)
        samples.append(pipeline.source(mixed))
    if not samples:
        raise ConfigError("no seeds", "every image takes its style from one", "give at least one seed")
    features = Features(
        torch.cat([sample.features.map for sample in samples]), torch.cat([sample.features.rgb for sample in samples])
    )
    ws, mask = torch.cat([sample.ws for sample in samples]), torch.cat([sample.mask for sample in samples])
    return StyleSamples(tuple(captions), SourceSamples(ws, features, mask), record, tuple(warnings))


def _read(given: str | Path | Image.Image | np.ndarray | Tensor, size: int) -> tuple[Images, dict[str, Any]]:
    """One picture at the generator's resolution, and how to find it again.

    All but tensors are cropped to the largest centered square, turned upright, laid on white and resized, as pictures
    for training are.
    """
    if isinstance(given, Tensor):
        return _checked(given, size), {"tensor": list(given.shape), "sha256": sha256_of_values(given)}
    record: dict[str, Any]
    if isinstance(given, str | Path):
        name, path = f"the picture {given}", Path(given)
        if not path.is_file():
            raise DataError(f"{name} cannot be used", "there is no such file", "check the path")
        examined, record = examine(path, size, WHITE), {"file": str(given), "sha256": sha256_of(path)}
    else:
        name, image = "the picture", as_image(given)
        examined, record = examine_image(image, size, WHITE), record_of(image)
    if examined.pixels is None:
        raise DataError(
            f"{name} cannot be used",
            f"{examined.problem}: {examined.detail}",
            f"give a picture of {size}x{size} pixels or more, in PNG, JPEG or another format that Pillow reads",
        )
    return torch.from_numpy(examined.pixels)[None].float() / 127.5 - 1, record


def _checked(image: Tensor, size: int) -> Images:
    batch = image[None] if image.ndim == 3 else image
    if batch.shape != (1, 3, size, size):
        raise DataError(
            f"a picture of shape {tuple(image.shape)}",
            f"one of (3, {size}, {size}) is needed: the generator's resolution",
            "resize it, or give its file",
        )
    batch = batch.detach().float()
    low, high = float(batch.min()), float(batch.max())
    if not (low >= -1.5 and high <= 1.5):  # generators overshoot a little; NaN fails too
        raise DataError(
            f"a picture with values from {low:g} to {high:g}", "colors lie in [-1, 1]", "divide by 127.5, less 1"
        )
    return batch.clamp(-1, 1)
