"""`sisug generator inspect`: what a generator file of any family is, in words and in pictures."""

from __future__ import annotations

from pathlib import Path

import torch

from sisug.common.fingerprint import fingerprint
from sisug.common.image_grid import save_grid
from sisug.errors import ConfigError, check_range
from sisug.generators.backbone import default_split
from sisug.generators.formats import Source
from sisug.generators.formats.labels import LabelError
from sisug.generators.loading import generator_path, source_of
from sisug.generators.mobilestylegan import MobileStyleGANBackbone
from sisug.generators.mobilestylegan.inspection import described as described_mobilestylegan
from sisug.generators.mobilestylegan.native import is_native, read_native
from sisug.generators.native import discriminator_from_tensors, generator_from_tensors
from sisug.generators.stylegan2 import Generator

GRID_ROWS = 4
GRID_COLUMNS = 8


def inspect(
    file: str, grid: Path | None = None, seed: int = 0, truncation: float = 0.7, label: int | None = None
) -> str:
    """Say what a generator file is: its family, settings, what it lacks, its fingerprint and licence.

    Args:
        file: generator file of any family, or a preset. Nothing in it is run.
        grid: PNG to write with samples.
        seed: of the samples.
        truncation: of the samples; 1 for the generator's full range, 0 for the mean image.
        label: class of the samples, for a class-conditional generator; 0 where none is given.

    Raises:
        CheckpointError: the file is missing, damaged, hostile or no generator that sisug reads.
        ConfigError: `grid` has another suffix, or a number is out of range.
    """
    check_range(seed=seed, truncation=truncation)
    if grid is not None and grid.suffix.lower() != ".png":
        raise ConfigError(f"grid {grid}", "grids are PNG pictures", "name it *.png")
    path = generator_path(file)
    if is_native(path):
        network, mean, mark = read_native(path)
        lines = described_mobilestylegan(path, network, mark)
        if grid is not None:
            backbone = MobileStyleGANBackbone(network, mean, fingerprint=mark)
            save_grid(samples(backbone, seed, truncation), grid, labels=[""] * GRID_ROWS)
            lines.append(f"{GRID_ROWS * GRID_COLUMNS} samples in {grid} (seed {seed}, truncation {truncation:g})")
        return "\n".join(lines)
    try:
        source = source_of(path, label)
    except LabelError:
        if label is not None:
            raise
        source = source_of(path, label := 0)
    generator = generator_from_tensors(source.generator, source.settings, str(path))
    lines = described(path, source, generator)
    if grid is not None:
        save_grid(samples(generator, seed, truncation), grid, labels=[""] * GRID_ROWS)
        shown = f", class {label}" if source.num_labels else ""
        lines.append(f"{GRID_ROWS * GRID_COLUMNS} samples in {grid} (seed {seed}, truncation {truncation:g}{shown})")
    return "\n".join(lines)


def described(path: Path, source: Source, generator: Generator) -> list[str]:
    """What a generator is, a line for each fact.

    Args:
        path: its file.
        source: what was read.
        generator: its network.
    """
    channels = generator.channels
    sizes = sorted(channels)
    clamp, half = source.settings["conv_clamp"], source.settings["num_fp16_res"]
    halved = [size for size in sizes if half and size >= max(2 * generator.resolution >> half, 8)]
    facts = {
        "file": f"{path} ({path.stat().st_size / 1e6:.1f} MB)",
        "family": source.family.title,
        "images": f"{generator.resolution} x {generator.resolution} px",
        "architecture": generator.architecture,
        "channels": ", ".join(f"{channels[size]} at {size} px" for size in sizes),
        "mapping": f"{generator.mapping.num_layers} layers, z {generator.z_dim}, w {generator.w_dim}, "
        f"{generator.synthesis.num_ws} styles an image, learning-rate multiplier {source.settings['mapping_lr_mul']:g}",
        "classes": f"{source.num_labels}: choose one with --label" if source.num_labels else "none (unconditional)",
        "clamp": "none" if clamp is None else f"{clamp:g}",
        "float16": f"at {', '.join(map(str, halved))} px" if halved else "nowhere",
        "discriminator": "none in this file",
        "splits": f"{', '.join(map(str, sizes))} px; default {default_split(generator.resolution)}",
        "parameters": f"{sum(p.numel() for p in generator.parameters()):,}",
        "fingerprint": fingerprint(source.generator),
        "licence": str(source.description.get("licence") or source.family.licence),
    }
    if source.discriminator is not None:
        adversary = discriminator_from_tensors(source.discriminator, f"discriminator of {path}")
        facts["discriminator"] = f"{adversary.architecture}, stage 1 and fine-tuning start from it"
    lines = [f"{name + ':':<15}{fact}" for name, fact in facts.items()]
    return lines + [f"{'missing:':<15}{note}" for note in source.notes]


@torch.no_grad()
def samples(generator: Generator | MobileStyleGANBackbone, seed: int, truncation: float) -> list[torch.Tensor]:
    """Rows of seeded images in [-1, 1], with constant noise.

    Args:
        generator: the network.
        seed: of the latents.
        truncation: 1 for the full range.
    """
    count = GRID_ROWS * GRID_COLUMNS
    z = torch.randn(count, generator.z_dim, generator=torch.Generator().manual_seed(seed))
    images = [generator(part, truncation).float().clamp(-1, 1)[:, :3] for part in torch.split(z, 4)]
    return list(torch.split(torch.cat(images), GRID_COLUMNS))
